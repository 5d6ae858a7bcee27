"""While fifty claims are being made and deleted, programs die: nothing is lost, nothing is there twice, nothing sticks.

ULLAGE_FAULT_ROUNDS: how often each fault happens. ULLAGE_FAULT_SEED: when, and what is done meanwhile.
"""

from __future__ import annotations

import json
import os
import random
import signal
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path

import pytest

from tests.cluster import faults
from tests.cluster.audit import on_disks
from tests.cluster.faults import Fault
from tests.cluster.kubelet import CLAIMS, PODS, VOLUMES
from tests.cluster.load import Load
from tests.cluster.scene import Cluster, cluster, until
from tests.cluster.things import LOGICAL_VOLUMES, is_bound, is_ours
from tests.rigs.cluster.api import Json
from tests.rigs.cluster.sidecars import NAMES, PROVISIONER, SNAPSHOT_CONTROLLER
from tests.rigs.host import RigError

ROUNDS = int(os.environ.get("ULLAGE_FAULT_ROUNDS", "2"))
SEED = int(os.environ.get("ULLAGE_FAULT_SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
PROGRESS_SECONDS = 180.0
"""client-go looks for an API server that has died often up to a minute apart."""
QUIET_SECONDS = 240.0
BOUND_EACH = 5
"""So many more claims of the load are bound after each fault."""
MOST_PAUSE_SECONDS = 2.0
SOON_ABANDONED = ("--abandoned-after", "10")
"""A claim that goes while external-provisioner is away leaves a volume that only the controller can take back."""


@pytest.fixture(scope="module", name="one")
def one_controller(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(_made(folder / "one"), tmp_path_factory.mktemp("one"), more=SOON_ABANDONED) as running:
        yield running


@pytest.fixture(name="two")
def two_controllers(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Each has an external-provisioner of its own, and both of these do everything that is to be done."""
    electing = [name for name in NAMES if name != PROVISIONER]
    logs = tmp_path_factory.mktemp("two")
    with cluster(_made(folder / "two"), logs, controllers=2, electing=electing, more=SOON_ABANDONED) as running:
        yield running


@pytest.mark.parametrize(
    "fault",
    [faults.kill_controller, faults.kill_agents, faults.kill_api_server, faults.kill_etcd, faults.forget],
    ids=lambda fault: fault.__name__,
)
def test_claims_go_on_through_each_fault_and_objects_and_disks_agree_afterwards(one: Cluster, fault: Fault) -> None:
    _endure(one, fault)


def test_two_controllers_that_do_the_same_at_once_make_each_volume_once_through_their_deaths(two: Cluster) -> None:
    _endure(two, faults.kill_one_of_two)


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


def _endure(scene: Cluster, fault: Fault) -> None:
    """Rounds of one fault under load; in each something new is kept, that must be there at the end."""
    dice = random.Random(SEED)  # noqa: S311 - the same faults again with the same seed
    began = time.monotonic()
    print(f"\n{fault.__name__}: {ROUNDS} rounds, seed {SEED}; {_memory(scene)}")
    kept: dict[str, bytes] = {}
    drafts = _drafts_believed(scene)
    with Load(scene.objects, SEED, operator=partial(_restart_snapshot_controllers, scene)) as load:
        load.wait_for("bound", BOUND_EACH, PROGRESS_SECONDS)
        for number in range(ROUNDS):
            time.sleep(dice.uniform(0, MOST_PAUSE_SECONDS))
            said = fault(scene, number, dice)
            over = time.monotonic()
            load.wait_for("bound", BOUND_EACH, PROGRESS_SECONDS)
            name = f"kept-{number}"
            kept[name] = _keep(scene, load, name, dice)
            seconds = time.monotonic() - over
            print(f"  round {number}: {said}; {seconds:.1f} s later it is as before; {dict(load.count)}")
            assert load.errors == [], "\n".join(load.errors)
    assert load.errors == [], "\n".join(load.errors)
    assert load.count["made"] == load.count["deleted"]
    assert load.count["stranded"] <= _drafts_believed(scene) - drafts

    until(lambda: not _left_over(scene), lambda: _left_over(scene), QUIET_SECONDS)
    scene.audit(seconds=QUIET_SECONDS)
    orders = {each["metadata"]["name"] for each in scene.objects.items(LOGICAL_VOLUMES)}
    volumes = [each for each in scene.objects.items(VOLUMES) if is_ours(each)]
    claims = [each for each in scene.objects.items(CLAIMS) if is_bound(each)]
    assert {each["metadata"]["name"] for each in claims} == set(kept)
    assert {each["metadata"]["uid"] for each in claims} == set(map(_claim_of, volumes))
    assert orders == {each["spec"]["csi"]["volumeHandle"] for each in volumes}
    assert sorted(orders) == sorted(each.id for each in on_disks(scene.machines))
    for name, content in kept.items():
        _find_again(scene, name, content)
    _are_well(scene)
    told = f"{len(orders)} volumes kept, {dict(load.count)}, {time.monotonic() - began:.0f} s; {_memory(scene)}"
    scene.clear()
    scene.audit(is_empty=True, seconds=QUIET_SECONDS)
    print(f"{fault.__name__}: {ROUNDS} rounds are over, seed {SEED}: {told}")


def _left_over(scene: Cluster) -> list[str]:
    """PersistentVolumes whose claims are gone: as long as they are there, their volumes are, and both agree."""
    claims = {each["metadata"]["uid"] for each in scene.objects.items(CLAIMS)}
    return [each["metadata"]["name"] for each in scene.objects.items(VOLUMES) if _claim_of(each) not in claims]


def _claim_of(volume: Json) -> str:
    return str(volume["spec"]["claimRef"]["uid"])


def _keep(scene: Cluster, load: Load, name: str, dice: random.Random) -> bytes:
    """A new claim is bound and used: what was written there."""
    content = dice.randbytes(4096)
    storage_class = dice.choice(("fast", "bulk"))
    load.insist(lambda: scene.claim(name, "16Mi", storage_class))
    load.insist(lambda: scene.pod(name, [name]))
    scene.objects.until(f"{CLAIMS}/{name}", is_bound, PROGRESS_SECONDS)
    (scene.run(name)[name] / "file").write_bytes(content)
    return content


def _find_again(scene: Cluster, name: str, content: bytes) -> None:
    """Where it is mounted, and where it is mounted for another Pod after the first."""
    (volume,) = scene.wait_bound(name)
    node = scene.node_with(volume["spec"]["csi"]["volumeHandle"])
    pod = scene.objects.get(f"{PODS}/{name}")
    target = node.kubelet.calls.target(volume["spec"]["csi"]["volumeHandle"], pod["metadata"]["uid"])
    assert (target / "file").read_bytes() == content
    scene.end(name)
    scene.objects.until_gone(f"{PODS}/{name}")
    scene.pod(f"{name}-again", [name])
    assert (scene.run(f"{name}-again")[name] / "file").read_bytes() == content
    scene.end(f"{name}-again")


def _drafts_believed(scene: Cluster) -> int:
    """How often a snapshot-controller took its own draft of a content for the one that there was: see `Load`."""
    logs = [beside.process(SNAPSHOT_CONTROLLER).log for beside in scene.sidecars]
    return sum(log.read_text(encoding="utf-8").count("already exists, reusing") for log in logs)


def _restart_snapshot_controllers(scene: Cluster) -> None:
    for beside in scene.sidecars:
        with suppress(RigError):  # it has ended by itself
            beside.process(SNAPSHOT_CONTROLLER).signal(signal.SIGKILL)


def _are_well(scene: Cluster) -> None:
    """Our processes, and all of their threads."""
    for process in faults.processes(scene):
        assert process.is_alive()
        assert not process.says("Traceback"), _exceptions(process.log)
        process.wait_until_ready()


def _exceptions(log: Path) -> list[str]:
    """What our programs did not expect."""
    lines = log.read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["exception"] if line.startswith("{") else line for line in lines if "Traceback" in line]


def _memory(scene: Cluster) -> str:
    """In use by each of our processes."""
    sizes = []
    for process in faults.processes(scene):
        lines = Path(f"/proc/{process.pid}/status").read_text(encoding="utf-8").splitlines()
        (kib,) = [line.split()[1] for line in lines if line.startswith("VmRSS:")]
        sizes.append(f"{process.name} {int(kib) // 1024} MiB")
    return ", ".join(sizes)
