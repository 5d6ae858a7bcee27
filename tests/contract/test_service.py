"""Over the wire: hostile and mistaken requests get a clear error, and nothing changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import cast

import grpc
import pytest
from google.rpc.error_details_pb2 import ErrorInfo
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_status import rpc_status

from node_agent.service import agent_server
from tests.contract.sites import CLASS, Site, started
from ullage.pb.agent.v1 import agent_pb2 as pb
from ullage.pb.agent.v1 import agent_pb2_grpc

pytestmark = pytest.mark.only_on("file", "thick")
SECONDS = 120


@contextmanager
def served(site: Site, folder: Path) -> Iterator[grpc.Channel]:
    address = f"unix://{folder}/agent.sock"
    assembly = started(site)
    server = agent_server(assembly.agent, address)
    server.bind()
    server.start()
    try:
        with grpc.insecure_channel(address) as channel:
            yield channel
    finally:
        server.stop(5)
        assembly.stop(30)


def create(**fields: object) -> Callable[[agent_pb2_grpc.AgentStub], object]:
    request = {"volume_id": "pvc-x", "device_class": CLASS, "size_bytes": 1 << 22, **fields}
    return lambda stub: stub.CreateVolume(pb.CreateVolumeRequest(**request), timeout=SECONDS)  # type: ignore[arg-type]


def expand(volume_id: str, size_bytes: int) -> Callable[[agent_pb2_grpc.AgentStub], object]:
    request = pb.ExpandVolumeRequest(volume_id=volume_id, size_bytes=size_bytes)
    return lambda stub: stub.ExpandVolume(request, timeout=SECONDS)


def delete(volume_id: str, pool: str = "") -> Callable[[agent_pb2_grpc.AgentStub], object]:
    request = pb.DeleteVolumeRequest(volume_id=volume_id, pool=pool)
    return lambda stub: stub.DeleteVolume(request, timeout=SECONDS)


def snapshot(source: str) -> Callable[[agent_pb2_grpc.AgentStub], object]:
    request = pb.CreateSnapshotRequest(snapshot_id="s-x", source_volume_id=source)
    return lambda stub: stub.CreateSnapshot(request, timeout=SECONDS)


INVALID = grpc.StatusCode.INVALID_ARGUMENT
BAD_IDS = (
    "",
    ".",
    "..",
    "../x",
    "a/b",
    "/dev/sda",
    "-a",
    "a\nb",
    "a b",
    "a;reboot",
    "$(reboot)",
    "n\u00e4me",
    "\u2603",
    "A",
    "x" * 300,
    "snapshot1",
    "pvmove0",
    "a_tdata",
    "lv_rimage_0",
    "--force",
)
CASES: tuple[tuple[str, Callable[[agent_pb2_grpc.AgentStub], object], grpc.StatusCode, str, str], ...] = (
    ("unknown class", create(device_class="nosuch"), INVALID, "UnknownDeviceClass", "there are: main"),
    ("no class", create(device_class=""), INVALID, "UnknownDeviceClass", "there are: main"),
    ("size 0", create(size_bytes=0), INVALID, "InvalidRequest", "a size of 0 bytes"),
    ("size below 0", create(size_bytes=-1), INVALID, "InvalidRequest", "a size of -1 bytes"),
    ("size past all reason", create(size_bytes=(1 << 63) - 1), INVALID, "InvalidRequest", "is not possible"),
    ("limit below size", create(limit_bytes=1), INVALID, "InvalidRequest", "a limit of 1 bytes"),
    ("limit below 0", create(limit_bytes=-1), INVALID, "InvalidRequest", "a limit of -1 bytes"),
    (
        "limit that no whole extent meets",
        create(size_bytes=1, limit_bytes=2),
        grpc.StatusCode.OUT_OF_RANGE,
        "OutOfRange",
        "",
    ),
    (
        "above the pool",
        create(size_bytes=1 << 50),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "InsufficientCapacity",
        "wanted",
    ),
    ("unknown pool", create(pool="nosuch"), grpc.StatusCode.UNAVAILABLE, "PoolUnavailable", "nosuch"),
    ("a tag LVM refuses", create(owner=pb.Owner(claim_name="a b")), INVALID, "InvalidRequest", "a b"),
    ("a tag too long", create(owner=pb.Owner(pv_name="x" * 2000)), INVALID, "InvalidRequest", ""),
    ("a tag with a line break", create(owner=pb.Owner(claim_uid="a\nb")), INVALID, "InvalidRequest", ""),
    ("a tag in Unicode", create(owner=pb.Owner(claim_namespace="\u00fc")), INVALID, "InvalidRequest", ""),
    ("expand of nothing", expand("pvc-none", 1 << 22), grpc.StatusCode.NOT_FOUND, "NotFound", "pvc-none"),
    ("expand to 0", expand("pvc-a", 0), INVALID, "InvalidRequest", "a size of 0 bytes"),
    ("expand below 0", expand("pvc-a", -5), INVALID, "InvalidRequest", ""),
    (
        "expand above the pool",
        expand("pvc-a", 1 << 50),
        grpc.StatusCode.RESOURCE_EXHAUSTED,
        "InsufficientCapacity",
        "can grow to",
    ),
    ("delete from elsewhere", delete("pvc-a", "nosuch"), grpc.StatusCode.FAILED_PRECONDITION, "NotOurs", "nosuch"),
    ("snapshot of nothing", snapshot("pvc-none"), grpc.StatusCode.NOT_FOUND, "NotFound", "pvc-none"),
    ("copy of nothing", create(source_volume_id="pvc-none"), grpc.StatusCode.NOT_FOUND, "NotFound", "pvc-none"),
    *(
        (f"{verb} of id {bad!r:.20}", call(bad), INVALID, "InvalidRequest", "")
        for bad in BAD_IDS
        for verb, call in (
            ("create", lambda bad: create(volume_id=bad)),
            ("expand", lambda bad: expand(bad, 1 << 22)),
            ("delete", delete),
        )
    ),
)


def test_bad_requests_get_a_clear_error_and_change_nothing(site: Site, tmp_path: Path) -> None:
    with served(site, tmp_path) as channel:
        stub = agent_pb2_grpc.AgentStub(channel)
        stub.CreateVolume(
            pb.CreateVolumeRequest(volume_id="pvc-a", device_class=CLASS, size_bytes=site.step_bytes), timeout=SECONDS
        )
        before, pools = site.truth(), stub.ListPools(pb.ListPoolsRequest())
        for name, call, code, reason, sentence in CASES:
            with pytest.raises(grpc.RpcError) as refusal:
                call(stub)
            assert refusal.value.code() is code, f"{name}: {refusal.value.details()}"
            detail = ErrorInfo()
            status = rpc_status.from_call(cast("grpc.Call", refusal.value))
            assert status is not None
            assert status.details[0].Unpack(detail)
            assert (detail.domain, detail.reason) == ("ullage.io", reason), name
            assert sentence in (refusal.value.details() or ""), name
            assert len(refusal.value.details() or "") < 500, name
        assert site.truth() == before
        assert [pool.free_bytes for pool in stub.ListPools(pb.ListPoolsRequest()).pools] == [
            pool.free_bytes for pool in pools.pools
        ]


def test_numbers_of_a_refusal_are_there_for_machines(site: Site, tmp_path: Path) -> None:
    with served(site, tmp_path) as channel:
        stub = agent_pb2_grpc.AgentStub(channel)
        with pytest.raises(grpc.RpcError) as refusal:
            create(size_bytes=1 << 50)(stub)
        status = rpc_status.from_call(cast("grpc.Call", refusal.value))
        assert status is not None
        detail = ErrorInfo()
        status.details[0].Unpack(detail)
        free = max(pool.free_bytes for pool in stub.ListPools(pb.ListPoolsRequest()).pools)
        assert dict(detail.metadata) == {
            "device_class": CLASS,
            "wanted_bytes": str(1 << 50),
            "free_bytes": str(free),
        }


def test_a_watcher_sees_the_pools_now_and_after_each_change(site: Site, tmp_path: Path) -> None:
    with served(site, tmp_path) as channel:
        stub = agent_pb2_grpc.AgentStub(channel)
        updates = stub.WatchPools(pb.WatchPoolsRequest(), timeout=SECONDS)
        free = [pool.free_bytes for pool in next(updates).pools]
        create(size_bytes=4 * site.step_bytes)(stub)
        assert any([pool.free_bytes for pool in update.pools] < free for update in updates)
        updates.cancel()


def test_the_health_service_says_serving(site: Site, tmp_path: Path) -> None:
    with served(site, tmp_path) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        for service in ("", "ullage.agent.v1.Agent"):
            answer = health.Check(health_pb2.HealthCheckRequest(service=service))  # type: ignore[attr-defined] # no types
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
