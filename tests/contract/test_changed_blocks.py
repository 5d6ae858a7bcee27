"""Changed blocks of thin snapshots: exact, read from metadata alone, and nothing held afterwards, whoever dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from node_agent.agent import Agent
from node_agent.assembly import assemble, backends
from node_agent.backends.lvm.tags import METADATA_SNAPSHOT
from node_agent.debts import Debts
from tests.contract.faults import Around, Death, Fate, Programs, Stall, begun, kill_myself, undisturbed
from tests.contract.sites import GROUP, SITES, Site, run, wanted
from ullage.errors import KIB, MIB, InvalidRequestError, NotFoundError, OutOfRangeError, UnavailableError
from ullage.model import (
    ByteRange,
    DeleteVolume,
    ExpandVolume,
    TakeSnapshot,
    Volume,
    VolumeId,
)
from ullage.names import snapshot_id

ROUNDS = int(os.environ.get("ULLAGE_ROUNDS", "12"))
"""Each takes some seconds under emulation, so the suite does fewer than the 200 that a change here is worth."""
CHUNK = 64 * KIB
SECTOR = 512
SIZE_BYTES = 8 * MIB
A = VolumeId("pvc-a")
BASE, TARGET = snapshot_id("the base"), snapshot_id("the target")
POOL = f"{GROUP}-pool0-tpool"

pytestmark = pytest.mark.only_on("thin")

Step = tuple[str, int, int]


def test_base_and_what_changed_make_the_target_and_what_is_allocated_makes_it_alone(site: Site, tmp_path: Path) -> None:
    agent = _agent(site, tmp_path)
    device = _created(agent).device_path
    numbers = count()
    base_id, base = _taken(agent, next(numbers)), bytes(SIZE_BYTES)

    @settings(
        max_examples=ROUNDS,
        phases=[Phase.explicit, Phase.generate],  # a round begins where the last one ended: none can be tried again
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(STEPS)
    def a_round(steps: list[Step]) -> None:
        nonlocal base_id, base
        touched = _done(device, steps)
        target_id = _taken(agent, next(numbers))
        target = _content(target_id)
        changed = list(agent.changed(base_id, target_id).ranges)
        assert _patched(base, target, changed) == target
        assert _patched(bytes(SIZE_BYTES), target, list(agent.allocated(target_id).ranges)) == target
        assert _chunks(changed) <= touched, "what nobody touched has not changed"
        agent.delete(DeleteVolume(volume_id=base_id))
        base_id, base = target_id, target

    a_round()
    assert _held() == "-"
    assert not list(tmp_path.iterdir())


def test_an_origin_that_grew_between_the_two_is_told_to_its_new_end(site: Site, tmp_path: Path) -> None:
    agent = _agent(site, tmp_path)
    device = _created(agent).device_path
    _done(device, [("write", 0, 3), ("write", SIZE_BYTES // SECTOR - 5, 5)])
    agent.snapshot(TakeSnapshot(snapshot_id=BASE, source=A))
    agent.expand(ExpandVolume(volume_id=A, size_bytes=2 * SIZE_BYTES))
    _done(device, [("write", SIZE_BYTES // SECTOR + 300, 200), ("discard", 0, 128)])
    agent.snapshot(TakeSnapshot(snapshot_id=TARGET, source=A))
    answer = agent.changed(BASE, TARGET)
    assert answer.volume_size_bytes == 2 * SIZE_BYTES
    ranges = list(answer.ranges)
    assert _patched(_content(BASE), _content(TARGET), ranges) == _content(TARGET)
    assert _chunks(ranges) == {0, 130, 131}
    assert agent.changed(TARGET, TARGET).volume_size_bytes == 2 * SIZE_BYTES
    assert list(agent.changed(TARGET, TARGET).ranges) == []
    assert _chunks(list(agent.changed(BASE, TARGET, start_bytes=131 * CHUNK).ranges)) == {131}


def test_no_data_is_read_for_it(site: Site, tmp_path: Path) -> None:
    agent = _two(site, tmp_path)
    before = _reads("tdata"), _reads("tmeta")
    assert list(agent.changed(BASE, TARGET).ranges)
    assert list(agent.allocated(TARGET).ranges)
    after = _reads("tdata"), _reads("tmeta")
    assert after[0] == before[0]
    assert after[1] > before[1], "what is counted is counted"


def test_what_cannot_be_told_is_refused_before_anything_is_answered(site: Site, tmp_path: Path) -> None:
    agent = _two(site, tmp_path)
    agent.create(wanted("pvc-b", SIZE_BYTES))
    other = snapshot_id("of another volume")
    agent.snapshot(TakeSnapshot(snapshot_id=other, source=VolumeId("pvc-b")))
    with pytest.raises(InvalidRequestError, match="is no snapshot"):
        agent.allocated(A)
    with pytest.raises(InvalidRequestError, match="is no snapshot"):
        agent.changed(BASE, A)
    with pytest.raises(InvalidRequestError, match="have to be of one volume"):
        agent.changed(BASE, other)
    with pytest.raises(NotFoundError):
        agent.changed(BASE, snapshot_id("never was"))
    for start_bytes in (-1, SIZE_BYTES + 1):
        with pytest.raises(OutOfRangeError, match="is no place in"):
            agent.allocated(BASE, start_bytes=start_bytes)
        with pytest.raises(OutOfRangeError, match="is no place in"):
            agent.changed(BASE, TARGET, start_bytes=start_bytes)
    assert list(agent.changed(BASE, TARGET, start_bytes=SIZE_BYTES).ranges) == []


def test_somebody_elses_metadata_snapshot_is_refused_and_stays(site: Site, tmp_path: Path) -> None:
    agent = _two(site, tmp_path)
    expected = list(agent.changed(BASE, TARGET).ranges)
    run("dmsetup", "message", POOL, "0", "reserve_metadata_snap")
    root = _held()
    for each in (agent, _agent(site, tmp_path)):
        with pytest.raises(UnavailableError, match=f"held by another .its root is block {root}"):
            each.changed(BASE, TARGET)
        assert _held() == root
    run("dmsetup", "message", POOL, "0", "release_metadata_snap")
    assert list(agent.changed(BASE, TARGET).ranges) == expected


def test_two_callers_at_once_both_get_it(site: Site, tmp_path: Path) -> None:
    _two(site, tmp_path)
    stall = Stall(("thin_delta",), times=1)
    agent = _agent(site, tmp_path, stall)
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(lambda: list(agent.changed(BASE, TARGET).ranges))
        stall.wait()
        second = pool.submit(lambda: list(agent.allocated(BASE).ranges))
        assert _held() != "-"
        with pytest.raises(TimeoutError):
            second.result(timeout=3)
        stall.release()
        assert _chunks(first.result()) == {1, 2}
        assert _chunks(second.result()) == {0, 1}
    assert _held() == "-"


def test_a_caller_that_takes_his_time_holds_nothing(site: Site, tmp_path: Path) -> None:
    agent = _two(site, tmp_path)
    slow = agent.allocated(BASE).ranges
    assert _held() == "-"
    assert _chunks(list(agent.changed(BASE, TARGET).ranges)) == {1, 2}
    assert _chunks(list(slow)) == {0, 1}


@pytest.mark.parametrize("is_retaken", [False, True], ids=["deleted", "deleted and taken again"])
def test_a_snapshot_that_goes_while_it_is_read_is_an_error(site: Site, tmp_path: Path, *, is_retaken: bool) -> None:
    """Taken again, it has the number in the pool's metadata that it had before, and other blocks."""
    agent = _two(site, tmp_path)
    stall = Stall(("thin_delta",), times=1)
    reader = _agent(site, tmp_path, stall)
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(lambda: reader.changed(BASE, TARGET))
        stall.wait()
        agent.delete(DeleteVolume(volume_id=TARGET))
        if is_retaken:
            agent.snapshot(TakeSnapshot(snapshot_id=TARGET, source=A))
        stall.release()
        with pytest.raises(UnavailableError if is_retaken else NotFoundError, match=r"meanwhile|no longer"):
            answer.result()
    assert _held() == "-"


