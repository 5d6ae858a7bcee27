#!/bin/sh
# PostgreSQL on the volume at $1, reached by Debian's usual socket alone. Made when it is not there yet, then run.
set -eu
programs=$(ls -d /usr/lib/postgresql/*/bin)
mkdir -p /run/postgresql
chown postgres:postgres /run/postgresql
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if ! [ -e "$1/cluster" ]; then
    # Made beside: what was begun and not finished is made anew.
    rm -rf "$1/new"
    mkdir "$1/new"
    chown postgres:postgres "$1" "$1/new"
    as_postgres "$programs/initdb" --pgdata "$1/new" --data-checksums --auth trust --locale C.UTF-8 --no-instructions
    as_postgres mv "$1/new" "$1/cluster"
    sync
fi
exec setpriv --reuid postgres --regid postgres --clear-groups "$programs/postgres" -D "$1/cluster" \
    --config-file="$(dirname "$0")/postgresql.conf"
