"""Programs that hang or are killed, full and missing stores, volumes not ours: the right code, and nothing lost."""

from __future__ import annotations

import fcntl
import functools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from grpc import StatusCode

from node_agent.agent import Agent
from node_agent.assembly import Assembly
from node_agent.status import code_of
from tests.contract.faults import (
    HANGING,
    Disturbed,
    Fate,
    Hanging,
    KilledHalfway,
    Stall,
    be_killed,
    begun,
    code_from,
    has_device,
    idle,
)
from tests.contract.sites import DISKS, GROUP, OLD_BYTES, OTHER_CLASS, LvmSite, Site, run, wanted
from ullage.errors import NotFoundError, PendingOperationError, StillRunningError
from ullage.model import DeleteVolume, ExpandVolume, VolumeId, VolumeState, Wipe

A, B = VolumeId("pvc-a"), VolumeId("pvc-b")


def begun_on(site: Site, disturbed: Disturbed | None = None, wipe: Wipe = Wipe.NONE) -> Assembly:
    return begun((disturbed or Disturbed()).assembly(), [site.device_class(wipe)])


def creating(site: Site) -> Stall:
    """Holds up the program that makes pvc-a or its device."""
    return Stall(("lvcreate", A) if site.is_lvm else ("losetup --find", A))


@pytest.mark.only_on("file", "thick", "thin")
def test_a_changing_program_that_hangs_keeps_only_its_own_volume(site: Site) -> None:
    stall = creating(site)
    request = wanted(A, site.step_bytes)
    with site.second() as other:
        assembly = begun(Disturbed(change=stall).assembly(), [site.device_class(Wipe.NONE), other])
        agent = assembly.agent
        with pytest.raises(StillRunningError) as patience:
            agent.create(request, patience_seconds=0.01)
        assert code_of(patience.value) is StatusCode.DEADLINE_EXCEEDED
        stall.wait()
        assert code_from(lambda: agent.create(request, patience_seconds=0.01)) is StatusCode.DEADLINE_EXCEEDED
        assert code_from(lambda: agent.expand(ExpandVolume(volume_id=A, size_bytes=1))) is StatusCode.ABORTED
        assert code_from(lambda: agent.delete(DeleteVolume(volume_id=A))) is StatusCode.ABORTED
        elsewhere = agent.create(wanted(B, site.step_bytes, device_class=OTHER_CLASS)).volume
        assert elsewhere is not None
        assert agent.get(B) == elsewhere
        assert [pool for pool in agent.pools() if pool.problem is not None] == []
        agent.delete(DeleteVolume(volume_id=B))
        stall.release()
        idle(assembly)
        assert stall.count == 1
        found = agent.create(request)
        assert not found.is_new
        assert found.volume is not None
        assert found.volume.size_bytes == site.truth().sizes[A] == site.step_bytes


@pytest.mark.only_on("thick")
def test_lvm_that_waits_for_its_own_lock_is_waited_for_and_never_killed(site: Site) -> None:
    """Another LVM command that hangs holds the group's lock file."""
    assembly = begun_on(site)
    with open(f"/run/lock/lvm/V_{GROUP}", "w") as lock:  # noqa: PTH123 - as LVM opens it
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert (
            code_from(lambda: assembly.agent.create(wanted(A, 1), patience_seconds=0.5)) is StatusCode.DEADLINE_EXCEEDED
        )
        assert assembly.agent.volumes() == ()
        with pytest.raises(PendingOperationError):
            assembly.agent.delete(DeleteVolume(volume_id=A))
    idle(assembly)
    assert not assembly.agent.create(wanted(A, 1)).is_new
    assert list(site.truth().sizes) == [A]


