"""The `lvm` program: how it is called, and what its refusals mean.

Every call names its devices. A report over all volume groups sees the candidates that sysfs lists (never a logical
volume, so that a guest's LVM inside a volume is neither read nor activated); every other call sees only the physical
volumes of its own volume group, so that a suspended or dying device elsewhere cannot hang it.

LVM writes its metadata without a flush of the disks' own caches (tried with lvm2 2.03.16). So after each change we do
that: what is said to be there, or gone, is so after a power cut, too.

Changing commands are read by exit code and by their English (LC_ALL=C): lvm2 2.03.16 refuses `--reportformat json` for
RAID and thin volumes, and crashes when it is combined with `--select` on lvchange and lvremove. For the same reason no
`lvm` shell is used: it crashes on a report that follows a change.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from node_agent.block import flush
from ullage.errors import (
    CommandFailedError,
    ConflictError,
    InsufficientCapacityError,
    InvalidRequestError,
    NotFoundError,
    PoolUnavailableError,
    PreconditionError,
    UllageError,
    UnsupportedError,
    VolumeInUseError,
)
from ullage.model import PoolName
from ullage.run import Finished, Runner

LOOK_SECONDS = 60.0
"""A report takes 0.05 s on iron; one that takes a minute hangs on a device."""
BAD_ARGUMENTS, REFUSED = 3, 5
"""lvm2's exit codes EINVALID_CMD_LINE and ECMD_FAILED."""

CONFIG = "devices/scan_lvs=0"
WITHOUT_UDEV = "activation/udev_sync=0 activation/udev_rules=0"
"""For a container that no udevd serves: LVM makes the device nodes itself instead of waiting for ever for a cookie."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lvm:
    """Calls `lvm`. `prefix` is put before it, for hosts where LVM must run in the host's namespaces (nsenter …)."""

    runner: Runner
    prefix: tuple[str, ...] = ()
    has_udev: bool = True
    flush: Callable[[str], None] = flush
    """A device; raises DeviceError."""

    def look(self, verb: str, *arguments: str, devices: Sequence[str]) -> str:
        """Standard output of a command that changes nothing; raises CommandFailedError, CommandTimedOutError."""
        return self.runner.look(self._argv(verb, arguments, devices), timeout_seconds=LOOK_SECONDS).stdout

    def metadata_on(self, device: str) -> str:
        """A volume group's metadata as this physical volume has it; raises CommandFailedError, CommandTimedOutError.

        pvck opens no other device, and of one that `--devices` names it says that it is not among them (lvm2 2.03.16).
        """
        argv = (*self.prefix, "lvm", "pvck", "--config", CONFIG, "--dump", "metadata", device)
        return self.runner.look(argv, timeout_seconds=LOOK_SECONDS).stdout

    def change(self, verb: str, *arguments: str, devices: Sequence[str]) -> Finished:
        """Run a changing command to its end, its change safe on all devices.

        Raises what `meaning_of` makes of a refusal, and DeviceError.
        """
        try:
            finished = self.runner.change(self._argv(verb, arguments, devices))
        except CommandFailedError as failure:
            raise meaning_of(failure) from failure
        for device in devices:
            self.flush(device)
        return finished

    def tell_pool(self, pool: PoolName, message: str) -> None:
        """Send a thin pool a message past LVM, as thin-provisioning.rst knows them; raises CommandFailedError."""
        self.runner.change((*self.prefix, "dmsetup", "message", f"{mapped(pool)}-tpool", "0", message))

    def _argv(self, verb: str, arguments: Sequence[str], devices: Sequence[str]) -> tuple[str, ...]:
        config = CONFIG if self.has_udev else f"{CONFIG} {WITHOUT_UDEV}"
        return (*self.prefix, "lvm", verb, "--config", config, "--devices", ",".join(devices), *arguments)


def mapped(pool: PoolName) -> str:
    """How device-mapper's names of a pool's devices begin: hyphens are doubled, and one is between group and pool."""
    group, _, name = pool.partition("/")
    return f"{group.replace('-', '--')}-{name.replace('-', '--')}"


MEANINGS: tuple[tuple[int, str, type[UllageError]], ...] = (
    (REFUSED, r"Cannot change VG .* while PVs are missing|Refusing activation of partial LV", PoolUnavailableError),
    (REFUSED, r"Volume group \S+ is exported|Cannot access VG .* with system ID", PoolUnavailableError),
    (REFUSED, r"Volume group \".*\" not found|Cannot process volume group", PoolUnavailableError),
    (REFUSED, r"Physical Volume \".*\" not found in Volume Group", PoolUnavailableError),
    (REFUSED, r"Pool \S+ not found in Volume group|Logical volume \S+ is not a thin pool", PoolUnavailableError),
    (
        REFUSED,
        r"Thin pool .* (transaction.id|needs? (repair|check))|Check of pool .* failed",  # also said in a warning
        PoolUnavailableError,
    ),
    (REFUSED, r"[Ii]nsufficient (free space|suitable allocatable extents)", InsufficientCapacityError),
    (REFUSED, r"No specified PVs have space available|Maximum number of logical volumes", InsufficientCapacityError),
    (REFUSED, r"Number of stripes \(\d+\) must not exceed", InsufficientCapacityError),
    (REFUSED, r"Cannot create new thin volume, free space in", InsufficientCapacityError),
    (REFUSED, r"Failed to find logical volume|[Ll]ogical volume \S+ not found in volume group", NotFoundError),
    (REFUSED, r"already exists in [Vv]olume group|(matches|not larger than) existing size", ConflictError),
    (REFUSED, r"is already writable|does not accept LV type linear", ConflictError),
    (REFUSED, r"Snapshots of .* are not supported", UnsupportedError),
    (REFUSED, r"Snapshot origin volumes can be resized only while inactive", VolumeInUseError),
    (REFUSED, r"contains a filesystem in use|is used by another device|volume \S+ in use", VolumeInUseError),
    (REFUSED, r"suspend ioctl on .* failed: Device or resource busy", PreconditionError),  # frozen, by somebody else
    (REFUSED, r"LV name .* is not supported", InvalidRequestError),
    (BAD_ARGUMENTS, r"", InvalidRequestError),
)
"""All of LVM's English that we act on: exit code, pattern in standard error, meaning. The first that matches holds."""


NOTES = (
    "WARNING",
    "Rounding",
    "Extending",
    "Reducing",
    "Using",
    "Size of logical volume",
    "Creating",
    "Thin pool volume",
    "Run `",
)
"""How lines begin that LVM writes beside the one that says it."""


def meaning_of(failure: CommandFailedError) -> UllageError:
    """The situation behind a refusal, in our words and LVM's; the failure itself when it is none that we know."""
    for exit_code, pattern, meaning in MEANINGS:
        if failure.exit_code == exit_code and re.search(pattern, failure.stderr):
            return meaning(f"LVM refused: {first_error(failure.stderr, pattern)}", exit_code=exit_code)
    return failure


def first_error(stderr: str, pattern: str = "") -> str:
    """The line that says it, with `pattern` in it where one has: LVM puts warnings and notes before and after."""
    lines = [line.strip() for line in stderr.splitlines() if line.strip()]
    telling = [line for line in lines if not line.startswith(NOTES)]
    by_weight = (*telling, *lines, "(it said nothing)")
    return next((line for line in by_weight if re.search(pattern, line)), by_weight[0])
