#!/bin/sh
# Put the objects from number $2 to before $3, of 1 MiB each, into the pool "objects" ($1 = put), or take them back
# ($1 = get); say what each is.
set -eu
number=$2
while [ "$number" -lt "$3" ]; do
    case "$1" in
    put)
        head -c 1048576 /dev/urandom > /tmp/object
        rados --pool objects put "object-$number" /tmp/object
        ;;
    get) rados --pool objects get "object-$number" /tmp/object ;;
    esac
    echo "object-$number $(sha256sum < /tmp/object)"
    number=$((number + 1))
done
