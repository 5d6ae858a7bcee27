"""Mount flags: handed to mount(8) as they came, and compared with what the kernel says a mount has.

Only what the kernel keeps per mount, and an SELinux context, can be compared: the other options are a file system's own
words, which it repeats in its own way or not at all.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from csi.fs.mount_table import Mount, split_options

_OFF = {"suid": "nosuid", "dev": "nodev", "exec": "noexec", "diratime": "nodiratime"}
"""A flag that takes another one back (mount(8)); a later one wins."""
_ACCESS_TIMES = ("relatime", "noatime", "strictatime")
_TAKEN_BACK = {"atime": "relatime", "norelatime": "relatime", "nostrictatime": "relatime"}
_DEFAULTS = frozenset({"relatime"})
COMPARED = frozenset({*_OFF.values(), "noatime", "relatime"})
"""Fields 6 of mountinfo that a caller can ask for. strictatime shows as none of them."""
_CONTEXT = "context="


def joined(*groups: Iterable[str]) -> str:
    """The value of mount's -o. A comma inside double quotes stays where it is: mount(8) takes it as part of a value."""
    return ",".join(flag for group in groups for flag in group)


def is_read_only(flags: Sequence[str]) -> bool:
    """Whether the last word about it is `ro`."""
    words = [flag for flag in _single(flags) if flag in ("ro", "rw", "defaults")]
    return bool(words) and words[-1] == "ro"


def per_mount(flags: Sequence[str]) -> frozenset[str]:
    """Which of COMPARED a mount with these flags has."""
    on = set(_DEFAULTS)
    for flag in _single(flags):
        if flag in _OFF:
            on.discard(_OFF[flag])
        elif flag == "defaults":
            on = set(_DEFAULTS)
        elif flag in _ACCESS_TIMES or flag in _TAKEN_BACK:
            on.difference_update(_ACCESS_TIMES)
            on.add(_TAKEN_BACK.get(flag, flag))
        elif flag in COMPARED:
            on.add(flag)
    return frozenset(on & COMPARED)


def differences(mount: Mount, flags: Sequence[str]) -> tuple[str, ...]:
    """Where a mount is not what these flags ask for, in words; nothing when nothing tells them apart."""
    found = sorted(per_mount(flags) ^ (set(mount.options) & COMPARED))
    wanted_context, context = _context(_single(flags)), _context(mount.super_options)
    if wanted_context != context:
        found.append(f"context={context or 'none'} instead of {wanted_context or 'none'}")
    return tuple(found)


def is_context_lost(mount: Mount, flags: Sequence[str]) -> bool:
    """Whether an SELinux context was asked for, and the mount has none.

    mount(8) drops it without a word where it sees no SELinux, as in a container without the host's /sys/fs/selinux.
    """
    return bool(_context(_single(flags))) and not _context(mount.super_options)


def kept_by_bind(mount: Mount) -> tuple[str, ...]:
    """What to name again when a bind mount of this one is to be read-only.

    mount(8) makes it read-only by a remount, and a remount sets all flags of a mount anew: `--bind -o ro` alone drops
    nosuid and nodev (seen with util-linux 2.38.1).
    """
    return tuple(option for option in mount.options if option in COMPARED)


def _single(flags: Sequence[str]) -> tuple[str, ...]:
    return tuple(single for flag in flags for single in split_options(flag))


def _context(options: Sequence[str]) -> str:
    return next((o.removeprefix(_CONTEXT).strip('"') for o in reversed(options) if o.startswith(_CONTEXT)), "")
