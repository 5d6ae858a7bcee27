#!/bin/sh
# A Ceph monitor on the volume at /data: made when it is not there yet, then run.
set -eu
store=/data/mon # not the volume itself: mkfs wants it empty, and ext4 has lost+found
mkdir -p "$store" /run/ceph
chown ceph:ceph "$store" /run/ceph
# Of one that is there it says so, and ends well.
ceph-mon --mkfs --id a --mon-data "$store" --keyring /ceph/keyring --public-addr "$NODE_ADDRESS" \
    --setuser ceph --setgroup ceph
exec ceph-mon --foreground --id a --mon-data "$store" --keyring /ceph/keyring --public-addr "$NODE_ADDRESS" \
    --setuser ceph --setgroup ceph
