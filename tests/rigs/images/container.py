"""The root of an image's files, and a command in it: as a container runtime starts it, without one.

The root is read-only, /tmp is empty, and a folder of the caller's is /run/ullage; all that is mounted is gone with the
command. The network and the processes are the machine's.
"""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

NONROOT = "65532:65532"
"""The image's own user."""
ROOT_USER = "0:0"
SHARED = Path("/run/ullage")
"""Where the caller's folder is inside."""
SCRIPT = """
root=$1 folder=$2 user=$3; shift 3
mount --bind "$root" "$root" && mount -o remount,bind,ro "$root" && mount -t tmpfs tmpfs "$root/run" \
    && mount -t tmpfs tmpfs "$root/tmp" && mkdir "$root/run/ullage" && mount --bind "$folder" "$root/run/ullage" \
    && mount -t proc proc "$root/proc" && mount -t sysfs sysfs "$root/sys" && mount --rbind /dev "$root/dev" || exit 70
exec chroot --userspec="$user" "$root" "$@"
"""


def unpack(archive: Path, root: Path) -> list[int]:
    """Put the image's files there, a layer over the other (none of ours takes a file away); the bytes of each layer."""
    sizes = []
    with tarfile.open(archive) as image:
        manifest = image.extractfile("manifest.json")
        assert manifest is not None
        for name in json.load(manifest)[0]["Layers"]:
            content = image.extractfile(name)
            assert content is not None
            with tarfile.open(fileobj=content) as layer:
                layer.extractall(root, filter="fully_trusted")  # noqa: S202 - our own image, with its devices
                sizes.append(sum(each.size for each in layer.getmembers()))
    return sizes


def inside(root: Path, folder: Path, *words: str, user: str = NONROOT) -> list[str]:
    """The argument list that runs the words in the image."""
    command = ("unshare", "--mount", "--propagation", "private", "env", "--ignore-environment", "LANG=C.UTF-8")
    path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    return [*command, path, "sh", "-c", SCRIPT, "sh", str(root), str(folder), user, *words]
