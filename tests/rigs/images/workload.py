"""What the image of the workloads has on top of a minimal Debian 12: programs that keep their data on our volumes."""

from __future__ import annotations

PACKAGES = (
    "ca-certificates",
    "ceph-common",
    "ceph-mgr",
    "ceph-mon",
    "ceph-osd",
    "e2fsprogs",
    "fio",
    "iproute2",
    "mount",
    "postgresql-15",
    "procps",
    "python3",
    "redis-server",
    "sysstat",
    "udev",
    "util-linux",
    "xfsprogs",
)
