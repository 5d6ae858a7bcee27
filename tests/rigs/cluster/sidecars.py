"""The CSI sidecars as a controller's Pod has them beside it: the real programs, on the socket of one driver.

They end when the driver's socket goes, as kubelet would have it, and are started again as kubelet does.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.rigs.cluster.api import Api
from tests.rigs.cluster.crds import install_snapshot_crds
from tests.rigs.cluster.keeper import Keeper
from tests.rigs.cluster.process import Answers, Process, free_ports
from tests.rigs.gotools import programs

PROVISIONER, RESIZER, SNAPSHOTTER = "csi-provisioner", "csi-resizer", "csi-snapshotter"
SNAPSHOT_CONTROLLER = "snapshot-controller"
NAMES = (PROVISIONER, RESIZER, SNAPSHOTTER, SNAPSHOT_CONTROLLER)
CALLS = ("--timeout=30s", "--retry-interval-start=500ms", "--retry-interval-max=5s")
"""A refusal is repeated soon: tests wait for what comes after it."""
LOOK_AGAIN = "--resync-period=10s"
"""Of both: a change that comes while they deal with an older one can be lost on them until they look again (15 min)."""
OF_EACH: Mapping[str, Sequence[str]] = {
    PROVISIONER: (
        *CALLS,
        "--strict-topology",
        "--immediate-topology=false",  # else every call names every node of the cluster
        "--extra-create-metadata",
        "--default-fstype=ext4",
    ),
    RESIZER: (*CALLS, "--handle-volume-inuse-error=false"),  # expansion is online; it would watch all Pods
    SNAPSHOTTER: (*CALLS, LOOK_AGAIN, "--extra-create-metadata"),
    SNAPSHOT_CONTROLLER: (LOOK_AGAIN, "--retry-interval-start=500ms", "--retry-interval-max=5s"),
}
AS_HOST = ("unshare", "--uts", "--", "sh", "-c", 'hostname "$0" && exec "$@"')
"""With a host name of its own, as in a Pod: it is who they are in elections, and with one name all of them lead."""
RATE = ("--kube-api-qps=200", "--kube-api-burst=400")
"""Their own limit, of 5 requests a second, would be what a test with many volumes waits for."""


class Sidecars:
    """All four, for as long as the context lasts. The driver has to be there first: they wait for its socket."""

    def __init__(  # noqa: PLR0913 - what differs from test to test
        self,
        folder: Path,
        socket: Path,
        kubeconfig: Path,
        api: Api,
        more: Mapping[str, Sequence[str]] = {},
        *,
        account: Path | None = None,
    ) -> None:
        """`more` are further flags by program; logs go to `folder`, whose name is that of their host.

        `account` is the kubeconfig of those that share the driver's Pod; without it, and for snapshot-controller, which
        is the cluster's, it is `kubeconfig`.

        Builds what is not built yet; raises RigError.
        """
        self._api = api
        ports = free_ports(len(NAMES))
        self._processes = {}
        for name, port in zip(NAMES, ports, strict=True):
            address = f"127.0.0.1:{port}"
            is_beside = name != SNAPSHOT_CONTROLLER
            whose = account if account is not None and is_beside else kubeconfig
            flags = [f"--kubeconfig={whose}", f"--http-endpoint={address}", "--v=4", *RATE, *OF_EACH[name]]
            if is_beside:
                flags.append(f"--csi-address={socket}")
            argv: list[str | Path] = [*AS_HOST, folder.name, programs.get(name), *flags, *more.get(name, ())]
            self._processes[name] = Process(argv, folder / f"{name}.log", Answers(f"http://{address}/metrics"))
        self._keeper = Keeper(list(self._processes.values()))

    def process(self, name: str) -> Process:
        """One of them: its log, its pid; it is started again when it is killed."""
        return self._processes[name]

    def __enter__(self) -> Self:
        """Start them and wait until they serve; raises RigError."""
        install_snapshot_crds(self._api)
        self._keeper.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._keeper.end()
