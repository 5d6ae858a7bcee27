"""What a caller wants to do with a volume, from CSI's VolumeCapability: as a file system or a device, and by how many.

A local volume is on one node, so the modes of several nodes are refused. SINGLE_NODE_WRITER is what Kubernetes sends
for ReadWriteOnce when a driver does not know SINGLE_NODE_MULTI_WRITER; both let several Pods of a node share it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from csi.fs import kinds
from ullage.errors import InvalidRequestError, UnsupportedError
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.quoting import quoted

Mode = pb.VolumeCapability.AccessMode

MODES = (
    Mode.SINGLE_NODE_WRITER,
    Mode.SINGLE_NODE_READER_ONLY,
    Mode.SINGLE_NODE_SINGLE_WRITER,
    Mode.SINGLE_NODE_MULTI_WRITER,
)
MOST_FLAG_BYTES = 4096
"""Of all flags of a mount together (CSI spec, "Size Limits")."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capability:
    """One way to use a volume. `fs_type` is empty for the default, and for block volumes."""

    is_block: bool
    fs_type: str = ""
    mount_flags: tuple[str, ...] = ()
    is_read_only: bool = False
    is_shared: bool = True
    """False: at one target path only (ReadWriteOncePod)."""


def together(messages: Iterable[pb.VolumeCapability]) -> tuple[Capability, ...]:
    """Read all that one volume is to satisfy; raises as `capability` does, and InvalidRequestError if it cannot.

    It is a file system or a device, and of one kind: what the first stage makes of it, it is for good.
    """
    wanted = tuple(capability(each) for each in messages)
    kinds_wanted = dict.fromkeys("a device" if each.is_block else each.fs_type for each in wanted)
    if len(kinds_wanted) > 1:
        raise InvalidRequestError(f"One volume cannot be {' and '.join(kinds_wanted)}")
    return wanted


def capability(message: pb.VolumeCapability) -> Capability:
    """Read one; raises InvalidRequestError (it says too little), UnsupportedError (not on local volumes)."""
    mode = message.access_mode.mode
    if mode == Mode.UNKNOWN:
        raise InvalidRequestError("A volume capability has no access mode")
    if mode not in MODES:
        name = Mode.Mode.Name(mode) if mode in Mode.Mode.values() else str(mode)
        supported = ", ".join(Mode.Mode.Name(each) for each in MODES)
        raise UnsupportedError(f"Access mode {name} is not possible with a volume of one node; possible: {supported}")
    is_read_only, is_shared = mode == Mode.SINGLE_NODE_READER_ONLY, mode != Mode.SINGLE_NODE_SINGLE_WRITER
    if message.HasField("block"):
        return Capability(is_block=True, is_read_only=is_read_only, is_shared=is_shared)
    if not message.HasField("mount"):
        raise InvalidRequestError("A volume capability has no access type; it is 'mount' or 'block'")
    if message.mount.volume_mount_group:
        raise UnsupportedError("volume_mount_group is for file systems without owners of their own; use fsGroup")
    for flag in message.mount.mount_flags:
        if not flag or not flag.isprintable():
            raise InvalidRequestError(f"{quoted(flag)} is no mount flag")
    size_bytes = sum(len(flag.encode()) for flag in message.mount.mount_flags)
    if size_bytes > MOST_FLAG_BYTES:
        raise InvalidRequestError(f"The mount flags have {size_bytes} bytes, {MOST_FLAG_BYTES} are the most")
    return Capability(
        is_block=False,
        fs_type=kinds.named(message.mount.fs_type).name,
        mount_flags=tuple(message.mount.mount_flags),
        is_read_only=is_read_only,
        is_shared=is_shared,
    )
