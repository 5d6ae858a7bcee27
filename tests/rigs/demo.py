"""Walk one volume through its life on this machine, with each call, its seconds, and the free space after.

  python -m tests.rigs.demo

Starts a real node agent of its own over a temporary directory, and uses it as a client would. Needs root (loop devices
and mounts). Leaves nothing behind, also on Ctrl-C. LVM on a loop device is used where the kernel has device-mapper,
files otherwise; the first line says which.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar

from ullage.agent_client import TIMEOUT_SECONDS, agent_at
from ullage.errors import GIB, MIB, UllageError, human_bytes
from ullage.pb.agent.v1 import agent_pb2 as pb
from ullage.pb.agent.v1.agent_pb2_grpc import AgentStub

START_SECONDS = 60.0
GROUP = "ullagedemo"
FILES = """\
deviceClasses:
  - name: demo
    type: file
    directory: {directory}
"""
LVM = """\
deviceClasses:
  - name: demo
    type: thick
    volumeGroups: [ullagedemo]
"""

Answer = TypeVar("Answer")


def main() -> int:
    """Run the demo; 0 when every step did what it says."""
    if os.geteuid() != 0:
        sys.stderr.write("demo: loop devices and mounts need root; run `sudo make demo`\n")
        return 2
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave by the same door as Ctrl-C
    try:
        _demonstrate()
    except KeyboardInterrupt:
        print("demo: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    except (UllageError, OSError) as failure:
        print(f"demo: {failure}", file=sys.stderr)
        return 1
    print("demo: all done, nothing is left behind")
    return 0


def _demonstrate() -> None:
    with ExitStack() as ends:
        base = Path(ends.enter_context(tempfile.TemporaryDirectory(prefix="ullage-demo-")))
        has_lvm = any("device-mapper" in line for line in Path("/proc/misc").read_text(encoding="ascii").splitlines())
        print("storage: LVM on a loop device" if has_lvm else "storage: files (this kernel has no device-mapper)")
        config = base / "config.yaml"
        if has_lvm:
            ends.enter_context(_volume_group(base))
            config.write_text(LVM, encoding="utf-8")
        else:
            (base / "volumes").mkdir()
            config.write_text(FILES.format(directory=base / "volumes"), encoding="utf-8")
        socket = f"unix://{base}/agent.sock"
        ends.enter_context(_agent(config, socket))
        _walk(ends.enter_context(agent_at(socket)), base / "mount")


def _walk(agent: AgentStub, mount: Path) -> None:
    """Create, use, grow, use again, delete; the volume is deleted whatever happens between."""
    create = pb.CreateVolumeRequest(
        volume_id="pvc-demo",
        device_class="demo",
        size_bytes=64 * MIB,
        owner=pb.Owner(claim_namespace="default", claim_name="demo"),
    )
    expand = pb.ExpandVolumeRequest(volume_id="pvc-demo", size_bytes=128 * MIB)
    delete = pb.DeleteVolumeRequest(volume_id="pvc-demo")
    _step(agent, "ListPools", lambda: agent.ListPools(pb.ListPoolsRequest(), timeout=TIMEOUT_SECONDS))
    volume = _step(agent, "CreateVolume 64 MiB", lambda: agent.CreateVolume(create, timeout=TIMEOUT_SECONDS)).volume
    try:
        mount.mkdir()
        _step(agent, "mkfs.ext4", lambda: _run("mkfs.ext4", "-q", volume.device_path))
        with _mounted(volume.device_path, mount):
            _step(agent, "write a file", lambda: (mount / "ullage").write_text("the free space left in a cask"))
        volume = _step(
            agent, "ExpandVolume 128 MiB", lambda: agent.ExpandVolume(expand, timeout=TIMEOUT_SECONDS)
        ).volume
        _step(agent, "grow the file system", lambda: _grow(volume.device_path))
        with _mounted(volume.device_path, mount):
            text = _step(agent, "read the file", lambda: (mount / "ullage").read_text(encoding="utf-8"))
            size = os.statvfs(mount).f_blocks * os.statvfs(mount).f_frsize
            print(f"  it says {text!r}, on a file system of {human_bytes(size)}")
    finally:
        _step(agent, "DeleteVolume", lambda: agent.DeleteVolume(delete, timeout=TIMEOUT_SECONDS))


def _step(agent: AgentStub, what: str, call: Callable[[], Answer]) -> Answer:
    started = time.monotonic()
    answer = call()
    seconds = time.monotonic() - started
    pool = agent.ListPools(pb.ListPoolsRequest(), timeout=TIMEOUT_SECONDS).pools[0]
    print(f"{what:24} {seconds:7.3f} s   free: {human_bytes(pool.free_bytes)}")
    return answer


@contextmanager
def _agent(config: Path, socket: str) -> Iterator[None]:
    """A node agent of our own, ready to serve."""
    argv = [sys.executable, "-m", "ullage.cli", "agent", "--config", str(config), "--socket", socket]
    with subprocess.Popen([*argv, "--log-level", "warning"], start_new_session=True) as process:
        try:
            _wait_for(socket, process)
            yield
        finally:
            process.terminate()
            process.wait()


def _wait_for(socket: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    while True:
        try:
            with agent_at(socket) as agent:
                agent.ListPools(pb.ListPoolsRequest(), timeout=1.0)
        except UllageError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


@contextmanager
def _volume_group(base: Path) -> Iterator[None]:
    """A volume group on a sparse file."""
    disk = base / "disk"
    with disk.open("wb") as file:
        file.truncate(2 * GIB)
    device = _run("losetup", "--find", "--show", str(disk)).strip()
    try:
        _run("vgcreate", "--yes", "--quiet", GROUP, device)
        try:
            yield
        finally:
            _run("vgremove", "--force", "--yes", "--quiet", GROUP)
    finally:
        _run("losetup", "--detach", device)


@contextmanager
def _mounted(device: str, mount: Path) -> Iterator[None]:
    _run("mount", device, str(mount))
    try:
        yield
    finally:
        _run("umount", str(mount))


def _grow(device: str) -> None:
    _run("e2fsck", "-f", "-p", device)
    _run("resize2fs", device)


def _run(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env={**os.environ, "LC_ALL": "C"})
    if done.returncode != 0:
        raise UllageError(f"{' '.join(argv)} failed: {done.stderr.strip()}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
