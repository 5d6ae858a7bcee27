"""The power of a node is cut again and again under load: nothing is lost, nothing is left over, nothing sticks.

ULLAGE_POWER_CUTS: how often. ULLAGE_POWER_SEED: when, and what is done meanwhile.

The node is a VM with `ullage node` and real LVM, without a kubelet: `inside` does what one does with volumes. The
cluster is the real control plane with our controller and the sidecars, on this machine: it goes on while the node is
away.
"""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import pytest

from tests.cluster import things
from tests.cluster.things import DEVICE_CLASSES, NODE_STORAGES
from tests.power.audit import audit, check_pool
from tests.power.load import CLASSES, KINDS, Load
from tests.power.node import GROUP, POOL, OffError, PowerNode
from tests.rigs.cluster import nodes, ours
from tests.rigs.cluster.api import Api, Refusal
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.crds import install_snapshot_crds
from tests.rigs.cluster.manifests import install
from tests.rigs.cluster.sidecars import Sidecars
from ullage.kube.meta import API_VERSION
from ullage.storage_classes import CLASS_KEY, DRIVER

CUTS = int(os.environ.get("ULLAGE_POWER_CUTS", "3"))
SEED = int(os.environ.get("ULLAGE_POWER_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
ACTS_AT_MOST, LOAD_SECONDS = 12, 60.0
"""The power is cut after some of these acts of the users, or at the latest after so long …"""
LATER_SECONDS = 4.0
"""… and up to so much later."""
AGAIN_PART = 0.3
"""So many cuts are followed by another while the node still recovers from the first …"""
AGAIN_SECONDS = (1.0, 12.0)
CHECKED_PART = 0.4
"""Of so many boots the thin pool is checked before anything has used it: seconds of emulation."""
NODE = "n1"
CLASS_SPECS = {
    "thick": {"type": "thick", "volumeGroups": [GROUP]},
    "thin": {"type": "thin", "volumeGroups": [GROUP], "thinPool": {"name": POOL, "overprovisionRatio": 3}},
}


@pytest.fixture(name="load")
def load_(tmp_path: Path) -> Iterator[Load]:
    """A cluster of one node, which is on and has its volume group; no claims yet."""
    if os.geteuid() != 0:
        pytest.skip("QEMU's file sharing needs root")
    folder = Path(tempfile.mkdtemp(prefix="ullage-power-"))
    logs = tmp_path / "logs"
    logs.mkdir()
    with PowerNode(NODE, folder, logs) as node, ControlPlane(logs) as plane:
        api = plane.api()
        with ThreadPoolExecutor() as together:
            booted = together.submit(node.boot)
            _prepare(api)
            booted.result()
        node.make_storage()
        controller = ours.controller(logs, "c", plane.kubeconfig_for(ours.NAMESPACE, "ullage-controller"))
        controller.process.start()
        try:
            with Sidecars(logs, controller.csi_socket, plane.kubeconfig, api):
                node.know(plane.kubeconfig_for(ours.NAMESPACE, "ullage-node", NODE), plane.certificate)
                yield Load(api, node, SEED)
        finally:
            controller.process.kill()
    shutil.rmtree(folder)


def test_after_every_power_cut_objects_and_disks_agree_and_all_that_was_acknowledged_is_there(load: Load) -> None:
    dice = random.Random(SEED)  # noqa: S311 - the same cuts again with the same seed
    node, cuts = load.node, 0
    print(f"\n{CUTS} power cuts, seed {SEED}")
    node.start_agent()
    load.api.until(f"{NODE_STORAGES}/{NODE}", lambda it: it.get("status", {}).get("pools"), 120.0)
    while cuts < CUTS:
        acts, later_seconds = dice.randint(0, ACTS_AT_MOST), dice.uniform(0, LATER_SECONDS)
        began = time.monotonic()
        load.start()
        load.wait_for(acts, LOAD_SECONDS)
        time.sleep(later_seconds)
        seconds = time.monotonic() - began
        lost = node.cut(dice, is_in_order=True)
        cuts += 1
        steps = load.stop()
        load.off()
        assert load.failures == [], "\n".join(load.failures)
        print(
            f"  cut {cuts}: after {seconds:.1f} s of load; not yet safe and lost: {lost}; under way: {'; '.join(steps)}"
        )
        while cuts < CUTS and dice.random() < AGAIN_PART:
            cuts += 1
            _cut_again(load, dice, cuts)
        began = time.monotonic()
        node.boot()
        if dice.random() < CHECKED_PART:
            check_pool(node)
        booted = time.monotonic()
        node.start_agent()
        load.settle()
        settled = time.monotonic()
        audit(load.api, node)
        audited = time.monotonic()
        load.use_all()
        used = time.monotonic()
        print(
            f"    booted and checked in {booted - began:.0f} s, all as asked for {settled - booted:.0f} s later, "
            f"agreed {audited - settled:.0f} s later, in use {used - audited:.0f} s later; {len(load.claims)} volumes, "
            f"{sum(node.acknowledged.values())} records acknowledged, {dict(load.count)}",
            flush=True,
        )
        assert node.ask("failures") == []
        _is_well(node)
    print(f"{cuts} power cuts are over, seed {SEED}")


def _cut_again(load: Load, dice: random.Random, number: int) -> None:
    """While the node recovers."""
    load.node.boot()
    with ThreadPoolExecutor() as together:
        started = together.submit(load.node.start_agent)
        seconds = dice.uniform(*AGAIN_SECONDS)
        time.sleep(seconds)
        lost = load.node.cut(dice, is_in_order=True)
        with suppress(OffError):
            started.result()
    print(f"  cut {number}: {seconds:.1f} s after the agent was started; not yet safe and lost: {lost}")


def _is_well(node: PowerNode) -> None:
    """Our program has not met what it did not expect."""
    log = (node.logs / f"{node.name}-{node.lives}.log").read_text(encoding="utf-8", errors="replace")
    assert "Traceback" not in log, [line for line in log.splitlines() if "Traceback" in line]


def _prepare(api: Api) -> None:
    """What an administrator installs."""
    install(api)
    install_snapshot_crds(api)
    deadline = time.monotonic() + 30
    while True:  # of a new definition the server says for a moment that it is not there yet
        try:
            for path in things.ALL:
                api.items(path)
        except Refusal:
            assert time.monotonic() < deadline
            time.sleep(0.2)
        else:
            break
    things.make_snapshot_classes(api)
    nodes.add(api, NODE)
    for name in CLASSES:
        kind = {"apiVersion": API_VERSION, "kind": "DeviceClass", "metadata": {"name": name}}
        api.create(DEVICE_CLASSES, {**kind, "spec": CLASS_SPECS[name]})
        for fs_type in KINDS:
            content = {
                "metadata": {"name": f"{name}-{fs_type or 'block'}"},
                "provisioner": DRIVER,
                "parameters": {CLASS_KEY: name, **({"csi.storage.k8s.io/fstype": fs_type} if fs_type else {})},
                "volumeBindingMode": things.LATE,
                "allowVolumeExpansion": True,
            }
            api.create(f"{things.STORAGE}/storageclasses", content)
