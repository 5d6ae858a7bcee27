"""Whether anything was ever written to a volume: the same answer on every kind of storage."""

from __future__ import annotations

import os
from contextlib import nullcontext
from pathlib import Path

import pytest

from node_agent.agent import Agent
from tests.contract.sites import Site, started, wanted
from ullage.errors import InvalidRequestError, NotFoundError
from ullage.model import DeleteVolume, Examine, Examined, TakeSnapshot, VolumeId, Wipe
from ullage.names import snapshot_id

A = VolumeId("pvc-a")
WHATEVER_LAYOUT = pytest.mark.only_on("file", "thick", "thin", "raid1-integrity")


def examined(agent: Agent, volume_id: VolumeId = A, asked: str = "now") -> Examined:
    request = Examine(volume_id=volume_id, asked=asked)
    return agent.examine(request, alone=nullcontext, is_wanted=lambda: True)


@WHATEVER_LAYOUT
def test_a_new_volume_is_unwritten_until_its_last_byte_is_written(site: Site) -> None:
    agent = started(site, wipe=Wipe.ZERO).agent
    volume = agent.create(wanted("pvc-a", 3 * site.step_bytes)).volume
    assert volume is not None
    before = site.truth()
    found = examined(agent)
    assert found.is_unwritten, found
    assert site.truth() == before
    last = volume.size_bytes - 1
    with Path(volume.device_path).open("r+b", buffering=0) as device:
        device.seek(last)
        device.write(b"x")
        os.fsync(device)
    again = examined(agent, asked="again")
    assert (again.is_unwritten, again.reason) == (False, "Written")
    assert again.message.endswith(f"byte {last}")
    agent.delete(DeleteVolume(volume_id=A))
    with pytest.raises(NotFoundError):
        examined(agent, asked="afterwards")


@WHATEVER_LAYOUT
def test_what_somebody_has_for_himself_is_in_use(site: Site) -> None:
    agent = started(site, wipe=Wipe.ZERO).agent
    volume = agent.create(wanted("pvc-a", site.step_bytes)).volume
    assert volume is not None
    holder = os.open(volume.device_path, os.O_RDONLY | os.O_EXCL)
    try:
        assert examined(agent).reason == "InUse"
    finally:
        os.close(holder)


@pytest.mark.only_on("file", "thin")
def test_a_snapshot_is_no_volume_to_be_examined(site: Site) -> None:
    agent = started(site, wipe=Wipe.ZERO).agent
    agent.create(wanted("pvc-a", site.step_bytes))
    snapshot = snapshot_id("one")
    agent.snapshot(TakeSnapshot(snapshot_id=snapshot, source=A))
    with pytest.raises(InvalidRequestError):
        examined(agent, snapshot)
