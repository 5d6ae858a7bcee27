"""docs/metrics.md lists what is exposed: all of it, nothing else, with its type and labels."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from csi.cluster.metrics import AbandonedMetrics, CapacityMetrics, LoopCollector
from csi.metrics import CallMetrics, describe_busy
from csi.registration import describe_registration
from node_agent.backends.port import StoreReport
from node_agent.cluster.metrics import ObjectCollector, ReconcileMetrics, describe_link
from node_agent.fills import Fill, Fills
from node_agent.metrics import FillCollector, HoldMetrics, OperationMetrics, StoreCollector
from scheduler_extender.metrics import RequestMetrics, StandingCollector
from tests.unit.kube_doubles import ApiServer
from ullage.errors import GIB, MIB, CommandFailedError
from ullage.kube.api import Api
from ullage.kube.informer import Informer
from ullage.kube.logical_volume import READY, LogicalVolume, Status, order
from ullage.kube.meta import LOGICAL_VOLUMES, Condition
from ullage.kube.metrics import InformerCollector
from ullage.metrics import CommandMetrics, describe_process
from ullage.model import (
    CreateVolume,
    DeviceClassName,
    DeviceType,
    NodeName,
    Pool,
    PoolName,
    Problem,
    StoreName,
    ThinUsage,
    Volume,
    VolumeId,
    VolumeState,
    Wipe,
)
from ullage.serve import exposition

DOCUMENT = Path(__file__).parents[2] / "docs" / "metrics.md"
ROW = re.compile(r"^\| `(?P<name>\w+)` \| (?P<type>\w+) \|(?P<labels>[^|]*)\| (?P<meaning>[^|]+) \| (?P<use>[^|]+) \|$")


@dataclass(frozen=True, kw_only=True)
class Listed:
    name: str
    type: str
    labels: frozenset[str]


def documented() -> list[Listed]:
    rows = (ROW.match(line) for line in DOCUMENT.read_text(encoding="utf-8").splitlines())
    return [
        Listed(name=row["name"], type=row["type"], labels=frozenset(re.findall(r"`(\w+)`", row["labels"])))
        for row in rows
        if row is not None
    ]


def exposed(text: str) -> set[Listed]:
    """What Prometheus' own parser makes of it."""
    return {
        Listed(
            name=f"{family.name}_total" if family.type == "counter" else family.name,
            type=family.type,
            labels=frozenset(name for sample in family.samples for name in sample.labels) - {"le"},
        )
        for family in text_string_to_metric_families(text)
    }


def scrape() -> str:
    """All of the collectors, with something in each."""
    store = StoreName("vg0")
    pool = Pool(
        name=PoolName("vg0/pool0"),
        store=store,
        type=DeviceType.THIN,
        classes=(DeviceClassName("thin"),),
        total_bytes=GIB,
        free_bytes=GIB,
        extent_bytes=4 * MIB,
        thin=ThinUsage(
            virtual_bytes=0,
            data_percent=0.0,
            metadata_percent=10.0,
            overprovision_ratio=Fraction(1),
            data_guard_percent=90,
            metadata_guard_percent=80,
        ),
    )
    volume = Volume(
        id=VolumeId("pvc-1"),
        pool=pool.name,
        store=store,
        type=DeviceType.THIN,
        device_class=DeviceClassName("thin"),
        size_bytes=GIB,
        device_size_bytes=GIB,
        state=VolumeState.READY,
        wipe=Wipe.NONE,
        device_path="/dev/vg0/pvc-1",
        problem=Problem(reason="Suspended", message=""),
    )
    snapshot = replace(volume, id=VolumeId("s-1"), problem=None, used_percent=40.0)
    registry = CollectorRegistry()
    describe_process(registry, component="agent", version="0.1.0")
    argv = ("lvm", "lvs")
    CommandMetrics(registry).observe(argv, 0.1, CommandFailedError(argv=argv, exit_code=5, stderr=""))
    reports = (StoreReport(name=store, pools=(pool,), volumes=(volume, snapshot)),)
    registry.register(StoreCollector(lambda: reports, lambda: {store: 1.0}))
    HoldMetrics(registry).observe(0.1)
    OperationMetrics(registry, lambda: 0).observe("create", "ok", 0.1)
    registry.register(FillCollector(fills := Fills()))
    ReconcileMetrics(registry).observe("ok")
    describe_link(registry, waiting=lambda: 0, silence_seconds=lambda: 1.0)
    request = CreateVolume(volume_id=volume.id, device_class=volume.device_class, size_bytes=GIB)
    refused = Condition(type=READY, status="False", reason="VolumeMissing")
    wanted = msgspec.structs.replace(order(request, NodeName("node-1")), status=Status(conditions=(refused,)))
    registry.register(ObjectCollector(lambda: [wanted], lambda: 0))
    CallMetrics(registry).observe("NodeStageVolume", "OK", 0.1)
    describe_busy(registry, lambda: 0)
    describe_registration(registry, lambda: None)
    volumes = Informer(Api(ApiServer()), LOGICAL_VOLUMES, LogicalVolume)
    registry.register(InformerCollector([volumes]))
    CapacityMetrics(registry).observe("create", "ok")
    AbandonedMetrics(registry).observe("removed")
    registry.register(LoopCollector(lambda: {"volume_without_object": 1}, lambda: 0))
    requests = RequestMetrics(registry)
    requests.answered("filter", 200, 0.001)
    requests.asked("filter", 500)
    requests.decided({"n-1": "no storage agent on this node"}, is_unplaced=True)
    registry.register(StandingCollector(lambda: (), lambda: 1))
    with fills.turn(volume.id, Fill(device_class=volume.device_class, left_bytes=GIB), lambda _: None):
        return exposition(registry)().body.decode()


def test_what_is_exposed_is_documented_with_its_type_and_labels() -> None:
    assert exposed(scrape()) - set(documented()) == set()


def test_what_is_documented_is_exposed() -> None:
    assert set(documented()) - exposed(scrape()) == set()


def test_each_metric_is_documented_once_in_a_whole_row() -> None:
    names = [listed.name for listed in documented()]
    begun = re.findall(r"^\| `(\w+)`", DOCUMENT.read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert names == begun, "a row that does not have five columns"
    assert len(names) == len(set(names))


def test_every_name_in_an_example_is_documented() -> None:
    names = {listed.name for listed in documented()}
    used = set(re.findall(r"\b(?:ullage|process)_\w+", DOCUMENT.read_text(encoding="utf-8")))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in used} - names == set()


def test_no_label_holds_a_volumes_name() -> None:
    assert "pvc-1" not in scrape()


def test_every_metric_says_what_it_is() -> None:
    for family in text_string_to_metric_families(scrape()):
        assert family.documentation.endswith("."), family.name
