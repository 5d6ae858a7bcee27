#!/bin/sh
# A Ceph manager: it keeps nothing, and tells the monitor how the placement groups are.
set -eu
mkdir -p /run/ceph
chown ceph:ceph /run/ceph
exec ceph-mgr --foreground --id a --mgr-data /run/ceph --public-addr "$NODE_ADDRESS" \
    --setuser ceph --setgroup ceph
