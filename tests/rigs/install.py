#!/usr/bin/python3
"""Install the Debian packages that the tests and their VM need; says and does nothing when all are there.

  /usr/bin/python3 tests/rigs/install.py [GROUP...]

Root gets them from apt-get; anyone else gets the line to run. Only Debian 12's own python3 is needed to start it.
`image` adds what only images need, `full` what a cluster of real nodes does, images included.
None of these packages brings a daemon worth holding back: lvm2's and udev's units do nothing on a machine without LVM.
"""

import os
import shlex
import subprocess
import sys
from collections.abc import Iterable

PACKAGES = {
    "python3-venv": "make venv",
    "qemu-system-x86": "the VM",
    "busybox-static": "its initramfs",
    "cpio": "to look into an initramfs by hand",
    "kmod": "depmod for its kernel, modprobe inside",
    "udev": "device links inside, which LVM waits for",
    "lvm2": "what this project drives",
    "dmsetup": "what LVM drives",
    "thin-provisioning-tools": "thin_check, which LVM runs on a thin pool's metadata",
    "util-linux": "lsblk, blkdiscard, setpriv, blkid, wipefs",
    "procps": "ps: whether a process of a test is left",
    "mount": "losetup, mount and umount, which a slim Debian lacks",
    "fdisk": "sfdisk",
    "e2fsprogs": "mkfs.ext4, e2fsck, resize2fs",
    "xfsprogs": "mkfs.xfs, xfs_growfs, xfs_io",
    "btrfs-progs": "mkfs.btrfs, btrfs",
    "strace": "a mkfs that is killed at each of its writes",
    "fio": "the benchmarks",
    "openssl": "keys for a control plane",
    "curl": "what the documentation has people ask a process",
    "iproute2": "a network of its own for what the documentation has people run",
}
_OF_IMAGES = {
    "buildah": "to run a Containerfile without a daemon",
    "mmdebstrap": "to make a Debian",
}
GROUPS = {
    "image": _OF_IMAGES,
    "full": {
        **_OF_IMAGES,
        "iproute2": "the network of a cluster",
        "runc": "containers in its nodes",
        "containernetworking-plugins": "their Pods' network",
        "iptables": "what kubelet and the plugins of that network call",
        "nftables": "their Services",
        "qemu-utils": "the disks that they share",
    },
}
"""What a tier needs besides PACKAGES: the word that asks for it, and what is installed then."""
APT_GET = ("apt-get", "--option", "DPkg::Lock::Timeout=300")
INSTALL = (*APT_GET, "install", "--yes", "--no-install-recommends")


def wanted_packages(groups: list[str]) -> dict[str, str]:
    """PACKAGES and those of the groups, each with what it is for."""
    return {name: use for each in (PACKAGES, *(GROUPS[group] for group in groups)) for name, use in each.items()}


def missing_packages(dpkg_lines: str, wanted: Iterable[str] = PACKAGES) -> list[str]:
    """Those of `wanted` that `dpkg-query --show` did not report as installed ("name status" lines)."""
    there = {line.split()[0] for line in dpkg_lines.splitlines() if line.endswith(" installed")}
    return [name for name in wanted if name not in there]


def _look(wanted: Iterable[str]) -> list[str]:
    query = ("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *wanted)
    # It fails when one is unknown to dpkg, and still lists the others.
    return missing_packages(subprocess.run(query, check=False, capture_output=True, text=True).stdout, wanted)


def _install(packages: list[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def succeeds(*argv: str) -> bool:
        sys.stderr.write(f"install: {shlex.join(argv)}\n")
        return subprocess.run(argv, check=False, env=environment, stdin=subprocess.DEVNULL).returncode == 0

    # The lists are often fresh enough; where they are not (or not there at all) the first try fails at once.
    if succeeds(*INSTALL, *packages):
        return True
    return succeeds(*APT_GET, "update") and succeeds(*INSTALL, *packages)


def main(groups: list[str]) -> int:
    """0 when everything is there in the end."""
    if unknown := [group for group in groups if group not in GROUPS]:
        sys.stderr.write(f"install: no {', '.join(unknown)}; there are: {', '.join(GROUPS)}\n")
        return 2
    wanted = wanted_packages(groups)
    try:
        missing = _look(wanted)
    except FileNotFoundError:
        sys.stderr.write(f"install: this is no Debian; the tests need the programs of: {' '.join(wanted)}\n")
        return 1
    if not missing:
        return 0
    for name in missing:
        sys.stderr.write(f"install: {name} is missing ({wanted[name]})\n")
    if os.geteuid() != 0:
        sys.stderr.write(f"install: run this first: sudo apt-get update && sudo {shlex.join((*INSTALL, *missing))}\n")
        return 1
    if _install(missing) and not _look(wanted):
        return 0
    sys.stderr.write("install: apt-get could not install them; its reason is above\n")
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