def test_a_pool_of_which_no_volume_is_active_is_activated(site: Site, tmp_path: Path) -> None:
    agent = _two(site, tmp_path)
    agent.delete(DeleteVolume(volume_id=A))
    run("vgchange", "--activate", "n", GROUP)
    again = _agent(site, tmp_path)
    assert _chunks(list(again.changed(BASE, TARGET).ranges)) == {1, 2}
    assert _held() == "-"


def test_after_a_death_at_any_program_nothing_is_held_once_it_is_started_again(site: Site, tmp_path: Path) -> None:
    expected = list(_two(site, tmp_path).changed(BASE, TARGET).ranges)
    fate = Fate()
    agent = _agent(site, tmp_path, fate)
    fate.count()
    assert list(agent.changed(BASE, TARGET).ranges) == expected
    steps = fate.steps
    assert [word for step in steps for word in ("reserve_", "thin_delta", "release_") if word in step] == [
        "reserve_",
        "thin_delta",
        "release_",
    ]
    was_held = 0
    for at, is_after in [(0, False), *((at, True) for at in range(len(steps)))]:
        fate = Fate()
        dying = _agent(site, tmp_path, fate)
        fate.doom(at, is_after=is_after)
        with pytest.raises(Death):
            dying.changed(BASE, TARGET)
        was_held += _held() != "-"
        again = _agent(site, tmp_path)
        assert _held() == "-", steps[at]
        assert not list(tmp_path.iterdir()), "no note is left"
        if is_after and "reserve_" in steps[at]:
            assert list(again.changed(BASE, TARGET).ranges) == expected
    assert was_held == 4, "after the reservation, and until the release"


