"""The files by which a node's programs know who and where they are: a directory, written anew for each boot."""

from __future__ import annotations

import json
import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.rigs.cluster import keys, kubelets
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.full import network
from tests.rigs.gotools import programs

HERE = Path(__file__).parent
COMMANDS_PORT = 9000
CONTAINERD_SOCKET = "/run/containerd/containerd.sock"
CNI_PLUGINS = "/usr/lib/cni"
"""Debian's containernetworking-plugins."""
STATISTICS_SECONDS = 60
"""How often containerd and kubelet look at what containers use: each look is dear to an emulated machine."""
RACK = "topology.rook.io/rack"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A node among the others: it is the `number`-th, from 0."""

    name: str
    number: int
    pause: str
    """The image that holds a Pod's namespaces."""
    disks: Sequence[str]
    """Device files: all but the last make the group nvme, the last the group pooled, with the pool thin."""

    @property
    def address(self) -> str:
        """Its address in the rig's network."""
        return network.address_of(self.number)


def write(folder: Path, identity: Identity, plane: ControlPlane) -> None:
    """All files of a boot of the node; builds its programs if they are not built. Raises RigError."""
    folder.mkdir(parents=True, exist_ok=True)
    for script in ("node.sh", "commands.py"):
        shutil.copy(HERE / script, folder / script)
    shutil.copy(plane.certificate, folder / "ca.crt")
    server = f"https://{network.HOST}:{plane.server.rpartition(':')[2]}"
    users = {"kubelet": kubelets.user_of(identity.name), "kube-proxy": kubelets.PROXY_USER}
    for program, user in users.items():
        keys.write_kubeconfig(folder / f"{program}.kubeconfig", server, folder / "ca.crt", plane.token_of(user))
    _write_yaml(folder / "kubelet.yaml", _kubelet(folder, identity))
    _write_yaml(folder / "kube-proxy.yaml", _kube_proxy(folder, identity))
    (folder / "cni.conflist").write_text(json.dumps(_cni(identity), indent=1), encoding="utf-8")
    (folder / "containerd.toml").write_text(_containerd(identity), encoding="utf-8")
    (folder / "settings.sh").write_text(_script(_variables(identity)), encoding="utf-8")


def _variables(identity: Identity) -> dict[str, str]:
    containerd = programs.get("containerd")
    shim = programs.get("containerd-shim-runc-v2")
    labels = {RACK: f"rack-{identity.number + 1}"}
    *thick, pooled = identity.disks
    return {
        "node_name": identity.name,
        "node_address": identity.address,
        "node_labels": ",".join(f"{name}={word}" for name, word in labels.items()),
        "commands_port": str(COMMANDS_PORT),
        "statistics_seconds": str(STATISTICS_SECONDS),
        "containerd": str(containerd),
        "kubelet": str(programs.get("kubelet")),
        "kube_proxy": str(programs.get("kube-proxy")),
        "nvme_disks": " ".join(thick),
        "pooled_disk": pooled,
        "PATH": os.pathsep.join((str(shim.parent), "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin")),
    }


def _script(variables: Mapping[str, str]) -> str:
    return "".join(f"{name}={shlex.quote(word)}\n" for name, word in variables.items())


def _kubelet(folder: Path, identity: Identity) -> dict[str, Any]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": identity.address,
        "authentication": {"anonymous": {"enabled": False}, "x509": {"clientCAFile": str(folder / "ca.crt")}},
        "authorization": {"mode": "AlwaysAllow"},  # of whoever proves to be the API server
        "cgroupDriver": "cgroupfs",  # nodes have no systemd
        "containerRuntimeEndpoint": f"unix://{CONTAINERD_SOCKET}",
        "resolvConf": "/etc/kubernetes/resolv.conf",  # an empty one: nobody here answers for names
        "failSwapOn": False,
        "imageGCHighThresholdPercent": 100,  # images are brought by the rig, and cannot be had again
        "evictionHard": {"memory.available": "50Mi", "nodefs.available": "1%", "imagefs.available": "1%"},
        "runtimeRequestTimeout": "10m",  # an emulated machine starts containers slowly
        "registryPullQPS": 0,
        "volumeStatsAggPeriod": f"{STATISTICS_SECONDS}s",
        "logging": {"flushFrequency": "1s"},
    }


def _kube_proxy(folder: Path, identity: Identity) -> dict[str, Any]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(folder / "kube-proxy.kubeconfig")},
        "mode": "nftables",
        "bindAddress": identity.address,
        "conntrack": {"maxPerCore": 0},
        "nodePortAddresses": ["primary"],
    }


def _cni(identity: Identity) -> dict[str, Any]:
    addresses = {
        "type": "host-local",
        "dataDir": "/run/cni",  # nobody has an address when the node comes up
        "ranges": [[{"subnet": network.pods_of(identity.number)}]],
        "routes": [{"dst": "0.0.0.0/0"}],
    }
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": addresses}]}


def _containerd(identity: Identity) -> str:
    return f"""version = 3
root = '/var/lib/containerd'
state = '/run/containerd'

[grpc]
address = '{CONTAINERD_SOCKET}'

[plugins.'io.containerd.cri.v1.images']
stats_collect_period = {STATISTICS_SECONDS}

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '{identity.pause}'

[plugins.'io.containerd.cri.v1.runtime']
disable_apparmor = true
stats_collect_period = '{STATISTICS_SECONDS}s'
stats_retention_period = '{4 * STATISTICS_SECONDS}s'

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ['{CNI_PLUGINS}']
conf_dir = '/etc/cni/net.d'

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = 'io.containerd.runc.v2'

[plugins.'io.containerd.nri.v1.nri']
disable = true
"""


def _write_yaml(path: Path, content: Mapping[str, Any]) -> None:
    path.write_text(yaml.safe_dump(dict(content), sort_keys=False), encoding="utf-8")
