#!/bin/sh
# Redis on the volume at $1, reached by its socket alone.
set -eu
mkdir -p "$1/redis" /run/redis
chown redis:redis "$1/redis" /run/redis
exec setpriv --reuid redis --regid redis --clear-groups redis-server "$(dirname "$0")/redis.conf" --dir "$1/redis"
