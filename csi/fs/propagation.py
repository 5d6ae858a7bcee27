"""Whether a mount made at a path is seen by those it is made for.

The kubelet and the Pods are in other mount namespaces than a driver in a container. A mount made here reaches them only
if the mount that it is made on is `shared` (Linux, Documentation/filesystems/sharedsubtree.rst; in a Pod:
`mountPropagation: Bidirectional`). On a `private` or `slave` one it stays here, the Pod sees an empty directory of the
node's root disk, and writes there without a word.

The rule: the mount that contains the path is shared; or our namespace is the machine's own, where a private `/` is
normal on machines without systemd. It is the machine's own if it has the number that Linux 6.18 gives it for good
(include/uapi/linux/nsfs.h, MNT_NS_INIT_INO), or if it is that of process 1 or 2, seen from the machine's own pid
namespace (whose number has been fixed since 3.8): inside of a container process 1 is often ourselves.

Its limits: `shared` does not say with whom (a container with a shared mount of its own would pass), and a whole Linux
in a container (LXC) with private mounts is refused, which a kubelet would not run on either.
"""

from __future__ import annotations

import os
from pathlib import Path

from csi.fs import mount_table
from ullage.errors import NotPropagatedError, PreconditionError

_NAMESPACE = Path("/proc/self/ns")
_FIRST_PROCESSES = ("1", "2")
"""init, and the parent of the kernel's threads: the one may be closed to us (hidepid, a sandbox), the other is not."""
_INITIAL_MOUNTS, _INITIAL_PIDS = "mnt:[4026531832]", "pid:[4026531836]"


def require(place: Path) -> None:
    """Raise NotPropagatedError unless a mount at this place will be seen outside; PreconditionError without a parent.

    The mount that contains it is asked of the kernel (proc_pid_fdinfo(5), mnt_id): of paths alone one cannot tell,
    since mounts can be hidden by others.
    """
    try:
        parent = os.open(place.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as failure:
        raise PreconditionError(f"{place.parent} is no directory to mount in: {failure.strerror}") from failure
    try:
        mount_id = mount_table.mount_id(parent)
    finally:
        os.close(parent)
    containing = mount_table.read().with_id(mount_id)
    if (containing is not None and containing.is_shared) or _is_machines_own():
        return
    what = (
        f"{containing.place} is {' '.join(containing.propagation) or 'private'}" if containing else "its mount is gone"
    )
    raise NotPropagatedError(
        f"A mount at {place} would not be seen outside of this container ({what}, not shared), and the Pod would write "
        "to the node's root disk: give the container the kubelet's directory with mountPropagation: Bidirectional",
        path=str(place),
    )


def _is_machines_own() -> bool:
    ours = str((_NAMESPACE / "mnt").readlink())
    if ours == _INITIAL_MOUNTS:
        return True
    if str((_NAMESPACE / "pid").readlink()) != _INITIAL_PIDS:
        return False
    return any(_namespace_of(process) == ours for process in _FIRST_PROCESSES)


def _namespace_of(process: str) -> str:
    try:
        return str(Path(f"/proc/{process}/ns/mnt").readlink())
    except OSError:
        return ""
