#!/bin/sh
# Write what an OSD's directory has to say from the label of its device, and take what the device has grown by.
set -eu
ceph-bluestore-tool prime-osd-dir --dev /osd/block --path /osd --no-mon-config
ceph-bluestore-tool bluefs-bdev-expand --path /osd
chown -R ceph:ceph /osd
