"""Copies of files that share their blocks, through the agent: deaths at every change, and the room that is promised."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import count
from pathlib import Path

import pytest

from node_agent.agent import Agent
from tests.contract.faults import Death, Disturbed, Fate, begun, idle
from tests.contract.sites import OLD_BYTES, Site, started, wanted
from ullage.errors import MIB, InsufficientCapacityError
from ullage.model import DeleteVolume, TakeSnapshot, Volume, VolumeId, VolumeState
from ullage.names import snapshot_id

A = VolumeId("pvc-a")
S = snapshot_id("the snapshot")
TAKE = TakeSnapshot(snapshot_id=S, source=A)
SIZE_BYTES = 8 * MIB

pytestmark = pytest.mark.only_on("file-reflink")


@pytest.mark.parametrize("what", ["snapshot", "larger copy"])
def test_a_death_at_any_change_converges(site: Site, what: str) -> None:
    size_bytes = SIZE_BYTES if what == "snapshot" else 2 * SIZE_BYTES

    def deed(agent: Agent) -> Volume:
        done = agent.snapshot(TAKE) if what == "snapshot" else agent.create(wanted("pvc-b", size_bytes, source=A))
        return _volume(done.volume)

    _write(_volume(started(site).agent.create(wanted("pvc-a", SIZE_BYTES)).volume), OLD_BYTES)
    for at in count():  # before the first change and after each, until there are no more of them
        fate = Fate()
        dying = begun(Disturbed(change=fate, files=fate).assembly(), [site.device_class()])
        fate.doom(max(0, at - 1), is_after=at > 0)
        with suppress(Death):
            deed(dying.agent)
            break
        idle(dying)
        again = begun(Disturbed().assembly(), [site.device_class()]).agent
        assert all(volume.state is VolumeState.READY for volume in again.volumes()), fate.steps
        found = deed(again)
        assert (found.size_bytes, site.truth().sizes[found.id]) == (size_bytes, size_bytes)
        assert found.is_active == (what != "snapshot")
        assert what == "snapshot" or _read(found) == OLD_BYTES
        assert site.leftovers() == []
        again.delete(DeleteVolume(volume_id=found.id))
    assert at > 6


def test_room_is_kept_for_all_that_may_be_written_again(site: Site) -> None:
    agent = started(site).agent
    origin = _volume(agent.create(wanted("pvc-a", 400 * MIB)).volume)
    _write(origin, b"\1" * 100 * MIB)
    (pool,) = agent.pools()
    agent.snapshot(TAKE)
    agent.snapshot(TakeSnapshot(snapshot_id=snapshot_id("a second"), source=A))
    (after,) = started(site).agent.pools()
    assert 100 * MIB <= pool.free_bytes - after.free_bytes <= 104 * MIB
    with pytest.raises(InsufficientCapacityError, match="can be copied within"):
        agent.create(wanted("pvc-b", 2 * after.free_bytes, source=S))


def _volume(volume: Volume | None) -> Volume:
    assert volume is not None
    return volume


def _write(volume: Volume, content: bytes) -> None:
    with Path(volume.device_path).open("r+b", buffering=0) as device:
        device.write(content)
        os.fsync(device.fileno())


def _read(volume: Volume) -> bytes:
    with Path(volume.device_path).open("rb") as device:
        return device.read(len(OLD_BYTES))
