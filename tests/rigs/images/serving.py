"""Our components out of the image's own files, with the image's own user, beside a real API server."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.crds import install_crds, install_snapshot_crds
from tests.rigs.cluster.keys import write_kubeconfig
from tests.rigs.cluster.process import Answers, Process, free_ports
from tests.rigs.images.container import NONROOT, ROOT_USER, SHARED, inside
from ullage.kube import crds

USERS = {"controller": NONROOT, "extender": NONROOT, "node": ROOT_USER}
MORE = {"controller": ("--namespace", "kube-system"), "extender": (), "node": ("--node-name", "nobody")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Component:
    """Not yet started; `process` is ready when it knows the cluster."""

    process: Process
    http: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where components can be started: the image's root, and a folder that they share with us."""

    root: Path
    folder: Path
    kubeconfig: str

    def component(self, name: str) -> Component:
        """Controller, extender or node, as its Pod has it."""
        http = f"127.0.0.1:{free_ports(1)[0]}"
        words = ("ullage", name, "--kubeconfig", self.kubeconfig, "--http", http, *MORE[name])
        argv = inside(self.root, self.folder, *words, user=USERS[name])
        process = Process(argv, self.folder / f"{name}.log", Answers(f"http://{http}/readyz"))
        return Component(process=process, http=http)


@contextmanager
def beside_an_api_server(root: Path, folder: Path, logs: Path) -> Iterator[Place]:
    """One that knows our kinds and has none of them; its admin's rights. `folder` is the image's user's."""
    with ControlPlane(logs, only_api=True) as plane:
        (logs / "crds").mkdir()
        crds.write(logs / "crds")
        install_crds(plane.api(), sorted((logs / "crds").glob("*.yaml")))
        install_snapshot_crds(plane.api())
        shutil.copy(plane.certificate, folder / "ca.crt")
        token = plane.token_for("kube-system", "image")
        binding = {
            "metadata": {"name": "image"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
            "subjects": [{"kind": "ServiceAccount", "namespace": "kube-system", "name": "image"}],
        }
        plane.api().create("/apis/rbac.authorization.k8s.io/v1/clusterrolebindings", binding)
        kubeconfig = write_kubeconfig(folder / "kubeconfig", plane.server, SHARED / "ca.crt", token)
        yield Place(root=root, folder=folder, kubeconfig=f"{SHARED}/{kubeconfig.name}")