@pytest.mark.parametrize("word", ["reserve_", "thin_delta"])
def test_after_a_real_death_too_and_after_a_boot(site: Site, tmp_path: Path, word: str) -> None:
    _two(site, tmp_path)
    child = multiprocessing.get_context("spawn").Process(target=_die_after, args=(site.name, tmp_path, word))
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert _held() != "-"
    if word == "thin_delta":
        run("vgchange", "--activate", "n", GROUP)  # it is in the pool's metadata: a boot does not release it
    again = _agent(site, tmp_path)
    assert _held() == "-"
    assert not list(tmp_path.iterdir())
    assert _chunks(list(again.changed(BASE, TARGET).ranges)) == {1, 2}


def test_what_a_power_cut_has_left_is_known_by_its_tag_and_released(site: Site, tmp_path: Path) -> None:
    """/run has gone with the power, and the notes in it."""
    _two(site, tmp_path)
    child = multiprocessing.get_context("spawn").Process(target=_die_after, args=(site.name, tmp_path, "thin_delta"))
    child.start()
    child.join()
    for note in tmp_path.iterdir():
        note.unlink()
    run("vgchange", "--activate", "n", GROUP)
    assert METADATA_SNAPSHOT in run("lvs", "--noheadings", "-o", "lv_tags", f"{GROUP}/pool0")
    again = _agent(site, tmp_path)
    assert _held() == "-"
    assert METADATA_SNAPSHOT not in run("lvs", "--noheadings", "-o", "lv_tags", f"{GROUP}/pool0")
    assert not list(tmp_path.iterdir())
    assert _chunks(list(again.changed(BASE, TARGET).ranges)) == {1, 2}


def _die_after(site_name: str, notes: Path, word: str) -> None:
    """In a process of its own."""

    def around(step: str, act):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202 - an Around
        result = act()
        if word in step:
            kill_myself()
        return result

    _agent(SITES[site_name], notes, around).changed(BASE, TARGET)


