"""The file backend says what is there, and what it does not know it does not touch."""

from __future__ import annotations

import hashlib
import json
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from node_agent.backends.file.directory import Directory, Entry
from node_agent.backends.file.files import DurableFiles
from node_agent.backends.port import StoreReport
from node_agent.stock import Stock
from tests.host.copies_rig import directory_on
from tests.host.file_rig import MIB, Rig, ran
from ullage.capacity import Allocation
from ullage.errors import DeviceError, InsufficientCapacityError, NotOursError, PoolUnavailableError
from ullage.model import DeviceClassName, DeviceType, PoolName, VolumeState


def fingerprint(directory: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in directory.iterdir() if p.is_file()}


def test_a_look_changes_nothing(rig: Rig) -> None:
    rig.report()
    assert rig.names() == set()
    rig.create()
    before = fingerprint(rig.directory)
    rig.report()
    assert fingerprint(rig.directory) == before


def test_a_directory_that_was_never_used_is_a_pool_to_be_made(rig: Rig) -> None:
    (pool,) = rig.report().pools
    assert (pool.exists, pool.type, pool.name) == (False, DeviceType.FILE, PoolName(str(rig.directory)))
    assert pool.free_bytes > 0
    rig.backend.make_pool(pool, rig.device_class)
    assert rig.report().pools[0].exists
    marker = (rig.directory / ".ullage.json").read_bytes()
    rig.backend.make_pool(pool, rig.device_class)
    assert (rig.directory / ".ullage.json").read_bytes() == marker


def test_classes_on_one_directory_share_one_pool_with_the_largest_reserve(root: Path) -> None:
    rig = Rig(directory_on("ext4", root))
    free_bytes = rig.report().pools[0].free_bytes
    other = replace(
        rig.device_class, name=DeviceClassName("more"), directory=f"{rig.directory}/", reserve_bytes=64 * MIB
    )
    rig.backend.configure([rig.device_class, other])
    (pool,) = rig.report().pools
    assert pool.classes == ("files", "more")
    assert pool.reserve_bytes == 64 * MIB
    assert pool.free_bytes <= free_bytes - 60 * MIB


