"""A network of the cluster's own: a namespace with one bridge, on which this process and the nodes meet.

The process that asks for it leaves the machine's network and is then the cluster's router: the control plane listens
on its loopback and at HOST, a node's Pods and every Service are reached through the nodes. The network ends with the
last process in it, and nothing outside can be reached from it.
"""

from __future__ import annotations

import ctypes
import os
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from tests.rigs.host import RigError

HOST = "10.80.0.1"
BITS = 16
BRIDGE = "nodes"
FIRST_NODE = 11
CLONE_NEWNET = 0x40000000
SERVICES = "10.96.0.0/16"
FORWARD = Path("/proc/sys/net/ipv4/ip_forward")


def address_of(number: int) -> str:
    """Of a node, counted from 0."""
    return f"10.80.0.{FIRST_NODE + number}"


def pods_of(number: int) -> str:
    """Where a node's Pods are, as a subnet."""
    return f"10.244.{number}.0/24"


def device_of(node: str) -> str:
    """The end of a node's cable on this machine."""
    return f"tap-{node}"


def lay(nodes: Sequence[str]) -> None:
    """Leave the machine's network for a new one, laid out for these nodes; raises RigError."""
    _checked("unshare", CLONE_NEWNET)
    lines = [
        "link set lo up",
        f"link add {BRIDGE} type bridge",
        f"address add {HOST}/{BITS} dev {BRIDGE}",
        f"link set {BRIDGE} up",
    ]
    for node in nodes:
        device = device_of(node)
        lines += [f"tuntap add dev {device} mode tap", f"link set {device} master {BRIDGE} up"]
    lines += [f"route add {pods_of(number)} via {address_of(number)}" for number in range(len(nodes))]
    lines += [f"route add {SERVICES} via {address_of(0)}"]
    _ip(lines)
    FORWARD.write_text("1", encoding="ascii")


def enter(pid: int) -> None:
    """Leave the machine's network for that of a process; raises RigError."""
    try:
        with Path(f"/proc/{pid}/ns/net").open("rb") as namespace:
            _checked("setns", namespace.fileno(), CLONE_NEWNET)
    except OSError as failure:
        raise RigError(f"the network of process {pid} cannot be entered: {failure}") from failure


def _checked(call: str, *arguments: int) -> None:
    """A call that is about the thread that makes it, and those it starts later: so it has to be the only one."""
    if threading.active_count() > 1:
        raise RigError(f"{call} is for a process of one thread, and this one has {threading.active_count()}")
    if getattr(ctypes.CDLL(None, use_errno=True), call)(*arguments) != 0:
        raise RigError(f"{call}: {os.strerror(ctypes.get_errno())} (it needs root)")


def _ip(lines: Sequence[str]) -> None:
    try:
        subprocess.run(("ip", "-batch", "-"), input="\n".join(lines), check=True, capture_output=True, text=True)
    except FileNotFoundError as missing:
        raise RigError("ip is missing: run tests/rigs/install.py full") from missing
    except subprocess.CalledProcessError as failure:
        raise RigError(f"ip: {failure.stderr.strip()}") from failure
