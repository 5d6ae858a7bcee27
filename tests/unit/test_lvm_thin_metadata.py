"""The pool's metadata snapshot: taken once, never from another, given back whatever happens. The kernel is a double."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NoReturn

import pytest

from node_agent.backends.lvm.backend import LvmBackend
from node_agent.backends.lvm.command import Lvm
from node_agent.backends.lvm.metadata_snapshots import MetadataSnapshots
from node_agent.backends.lvm.tags import METADATA_SNAPSHOT
from node_agent.debts import Debts
from ullage.errors import (
    KIB,
    MIB,
    CommandFailedError,
    CommandTimedOutError,
    NotFoundError,
    PreconditionError,
    StoreBusyError,
    UnavailableError,
    UnreadableReportError,
)
from ullage.model import (
    ByteRange,
    DeviceClassName,
    DeviceType,
    PoolName,
    StoreName,
    Volume,
    VolumeId,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.run import Finished

POOL = PoolName("vg-0/the-pool")
TPOOL, TMETA = "vg--0-the--pool-tpool", "/dev/mapper/vg--0-the--pool_tmeta"
PREFIX = ("nsenter", "--target", "1", "--")
DELTA = (
    '<superblock data_block_size="128"><diff left="2" right="3"><different begin="1" length="2"/></diff></superblock>'
)
DUMP = (
    '<superblock data_block_size="128"><device dev_id="2" mapped_blocks="40">'
    '<range_mapping origin_begin="8" length="40"/></device></superblock>'
)


class Kernel:
    """A Runner with one thin pool behind it, on which snapshots s-2, s-3 … have these numbers."""

    def __init__(self) -> None:
        self.root = "-"
        self.is_active = True
        self.tags = ["theirs"]
        """Of the pool."""
        self.ran: list[str] = []
        self.numbers = {"s-2": 2, "s-3": 3}
        self.before: dict[str, Callable[[], None]] = {}
        """What happens before the next program with this word in its argument list."""
        self.after: dict[str, Callable[[], None]] = {}

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        assert (timeout_seconds > 0, stdin, tuple(accepted)) == (True, "", (0,))
        return self._answer(argv, into)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        assert (stdin, tuple(accepted)) == ("", (0,))
        return self._answer(argv, None)

    def _answer(self, argv: Sequence[str], into: BinaryIO | None) -> Finished:
        assert tuple(argv[: len(PREFIX)]) == PREFIX
        words = tuple(argv[len(PREFIX) :])
        self.ran.append(" ".join(words))
        for word in [word for word in self.before if word in self.ran[-1]]:
            self.before.pop(word)()
        said = self._said(words)
        for word in [word for word in self.after if word in self.ran[-1]]:
            self.after.pop(word)()
        if into is not None:
            into.write(said.encode())
            said = ""
        return Finished(argv=tuple(argv), exit_code=0, stdout=said, stderr="", seconds=0.0)

    def _said(self, words: tuple[str, ...]) -> str:  # noqa: C901, PLR0911 - one for each program
        match words:
            case ("lvm", "lvs", *rest) if "lv_tags" in rest:
                assert rest[-1] == POOL
                return f"  {','.join(self.tags)}\n"
            case ("lvm", "lvs", *_):
                rows = [
                    {
                        "lv_name": name,
                        "lv_uuid": f"uuid-{name}-{number}",
                        "lv_tags": f"ullage.io/volume={name}",
                        "pool_lv": "the-pool",
                        "thin_id": str(number),
                    }
                    for name, number in self.numbers.items()
                ]
                theirs = {"lv_name": "other", "lv_uuid": "u", "lv_tags": "", "pool_lv": "", "thin_id": ""}
                return json.dumps({"report": [{"lv": [*rows, theirs]}]})
            case ("lvm", "lvchange", *rest) if rest[-3:-1] == ["--addtag", METADATA_SNAPSHOT]:
                self.tags = ["theirs", METADATA_SNAPSHOT]
                return ""
            case ("lvm", "lvchange", *rest) if rest[-3:-1] == ["--deltag", METADATA_SNAPSHOT]:
                self.tags = ["theirs"]
                return ""
            case ("lvm", "lvchange", *rest):
                assert rest[-3:] == ["--activate", "y", POOL]
                self.is_active = True
                return ""
            case ("dmsetup", *_) if not self.is_active:
                _refuse(words, f"Device {TPOOL} not found")
            case ("dmsetup", "status", "--noflush", name):
                assert name == TPOOL
                return f"0 409600 thin-pool 3 113/1024 16/3200 {self.root} rw discard_passdown queue_if_no_space - 256"
            case ("dmsetup", "message", name, "0", "reserve_metadata_snap"):
                assert name == TPOOL
                if self.root != "-":
                    _refuse(words, f"device-mapper: message ioctl on {TPOOL}  failed: Device or resource busy")
                self.root = "37"
                return ""
            case ("dmsetup", "message", name, "0", "release_metadata_snap"):
                assert (name, self.root != "-") == (TPOOL, True)
                self.root = "-"
                return ""
            case ("thin_delta", "-m", "--thin1", "2", "--thin2", "3", device):
                assert (device, self.root != "-") == (TMETA, True)
                return DELTA
            case ("thin_dump", "-m", "--dev-id", "2", device):
                assert (device, self.root != "-") == (TMETA, True)
                return DUMP
        raise AssertionError(words)


def _refuse(argv: Sequence[str], stderr: str) -> NoReturn:
    raise CommandFailedError(argv=argv, exit_code=1, stderr=f"{stderr}\nCommand failed.\n")


def snapshot(name: str, size_bytes: int = 2 * MIB, volume_type: DeviceType = DeviceType.THIN) -> Volume:
    return Volume(
        id=VolumeId(name),
        kind=VolumeKind.SNAPSHOT,
        source=VolumeId("pvc-a"),
        pool=POOL,
        store=StoreName("vg-0"),
        type=volume_type,
        device_class=DeviceClassName("thin"),
        size_bytes=size_bytes,
        device_size_bytes=size_bytes,
        state=VolumeState.READY,
        wipe=Wipe.NONE,
        device_path="",
    )


BASE, TARGET = snapshot("s-2"), snapshot("s-3")
CHANGED = [ByteRange(offset_bytes=64 * KIB, size_bytes=128 * KIB)]


def backend(kernel: Kernel, notes: Path) -> LvmBackend:
    """After a start of the process."""
    started = LvmBackend(Lvm(runner=kernel, prefix=PREFIX, flush=lambda _: None), Debts(notes))
    started.configure([])
    return started


def left_by(kernel: Kernel, notes: Path, patience_seconds: float = 30.0) -> MetadataSnapshots:
    lvm = Lvm(runner=kernel, prefix=PREFIX, flush=lambda _: None)
    return MetadataSnapshots(lvm, Debts(notes), lambda _: ("/dev/vda",), patience_seconds=patience_seconds)


@pytest.fixture
def kernel() -> Kernel:
    return Kernel()


def test_it_is_taken_read_and_released_and_only_then_looked_through(kernel: Kernel, tmp_path: Path) -> None:
    answer = backend(kernel, tmp_path).changed(BASE, TARGET)
    words = (
        *("lvs", "status", "--addtag", "reserve_", "status", "thin_delta"),
        *("status", "release_", "--deltag", "lvs"),
    )
    assert [word in ran for word, ran in zip(words, kernel.ran, strict=True)] == [True] * len(words)
    assert (kernel.root, list(tmp_path.iterdir())) == ("-", [])
    assert list(answer) == CHANGED
    assert len(kernel.ran) == len(words)


def test_what_is_mapped_ends_where_the_volume_ends(kernel: Kernel, tmp_path: Path) -> None:
    answer = list(backend(kernel, tmp_path).allocated(snapshot("s-2", 2 * MIB + 512)))
    assert answer == [ByteRange(offset_bytes=512 * KIB, size_bytes=1536 * KIB + 512)]
    assert list(backend(kernel, tmp_path).allocated(snapshot("s-2", 512 * KIB))) == []


def test_a_volume_that_is_thick_has_no_such_metadata(kernel: Kernel, tmp_path: Path) -> None:
    thick = snapshot("s-2", volume_type=DeviceType.THICK)
    with pytest.raises(PreconditionError, match="changed blocks are known of thin volumes; s-2 is thick"):
        backend(kernel, tmp_path).allocated(thick)
    with pytest.raises(PreconditionError):
        backend(kernel, tmp_path).changed(thick, thick)
    assert kernel.ran == []


def test_somebody_elses_is_refused_and_stays(kernel: Kernel, tmp_path: Path) -> None:
    kernel.root = "12"
    with pytest.raises(UnavailableError, match="held by another"):
        backend(kernel, tmp_path).changed(BASE, TARGET)
    backend(kernel, tmp_path)
    assert (kernel.root, list(tmp_path.iterdir())) == ("12", [])


def test_one_that_another_takes_just_before_us_is_refused_and_stays(kernel: Kernel, tmp_path: Path) -> None:
    kernel.before["reserve_"] = lambda: setattr(kernel, "root", "12")
    with pytest.raises(UnavailableError, match="held by another"):
        backend(kernel, tmp_path).changed(BASE, TARGET)
    backend(kernel, tmp_path)
    assert (kernel.root, list(tmp_path.iterdir())) == ("12", [])


def test_one_that_another_has_put_in_the_place_of_ours_stays(kernel: Kernel, tmp_path: Path) -> None:
    kernel.after["thin_delta"] = lambda: setattr(kernel, "root", "12")
    assert list(backend(kernel, tmp_path).changed(BASE, TARGET)) == CHANGED
    assert (kernel.root, list(tmp_path.iterdir())) == ("12", [])


@pytest.mark.parametrize("failure", [CommandTimedOutError("too long", argv=("thin_delta",)), None])
def test_it_is_released_where_the_program_fails(
    kernel: Kernel, tmp_path: Path, failure: CommandTimedOutError | None
) -> None:
    def fail() -> None:
        if failure is not None:
            raise failure
        _refuse(("thin_delta",), "Unable to find mapping tree for snap2 (3)")

    kernel.before["thin_delta"] = fail
    with pytest.raises(CommandTimedOutError if failure else CommandFailedError):
        backend(kernel, tmp_path).changed(BASE, TARGET)
    assert (kernel.root, list(tmp_path.iterdir())) == ("-", [])


def test_a_report_that_makes_no_sense_is_refused_before_a_range_of_it_is_told(kernel: Kernel, tmp_path: Path) -> None:
    said = kernel._said
    kernel._said = lambda words: DELTA[:-5] if words[0] == "thin_delta" else said(words)  # type: ignore[method-assign]
    with pytest.raises(UnreadableReportError):
        backend(kernel, tmp_path).changed(BASE, TARGET)
    assert (kernel.root, list(tmp_path.iterdir())) == ("-", [])


def test_a_reservation_that_was_killed_is_released_if_it_took(kernel: Kernel, tmp_path: Path) -> None:
    def die() -> None:
        raise CommandFailedError(argv=("dmsetup",), exit_code=-9, stderr="")

    kernel.after["reserve_"] = die
    with pytest.raises(CommandFailedError):
        backend(kernel, tmp_path).changed(BASE, TARGET)
    assert (kernel.root, list(tmp_path.iterdir())) == ("-", [])


def test_one_that_could_not_be_released_is_owed_until_it_is(kernel: Kernel, tmp_path: Path) -> None:
    kernel.before["release_"] = lambda: _refuse(("dmsetup",), "Input/output error")
    under_test = backend(kernel, tmp_path)
    assert list(under_test.changed(BASE, TARGET)) == CHANGED
    assert (kernel.root, len(list(tmp_path.iterdir()))) == ("37", 1)
    assert list(under_test.changed(BASE, TARGET)) == CHANGED
    assert (kernel.root, list(tmp_path.iterdir())) == ("-", [])


@pytest.mark.parametrize("facts", [[{}], [{"root": "37"}], [{}, {"root": "37"}]])
def test_what_a_dead_process_has_left_is_released_by_the_next(
    kernel: Kernel, tmp_path: Path, facts: list[dict[str, str]]
) -> None:
    kernel.root = "37"
    for each in facts:
        Debts(tmp_path).owe("metadata-snapshot", {"pool": POOL, **each})
    backend(kernel, tmp_path)
    assert (kernel.root, list(tmp_path.iterdir())) == ("-", [])


def test_what_a_dead_process_had_is_left_alone_where_another_has_taken_one_since(
    kernel: Kernel, tmp_path: Path
) -> None:
    kernel.root = "12"
    Debts(tmp_path).owe("metadata-snapshot", {"pool": POOL, "root": "37"})
    backend(kernel, tmp_path)
    assert (kernel.root, list(tmp_path.iterdir())) == ("12", [])


def test_what_a_power_cut_has_left_is_released_whether_it_is_asked_for_first_or_seen_in_a_report(
    kernel: Kernel, tmp_path: Path
) -> None:
    """No note is there any more; the tag on the pool is."""
    kernel.root, kernel.tags = "37", ["theirs", METADATA_SNAPSHOT]
    assert list(backend(kernel, tmp_path).changed(BASE, TARGET)) == CHANGED
    assert (kernel.root, kernel.tags, list(tmp_path.iterdir())) == ("-", ["theirs"], [])
    kernel.root, kernel.tags = "37", ["theirs", METADATA_SNAPSHOT]
    left_by(kernel, tmp_path).recover([POOL])
    assert (kernel.root, kernel.tags, list(tmp_path.iterdir())) == ("-", ["theirs"], [])


def test_a_report_older_than_the_tags_end_releases_nothing(kernel: Kernel, tmp_path: Path) -> None:
    kernel.root = "12"
    left_by(kernel, tmp_path).recover([POOL])
    assert kernel.root == "12"


def test_one_that_is_in_use_is_no_left_over_whatever_a_report_says(kernel: Kernel, tmp_path: Path) -> None:
    snapshots = left_by(kernel, tmp_path)
    with snapshots.taken(POOL, "reading", devices=()):
        snapshots.recover([POOL])
        assert (kernel.root, kernel.tags) == ("37", ["theirs", METADATA_SNAPSHOT])
    assert (kernel.root, kernel.tags) == ("-", ["theirs"])


def test_what_a_power_cut_has_left_of_a_pool_that_is_not_active_is_released_once_it_is(
    kernel: Kernel, tmp_path: Path
) -> None:
    kernel.root, kernel.tags, kernel.is_active = "37", [METADATA_SNAPSHOT], False
    snapshots = left_by(kernel, tmp_path)
    snapshots.recover([POOL])
    assert (kernel.root, len(list(tmp_path.iterdir()))) == ("37", 1)
    kernel.is_active = True
    snapshots.release_left_over()
    assert (kernel.root, kernel.tags, list(tmp_path.iterdir())) == ("-", ["theirs"], [])


def test_what_was_left_of_a_pool_that_is_not_there_yet_is_released_once_it_is(kernel: Kernel, tmp_path: Path) -> None:
    kernel.root, kernel.is_active = "37", False
    Debts(tmp_path).owe("metadata-snapshot", {"pool": POOL, "root": "37"})
    under_test = backend(kernel, tmp_path)
    assert (kernel.root, len(list(tmp_path.iterdir()))) == ("37", 1)
    kernel.is_active = True
    under_test.configure([])
    assert (kernel.root, list(tmp_path.iterdir())) == ("-", [])


@pytest.mark.parametrize("root", ["-", "37"])
def test_a_pool_that_is_not_active_is_activated(kernel: Kernel, tmp_path: Path, root: str) -> None:
    """And what a dead process had left on it is released then."""
    kernel.root, kernel.is_active = root, False
    if root != "-":
        Debts(tmp_path).owe("metadata-snapshot", {"pool": POOL, "root": root})
    assert list(backend(kernel, tmp_path).changed(BASE, TARGET)) == CHANGED
    assert (kernel.root, list(tmp_path.iterdir())) == ("-", [])


def test_what_cannot_be_noted_is_not_taken(kernel: Kernel, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="cannot be noted"):
        backend(kernel, tmp_path / "file").changed(BASE, TARGET)
    assert not [ran for ran in kernel.ran if "reserve_" in ran]


def test_a_snapshot_that_has_gone_or_is_another_by_now_is_an_error(kernel: Kernel, tmp_path: Path) -> None:
    under_test = backend(kernel, tmp_path)
    kernel.after["thin_delta"] = kernel.numbers.clear
    with pytest.raises(NotFoundError, match=r"s-2 is no longer in vg-0/the-pool"):
        under_test.changed(BASE, TARGET)
    with pytest.raises(NotFoundError):
        under_test.changed(BASE, TARGET)
    kernel.numbers.update({"s-2": 2, "s-3": 3})
    kernel.after["thin_delta"] = lambda: kernel.numbers.update({"s-3": 4})
    with pytest.raises(UnavailableError, match="meanwhile"):
        under_test.changed(BASE, TARGET)
    kernel.numbers["s-3"] = 3
    assert list(under_test.changed(BASE, TARGET)) == CHANGED


def test_a_second_caller_waits_and_is_told_who_has_it(kernel: Kernel, tmp_path: Path) -> None:
    snapshots = left_by(kernel, tmp_path, patience_seconds=0.05)
    goes_on, is_there = threading.Event(), threading.Event()

    def first() -> None:
        with snapshots.taken(POOL, "reading what is mapped of s-2", devices=()) as device:
            assert device == TMETA
            is_there.set()
            assert goes_on.wait(60)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(first)
        assert is_there.wait(60)
        with (
            pytest.raises(StoreBusyError, match="busy with reading what is mapped of s-2"),
            snapshots.taken(POOL, "another", devices=()),
        ):
            pass
        snapshots.release_left_over()
        assert kernel.root == "37", "it is in use"
        goes_on.set()
        done.result()
    assert kernel.root == "-"


def test_more_ranges_than_are_kept_in_memory_come_as_they_are(kernel: Kernel, tmp_path: Path) -> None:
    """A hundred thousand: they are kept in a file."""
    lines = "".join(f'<single_mapping origin_block="{2 * index}"/>' for index in range(100_000))
    head = '<superblock data_block_size="128"><device dev_id="2" mapped_blocks="100000">'
    long_dump = f"{head}{lines}</device></superblock>"
    said = kernel._said
    kernel._said = lambda words: long_dump if words[0] == "thin_dump" else said(words)  # type: ignore[method-assign]
    answer = backend(kernel, tmp_path).allocated(snapshot("s-2", 1 << 40))
    assert [each.offset_bytes for each in answer] == [2 * index * 64 * KIB for index in range(100_000)]
