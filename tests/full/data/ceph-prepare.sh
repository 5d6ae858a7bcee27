#!/bin/sh
# Make an OSD on the block device at /osd/block, as Rook's prepare Job does: raw, without tags of LVM's.
# One that is there is left alone.
set -eu
if ceph-bluestore-tool show-label --dev /osd/block 2> /dev/null; then
    echo "an OSD is there"
    exit
fi
# It looks for the keys where they usually are.
mkdir -p /var/lib/ceph/bootstrap-osd /run/ceph
chown ceph:ceph /run/ceph
cp /ceph/keyring /var/lib/ceph/bootstrap-osd/ceph.keyring
ceph-volume --log-path /tmp raw prepare --bluestore --data /osd/block --crush-device-class nvme
