"""The driver under test: `ullage standalone` as a process, or the same services here with their steps disturbed."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from csi.calls import Calls
from csi.controller import Controller
from csi.fs.volumes import FileSystems
from csi.group import GroupController
from csi.identity import Identity
from csi.node import Node
from csi.server import Services, csi_server
from csi.snapshot_metadata import SnapshotMetadata
from node_agent.assembly import Assembly
from node_agent.local import LocalNode, LocalProvisioner
from tests.contract.faults import Disturbed, Programs, begun, until
from tests.contract.forked import Forked
from tests.contract.sites import CLASS, GROUP, FileSite, Site
from tests.csi.kubelet import LONG_SECONDS, Client
from ullage.cli import main
from ullage.errors import MIB
from ullage.model import DeviceClass, NodeName, Wipe
from ullage.rpc import RpcServer

NODE = NodeName("here")
POOL = "{name: pool0, createSize: 800Mi, overprovisionRatio: 1.5}"


def configuration(site: Site, wipe: Wipe = Wipe.DISCARD) -> str:
    """The configuration file for the site's class; as `site.device_class` says it."""
    if isinstance(site, FileSite):
        place = f"type: file, directory: {site.directory}"
    elif site.name == "thin":
        place = f"type: thin, volumeGroups: [{GROUP}], thinPool: {POOL}"
    else:
        place = f"type: thick, volumeGroups: [{GROUP}]"
    return f"deviceClasses:\n- {{name: {CLASS}, {place}, wipe: {wipe}}}\n"


@dataclass
class Driver:
    """`ullage standalone` on a site; started and ended as often as a test likes."""

    site: Site
    folder: Path
    process: Forked | None = None

    @property
    def address(self) -> str:
        return f"unix://{self.folder}/csi.sock"

    @property
    def log(self) -> Path:
        return self.folder / "driver.log"

    def start(self, *more: str, program: Callable[..., int | None] = main) -> None:
        """Start it and wait until it serves; `program` takes the same words."""
        config = self.folder / "config.yaml"
        config.write_text(configuration(self.site))
        argv = [
            "standalone",
            "--config",
            str(config),
            "--csi-endpoint",
            self.address,
            "--socket",
            f"unix://{self.folder}/agent.sock",
        ]
        argv += ["--node-name", NODE, "--log-format", "json"]
        with self.log.open("ab") as log:
            log.write(b"---\n")
        self.process = Forked(program, [*argv, *more], log=self.log)
        until(lambda: self.says('"serving"') or not self.is_alive())
        assert self.is_alive(), self.log.read_text()

    def says(self, text: str) -> bool:
        """Whether it has logged this since it started."""
        return text in self.log.read_text().rpartition("---\n")[2]

    def is_alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send it a signal and wait for its end."""
        assert self.process is not None
        self.process.send_signal(number)
        return self.process.wait(LONG_SECONDS)

    def died(self) -> int:
        """Wait for its end by itself."""
        assert self.process is not None
        return self.process.wait(LONG_SECONDS)


class HereServed:
    """The services of `ullage standalone` in this process, on a socket; `disturbed` says what befalls their steps."""

    def __init__(self, site_class: DeviceClass, folder: Path, disturbed: Disturbed) -> None:
        self.calls = Calls()
        self.assembly = begun(disturbed.assembly(), [site_class])
        self.assembly.reporter.start()
        self.server = served(self.assembly, self.calls, disturbed, f"unix://{folder}/csi.sock")
        self.client = Client(self.server.address)


def served(assembly: Assembly, calls: Calls, disturbed: Disturbed, address: str) -> RpcServer:
    """What `ullage.cli.standalone` puts together, with a runner that can be disturbed."""
    runner = Programs(disturbed.change, disturbed.look)
    provisioner = LocalProvisioner(assembly.agent, NODE)
    services = Services(
        identity=Identity(calls, "0", lambda: True),
        controller=Controller(calls, provisioner),
        group=GroupController(calls, provisioner),
        metadata=SnapshotMetadata(calls, provisioner),
        node=Node(calls, LocalNode(assembly.agent), FileSystems(runner, is_standalone=True), NODE),
    )
    server = csi_server(services, address)
    server.bind()
    server.start()
    return server


@contextmanager
def here(device_class: DeviceClass, folder: Path, disturbed: Disturbed | None = None) -> Iterator[HereServed]:
    """The services, for a while."""
    running = HereServed(device_class, folder, disturbed or Disturbed())
    try:
        yield running
    finally:
        running.client.close()
        running.server.stop(LONG_SECONDS)
        assert running.assembly.stop(LONG_SECONDS)


SMALL_BYTES = 32 * MIB
"""A size that each site takes as it is, and that holds an ext4."""
XFS_BYTES = 320 * MIB
"""The same for each file system."""
_CAP_SYS_RESOURCE = 24


def can_grow_ext4() -> bool:
    """ext4 is grown online by root with CAP_SYS_RESOURCE only, which not everybody has who is called root."""
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return bool(int(status["CapEff"], 16) >> _CAP_SYS_RESOURCE & 1)
