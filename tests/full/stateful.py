"""PostgreSQL and Redis as StatefulSets whose members know nothing of each other: one per host, by the extender's word.

What a member has acknowledged is asked for in two ways: a fixed set that is written and read back, and a counter that a
client keeps counting up while something happens to the server.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.full.workloads import AT, Thing, container, start_volume

SPREAD = {"spread.ullage.io/key": "host", "spread.ullage.io/cap": "1"}
"""docs/placement.md: no host has two, and the one that finds no host waits."""
PSQL = ("psql", "-U", "postgres", "-qAtX", "-v", "ON_ERROR_STOP=1")
COUNTING = "s/.*/insert into counted values (&) returning n;/"
REDIS = ("redis-cli", "-e", "-s", "/run/redis/socket")


@dataclass(frozen=True, slots=True, kw_only=True)
class Database:
    """How to ask one kind of server. All are commands inside its Pod."""

    name: str
    is_ready: Sequence[str]
    fill: Sequence[str]
    """Write a set of values, once."""
    read: Sequence[str]
    """All of that set, in its order."""
    count: Sequence[str]
    """Count up for ever; each number is printed when the server has said that it is kept."""
    counted: Sequence[str]
    """How many numbers are there, from 1 without a gap."""


POSTGRESQL = Database(
    name="postgresql",
    is_ready=("pg_isready", "-U", "postgres"),
    fill=(
        *PSQL,
        *("-c", "create table counted (n bigint primary key)"),
        *("-c", "create table kept (n int primary key, word text)"),
        *("-c", "insert into kept select n, md5(n::text) || gen_random_uuid() from generate_series(1, 2000) n"),
    ),
    read=(*PSQL, "-c", "select * from kept order by n"),
    # A statement at a time, each a transaction of its own.
    count=("sh", "-c", f"seq 1 1000000 | sed '{COUNTING}' | stdbuf -oL {' '.join(PSQL)}"),
    counted=(*PSQL, "-c", "select case when max(n) = count(*) then max(n) else -1 end from counted"),
)
REDIS_WITH_AOF = Database(
    name="redis",
    is_ready=(*REDIS, "ping"),
    fill=("sh", "-c", f"seq --format value-%g 1 2000 | xargs {' '.join(REDIS)} rpush kept"),
    read=(*REDIS, "lrange", "kept", "0", "-1"),
    count=("sh", "-c", f"yes incr counted | stdbuf -oL {' '.join(REDIS)}"),
    counted=(*REDIS, "get", "counted"),
)
DATABASES = (POSTGRESQL, REDIS_WITH_AOF)


def stateful_set(database: Database, storage_class: str, size: str, replicas: int) -> Thing:
    """So many members, each on a volume of its own, at once."""
    labels = {"app": database.name}
    probe = {"exec": {"command": list(database.is_ready)}, "periodSeconds": 60, "timeoutSeconds": 60}
    main = container(
        "server", "sh", f"{AT}/{database.name}.sh", "/data", mounts={"data": "/data"}, readinessProbe=probe
    )
    pod = {"terminationGracePeriodSeconds": 20, "containers": [main], "volumes": [start_volume()]}
    claim = {
        "storageClassName": storage_class,
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": size}},
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {"name": database.name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": database.name,
            "podManagementPolicy": "Parallel",
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": pod},
            "volumeClaimTemplates": [{"metadata": {"name": "data", "annotations": SPREAD}, "spec": claim}],
        },
    }
