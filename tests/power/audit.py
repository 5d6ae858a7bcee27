"""Whether the objects and a node's disks say the same, read without our code: lvs, dmsetup, losetup, the API server.

`audit` is for a node on which no Pod has come up yet after its boot: nothing is mounted there.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from tests.cluster.kubelet import CLAIMS, VOLUMES
from tests.cluster.things import CONTENTS, LOGICAL_VOLUMES, NODE_STORAGES, SNAPSHOTS, is_ours
from tests.power.node import GROUP, POOL, AnswerError, PowerNode
from tests.rigs.cluster.api import Api, Json

SETTLE_SECONDS = 240.0
POLL_SECONDS = 1.0
FIELDS = "lv_name,lv_attr,lv_tags,lv_size,segtype,origin,thin_id,lv_active,lv_suspended,lv_health_status"
OF_POOL = {POOL, f"[{POOL}_tdata]", f"[{POOL}_tmeta]", "[lvol0_pmspare]"}
MARK = "ullage.io/state="


def check_pool(node: PowerNode) -> None:
    """thin_check of what the power cut has left, before anything has repaired it; raises AnswerError.

    Right after the boot: the pool is deactivated for it, which nobody uses yet.
    """
    node.run("vgchange", "--quiet", "--activate", "n", GROUP)
    node.run("lvchange", "--quiet", "--yes", "--activate", "y", f"{GROUP}/{POOL}_tmeta")
    node.run("thin_check", "--quiet", f"/dev/{GROUP}/{POOL}_tmeta")
    node.run("lvchange", "--quiet", "--activate", "n", f"{GROUP}/{POOL}_tmeta")


def audit(api: Api, node: PowerNode) -> None:
    """Wait until all agrees; AssertionError says what does not."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while faults := [*_faults(api, node)]:
        if time.monotonic() > deadline:
            raise AssertionError(f"after {SETTLE_SECONDS:.0f} s:\n" + "\n".join(faults))
        time.sleep(POLL_SECONDS)


def _faults(api: Api, node: PowerNode) -> Iterator[str]:
    """What does not agree, a sentence each."""
    orders = {each["metadata"]["name"]: each for each in api.items(LOGICAL_VOLUMES)}
    rows = {row["lv_name"]: row for row in _report(node, "lvs", "--all", "-o", FIELDS, GROUP)["lv"]}
    ours = {name: row for name, row in rows.items() if name not in OF_POOL}
    yield from _objects(api, orders)
    yield from (f"LV {name} has no LogicalVolume: {row}" for name, row in ours.items() if name not in orders)
    yield from (f"LogicalVolume {name} has no LV: {orders[name].get('status')}" for name in orders if name not in ours)
    for name in sorted(ours.keys() & orders.keys()):
        yield from _one(orders[name], ours[name])
    yield from _devices(node, rows)
    yield from _pool(node, rows)
    try:
        node.run("vgck", GROUP)
    except AnswerError as failure:
        yield str(failure)
    for storage in api.items(NODE_STORAGES):
        yield from (f"{node.name} reports an orphan: {each}" for each in storage["status"].get("orphans", ()))


def _objects(api: Api, orders: Mapping[str, Json]) -> Iterator[str]:
    volumes = [each for each in api.items(VOLUMES) if is_ours(each)]
    handles = {each["spec"]["csi"]["volumeHandle"] for each in volumes}
    contents = {each.get("status", {}).get("snapshotHandle") for each in api.items(CONTENTS)}
    kinds: dict[str, set[str]] = {"volume": set(), "snapshot": set()}
    for name, order in orders.items():
        kinds[order["spec"].get("kind", "volume")].add(name)
        if order.get("status", {}).get("phase") != "Ready" or "deletionTimestamp" in order["metadata"]:
            yield f"LogicalVolume {name} is not Ready, or is to go: {order['metadata']} {order.get('status')}"
    if kinds["volume"] != handles or len(handles) != len(volumes):
        yield f"LogicalVolumes {sorted(kinds['volume'])} are not the PersistentVolumes' {sorted(handles)}"
    if kinds["snapshot"] != contents:
        yield f"LogicalVolumes {sorted(kinds['snapshot'])} are not the snapshots' {sorted(map(str, contents))}"
    claims = {each["metadata"]["uid"] for each in api.items(CLAIMS)}
    bound = {each["spec"]["claimRef"]["uid"] for each in volumes}
    if claims != bound:
        yield f"claims {sorted(claims)} are not those of PersistentVolumes {sorted(bound)}"
    if len(api.items(SNAPSHOTS)) != len(contents):
        yield f"{len(api.items(SNAPSHOTS))} snapshots have {len(contents)} contents"


