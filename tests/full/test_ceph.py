"""Ceph on block claims of ours, set up as Rook does it: two OSDs, healthy, with objects that outlive a host's power."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.cluster.kubelet import CLAIMS, PODS
from tests.full import ceph
from tests.full.pods import PATIENCE_SECONDS, eventually, inside
from tests.full.workloads import AT, STORAGE_CLASS, Thing, asked, prepare
from tests.rigs.cluster.api import Api
from tests.rigs.cluster.manifests import apply_object
from tests.rigs.full.cluster import Cluster
from tests.rigs.host import RigError

OSDS = ("osd-a", "osd-b")
OSD_SIZE = "1536Mi"
DEPLOYMENTS = "/apis/apps/v1/namespaces/default/deployments"
JOBS = "/apis/batch/v1/namespaces/default/jobs"
MON = "deployment/mon"
POOL = "objects"
OBJECTS = 8
SCRUB_STAMP = "last_deep_scrub_stamp"


@pytest.fixture(scope="module")
def storage(cluster: Cluster) -> Iterator[Cluster]:
    """A monitor and a manager, an OSD on each of two nodes, and a pool of two copies."""
    first, second = sorted(cluster.nodes)[:2]
    hosts = dict(zip(OSDS, (first, second), strict=True))
    try:
        prepare(cluster)
        for each in (*ceph.shared(cluster.nodes[first].address), *ceph.monitor(first, STORAGE_CLASS)):
            apply_object(cluster.api, each)
        asked(cluster, MON, ("ceph", "--connect-timeout", "20", "status"))
        apply_object(cluster.api, ceph.manager(first))
        for name, host in hosts.items():
            apply_object(cluster.api, ceph.claim(name, STORAGE_CLASS, OSD_SIZE, is_block=True))
            apply_object(cluster.api, ceph.prepare(name, host))
        for name, host in hosts.items():
            cluster.api.until(f"{JOBS}/prepare-{name}", lambda it: it["status"].get("succeeded"), PATIENCE_SECONDS)
            apply_object(cluster.api, ceph.osd(name, host))
        inside(cluster, MON, "ceph", "osd", "pool", "create", POOL, "8")
        inside(cluster, MON, "ceph", "osd", "pool", "application", "enable", POOL, "test")
        until_healthy(cluster)
        yield cluster
    finally:
        _remove(cluster.api)


def status(cluster: Cluster) -> Thing:
    found: Thing = json.loads(inside(cluster, MON, "ceph", "--connect-timeout", "20", "status", "--format", "json"))
    return found


def is_healthy(found: Thing) -> bool:
    """What is expected of two OSDs: both up and in, both copies of every placement group, nothing to warn of."""
    osds, groups = found["osdmap"], found["pgmap"]
    states = {each["state_name"]: each["count"] for each in groups["pgs_by_state"]}
    whole = sum(
        count for state, count in states.items() if set(state.split("+")) <= {"active", "clean", "scrubbing", "deep"}
    )
    return bool(
        found["health"]["status"] == "HEALTH_OK"
        and osds["num_up_osds"] == osds["num_in_osds"] == len(OSDS)
        and 0 < groups["num_pgs"] == whole
    )


def until_healthy(cluster: Cluster) -> None:
    def is_so() -> bool:
        found = status(cluster)
        if not is_healthy(found):
            raise RigError(json.dumps({key: found[key] for key in ("health", "osdmap", "pgmap")}))
        return True

    eventually(cluster, "Ceph is healthy", is_so)


def objects(cluster: Cluster, verb: str, first: int = 0) -> dict[str, str]:
    """Put or get objects, from this number on: the checksum of each."""
    said = inside(cluster, MON, "sh", f"{AT}/ceph-objects.sh", verb, str(first), str(first + OBJECTS))
    return dict(line.split()[:2] for line in said.splitlines())


def pod_of(cluster: Cluster, name: str) -> dict[str, Any]:
    """The one that is there to stay; raises RigError."""
    found = cluster.api.items(f"{PODS}?labelSelector=app%3D{name}")
    staying = [each for each in found if "deletionTimestamp" not in each["metadata"]]
    if len(staying) != 1:
        raise RigError(f"{len(staying)} Pods of {name}")
    return staying[0]


def volumes(cluster: Cluster) -> dict[str, str]:
    """Which volume each claim has."""
    return {name: cluster.api.get(f"{CLAIMS}/{name}")["spec"]["volumeName"] for name in ("mon", *OSDS)}


@pytest.fixture(scope="module")
def put(storage: Cluster) -> dict[str, str]:
    """Objects in the pool, by name, with their checksums."""
    return objects(storage, "put")


def test_two_osds_prepared_on_block_claims_are_healthy_and_give_back_what_they_took(
    storage: Cluster, put: dict[str, str]
) -> None:
    assert len(put) == len(set(put.values())) == OBJECTS
    assert objects(storage, "get") == put
    devices = [json.loads(inside(storage, MON, "ceph", "osd", "metadata", str(number))) for number in range(len(OSDS))]
    assert {each["osd_objectstore"] for each in devices} == {"bluestore"}
    assert {each["bluestore_bdev_size"] for each in devices} == {str(1536 << 20)}


def test_an_osd_whose_pod_was_deleted_comes_back_with_its_device(storage: Cluster, put: dict[str, str]) -> None:
    before = pod_of(storage, OSDS[0])["metadata"]["name"]
    storage.api.delete(f"{PODS}/{before}")
    storage.api.until_gone(f"{PODS}/{before}", PATIENCE_SECONDS)
    eventually(storage, f"the device of {OSDS[0]} is mapped", lambda: "copied" in _mapped(storage, OSDS[0]))
    until_healthy(storage)
    assert objects(storage, "get") == put


def test_a_host_without_power_is_done_without_and_has_what_it_missed_when_it_is_back(
    storage: Cluster, put: dict[str, str]
) -> None:
    before = volumes(storage)
    host = storage.nodes[pod_of(storage, OSDS[1])["spec"]["nodeName"]]
    host.kill()
    eventually(storage, "an OSD is missed", lambda: status(storage)["osdmap"]["num_up_osds"] == 1)
    missed = objects(storage, "put", OBJECTS)
    assert objects(storage, "get") == put

    host.boot()
    until_healthy(storage)
    assert objects(storage, "get") == put
    assert objects(storage, "get", OBJECTS) == missed
    assert volumes(storage) == before
    deep_scrub(storage)


def test_ceph_is_back_when_the_power_of_its_monitors_host_was_cut(storage: Cluster, put: dict[str, str]) -> None:
    before = volumes(storage)
    host = storage.nodes[pod_of(storage, "mon")["spec"]["nodeName"]]
    epoch = status(storage)["osdmap"]["epoch"]
    host.kill()
    host.boot()
    # A newer map: what answers has been started since, and so has the OSD beside it.
    eventually(storage, "a map has an OSD that has come back", lambda: status(storage)["osdmap"]["epoch"] > epoch)
    until_healthy(storage)
    assert objects(storage, "get") == put
    assert volumes(storage) == before
    deep_scrub(storage)


def deep_scrub(cluster: Cluster) -> None:
    """Have every byte of both copies read and compared; raises RigError when they differ."""
    before = _scrubs(cluster)
    for number in range(len(OSDS)):
        inside(cluster, MON, "ceph", "osd", "deep-scrub", str(number))
    eventually(cluster, "a deep scrub", lambda: all(at > before[group] for group, at in _scrubs(cluster).items()))
    until_healthy(cluster)


def _scrubs(cluster: Cluster) -> dict[str, str]:
    """When each placement group was read through, by its name."""
    said = json.loads(inside(cluster, MON, "ceph", "pg", "ls", "--format", "json"))
    return {each["pgid"]: each[SCRUB_STAMP] for each in said["pg_stats"]}


def _mapped(cluster: Cluster, name: str) -> str:
    """What the container said that copies the device."""
    return cluster.kubectl("logs", pod_of(cluster, name)["metadata"]["name"], "--container", "map")


def _remove(api: Api) -> None:
    for name in (*OSDS, "mgr", "mon"):
        api.delete(f"{DEPLOYMENTS}/{name}?propagationPolicy=Foreground")
    for name in OSDS:
        api.delete(f"{JOBS}/prepare-{name}?propagationPolicy=Foreground")
    for name in ("mon", *OSDS):
        api.delete(f"{CLAIMS}/{name}")
    for name in ("mon", *OSDS):
        api.until_gone(f"{CLAIMS}/{name}", PATIENCE_SECONDS)