def _agent(site: Site, notes: Path, around: Around = undisturbed) -> Agent:
    """After a start of the process, its debts noted."""
    kinds = backends(Programs(around, around), debts=Debts(notes))
    return begun(assemble(kinds, store_patience_seconds=20.0), [site.device_class()]).agent


def _created(agent: Agent) -> Volume:
    volume = agent.create(wanted(A, SIZE_BYTES)).volume
    assert volume is not None
    return volume


def _taken(agent: Agent, number: int) -> VolumeId:
    name = snapshot_id(f"number {number}")
    agent.snapshot(TakeSnapshot(snapshot_id=name, source=A))
    return name


def _two(site: Site, notes: Path) -> Agent:
    """BASE has chunks 0 and 1; in TARGET 1 is another and 2 is new."""
    agent = _agent(site, notes)
    device = _created(agent).device_path
    _done(device, [("write", 0, 2 * 128)])
    agent.snapshot(TakeSnapshot(snapshot_id=BASE, source=A))
    _done(device, [("write", 128, 2 * 128)])
    agent.snapshot(TakeSnapshot(snapshot_id=TARGET, source=A))
    return agent


RUNS = st.integers(0, SIZE_BYTES // SECTOR - 1).flatmap(
    lambda begin: st.tuples(st.just(begin), st.integers(1, min(1000, SIZE_BYTES // SECTOR - begin)))
)
WHOLE_CHUNKS = st.tuples(st.integers(0, SIZE_BYTES // CHUNK - 1), st.integers(1, 8)).map(
    lambda run: (run[0] * 128, min(run[1] * 128, SIZE_BYTES // SECTOR - run[0] * 128))
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["write", "zero", "discard"]), st.one_of(RUNS, WHOLE_CHUNKS)).map(
        lambda step: (step[0], *step[1])
    ),
    max_size=12,
)
"""What is done, from which sector on, and to how many."""


def _done(device: str, steps: Sequence[Step]) -> set[int]:
    """Do it, and answer with the chunks that were touched."""
    touched: set[int] = set()
    with Path(device).open("r+b", buffering=0) as file:
        for what, begin, sectors in steps:
            offset, size = begin * SECTOR, sectors * SECTOR
            touched |= set(range(offset // CHUNK, (offset + size - 1) // CHUNK + 1))
            if what == "discard":
                os.fsync(file.fileno())
                run("blkdiscard", "--offset", str(offset), "--length", str(size), device)
            else:
                os.pwrite(file.fileno(), os.urandom(size) if what == "write" else bytes(size), offset)
        os.fsync(file.fileno())
    return touched


def _content(snapshot: VolumeId) -> bytes:
    """As the kernel shows it."""
    name = f"{GROUP}/{snapshot}"
    run("lvchange", "--activate", "y", "--ignoreactivationskip", name)
    content = Path(f"/dev/{name}").read_bytes()
    run("lvchange", "--activate", "n", name)
    return content


def _patched(base: bytes, target: bytes, ranges: Sequence[ByteRange]) -> bytes:
    result = bytearray(base.ljust(len(target), b"\0"))
    for each in ranges:
        end = each.offset_bytes + each.size_bytes
        assert end <= len(target)
        result[each.offset_bytes : end] = target[each.offset_bytes : end]
    return bytes(result)


def _chunks(ranges: Sequence[ByteRange]) -> set[int]:
    return {
        chunk
        for each in ranges
        for chunk in range(each.offset_bytes // CHUNK, -(-(each.offset_bytes + each.size_bytes) // CHUNK))
    }


def _held() -> str:
    """The root of the pool's metadata snapshot, or `-`."""
    return run("dmsetup", "status", "--noflush", POOL).split()[6]


def _reads(part: str) -> int:
    """How often the pool's data or metadata has been read since it was activated."""
    (block,) = (
        each
        for each in Path("/sys/class/block").glob("dm-*")
        if (each / "dm/name").read_text().strip() == f"{GROUP}-pool0_{part}"
    )
    return int((block / "stat").read_text().split()[0])