def _one(order: Json, row: Mapping[str, str]) -> Iterator[str]:
    name, kind = order["metadata"]["name"], order["spec"].get("kind", "volume")
    tags = row["lv_tags"].split(",")
    if f"ullage.io/volume={name}" not in tags or any(tag.startswith(MARK) for tag in tags):
        yield f"LV {name} has the tags {tags}"
    status = order.get("status", {})  # one that is to go before it was ever told of has none
    if kind == "volume" and (int(row["lv_size"]) != status.get("sizeBytes") or row["lv_active"] != "active"):
        yield f"LV {name} is {row}, its LogicalVolume says {status}"
    if row["lv_health_status"] or row["lv_suspended"] == "suspended" or row["lv_attr"][4] not in "a-":
        yield f"LV {name} is not well: {row}"


def _devices(node: PowerNode, rows: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """Device-mapper has what the logical volumes need, and no more; nothing is suspended, attached or mounted."""
    expected = {f"{GROUP}-{POOL}{part}" for part in ("-tpool", "_tmeta", "_tdata")}
    """They are there for its volumes, whether the pool itself is active or not."""
    for name, row in rows.items():
        mapped = f"{GROUP}-{name.strip('[]').replace('-', '--')}"
        expected |= {mapped, f"{mapped}-real", f"{mapped}-cow", f"{mapped}-tpool"} if row["lv_active"] else set()
    for line in node.run("dmsetup", "info", "-c", "--noheadings", "--separator", " ", "-o", "name,suspended").split(
        "\n"
    ):
        name, _, state = line.strip().partition(" ")
        if name and (name not in expected or state.strip() != "Active"):
            yield f"device-mapper has {line!r}"
    for device in json.loads(node.run("losetup", "--json", "--list", "-O", "NAME,BACK-FILE") or "{}").get(
        "loopdevices", ()
    ):
        yield f"{device} is attached"
    found = node.ask("run", argv=["findmnt", "--json", "--output", "TARGET,SOURCE", "--list"])
    for mount in json.loads(found["out"] or '{"filesystems": []}')["filesystems"]:
        if "/kubelet/" in mount["target"] or mount["source"].startswith(("/dev/mapper/", "/dev/dm-")):
            yield f"{mount} is mounted"


def _pool(node: PowerNode, rows: Mapping[str, Mapping[str, str]]) -> Iterator[str]:
    """The kernel's word of the pool, and that it knows the very devices that LVM does."""
    numbers = {row["thin_id"] for row in rows.values() if row["thin_id"]}
    if not numbers:  # LVM switches a pool off with its last volume
        node.run("lvchange", "--quiet", "--activate", "y", f"{GROUP}/{POOL}")
    try:
        yield from _kernels_word(node, numbers)
    except AnswerError as failure:
        yield str(failure)
    finally:
        if not numbers:
            node.run("lvchange", "--quiet", "--activate", "n", f"{GROUP}/{POOL}")


def _kernels_word(node: PowerNode, numbers: AbstractSet[str]) -> Iterator[str]:
    pools = node.run("dmsetup", "ls", "--target", "thin-pool").split()
    # One that never had a volume is a device of its own name; LVM puts it beneath with the first.
    device = next((name for name in (f"{GROUP}-{POOL}-tpool", f"{GROUP}-{POOL}") if name in pools), None)
    if device is None:
        yield f"no pool is active: {pools}"
        return
    status = node.run("dmsetup", "status", "--noflush", device).split()
    if status[6] != "-" or "rw" not in status or "needs_check" in status:
        yield f"the pool is {' '.join(status)}"
        return
    node.run("dmsetup", "message", device, "0", "reserve_metadata_snap")
    try:
        listed = node.run(
            "thin_ls", "--metadata-snap", "--no-headers", "--format", "DEV", f"/dev/mapper/{GROUP}-{POOL}_tmeta"
        )
    finally:
        node.run("dmsetup", "message", device, "0", "release_metadata_snap")
    if set(listed.split()) != numbers:
        yield f"the pool has the thin devices {listed.split()}, LVM has {sorted(numbers)}"


def _report(node: PowerNode, verb: str, *arguments: str) -> Any:  # noqa: ANN401 - JSON
    argv = ("lvm", verb, "--reportformat", "json", "--units", "b", "--nosuffix", *arguments)
    return json.loads(node.run(*argv))["report"][0]
