#!/usr/bin/python3
"""Install the Debian packages that the tests and their VM need; says and does nothing when all are there.

Root gets them from apt-get; anyone else gets the line to run. Only Debian 12's own python3 is needed to start it.
None of these packages brings a daemon worth holding back: lvm2's and udev's units do nothing on a machine without LVM.
"""

import os
import shlex
import subprocess
import sys

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
    "mount": "losetup, mount and umount, which a slim Debian lacks",
    "fdisk": "sfdisk",
    "e2fsprogs": "mkfs.ext4, e2fsck, resize2fs",
    "xfsprogs": "mkfs.xfs, xfs_growfs, xfs_io",
    "btrfs-progs": "mkfs.btrfs, btrfs",
    "strace": "a mkfs that is killed at each of its writes",
    "fio": "the benchmarks",
    "openssl": "keys for a control plane",
}
APT_GET = ("apt-get", "--option", "DPkg::Lock::Timeout=300")
INSTALL = (*APT_GET, "install", "--yes", "--no-install-recommends")


def missing_packages(dpkg_lines: str) -> list[str]:
    """Those of PACKAGES that `dpkg-query --show` did not report as installed ("name status" lines)."""
    there = {line.split()[0] for line in dpkg_lines.splitlines() if line.endswith(" installed")}
    return [name for name in PACKAGES if name not in there]


def _look() -> list[str]:
    query = ("dpkg-query", "--show", "--showformat", "${Package} ${db:Status-Status}\n", *PACKAGES)
    # It fails when one is unknown to dpkg, and still lists the others.
    return missing_packages(subprocess.run(query, check=False, capture_output=True, text=True).stdout)


def _install(packages: list[str]) -> bool:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}

    def succeeds(*argv: str) -> bool:
        sys.stderr.write(f"install: {shlex.join(argv)}\n")
        return subprocess.run(argv, check=False, env=environment, stdin=subprocess.DEVNULL).returncode == 0

    # The lists are often fresh enough; where they are not (or not there at all) the first try fails at once.
    if succeeds(*INSTALL, *packages):
        return True
    return succeeds(*APT_GET, "update") and succeeds(*INSTALL, *packages)


def main() -> int:
    """0 when everything is there in the end."""
    try:
        missing = _look()
    except FileNotFoundError:
        sys.stderr.write(f"install: this is no Debian; the tests need the programs of: {' '.join(PACKAGES)}\n")
        return 1
    if not missing:
        return 0
    for name in missing:
        sys.stderr.write(f"install: {name} is missing ({PACKAGES[name]})\n")
    if os.geteuid() != 0:
        sys.stderr.write(f"install: run this first: sudo apt-get update && sudo {shlex.join((*INSTALL, *missing))}\n")
        return 1
    if _install(missing) and not _look():
        return 0
    sys.stderr.write("install: apt-get could not install them; its reason is above\n")
    return 1


if __name__ == "__main__":
    sys.exit(main())
