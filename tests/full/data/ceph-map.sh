#!/bin/sh
# Copy the device node of a block claim ($1) to where Ceph wants it ($2), as Rook does, without any privilege but MKNOD.
# The copy outlives a restart; the device's number may not, so one that differs is copied again.
set -eu
if [ -b "$2" ] && [ "$(stat -Lc %t:%T "$1")" = "$(stat -Lc %t:%T "$2")" ]; then
    echo "kept $(stat -Lc %t:%T "$2")"
    exit
fi
rm -f "$2"
cp --archive --dereference "$1" "$2"
echo "copied $(stat -Lc %t:%T "$2")"