def test_what_an_image_takes_while_it_is_looked_at_is_not_counted_twice(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = directory_on("ext4", root)  # of its own: nobody else takes from it, or gives back
    rig = Rig(place, is_sparse=True)
    rig.create(mib=64)
    free_bytes = rig.report().pools[0].free_bytes
    entries = Directory.entries
    looks: list[tuple[Entry, ...]] = []

    def taken_meanwhile(self: Directory) -> tuple[Entry, ...]:
        found = entries(self)
        if not looks:
            with (place / "a.img").open("r+b") as image:
                os.posix_fallocate(image.fileno(), 0, 64 * MIB)
        looks.append(found)
        return found

    monkeypatch.setattr(Directory, "entries", taken_meanwhile)
    assert abs(rig.report().pools[0].free_bytes - free_bytes) <= 8 * MIB
    assert len(looks) > 1


class Watched(DurableFiles):
    """Looks at the directory after each step of a change."""

    def __init__(self) -> None:
        self.look: Callable[[], StoreReport] | None = None
        self.seen: list[StoreReport] = []

    def make(self, directory: int, name: str) -> None:
        super().make(directory, name)
        self._see()

    def lengthen(self, directory: int, name: str, size_bytes: int, *, is_sparse: bool) -> None:
        self._see()
        super().lengthen(directory, name, size_bytes, is_sparse=is_sparse)
        self._see()

    def _see(self) -> None:
        if self.look is not None:
            self.seen.append(self.look())


def test_a_look_in_the_middle_of_a_create_and_the_create_itself_take_its_room_once(root: Path) -> None:
    place = directory_on("ext4", root)
    files = Watched()
    rig = Rig(place, files=files)
    files.look = rig.report
    after = rig.create(mib=64)
    files.look = None
    free_bytes = rig.report().pools[0].free_bytes
    assert len(files.seen) >= 2
    for seen in files.seen:
        stock = Stock()
        stock.put(seen)
        stock.apply(seen.name, None, after)
        assert abs(stock.pools()[PoolName(str(place))].free_bytes - free_bytes) <= 8 * MIB


def test_what_a_half_made_volume_lacks_must_be_there_or_nothing_is_left_of_it(root: Path) -> None:
    rig = Rig(root, is_sparse=True)
    made = rig.create(mib=64)
    free_bytes = rig.report().pools[0].free_bytes
    record = root / "a.json"
    record.write_text(record.read_text().replace('"ready"', '"creating"'))
    os.truncate(root / "a.img", 4 * MIB)
    for line in ran("losetup", "--associated", str(root / "a.img")).splitlines():
        ran("losetup", "--detach", line.partition(":")[0])
    rig.reserve_bytes = free_bytes + 32 * MIB
    rig.backend.configure([rig.device_class])
    with pytest.raises(InsufficientCapacityError, match="60"):
        rig.create(mib=64)
    assert made.id not in {each.id for each in rig.report().volumes}
    assert not record.exists()


def test_one_directory_under_two_paths_is_not_counted_twice(rig: Rig, root: Path) -> None:
    (root / "link").symlink_to(rig.directory)
    linked = replace(rig.device_class, name=DeviceClassName("more"), directory=str(root / "link"))
    rig.backend.configure([rig.device_class, linked])
    first, second = rig.backend.look()
    assert (first.problem, len(first.pools)) == (None, 1)
    assert second.problem is not None
    assert second.pools == ()
    assert rig.backend.look_at(second.name) == second


def test_a_missing_directory_says_nothing_about_volumes_and_leaves_the_others_be(rig: Rig, root: Path) -> None:
    rig.create()
    lost = replace(rig.device_class, name=DeviceClassName("lost"), directory=str(root / "lost"))
    rig.backend.configure([lost, rig.device_class])
    bad, good = rig.backend.look()
    assert bad.problem is not None
    assert (bad.pools, bad.volumes) == ((), ())
    assert [v.id for v in good.volumes] == ["a"]


@pytest.mark.parametrize("step", ["condemn", "remove", "settle"])
def test_a_directory_whose_file_system_went_away_is_unavailable_and_not_empty(rig: Rig, root: Path, step: str) -> None:
    volume = rig.create()
    aside = root / "aside"
    rig.directory.rename(aside)
    rig.directory.mkdir()
    report = rig.report()
    assert report.problem is not None
    assert "lost its marker" in report.problem.message
    assert report.volumes == ()
    with pytest.raises(PoolUnavailableError):
        getattr(rig.backend, step)(volume)
    rig.backend.configure([rig.device_class])
    assert rig.report().problem is not None, "a reload must not forget"
    rig.directory.rmdir()
    aside.rename(rig.directory)
    assert rig.volume() == volume


def test_a_directory_with_another_marker_is_not_the_one_we_knew(rig: Rig, root: Path) -> None:
    volume = rig.create()
    rig.directory.rename(root / "aside")
    rig.directory.mkdir()
    rig.reborn().create("other")
    assert rig.report().problem is not None
    with pytest.raises(PoolUnavailableError):
        rig.backend.remove(volume)


def test_after_a_restart_records_without_a_marker_are_still_no_empty_directory(rig: Rig) -> None:
    rig.create()
    (rig.directory / ".ullage.json").unlink()
    assert rig.reborn().report().problem is not None


def test_a_broken_marker_is_a_problem_and_is_not_written_over(rig: Rig) -> None:
    volume = rig.create()
    (rig.directory / ".ullage.json").write_text("{")
    assert rig.reborn().report().problem is not None
    with pytest.raises(PoolUnavailableError):
        rig.backend.expand(volume, Allocation(pool=volume.pool, size_bytes=16 * MIB), needs_wipe=False)
    assert (rig.directory / ".ullage.json").read_text() == "{"


def test_an_image_without_a_record_is_an_orphan_and_never_touched(rig: Rig) -> None:
    volume = rig.create()
    rig.record().unlink()
    (orphan,) = rig.report().orphans
    assert (orphan.name, orphan.kind) == ("a", "volume_without_record")
    before = fingerprint(rig.directory)
    for step in (rig.backend.condemn, rig.backend.remove, rig.backend.settle):
        with pytest.raises(NotOursError):
            step(volume)
    with pytest.raises(NotOursError):
        rig.create()
    assert fingerprint(rig.directory) == before


def broken(rig: Rig) -> None:
    rig.record().write_text('{"version": 1, "id"')


def empty(rig: Rig) -> None:
    rig.record().write_text("")


def mistyped(rig: Rig) -> None:
    rig.record().write_text(json.dumps(json.loads(rig.record().read_text()) | {"size_bytes": "8M"}))


def from_the_future(rig: Rig) -> None:
    rig.record().write_text(json.dumps({"version": 3, "everything": "new"}))


def of_another(rig: Rig) -> None:
    rig.record().write_text(rig.record().read_text().replace('"id": "a"', '"id": "b"'))


def a_link(rig: Rig) -> None:
    rig.record().rename(rig.directory / "elsewhere")
    rig.record().symlink_to("elsewhere")


def a_pipe(rig: Rig) -> None:
    rig.record().unlink()
    os.mkfifo(rig.record())


RECORDS = [broken, empty, mistyped, from_the_future, of_another, a_link, a_pipe]


@pytest.mark.parametrize("spoiled", RECORDS)
def test_a_record_that_cannot_be_used_is_told_and_never_touched(rig: Rig, spoiled: Callable[[Rig], None]) -> None:
    volume = rig.create()
    spoiled(rig)
    before = fingerprint(rig.directory) if spoiled is not a_pipe else {}
    (told,) = rig.report().volumes
    assert told.id == "a"
    assert told.problem is not None
    assert told.problem.reason == ("RecordTooNew" if spoiled is from_the_future else "RecordUnreadable")
    for step in (rig.backend.condemn, rig.backend.remove, rig.backend.settle):
        with pytest.raises(NotOursError):
            step(volume)
    with pytest.raises(NotOursError):
        rig.create()
    with pytest.raises(NotOursError):
        rig.expand(16)
    assert rig.image().exists()
    assert not before or fingerprint(rig.directory) == before


def test_a_record_whose_image_is_gone_is_an_orphan_and_a_problem(rig: Rig) -> None:
    volume = rig.create()
    ran("losetup", "--detach", volume.device_path)
    rig.image().unlink()
    (orphan,) = rig.report().orphans
    assert orphan.kind == "record_without_volume"
    problem = rig.volume().problem
    assert problem is not None
    assert problem.reason == "ImageMissing"
    with pytest.raises(DeviceError):
        rig.create()
    assert not rig.image().exists(), "an empty volume in the place of a lost one would hide the loss"


def test_an_image_that_lost_its_end_is_a_problem_and_does_not_grow(rig: Rig) -> None:
    volume = rig.create(mib=16)
    ran("losetup", "--detach", volume.device_path)
    os.truncate(rig.image(), 8 * MIB)
    problem = rig.volume().problem
    assert problem is not None
    assert problem.reason == "ImageTooShort"
    assert rig.volume().size_bytes == 8 * MIB
    with pytest.raises(DeviceError):
        rig.expand(32)
    assert rig.image().stat().st_size == 8 * MIB


def test_a_link_in_the_place_of_an_image_is_not_followed(rig: Rig, root: Path) -> None:
    volume = rig.create()
    ran("losetup", "--detach", volume.device_path)
    target = root / "target"
    rig.image().rename(target)
    rig.image().symlink_to(target)
    problem = rig.volume().problem
    assert problem is not None
    assert problem.reason == "ImageUnreadable"
    with pytest.raises(DeviceError):
        rig.activate("a")
    assert rig.loops() == []


def test_files_of_others_are_passed_over(rig: Rig) -> None:
    rig.create()
    before = rig.report()
    for name in ("notes.txt", ".hidden.img", ".hidden.json", "no suffix"):
        (rig.directory / name).touch()
    (rig.directory / "lost+found").mkdir()
    now = rig.report()
    assert (now.volumes, now.orphans) == (before.volumes, before.orphans)


def test_a_device_on_a_file_of_the_same_name_elsewhere_is_not_the_volumes(rig: Rig, root: Path) -> None:
    volume = rig.create()
    ran("losetup", "--detach", volume.device_path)
    (root / "a.img").write_bytes(bytes(8 * MIB))
    ran("losetup", "--find", str(root / "a.img"))
    assert not rig.volume().is_active
    rig.backend.condemn(volume)
    rig.backend.remove(volume)
    assert str(root / "a.img") in ran("losetup", "--list")


def test_a_volume_is_recognised_when_its_device_was_attached_under_another_path(rig: Rig, root: Path) -> None:
    """As when an agent's container, which has its own mounts, comes and goes."""
    volume = rig.create()
    ran("losetup", "--detach", volume.device_path)
    (root / "other").mkdir()
    ran("mount", "--bind", str(rig.directory), str(root / "other"))
    ran("losetup", "--find", str(root / "other" / "a.img"))
    assert rig.volume().is_active
    assert rig.volume().state is VolumeState.READY
    rig.create()
    assert len([line for line in ran("losetup", "--list").splitlines() if str(root) in line]) == 1


def test_a_look_beside_changes_sees_no_orphan_and_no_problem(rig: Rig) -> None:
    rig.create("still")
    stop = threading.Event()
    failures: list[BaseException] = []

    def change() -> None:
        try:
            while not stop.is_set():
                volume = rig.create("moving")
                rig.backend.condemn(volume)
                rig.backend.remove(volume)
        except BaseException as failure:  # noqa: BLE001 - told in the test's own thread
            failures.append(failure)

    changer = threading.Thread(target=change, name="changer")
    changer.start()
    try:
        for _ in range(200):
            report = rig.report()
            assert (report.problem, report.orphans) == (None, ())
            assert [v.problem for v in report.volumes] == [None] * len(report.volumes)
            assert "still" in {v.id for v in report.volumes if v.is_active}
    finally:
        stop.set()
        changer.join()
    assert failures == []