@pytest.mark.only_on("thick", "thin")
def test_a_looking_program_that_hangs_is_killed_and_makes_its_own_store_unavailable(site: Site) -> None:
    hanging = Hanging(words=("/dev/vda",))
    with site.second() as other:
        assembly = begun(Disturbed(look=hanging).assembly(), [site.device_class(Wipe.NONE), other])
        agent = assembly.agent
        agent.create(wanted(A, site.step_bytes))
        hanging.is_on = True
        assembly.reporter.look_now()
        assert hanging.count >= 1
        problems = {pool.store: pool.problem.reason if pool.problem else "" for pool in agent.pools()}
        assert problems == {GROUP: "CommandTimedOut", other.volume_groups[0]: ""}
        assert not [line for line in run("ps", "-eo", "args").splitlines() if line == " ".join(HANGING)]
        assert agent.get(A).size_bytes == site.step_bytes
        assert code_from(lambda: agent.get(B)) is StatusCode.UNAVAILABLE
        assert code_from(lambda: agent.create(wanted(B, 1))) is StatusCode.UNAVAILABLE
        assert code_from(lambda: agent.delete(DeleteVolume(volume_id=A))) is StatusCode.UNAVAILABLE
        assert code_from(lambda: agent.delete(DeleteVolume(volume_id=B))) is StatusCode.UNAVAILABLE
        assert agent.create(wanted(B, 1, device_class=OTHER_CLASS)).is_new
        hanging.is_on = False
        assembly.reporter.look_now()
        assert all(pool.problem is None for pool in agent.pools())
        assert agent.delete(DeleteVolume(volume_id=A)).is_new


@pytest.mark.parametrize(
    ("part", "wipe"),
    [
        pytest.param("", Wipe.DISCARD, marks=pytest.mark.only_on("lvm")),
        pytest.param("_rmeta_0", Wipe.DISCARD, marks=pytest.mark.only_on("raid1", "raid1-integrity")),
        pytest.param("_rimage_0_imeta", Wipe.DISCARD, marks=pytest.mark.only_on("raid1-integrity")),
        pytest.param("_rmeta_0", Wipe.NONE, marks=pytest.mark.only_on("raid1")),
    ],
)
def test_lvm_killed_in_the_middle_of_a_create_is_asked_again(site: Site, part: str, wipe: Wipe) -> None:
    """Killed when the kernel has the volume's device (it is gone on with), or that of RAID's metadata (begun again)."""
    device = f"{GROUP}-pvc--a{part}"
    killing = KilledHalfway(words=("lvcreate", A), is_half_done=lambda: has_device(device))
    agent = begun_on(site, Disturbed(change=killing), wipe).agent
    try:
        assert code_from(lambda: agent.create(wanted(A, 2 * site.step_bytes))) in (OK, StatusCode.UNAVAILABLE)
        assert len(killing.exit_codes) == 1
        assembly = begun_on(site, wipe=wipe)
        volume = assembly.agent.create(wanted(A, 2 * site.step_bytes)).volume
        assert volume is not None
        assert (volume.state, volume.size_bytes) == (VolumeState.READY, 2 * site.step_bytes)
        assembly.reporter.look_now()
        assert assembly.agent.get(A).layout == site.device_class().layout or site.name == "thin"
        _write(volume.device_path)
        assert site.truth().sizes == {A: 2 * site.step_bytes}
        assert not [orphan for report in assembly.stock.reports() for orphan in report.orphans]
        assembly.agent.delete(DeleteVolume(volume_id=A))
        assert site.truth().sizes == {}
    finally:
        run("dmsetup", "udevcomplete_all", "--yes")  # what a kill leaves, and why the agent never kills
    assert site.leftovers() == []


OK = StatusCode.OK


@pytest.mark.only_on("file", "thick", "thin", "raid1")
def test_a_store_that_somebody_filled_refuses_and_keeps_what_it_has(site: Site) -> None:
    """Behind the agent's back: its own numbers still say that there is room."""
    agent = begun_on(site).agent
    if site.name != "thin":
        agent.create(wanted(A, site.step_bytes))
    with site.full():
        before = site.truth()
        assert code_from(lambda: agent.create(wanted(B, site.step_bytes))) is StatusCode.RESOURCE_EXHAUSTED
        if site.name != "thin":
            growth = ExpandVolume(volume_id=A, size_bytes=3 * site.step_bytes)
            assert code_from(lambda: agent.expand(growth)) is StatusCode.RESOURCE_EXHAUSTED
            assert agent.get(A).state is VolumeState.READY
            assert agent.get(A).size_bytes == site.step_bytes
        assert site.truth() == before
        assert site.leftovers() == [] or not site.is_lvm
    assert agent.create(wanted(B, site.step_bytes)).is_new


