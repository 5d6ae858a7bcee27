"""A volume's life, on every kind of storage: what the agent says is what a second look finds."""

from __future__ import annotations

import os
from dataclasses import replace

import pytest

from tests.contract.sites import CLASS, DISKS, Site, started, wanted
from ullage.capacity import largest_volume_bytes
from ullage.errors import (
    ConflictError,
    InsufficientCapacityError,
    NotFoundError,
    NotOursError,
    UnavailableError,
    VolumeInUseError,
)
from ullage.model import DeleteVolume, ExpandVolume, ModifyVolume, PoolName, VolumeId, VolumeState, Wipe

A = VolumeId("pvc-a")

WHATEVER_LAYOUT = pytest.mark.only_on("file", "thick", "thin", "raid1-integrity")
"""What does not hang on how LVM lays out a volume: the plain kinds show it, and the layout with most parts."""


def test_a_volume_comes_grows_and_goes_as_the_agent_says(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    step = site.step_bytes
    done = agent.create(wanted("pvc-a", 3 * step - 1))
    assert done.is_new
    assert done.volume is not None
    assert done.volume.size_bytes == site.truth().sizes["pvc-a"] == 3 * step
    assert done.volume.state is VolumeState.READY
    with open(done.volume.device_path, "rb") as device:  # noqa: PTH123 - a device
        assert device.seek(0, os.SEEK_END) == 3 * step
    grown = agent.expand(ExpandVolume(volume_id=A, size_bytes=5 * step - 7))
    assert grown.volume is not None
    assert grown.volume.size_bytes == site.truth().sizes["pvc-a"] == 5 * step
    assert agent.delete(DeleteVolume(volume_id=A)).is_new
    assert site.truth().sizes == {}
    assert not os.path.exists(done.volume.device_path) or not site.is_lvm  # noqa: PTH110 - a device


def test_what_is_answered_at_once_is_what_the_next_report_says(site: Site) -> None:
    assembly = started(site, wipe=Wipe.NONE)
    assembly.agent.create(wanted("pvc-a", 3 * site.step_bytes))
    answered = assembly.agent.expand(ExpandVolume(volume_id=A, size_bytes=5 * site.step_bytes)).volume
    pools = assembly.agent.pools()
    assembly.reporter.look_now()
    assert answered is not None
    assert replace(assembly.agent.get(A), is_open=False) == replace(answered, is_open=False)
    assert [pool.free_bytes for pool in assembly.agent.pools()] == [pool.free_bytes for pool in pools]


@WHATEVER_LAYOUT
def test_a_repetition_finds_what_is_there(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    first = agent.create(wanted("pvc-a", site.step_bytes))
    again = agent.create(wanted("pvc-a", site.step_bytes))
    assert not again.is_new
    assert again.volume == first.volume
    assert not agent.expand(ExpandVolume(volume_id=A, size_bytes=1)).is_new
    agent.delete(DeleteVolume(volume_id=A))
    assert not agent.delete(DeleteVolume(volume_id=A)).is_new
    assert not agent.delete(DeleteVolume(volume_id=VolumeId("never-was"))).is_new


@WHATEVER_LAYOUT
def test_an_id_that_is_taken_is_never_answered_with_another_volume(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    agent.create(wanted("pvc-a", 2 * site.step_bytes))
    before = site.truth()
    with pytest.raises(ConflictError):
        agent.create(wanted("pvc-a", 3 * site.step_bytes))
    with pytest.raises(ConflictError):
        agent.create(wanted("pvc-a", site.step_bytes, limit_bytes=site.step_bytes))
    with pytest.raises(ConflictError):
        agent.create(wanted("pvc-a", 2 * site.step_bytes, pool=PoolName("elsewhere")))
    assert site.truth() == before


@WHATEVER_LAYOUT
def test_who_owns_a_volume_is_written_on_it(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    done = agent.create(wanted("pvc-a", site.step_bytes))
    assert done.volume is not None
    if site.is_lvm:
        assert {
            "ullage.io/volume=pvc-a",
            f"ullage.io/class={CLASS}",
            "ullage.io/pv=pv-pvc-a",
            "ullage.io/namespace=default",
            "ullage.io/claim=pvc-a",
            "ullage.io/uid=u-1",
        } <= site.truth().tags["pvc-a"]
    again = started(site, wipe=Wipe.NONE).agent.get(A)
    assert again.owner == done.volume.owner
    assert again.device_class == CLASS
    assert again.size_bytes == done.volume.size_bytes


@WHATEVER_LAYOUT
def test_a_restarted_agent_knows_what_it_made(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    made = [agent.create(wanted(f"pvc-{name}", site.step_bytes)).volume for name in "abc"]
    again = started(site, wipe=Wipe.NONE).agent
    assert [(volume.id, volume.size_bytes, volume.pool) for volume in again.volumes()] == [
        (volume.id, volume.size_bytes, volume.pool) for volume in made if volume is not None
    ]


@pytest.mark.parametrize("wipe", [Wipe.DISCARD, Wipe.ZERO])
def test_a_new_volume_never_shows_an_earlier_ones_bytes(site: Site, wipe: Wipe) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    size = 6 * site.step_bytes
    old = agent.create(wanted("pvc-old", size)).volume
    assert old is not None
    _fill(old.device_path, size)
    agent.delete(DeleteVolume(volume_id=old.id))
    agent = started(site, wipe=wipe).agent
    new = agent.create(wanted("pvc-new", 2 * site.step_bytes)).volume
    assert new is not None
    assert _is_zero(new.device_path)
    grown = agent.expand(ExpandVolume(volume_id=new.id, size_bytes=5 * site.step_bytes)).volume
    assert grown is not None
    assert grown.state is VolumeState.READY
    assert _is_zero(grown.device_path)


def test_growing_leaves_the_bytes_that_were_there(site: Site) -> None:
    agent = started(site, wipe=Wipe.ZERO).agent
    volume = agent.create(wanted("pvc-a", site.step_bytes)).volume
    assert volume is not None
    _fill(volume.device_path, site.step_bytes)
    with open(volume.device_path, "rb") as held:  # noqa: PTH123 - online: somebody has it open
        agent.expand(ExpandVolume(volume_id=A, size_bytes=3 * site.step_bytes))
        assert held.read(site.step_bytes) == PATTERN * (site.step_bytes // len(PATTERN))


@WHATEVER_LAYOUT
@pytest.mark.parametrize("wipe", [Wipe.NONE, Wipe.DISCARD])
def test_a_volume_that_is_open_is_not_deleted(site: Site, wipe: Wipe) -> None:
    agent = started(site, wipe=wipe).agent
    volume = agent.create(wanted("pvc-a", site.step_bytes)).volume
    assert volume is not None
    _fill(volume.device_path, site.step_bytes)
    descriptor = os.open(volume.device_path, os.O_RDWR | os.O_EXCL)
    try:
        with pytest.raises(VolumeInUseError):
            agent.delete(DeleteVolume(volume_id=A))
        assert os.pread(descriptor, len(PATTERN), 0) == PATTERN
        assert agent.get(A).state is VolumeState.READY
    finally:
        os.close(descriptor)
    assert agent.delete(DeleteVolume(volume_id=A)).is_new


@WHATEVER_LAYOUT
def test_a_volume_is_only_deleted_from_where_its_object_says_it_is(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    agent.create(wanted("pvc-a", site.step_bytes))
    with pytest.raises(NotOursError):
        agent.delete(DeleteVolume(volume_id=A, pool=PoolName("elsewhere")))
    assert "pvc-a" in site.truth().sizes


@WHATEVER_LAYOUT
def test_a_volume_that_may_be_in_a_pool_that_is_not_here_is_not_said_to_be_gone(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    with pytest.raises(UnavailableError, match="elsewhere is none of this node's pools"):
        agent.delete(DeleteVolume(volume_id=A, pool=PoolName("elsewhere")))
    assert not agent.delete(DeleteVolume(volume_id=A, pool=agent.pools()[0].name)).is_new


def test_more_than_there_is_is_refused_with_the_numbers_and_changes_nothing(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    agent.create(wanted("pvc-a", site.step_bytes))
    before = site.truth()
    with pytest.raises(InsufficientCapacityError) as refusal:
        agent.create(wanted("pvc-b", 1 << 50))
    assert "1024.0 TiB wanted" in str(refusal.value)
    assert "free after reserve" in str(refusal.value)
    with pytest.raises(InsufficientCapacityError):
        agent.expand(ExpandVolume(volume_id=A, size_bytes=1 << 50))
    assert site.truth() == before


def test_the_largest_volume_that_a_pool_offers_is_there_and_one_byte_more_is_not(site: Site) -> None:
    """The pool's own number, for the class's layout, asked for and refused, until the pool offers none."""
    assembly = started(site, wipe=Wipe.NONE)

    def largest() -> int:
        return largest_volume_bytes(assembly.agent.pools()[0], site.device_class().layout)

    made = 0
    while largest() >= site.step_bytes:
        size_bytes = largest()
        with pytest.raises(InsufficientCapacityError):
            assembly.agent.create(wanted("pvc-larger", size_bytes + 1))
        done = assembly.agent.create(wanted(f"pvc-{made}", size_bytes))
        assert done.volume is not None
        assert done.volume.size_bytes == site.truth().sizes[f"pvc-{made}"] == size_bytes
        assembly.reporter.look_now()
        made += 1
    layout = site.device_class().layout
    assert made == (len(DISKS) // layout.images if layout.is_spread else 1)


@WHATEVER_LAYOUT
def test_a_volume_takes_another_wipe_policy_and_keeps_its_bytes(site: Site) -> None:
    agent = started(site, wipe=Wipe.NONE).agent
    volume = agent.create(wanted("pvc-a", site.step_bytes, wipe=Wipe.ZERO)).volume
    assert volume is not None
    assert volume.wipe is Wipe.ZERO
    _fill(volume.device_path, site.step_bytes)
    with open(volume.device_path, "rb") as held:  # noqa: PTH123 - somebody has it open
        assert agent.modify(ModifyVolume(volume_id=A, wipe=Wipe.SIGNATURES)).is_new
        assert held.read(site.step_bytes) == PATTERN * (site.step_bytes // len(PATTERN))
    assert not agent.modify(ModifyVolume(volume_id=A, wipe=Wipe.SIGNATURES)).is_new
    if site.is_lvm:
        assert [tag for tag in site.truth().tags["pvc-a"] if "wipe" in tag] == ["ullage.io/wipe=signatures"]
    again = started(site, wipe=Wipe.NONE).agent
    assert again.get(A).wipe is Wipe.SIGNATURES
    with pytest.raises(NotFoundError):
        again.modify(ModifyVolume(volume_id=VolumeId("never-was"), wipe=Wipe.NONE))


@WHATEVER_LAYOUT
def test_what_is_not_there_is_not_found(site: Site) -> None:
    agent = started(site).agent
    with pytest.raises(NotFoundError):
        agent.get(A)
    with pytest.raises(NotFoundError):
        agent.expand(ExpandVolume(volume_id=A, size_bytes=site.step_bytes))


PATTERN = b"an earlier tenant's secret bytes" * 128


def _fill(path: str, size_bytes: int) -> None:
    with open(path, "r+b", buffering=0) as device:  # noqa: PTH123 - a device
        device.writelines(PATTERN for _ in range(size_bytes // len(PATTERN)))
        os.fsync(device.fileno())


def _is_zero(path: str) -> bool:
    with open(path, "rb") as device:  # noqa: PTH123 - a device
        return not any(any(chunk) for chunk in iter(lambda: device.read(1 << 20), b""))
