"""A cluster with real nodes, left running for a person: started, looked at, ended.

  python -m tests.rigs.full up --nodes 3      returns when the nodes are ready, and says where kubectl finds it
  python -m tests.rigs.full status
  python -m tests.rigs.full down              also after a start that went wrong

Everything of it is below one directory, and gone with `down`. Needs root.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import FrameType

import yaml

from tests.rigs.full import pids
from tests.rigs.full.cluster import PID, Cluster, Shape, attached, started
from tests.rigs.full.node import Hardware
from tests.rigs.full.relay import Relay
from tests.rigs.gotools import programs
from tests.rigs.host import RigError, cache_directory
from tests.rigs.vm.__main__ import bytes_of

READY, LOG, KUBECONFIG = "ready", "log", "kubeconfig"
END_SECONDS = 60.0
POLL_SECONDS = 0.2


def _parser() -> argparse.ArgumentParser:
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="python -m tests.rigs.full",
        description=about,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    shape = Shape()
    add = parser.add_argument
    add("verb", choices=("up", "down", "status", "keep"), help="keep: what `up` leaves running, in the foreground")
    add("--dir", type=Path, default=cache_directory() / "full" / "cluster", help="where all of it is (%(default)s)")
    add("--nodes", type=int, default=shape.nodes, metavar="N", help="virtual machines (%(default)s)")
    add("--cpus", type=int, default=shape.hardware.cpus, metavar="N", help="of each (%(default)s)")
    add("--memory", type=bytes_of, default=shape.hardware.memory_bytes, metavar="SIZE", help="of each (2GiB)")
    add(
        "--disks", type=int, default=shape.hardware.disks, metavar="N", help="of each: the last is pooled (%(default)s)"
    )
    add("--disk-bytes", type=bytes_of, default=shape.hardware.disk_bytes, metavar="SIZE", help="sparse (8GiB)")
    add("--bare", action="store_true", help="without our driver: helm is yours to run")
    return parser


def main() -> int:
    """Do what the command line asks for."""
    options = _parser().parse_args()
    folder: Path = options.dir.absolute()
    hardware = Hardware(
        cpus=options.cpus, memory_bytes=options.memory, disks=options.disks, disk_bytes=options.disk_bytes
    )
    try:
        match options.verb:
            case "up":
                return _up(folder)
            case "down":
                _down(folder)
            case "status":
                print(_status(attached(folder)))
            case _:
                _keep(folder, Shape(nodes=options.nodes, hardware=hardware), is_driver_wanted=not options.bare)
    except RigError as failure:
        _say(str(failure))
        return 1
    return 0


def _up(folder: Path) -> int:
    """Start a process that keeps the cluster, and follow what it says until the cluster is ready."""
    if pids.living(folder / PID) is not None:
        raise RigError(f"a cluster runs in {folder} already: make cluster-down ends it")
    _down(folder)
    folder.mkdir(parents=True)
    log = folder / LOG
    words = ["keep" if word == "up" else word for word in sys.argv[1:]]
    with log.open("wb") as output:
        keeper = subprocess.Popen(
            (sys.executable, "-m", "tests.rigs.full", *words),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    with log.open("rb") as said:
        while keeper.poll() is None and not (folder / READY).exists():
            time.sleep(POLL_SECONDS)
            sys.stderr.write(said.read().decode(errors="replace"))
        sys.stderr.write(said.read().decode(errors="replace"))
    if keeper.poll() is not None:
        _say(f"the cluster could not be started; its logs are in {folder} until make cluster-down")
        return 1
    print(f"export KUBECONFIG={folder / KUBECONFIG}\nexport PATH=$PATH:{programs.get('kubectl').parent}")
    return 0


def _keep(folder: Path, shape: Shape, *, is_driver_wanted: bool) -> None:
    """Until SIGTERM."""
    signal.signal(signal.SIGTERM, _end)
    relay = Relay()  # in the network of whoever started this
    with started(folder, shape) as cluster:
        content = yaml.safe_load(cluster.kubeconfig.read_text(encoding="utf-8"))
        there = content["clusters"][0]["cluster"]
        relay.serve(int(there["server"].rpartition(":")[2]))
        there["server"] = f"https://127.0.0.1:{relay.port}"
        if is_driver_wanted:
            _say("installing the driver by its chart")
            cluster.install()
        (folder / KUBECONFIG).write_text(yaml.safe_dump(content), encoding="utf-8")
        (folder / READY).touch()
        while True:
            signal.pause()


def _end(_number: int, _frame: FrameType | None) -> None:
    raise SystemExit(0)


def _status(cluster: Cluster) -> str:
    """Nodes, and what the rig knows of their machines."""
    lines = [cluster.kubectl("get", "nodes", "--output=wide"), cluster.kubectl("get", "pods", "--all-namespaces")]
    for name, node in cluster.nodes.items():
        power = "off" if node.pid is None else f"on (QEMU {node.pid})"
        lines += [f"{name} is {power}, its logs are in {node.logs}"]
    return "\n".join(lines)


def _down(folder: Path) -> None:
    """End whatever is left of it; nothing when there is nothing. Raises RigError."""
    if not folder.exists():
        return
    pids.end(folder / PID, signal.SIGTERM, END_SECONDS)
    for file in folder.glob(f"*/{PID}"):
        pids.end(file)  # a node that another process than the keeper has booted
    shutil.rmtree(folder)


def _say(sentence: str) -> None:
    sys.stderr.write(f"full: {sentence}\n")


if __name__ == "__main__":
    sys.exit(main())
