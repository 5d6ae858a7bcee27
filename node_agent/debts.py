"""What this process takes and has to give back even if it dies: a frozen file system, a pool's metadata snapshot.

Each is noted in a file before it is taken, and the note goes when it was given back. The next start pays what notes are
left, before anything else. The notes belong below /run: nothing stays frozen over a reboot. A pool's metadata snapshot
does, and a tag on the pool tells of it then (`backends/lvm/metadata_snapshots`).
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec

SUFFIX = ".json"

log = logging.getLogger(__name__)


class Debt(msgspec.Struct, frozen=True, kw_only=True):
    """One thing taken: what it is, and all that is needed to give it back."""

    kind: str
    facts: dict[str, str]


_DEBTS = msgspec.json.Decoder(Debt)


@dataclass(frozen=True, slots=True)
class Debts:
    """The notes in one directory, which is made when first needed; without one nothing is noted."""

    directory: Path | None = None

    def owe(self, kind: str, facts: Mapping[str, str]) -> Callable[[], None]:
        """Note a debt before it is made; the answer is to be called once it was paid.

        Raises OSError when it cannot be noted: nothing may be taken then.
        """
        if self.directory is None:
            return lambda: None
        self.directory.mkdir(parents=True, exist_ok=True)
        note = self.directory / f"{kind}-{secrets.token_hex(8)}{SUFFIX}"
        aside = note.with_suffix(".tmp")
        aside.write_bytes(msgspec.json.encode(Debt(kind=kind, facts=dict(facts))))
        aside.replace(note)
        return partial(note.unlink, missing_ok=True)

    def left(self, kind: str) -> Iterator[Debt]:
        """The debts of a process that died; a note goes once whoever iterates asks for the next one."""
        if self.directory is None or not self.directory.is_dir():
            return
        for note in sorted(self.directory.glob(f"{kind}-*{SUFFIX}")):
            try:
                debt = _DEBTS.decode(note.read_bytes())
            except (OSError, msgspec.DecodeError) as failure:
                log.error("a debt cannot be read", extra={"path": str(note), "why": str(failure)})  # noqa: TRY400
                continue
            yield debt
            note.unlink(missing_ok=True)
