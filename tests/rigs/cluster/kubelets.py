"""What a control plane is told when its nodes are machines with kubelets, and what when nobody but the rig says so."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tests.rigs.cluster.keys import Keys

SERVICE_ADDRESS = "10.96.0.1"
"""Of the service "kubernetes": the first of the range that the API server is given."""
PROXY_USER = "system:kube-proxy"
WITHOUT_IPAM = ("node-ipam-controller", "node-route-controller")
"""Controllers that no cluster of ours needs: where a node's Pods are, the rig says."""
WITHOUT_KUBELETS = ("node-lifecycle-controller", "taint-eviction-controller")
"""Controllers for which a node without a kubelet is a lost one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelets:
    """Where nodes find the API server, an address of this machine, and what they are called."""

    address: str
    nodes: Sequence[str]


def user_of(node: str) -> str:
    """Whom the API server takes the kubelet of a node for; the Node authorizer goes by it."""
    return f"system:node:{node}"


def users(kubelets: Kubelets | None) -> dict[str, str]:
    """Further users with tokens, each with its group."""
    if kubelets is None:
        return {}
    return {**{user_of(node): "system:nodes" for node in kubelets.nodes}, PROXY_USER: ""}


def addresses(kubelets: Kubelets | None) -> list[str]:
    """Further addresses at which the API server's certificate has to hold."""
    return [] if kubelets is None else [kubelets.address, SERVICE_ADDRESS]


def api_server_flags(kubelets: Kubelets | None, keys: Keys) -> list[str]:
    """Where it listens, whom it lets do what, and how it proves itself to kubelets."""
    if kubelets is None:
        return [
            "--bind-address=127.0.0.1",
            "--endpoint-reconciler-type=none",  # loopback is no address for the "kubernetes" service
            "--authorization-mode=RBAC",
            "--disable-admission-plugins=TaintNodesByCondition",  # nobody would take the taint of a new node away
        ]
    return [
        "--bind-address=0.0.0.0",
        f"--advertise-address={kubelets.address}",
        "--authorization-mode=Node,RBAC",
        "--enable-admission-plugins=NodeRestriction",
        "--kubelet-preferred-address-types=InternalIP",  # nobody answers for their names
        f"--kubelet-client-certificate={keys.certificate}",
        f"--kubelet-client-key={keys.key}",
    ]


def controllers_flag(kubelets: Kubelets | None) -> str:
    """Which of kube-controller-manager's controllers run."""
    without = WITHOUT_IPAM if kubelets is not None else (*WITHOUT_IPAM, *WITHOUT_KUBELETS)
    return f"--controllers={','.join(['*', *(f'-{name}' for name in without)])}"
