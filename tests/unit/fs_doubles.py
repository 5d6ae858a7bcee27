"""A Runner that answers known argument vectors, and fails on any other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from csi.fs.device import Device
from ullage.errors import CommandFailedError
from ullage.run import Finished

DEVICE = Device(path="/dev/vg0/pvc-1", number=0xFD01, size_bytes=1 << 30, sector_bytes=512)


class Scripted:
    """`answers`: by argument vector, (exit code, stdout, stderr). Changes are remembered and succeed, if not in it."""

    def __init__(self, answers: Mapping[tuple[str, ...], tuple[int, str, str]]) -> None:
        self._answers = answers
        self.changes: list[tuple[str, ...]] = []

    def look(
        self,
        argv: Sequence[str],
        *,
        timeout_seconds: float,
        stdin: str = "",
        accepted: Sequence[int] = (0,),
        into: BinaryIO | None = None,
    ) -> Finished:
        assert timeout_seconds > 0
        assert (stdin, into) == ("", None)
        return self._ended(argv, self._answers[tuple(argv)], accepted)

    def change(self, argv: Sequence[str], *, stdin: str = "", accepted: Sequence[int] = (0,)) -> Finished:
        assert stdin == ""
        self.changes.append(tuple(argv))
        return self._ended(argv, self._answers.get(tuple(argv), (0, "", "")), accepted)

    def _ended(self, argv: Sequence[str], answer: tuple[int, str, str], accepted: Sequence[int]) -> Finished:
        exit_code, stdout, stderr = answer
        if exit_code not in accepted:
            raise CommandFailedError(argv=argv, exit_code=exit_code, stderr=stderr)
        return Finished(argv=tuple(argv), exit_code=exit_code, stdout=stdout, stderr=stderr, seconds=0.0)
