#!/bin/sh
# The OSD whose directory is /osd.
set -eu
mkdir -p /run/ceph
chown ceph:ceph /run/ceph
exec ceph-osd --foreground --id "$(cat /osd/whoami)" --osd-data /osd --keyring /osd/keyring \
    --public-addr "$NODE_ADDRESS" --setuser ceph --setgroup ceph --crush-location="root=default host=$NODE_NAME"
