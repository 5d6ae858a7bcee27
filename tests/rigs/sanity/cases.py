"""The runs of csi-sanity: each kind of storage, with file systems and as devices."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Storage(StrEnum):
    """What the volumes are made of."""

    FILE = "file"
    THICK = "thick"
    THIN = "thin"

    @property
    def is_lvm(self) -> bool:
        """It needs device-mapper and blank disks: a virtual machine."""
        return self is not Storage.FILE


class Access(StrEnum):
    """How they are used, in csi-sanity's words."""

    MOUNT = "mount"
    BLOCK = "block"


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One run of all specs against a driver of its own."""

    storage: Storage
    access: Access

    @property
    def name(self) -> str:
        """Such as "thick-mount"."""
        return f"{self.storage}-{self.access}"


CASES = (
    Case(storage=Storage.FILE, access=Access.MOUNT),
    Case(storage=Storage.FILE, access=Access.BLOCK),
    Case(storage=Storage.THICK, access=Access.MOUNT),
    Case(storage=Storage.THIN, access=Access.MOUNT),
    Case(storage=Storage.THICK, access=Access.BLOCK),
)
BY_NAME = {case.name: case for case in CASES}