@pytest.mark.only_on("file", "thick", "thin")
def test_a_store_that_is_missing_is_never_taken_for_gone_volumes(site: Site) -> None:
    with site.second() as other:
        classes = [site.device_class(Wipe.NONE), other]
        assembly = begun(Disturbed().assembly(), classes)
        agent = assembly.agent
        volume = agent.create(wanted(A, site.step_bytes)).volume
        assert volume is not None
        _write(volume.device_path)
        before = site.truth()
        with site.lose_store():
            assembly.reporter.look_now()
            assert agent.get(A).id == A
            assert [each.id for each in agent.volumes()] == [A]
            _changes_are_refused(agent, site)
            if site.is_lvm:  # an agent that never saw the directory's marker takes an empty one for a new store
                restarted = begun(Disturbed().assembly(), classes).agent
                assert code_from(lambda: restarted.get(A)) is StatusCode.UNAVAILABLE
                _changes_are_refused(restarted, site)
            assert agent.create(wanted("pvc-c", 1, device_class=OTHER_CLASS)).is_new
            assert agent.delete(DeleteVolume(volume_id=VolumeId("pvc-c"))).is_new
        assert site.truth() == before
        assembly.reporter.look_now()
        assert agent.get(A).problem is None
        assert _read(agent.get(A).device_path) == OLD_BYTES
        assert agent.delete(DeleteVolume(volume_id=A)).is_new


@pytest.mark.only_on("file", "thick", "thin")
def test_a_store_that_vanishes_between_two_looks_is_not_changed(site: Site) -> None:
    """The agent has not noticed yet; the change itself finds out."""
    assembly = begun_on(site)
    assembly.agent.create(wanted(A, site.step_bytes))
    before = site.truth()
    with site.lose_store():
        _changes_are_refused(assembly.agent, site)
    assert site.truth() == before


def _changes_are_refused(agent: Agent, site: Site, gone: StatusCode = StatusCode.UNAVAILABLE) -> None:
    assert code_from(lambda: agent.delete(DeleteVolume(volume_id=A))) is StatusCode.UNAVAILABLE
    growth = ExpandVolume(volume_id=A, size_bytes=2 * site.step_bytes)
    assert code_from(lambda: agent.expand(growth)) is StatusCode.UNAVAILABLE
    assert code_from(lambda: agent.create(wanted(B, site.step_bytes))) is StatusCode.UNAVAILABLE
    assert code_from(lambda: agent.delete(DeleteVolume(volume_id=B))) is gone


@pytest.mark.only_on("thick", "raid1", "thin")
def test_a_group_with_a_missing_disk_lists_its_volumes_and_changes_nothing(site: Site) -> None:
    assert isinstance(site, LvmSite)
    assembly = begun_on(site)
    agent = assembly.agent
    agent.create(wanted(A, site.step_bytes))
    before = site.truth()
    with site.lose_disks(DISKS[-1]):
        # Before and after the agent has noticed. The other disks tell which volumes there are: pvc-b is not.
        _changes_are_refused(agent, site, gone=StatusCode.OK)
        assembly.reporter.look_now()
        _changes_are_refused(agent, site, gone=StatusCode.OK)
        assert [pool.problem.reason for pool in agent.pools() if pool.problem] == ["PhysicalVolumeMissing"]
        assert agent.get(A).size_bytes == site.step_bytes
    assert site.truth() == before
    assembly.reporter.look_now()
    assert [pool.problem for pool in agent.pools()] == [None]
    assert agent.expand(ExpandVolume(volume_id=A, size_bytes=2 * site.step_bytes)).is_new
    assert agent.delete(DeleteVolume(volume_id=A)).is_new


@pytest.mark.only_on("file", "thick")
@pytest.mark.parametrize("tagged_as", ["", B], ids=["without our mark", "with another's mark"])
def test_a_volume_of_our_name_that_is_not_ours_is_left_alone(site: Site, tagged_as: str) -> None:
    agent = begun_on(site).agent
    agent.create(wanted("pvc-first", 1))
    site.make_foreign(A, 2 * site.step_bytes, tagged_as)
    before = site.truth()
    assert code_from(lambda: agent.create(wanted(A, 2 * site.step_bytes))) in TAKEN
    for volume_id in (A, B):
        _is_left_alone(agent, volume_id, 3 * site.step_bytes)
    assert site.truth() == before
    site.remove_foreign(A)


TAKEN = (StatusCode.ALREADY_EXISTS, StatusCode.FAILED_PRECONDITION)
NOT_OURS = (StatusCode.OK, StatusCode.FAILED_PRECONDITION)
"""Ours is gone, or this is not it."""


