"""How lvm is called, and what its refusals mean: held against what it really said (see reports/record.py)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

import msgspec
import pytest

from node_agent.backends.lvm.command import (
    CONFIG,
    LOOK_SECONDS,
    MEANINGS,
    WITHOUT_UDEV,
    Lvm,
    first_error,
    meaning_of,
)
from ullage.errors import (
    CommandFailedError,
    ConflictError,
    DeviceError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    PoolUnavailableError,
    PreconditionError,
    UllageError,
    UnsupportedError,
    VolumeInUseError,
)
from ullage.run import Finished


class Refusal(msgspec.Struct, frozen=True):
    """One that was recorded."""

    situation: str
    command: str
    exit_code: int
    stderr: str

    def failure(self) -> CommandFailedError:
        return CommandFailedError(argv=("lvm", *self.command.split()), exit_code=self.exit_code, stderr=self.stderr)


REFUSALS = msgspec.json.decode(
    (Path(__file__).parent / "reports/refusals.json").read_bytes(), type=list[Refusal], strict=True
)
EXPECTED: tuple[tuple[str, type[UllageError]], ...] = (
    ("missing PV: remove selected", NotFoundError),  # the test before it had removed the volume
    ("missing PV", PoolUnavailableError),
    ("every PV missing", PoolUnavailableError),
    ("exported", PoolUnavailableError),
    ("another machine's group", PoolUnavailableError),
    ("group missing", PoolUnavailableError),
    ("volume missing", NotFoundError),
    ("thin pool missing", PoolUnavailableError),
    ("no thin pool", PoolUnavailableError),
    ("exists", ConflictError),
    ("same size", ConflictError),
    ("smaller", ConflictError),
    ("reserved", InvalidRequestError),
    ("name", InvalidRequestError),
    ("tag", InvalidRequestError),
    ("size", InvalidRequestError),
    ("unknown option", InvalidRequestError),
    ("stripe size", InvalidRequestError),
    ("PV not allocatable", InsufficientCapacityError),
    ("PV", PoolUnavailableError),
    ("no space", InsufficientCapacityError),
    ("most volumes", InsufficientCapacityError),
    ("mounted", VolumeInUseError),
    ("open", VolumeInUseError),
    ("held", VolumeInUseError),
    ("frozen", PreconditionError),
    ("origin", VolumeInUseError),
    ("integrity", UnsupportedError),
    ("not a snapshot", ConflictError),
    ("writable already", ConflictError),
    ("thin pool full", InsufficientCapacityError),
    ("thin pool of another transaction", PoolUnavailableError),
    ("damaged thin pool", PoolUnavailableError),
)
"""What each recorded situation means, by how its name begins; the first holds."""


def refusal(situation: str) -> Refusal:
    return next(each for each in REFUSALS if each.situation == situation)


class Scripted:
    """A Runner that notes what it is asked, and answers with success or a given failure."""

    def __init__(self, failure: CommandFailedError | None = None) -> None:
        self.asked: list[tuple[tuple[str, ...], float | None]] = []
        self._failure = failure

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        assert into is None
        return self._answer(argv, timeout_seconds, stdin, accepted)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        return self._answer(argv, None, stdin, accepted)

    def _answer(
        self, argv: Sequence[str], timeout_seconds: float | None, stdin: str, accepted: Sequence[int]
    ) -> Finished:
        assert (stdin, tuple(accepted)) == ("", (0,))
        self.asked.append((tuple(argv), timeout_seconds))
        if self._failure is not None:
            raise self._failure
        return Finished(argv=tuple(argv), exit_code=0, stdout="said", stderr="", seconds=0.1)


@pytest.mark.parametrize("each", REFUSALS, ids=lambda each: each.situation)
def test_a_refusal_means_what_happened(each: Refusal) -> None:
    expected = next(meaning for beginning, meaning in EXPECTED if each.situation.startswith(beginning))
    assert type(meaning_of(each.failure())) is expected


@pytest.mark.parametrize("beginning", [beginning for beginning, _ in EXPECTED])
def test_every_situation_was_recorded(beginning: str) -> None:
    assert [each for each in REFUSALS if each.situation.startswith(beginning)]


@pytest.mark.parametrize("row", range(len(MEANINGS)), ids=[f"{pattern[:40]}" for _, pattern, _ in MEANINGS])
def test_every_row_has_a_refusal_that_only_it_explains(row: int) -> None:
    exit_code, pattern, _ = MEANINGS[row]
    assert [
        each
        for each in REFUSALS
        if each.exit_code == exit_code
        and re.search(pattern, each.stderr)
        and not any(code == each.exit_code and re.search(other, each.stderr) for code, other, _ in MEANINGS[:row])
    ]


@pytest.mark.parametrize(
    ("situation", "sentence"),
    [
        ("no space: linear", 'Volume group "vg0" has insufficient free space (950 extents): 23040 required.'),
        ("no space: striped", 'Volume group "vg0" has insufficient free space (950 extents): 23040 required.'),
        ("no space: striped on too few PVs", "Number of stripes (6) must not exceed number of physical volumes (5)"),
        ("no space: integrity's metadata", "Insufficient free space: 4 extents needed, but only 1 available"),
        ("no space: extend thin pool", "Insufficient free space: 23008 extents needed, but only 656 available"),
        ("same size: extend raid1", "New size (16 extents) matches existing size (16 extents)."),
        ("smaller: extend linear", "New size given (13 extents) not larger than existing size (25 extents)"),
        ("missing PV: create", "Cannot change VG gone while PVs are missing."),
        ("reserved prefix", 'Names starting "snapshot" are reserved. Please choose a different LV name.'),
        ("thin pool full", "Cannot create new thin volume, free space in thin pool thin/full reached threshold."),
        (
            "thin pool of another transaction: create",
            "WARNING: Thin pool thin/ahead has unexpected transaction id 5, expecting 1.",
        ),
    ],
)
def test_the_line_that_says_it_is_told_whatever_stands_around_it(situation: str, sentence: str) -> None:
    assert str(meaning_of(refusal(situation).failure())) == f"LVM refused: {sentence}"


@pytest.mark.parametrize("each", REFUSALS, ids=lambda each: each.situation)
def test_warnings_before_the_error_hide_nothing(each: Refusal) -> None:
    plain = meaning_of(each.failure())
    noise = "  WARNING: PV /dev/vda in VG vg0 is using an old PV header, modify the VG to update.\n\n"
    noisy = CommandFailedError(argv=("lvm",), exit_code=each.exit_code, stderr=noise + each.stderr)
    assert (type(meaning_of(noisy)), str(meaning_of(noisy))) == (type(plain), str(plain))


@pytest.mark.parametrize(
    ("exit_code", "stderr"),
    [
        (5, "  Something that LVM never said before."),
        (5, ""),
        (4, '  Volume group "vg0" has insufficient free space (1 extents): 2 required.'),
        (-9, '  Volume group "vg0" not found'),
        (127, ""),
    ],
)
def test_what_is_not_known_stays_the_failed_command(exit_code: int, stderr: str) -> None:
    failure = CommandFailedError(argv=("lvm", "lvcreate"), exit_code=exit_code, stderr=stderr)
    assert meaning_of(failure) is failure


def test_silence_is_said_to_be_silence() -> None:
    assert first_error("\n  \n") == "(it said nothing)"
    assert first_error("  WARNING: only this.\n") == "WARNING: only this."
    silent = CommandFailedError(argv=("lvm",), exit_code=3, stderr="")
    assert str(meaning_of(silent)) == "LVM refused: (it said nothing)"


def test_every_call_names_its_devices_and_never_scans_volumes() -> None:
    runner = Scripted()
    lvm = Lvm(runner=runner, flush=lambda _: None)
    assert lvm.look("fullreport", "--all", devices=("/dev/vda", "/dev/vdb")) == "said"
    assert lvm.change("lvcreate", "vg0", devices=("/dev/vda",)).stdout == "said"
    assert runner.asked == [
        (("lvm", "fullreport", "--config", CONFIG, "--devices", "/dev/vda,/dev/vdb", "--all"), LOOK_SECONDS),
        (("lvm", "lvcreate", "--config", CONFIG, "--devices", "/dev/vda", "vg0"), None),
    ]
    assert CONFIG == "devices/scan_lvs=0"


def test_a_prefix_stands_before_and_without_udev_lvm_waits_for_nobody() -> None:
    runner = Scripted()
    Lvm(runner=runner, prefix=("nsenter", "--"), has_udev=False).change("vgs", devices=())
    ((argv, _),) = runner.asked
    assert argv == ("nsenter", "--", "lvm", "vgs", "--config", f"{CONFIG} {WITHOUT_UDEV}", "--devices", "")


def test_what_was_changed_is_safe_on_every_device_before_it_is_told_and_a_look_flushes_nothing() -> None:
    runner = Scripted()
    flushed: list[str] = []

    def flush(device: str) -> None:
        assert len(runner.asked) == 1
        flushed.append(device)

    lvm = Lvm(runner=runner, flush=flush)
    lvm.change("lvcreate", "vg0", devices=("/dev/vda", "/dev/vdb"))
    lvm.look("fullreport", devices=("/dev/vda",))
    assert flushed == ["/dev/vda", "/dev/vdb"]


def test_a_change_that_is_not_surely_safe_is_not_told_as_done(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match=r"gone cannot be flushed: No such file or directory"):
        Lvm(runner=Scripted()).change("lvcreate", "vg0", devices=(str(tmp_path / "gone"),))
    file = tmp_path / "there"
    file.touch()
    Lvm(runner=Scripted()).change("lvcreate", "vg0", devices=(str(file),))


def test_a_refused_change_is_raised_as_its_meaning_from_the_failure() -> None:
    failure = refusal("open: remove").failure()
    with pytest.raises(VolumeInUseError, match=r"^LVM refused: Logical volume vg0/spanning in use\.$") as raised:
        Lvm(runner=Scripted(failure), flush=lambda _: None).change("lvremove", devices=("/dev/vda",))
    assert raised.value.__cause__ is failure
    assert raised.value.facts == {"exit_code": 5}


def test_a_failed_look_stays_the_failed_command() -> None:
    """A missing group in a report is for the backend to tell from an unreadable one."""
    failure = refusal("group missing: report").failure()
    with pytest.raises(CommandFailedError) as raised:
        Lvm(runner=Scripted(failure)).look("fullreport", devices=("/dev/vda",))
    assert raised.value is failure
