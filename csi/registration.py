"""How kubelet comes to know the driver: a socket of its own in the directory that kubelet watches.

Kubelet (pkg/kubelet/pluginmanager) asks whoever serves on a socket there for the driver's name and the path of its CSI
socket, calls NodeGetInfo on that, writes the answer to the CSINode, and says here what came of it. One that it refused
it asks again by itself. When the socket goes, the driver is taken off the CSINode; one that is made again is asked
anew, and so is every socket that is there when kubelet starts.

So the socket is there while the driver serves: made after the CSI socket is served, removed before that ends, and made
again when somebody removed it. A path on which somebody else answers is left alone, and looked at again. Nothing here
ends or delays what is asked on the CSI socket; only if that one's file is gone, which no server can make again on its
own, the process has to end and be started anew.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
from prometheus_client import CollectorRegistry, Gauge

from ullage.errors import ConfigError
from ullage.model import Problem
from ullage.pb.pluginregistration.v1 import registration_pb2 as pb
from ullage.pb.pluginregistration.v1 import registration_pb2_grpc
from ullage.rpc import RpcServer, is_answered
from ullage.storage_classes import DRIVER

KIND = "CSIPlugin"
VERSIONS = ("1.0.0",)
"""The CSI version that kubelet is told: it knows 0.x and 1.x, and nothing in between."""
SOCKET_NAME = f"{DRIVER}-reg.sock"
WORKERS = 2
LOOK_SECONDS = 2.0
"""Between two looks whether the sockets are still there: two calls of stat."""
STOP_SECONDS = 1.0
NOT_ASKED = Problem(reason="NotRegistered", message="kubelet has not asked for the driver yet")

log = logging.getLogger(__name__)


class Registration(registration_pb2_grpc.RegistrationServicer):
    """kubelet's pluginregistration.Registration, on `ullage.io-reg.sock` in the directory, from `start` to `stop`."""

    def __init__(self, directory: Path, csi_socket: Path, lost: Callable[[], None]) -> None:
        """`csi_socket` is told to kubelet, so both see it at one path. `lost` is called when its file is gone."""
        self.path = directory / SOCKET_NAME
        self._csi_socket = csi_socket
        self._lost = lost
        self._server: RpcServer | None = None
        self._made: tuple[int, int] | None = None
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._keep, name="registration", daemon=True)
        self._problem: Problem | None = NOT_ASKED

    def GetInfo(self, _request: pb.InfoRequest, _context: grpc.ServicerContext) -> pb.PluginInfo:  # noqa: N802 - the proto's name
        """See the proto."""
        return pb.PluginInfo(type=KIND, name=DRIVER, endpoint=str(self._csi_socket), supported_versions=VERSIONS)

    def NotifyRegistrationStatus(  # noqa: N802 - the proto's name
        self, request: pb.RegistrationStatus, _context: grpc.ServicerContext
    ) -> pb.RegistrationStatusResponse:
        """See the proto."""
        if request.plugin_registered:
            self._problem = None
            log.info("registered with kubelet", extra={"socket": str(self.path), "endpoint": str(self._csi_socket)})
        else:
            self._problem = Problem(reason="RefusedByKubelet", message=request.error or "kubelet gave no reason")
            log.error("kubelet refused the driver", extra={"why": request.error, "endpoint": str(self._csi_socket)})
        return pb.RegistrationStatusResponse()

    def problem(self) -> Problem | None:
        """Why kubelet does not know the driver, as far as it told; None once it does."""
        return self._problem

    def start(self) -> None:
        """Be found by kubelet; the driver serves. What keeps the socket from being made is logged, and tried again."""
        self._look()
        self._thread.start()

    def stop(self) -> None:
        """Be gone for kubelet."""
        self._stopped.set()
        self._thread.join()
        if not self._is_anothers():
            self._withdraw()

    def _keep(self) -> None:
        while not self._stopped.wait(LOOK_SECONDS):
            if _identity(self._csi_socket) is None:
                log.error("the CSI socket was removed", extra={"socket": str(self._csi_socket)})
                self._problem = Problem(reason="SocketRemoved", message=f"{self._csi_socket} was removed")
                self._lost()
                return
            try:
                self._look()
            except Exception:
                log.exception("the look after the registration socket failed")

    def _look(self) -> None:
        """Serve on the path, unless that is so already, or somebody else does."""
        if self._made is not None:
            if _identity(self.path) == self._made:
                return
            if self._is_anothers():
                self._tell(f"another process has put its socket at {self.path}")
                return
            log.warning("the registration socket was removed", extra={"socket": str(self.path)})
            self._withdraw()
        server = RpcServer(f"unix://{self.path}", workers=WORKERS)
        registration_pb2_grpc.add_RegistrationServicer_to_server(self, server.grpc)
        try:
            server.bind()
        except ConfigError as failure:
            self._tell(str(failure))
            return
        self._problem = NOT_ASKED
        server.start()
        self._server, self._made = server, _identity(self.path)

    def _tell(self, why: str) -> None:
        """There is no socket of ours, and every look finds that again: log it once."""
        if self._problem is None or self._problem.message != why:
            log.error("kubelet cannot find the driver", extra={"why": why})
        self._problem = Problem(reason="NotRegistered", message=why)

    def _withdraw(self) -> None:
        """Stop serving. gRPC takes what is at the path along, so this is not for a path where somebody else serves."""
        if self._server is not None:
            self._server.stop(STOP_SECONDS)
        self._server = self._made = None

    def _is_anothers(self) -> bool:
        """Whether somebody else serves on the path."""
        try:
            return _identity(self.path) != self._made and is_answered(self.path)
        except OSError:
            return False


def describe_registration(registry: CollectorRegistry, problem: Callable[[], Problem | None]) -> None:
    """Show whether kubelet knows the driver."""
    registered = Gauge("ullage_registered", "Whether kubelet has registered the driver: 1 or 0.", registry=registry)
    registered.set_function(lambda: float(problem() is None))


def _identity(path: Path) -> tuple[int, int] | None:
    """Which file is at the path; None without one. Inode numbers are used again, but not while we hold the socket's."""
    try:
        found = path.lstat()
    except OSError:
        return None
    return found.st_dev, found.st_ino