@pytest.mark.only_on("file", "thick")
@pytest.mark.parametrize("wipe", [Wipe.NONE, Wipe.DISCARD])
def test_a_volume_that_was_replaced_by_hand_is_not_ours_any_more(site: Site, wipe: Wipe) -> None:
    """The agent still believes in its own; the change itself looks."""
    agent = begun_on(site, wipe=wipe).agent
    volume = agent.create(wanted(A, site.step_bytes)).volume
    assert volume is not None
    agent.create(wanted("pvc-first", 1))
    site.remove_foreign(A)
    site.make_foreign(A, site.step_bytes)
    if site.is_lvm:
        _write(volume.device_path)
    before = site.truth()
    growth = ExpandVolume(volume_id=A, size_bytes=2 * site.step_bytes)
    changes: tuple[Callable[[Agent], object], ...] = (
        lambda agent: agent.expand(growth),
        lambda agent: agent.delete(DeleteVolume(volume_id=A)),
    )
    for change in changes:
        mistaken = begun_on(site, wipe=wipe)  # one agent for each change: a refusal makes it look
        mistaken.stock.apply(volume.store, None, volume)
        answer = code_from(functools.partial(change, mistaken.agent))
        assert answer in (StatusCode.FAILED_PRECONDITION, StatusCode.UNAVAILABLE)
        assert site.truth() == before
    if site.is_lvm:
        assert _read(volume.device_path) == OLD_BYTES
    site.remove_foreign(A)


@pytest.mark.parametrize("wipe", [Wipe.DISCARD, Wipe.ZERO])
@pytest.mark.only_on("file", "thick")
def test_a_mounted_volume_grows_and_keeps_its_files(site: Site, wipe: Wipe, tmp_path: Path) -> None:
    agent = begun_on(site, wipe=wipe).agent
    volume = agent.create(wanted(A, 4 * site.step_bytes)).volume
    assert volume is not None
    run("mkfs.ext4", "-q", volume.device_path)
    with _mounted(volume.device_path, tmp_path):
        content = os.urandom(1 << 20)
        (tmp_path / "file").write_bytes(content)
        grown = agent.expand(ExpandVolume(volume_id=A, size_bytes=8 * site.step_bytes)).volume
        assert grown is not None
        assert (grown.state, grown.size_bytes) == (VolumeState.READY, 8 * site.step_bytes)
        assert (tmp_path / "file").read_bytes() == content
        assert code_from(lambda: agent.delete(DeleteVolume(volume_id=A))) is StatusCode.FAILED_PRECONDITION
    with _mounted(volume.device_path, tmp_path):
        assert (tmp_path / "file").read_bytes() == content
    assert agent.delete(DeleteVolume(volume_id=A)).is_new


@contextmanager
def _mounted(device_path: str, place: Path) -> Iterator[None]:
    run("mount", device_path, str(place))
    try:
        yield
    finally:
        run("umount", str(place))


def _is_left_alone(agent: Agent, volume_id: VolumeId, size_bytes: int) -> None:
    """It is not listed, or as one with a problem and without a class of ours."""
    growth = ExpandVolume(volume_id=volume_id, size_bytes=size_bytes)
    assert code_from(lambda: agent.expand(growth)) is not StatusCode.OK
    assert code_from(lambda: agent.delete(DeleteVolume(volume_id=volume_id))) in NOT_OURS
    try:
        found = agent.get(volume_id)
    except NotFoundError:
        return
    assert found.problem is not None
    assert found.device_class == ""


def _write(device_path: str) -> None:
    with open(device_path, "r+b", buffering=0) as device:  # noqa: PTH123 - a device
        device.write(OLD_BYTES)
        os.fsync(device.fileno())


def _read(device_path: str) -> bytes:
    with open(device_path, "rb", buffering=0) as device:  # noqa: PTH123 - a device
        return device.read(len(OLD_BYTES))


@pytest.mark.only_on("file")  # a step of the port fails alike everywhere
def test_a_creation_that_was_done_though_it_failed_is_gone_on_with(site: Site) -> None:
    fate = Fate(be_killed, is_final=False)
    agent = begun(Disturbed(port=fate).assembly(), [site.device_class()]).agent
    agent.create(wanted("pvc-before", site.step_bytes))
    fate.doom(0, is_after=True)
    volume = agent.create(wanted("pvc-a", site.step_bytes)).volume
    assert "create" in fate.steps[0]
    assert volume is not None
    assert volume.state is VolumeState.READY
    assert set(site.truth().sizes) == {"pvc-before", "pvc-a"}
