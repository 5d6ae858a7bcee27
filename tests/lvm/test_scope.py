"""What of a machine's LVM the agent reads and changes, and what it never touches."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.assembly import assemble, backends
from tests.contract.sites import GROUP, SITES, LvmSite, run, started, wanted
from ullage.errors import MIB, VolumeInUseError
from ullage.model import (
    DeleteVolume,
    DeviceClass,
    DeviceClassName,
    DeviceType,
    ExpandVolume,
    VolumeId,
    Wipe,
)
from ullage.run import Subprocesses

A = VolumeId("pvc-a")
LOCAL_CONFIGURATION = Path("/etc/lvm/lvmlocal.conf")


@pytest.fixture
def thick() -> Iterator[LvmSite]:
    chosen = SITES["thick"]
    assert isinstance(chosen, LvmSite)
    chosen.set_up()
    try:
        yield chosen
    finally:
        chosen.tear_down()


@contextlib.contextmanager
def scanning_volumes() -> Iterator[None]:
    """A host whose LVM is told to look for physical volumes inside logical volumes."""
    kept = LOCAL_CONFIGURATION.read_text(encoding="utf-8") if LOCAL_CONFIGURATION.exists() else ""
    LOCAL_CONFIGURATION.write_text("devices { scan_lvs = 1 }\n", encoding="utf-8")
    try:
        yield
    finally:
        run("udevadm", "settle")
        LOCAL_CONFIGURATION.write_text(kept, encoding="utf-8")


def test_a_guests_volume_group_inside_a_volume_is_neither_reported_nor_activated(thick: LvmSite) -> None:
    """Where a host scans volumes by its own wish its udev rules may activate guests; we have no part in that."""
    every = replace(thick.device_class(Wipe.NONE), volume_groups=("*",))
    volume = started(thick, classes=[every]).agent.create(wanted("pvc-a", 64 * MIB)).volume
    assert volume is not None
    root = Path("/dev/guest/root")
    with scanning_volumes():
        run("vgcreate", "--yes", "guest", volume.device_path)
        run("lvcreate", "--yes", "--name", "root", "--size", "4m", "guest")
        run("vgchange", "--activate", "n", "guest")
        again = started(thick, classes=[every])
        assert [report.name for report in again.stock.reports()] == [GROUP]
        assert not root.exists()
    again.agent.expand(ExpandVolume(volume_id=A, size_bytes=80 * MIB))
    run("udevadm", "settle")
    assert [report.name for report in again.stock.reports()] == [GROUP]
    assert not root.exists()
    assert again.agent.delete(DeleteVolume(volume_id=A)).is_new


def test_a_volume_group_inside_a_file_volume_is_not_reported(thick: LvmSite, tmp_path: Path) -> None:
    every = replace(thick.device_class(Wipe.NONE), volume_groups=("*",))
    files = DeviceClass(name=DeviceClassName("files"), type=DeviceType.FILE, directory=str(tmp_path))
    assembly = started(thick, classes=[every, files])
    request = replace(wanted("pvc-f", 64 * MIB), device_class=files.name)
    volume = assembly.agent.create(request).volume
    assert volume is not None
    run("vgcreate", "--yes", "inside", volume.device_path)
    assembly.reporter.look_now()
    assert [report.name for report in assembly.stock.reports()] == [str(tmp_path), GROUP]
    run("vgremove", "--force", "--yes", "inside")
    assembly.agent.delete(DeleteVolume(volume_id=VolumeId("pvc-f")))


def test_our_volumes_are_activated_at_start_and_no_others(thick: LvmSite) -> None:
    agent = started(thick, wipe=Wipe.NONE).agent
    for name in "ab":
        agent.create(wanted(f"pvc-{name}", 8 * MIB))
    run("lvcreate", "--yes", "--name", "foreign", "--size", "8m", GROUP)
    run("vgchange", "--activate", "n", GROUP)
    agent = started(thick, wipe=Wipe.NONE).agent
    assert [volume.is_active for volume in agent.volumes()] == [True, True]
    assert Path(agent.get(A).device_path).is_block_device()
    assert not Path(f"/dev/{GROUP}/foreign").exists()


def test_a_suspended_device_elsewhere_hangs_nothing(thick: LvmSite) -> None:
    run("dmsetup", "create", "stuck", "--table", "0 8192 linear /dev/vde 0")
    try:
        run("dmsetup", "suspend", "stuck")
        agent = started(thick, wipe=Wipe.NONE).agent
        agent.create(wanted("pvc-a", 8 * MIB))
        assert agent.delete(DeleteVolume(volume_id=A)).is_new
    finally:
        run("dmsetup", "resume", "stuck")
        run("dmsetup", "remove", "--retry", "stuck")


def test_a_prefix_is_put_before_every_lvm_command(thick: LvmSite) -> None:
    runner = Subprocesses()
    prefix = ("nsenter", "--target", "1", "--mount", "--")
    assembly = assemble(backends(runner, prefix))
    assembly.agent.configure([thick.device_class(Wipe.DISCARD)])
    assembly.agent.create(wanted("pvc-a", 8 * MIB))
    assert assembly.agent.delete(DeleteVolume(volume_id=A)).is_new
    runs = runner.flight_record()
    assert len(runs) >= 5
    assert all(each.argv[: len(prefix) + 1] == (*prefix, "lvm") for each in runs)


@pytest.mark.parametrize("wipe", [Wipe.NONE, Wipe.ZERO])
def test_an_origin_is_not_deleted_under_a_snapshot_that_somebody_made(thick: LvmSite, wipe: Wipe) -> None:
    """LVM itself would remove the snapshot with it."""
    agent = started(thick, wipe=wipe).agent
    agent.create(wanted("pvc-a", 8 * MIB))
    run("lvcreate", "--yes", "--snapshot", "--name", "byhand", "--size", "8m", f"{GROUP}/pvc-a")
    with pytest.raises(VolumeInUseError):
        agent.delete(DeleteVolume(volume_id=A))
    assert {"pvc-a", "byhand"} == set(thick.truth().sizes)
