"""A Kubernetes control plane on loopback: etcd and the real programs around it, but no kubelet.

  with ControlPlane(folder, only_api=True) as plane:
      api = plane.api()

Every program keeps its port and its data when it is started again, so that a test can stop, kill and restart each of
them beneath whatever is connected. RBAC is on; a user's token says who asks.

etcd does not wait for its disk: what is acknowledged survives the end of the process, though not that of the machine.
"""

from __future__ import annotations

import json
import shutil
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from http import HTTPStatus
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.rigs.cluster import keys, kubelets
from tests.rigs.cluster.api import Api, Refusal
from tests.rigs.cluster.kubelets import Kubelets
from tests.rigs.cluster.process import Process, free_ports
from tests.rigs.cluster.scheduler import DEFAULT_NAME, QPS, configuration
from tests.rigs.gotools import programs
from tests.rigs.host import RigError

ETCD, API_SERVER = "etcd", "kube-apiserver"
CONTROLLERS, SCHEDULER = "kube-controller-manager", "kube-scheduler"
NAMES = (ETCD, API_SERVER, CONTROLLERS, SCHEDULER)
TOKEN_SECONDS = 86400
ASK_SECONDS = 10.0
ISSUER = "https://kubernetes.default.svc"
DEFAULT_ACCOUNT = "/api/v1/namespaces/default/serviceaccounts/default"
"""Made by a controller; without it no Pod is admitted."""


class ControlPlane:
    """The programs, for as long as the context lasts; their logs stay in the folder."""

    def __init__(
        self,
        folder: Path,
        *,
        only_api: bool = False,
        api_flags: Sequence[str] = (),
        controller_flags: Sequence[str] = (),
        nodes: Kubelets | None = None,
    ) -> None:
        """`folder` is made if it is not there. `only_api`: etcd and the API server. `api_flags` are kube-apiserver's.

        `controller_flags` are kube-controller-manager's. `nodes`: those that are machines with kubelets, if any are.

        Builds what is not built yet; raises RigError.
        """
        self.folder = folder
        self._names = NAMES[:2] if only_api else NAMES
        self._binaries = {name: programs.get(name) for name in self._names}
        folder.mkdir(parents=True, exist_ok=True)
        self._nodes = nodes
        self._keys = keys.made(folder, kubelets.users(nodes), kubelets.addresses(nodes))
        ports = free_ports(len(NAMES) + 1)
        self._ports = dict(zip((*NAMES, "peer"), ports, strict=True))
        self.server = f"https://127.0.0.1:{self._ports[API_SERVER]}"
        self._kubeconfigs = {user: self._kubeconfig(user, token) for user, token in self._keys.by_user.items()}
        self._api = self.api()
        self._processes = {
            ETCD: self._process(ETCD, self._etcd_flags(), self._is_etcd_ready),
            API_SERVER: self._process(API_SERVER, [*self._api_server_flags(), *api_flags], self._is_api_ready),
        }
        if not only_api:
            self._add(CONTROLLERS, [*self._controller_flags(), *controller_flags])
            self._add(SCHEDULER, self._scheduler_flags(SCHEDULER, {}))

    @property
    def kubeconfig(self) -> Path:
        """The admin's, who may do everything."""
        return self._kubeconfigs[keys.ADMIN]

    @property
    def certificate(self) -> Path:
        """The API server's: what its clients check it against."""
        return self._keys.certificate

    @property
    def key(self) -> Path:
        """Of its certificate: for whatever else is to be known by it."""
        return self._keys.key

    def token_of(self, user: str) -> str:
        """Of one of the users that the API server knows by a token."""
        return self._keys.by_user[user]

    def api(self, token: str | None = None) -> Api:
        """The API server as the admin, or as whoever has the token."""
        return Api(self.server, self.certificate, token or self._keys.by_user[keys.ADMIN])

    def kubeconfig_for(self, namespace: str, service_account: str, node: str | None = None) -> Path:
        """One for a service account, which is made if it is not there; raises Refusal, RigError.

        With `node` its token is bound to that Node object, as that of a Pod on the node is: the server then knows the
        node's name (`authentication.kubernetes.io/node-name`), and refuses the token once the object is gone.
        """
        token = self.token_for(namespace, service_account, node)
        name = f"{namespace}-{service_account}{f'-{node}' if node else ''}"
        return keys.write_kubeconfig(self.folder / f"{name}.kubeconfig", self.server, self.certificate, token)

    def token_for(self, namespace: str, service_account: str, node: str | None = None) -> str:
        """The token alone, as `kubeconfig_for`."""
        accounts = f"/api/v1/namespaces/{namespace}/serviceaccounts"
        self._ensure("/api/v1/namespaces", {"metadata": {"name": namespace}})
        self._ensure(accounts, {"metadata": {"name": service_account}})
        spec: dict[str, Any] = {"expirationSeconds": TOKEN_SECONDS}
        if node is not None:
            uid = self._api.get(f"/api/v1/nodes/{node}")["metadata"]["uid"]
            spec["boundObjectRef"] = {"apiVersion": "v1", "kind": "Node", "name": node, "uid": uid}
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": spec}
        token: str = self._api.create(f"{accounts}/{service_account}/token", request)["status"]["token"]
        return token

    def start(self, name: str) -> None:
        """Start it and wait until it serves; with etcd, until the API server reads from it again. Raises RigError."""
        self._processes[name].start()
        if name == ETCD and self._processes[API_SERVER].is_alive():
            self._processes[API_SERVER].wait_until_ready()

    def stop(self, name: str) -> None:
        """End it in good order; raises RigError."""
        self._processes[name].stop()

    def kill(self, name: str) -> None:
        """`kill -9`."""
        self._processes[name].kill()

    def restart(self, name: str) -> None:
        """Stop it if it runs, and `start` it; raises RigError."""
        if self._processes[name].is_alive():
            self.stop(name)
        self.start(name)

    def process(self, name: str) -> Process:
        """For what is not asked often: its log, its pid, signals."""
        return self._processes[name]

    def configure_scheduler(self, more: Mapping[str, Any]) -> None:
        """Start kube-scheduler anew, with these further fields in its configuration and no others; raises RigError."""
        self._scheduler_flags(SCHEDULER, more)
        self.restart(SCHEDULER)

    def add_scheduler(self, name: str, more: Mapping[str, Any]) -> None:
        """Start a kube-scheduler beside the other, for Pods whose `schedulerName` is `name`; raises RigError."""
        self._binaries[name] = programs.get(SCHEDULER)
        (self._ports[name],) = free_ports(1)
        self._add(name, self._scheduler_flags(name, more, name))
        self.start(name)

    def compact(self) -> None:
        """Make etcd forget every revision before the present one; raises RigError.

        kube-apiserver goes on to serve older ones from its watch cache until it is restarted; then, or with
        `api_flags=["--watch-cache=false"]` at once, a watch that begins at one of them is answered with 410.
        """
        revision = self._etcd("kv/range", {"key": "AA==", "limit": 1})["header"]["revision"]
        self._etcd("kv/compaction", {"revision": revision, "physical": True})

    def __enter__(self) -> Self:
        """Start everything; raises RigError, and then nothing is left running."""
        try:
            self.start(ETCD)
            self.start(API_SERVER)
            rest = [self._processes[name] for name in self._names[2:]]
            with ThreadPoolExecutor(max_workers=len(NAMES)) as together:
                list(together.map(Process.start, rest))
            if rest:
                self._api.until(DEFAULT_ACCOUNT, bool)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for process in reversed(self._processes.values()):
            process.kill()
        shutil.rmtree(self.folder / ETCD, ignore_errors=True)

    def _process(self, name: str, flags: Sequence[str], is_ready: Callable[[], bool]) -> Process:
        return Process([self._binaries[name], *flags], self.folder / f"{name}.log", is_ready)

    def _add(self, name: str, flags: Sequence[str]) -> None:
        """A program that serves its health by HTTPS."""
        itself = Api(f"https://127.0.0.1:{self._ports[name]}", self.certificate)
        self._processes[name] = self._process(name, flags, partial(itself.is_ready, "/healthz"))

    def _kubeconfig(self, user: str, token: str) -> Path:
        path = self.folder / f"{user.replace(':', '-')}.kubeconfig"
        return keys.write_kubeconfig(path, self.server, self.certificate, token)

    def _ensure(self, path: str, thing: dict[str, Any]) -> None:
        try:
            self._api.create(path, thing)
        except Refusal as refusal:
            if refusal.status != HTTPStatus.CONFLICT:
                raise

    def _etcd_flags(self) -> list[str]:
        client, peer = (f"http://127.0.0.1:{self._ports[name]}" for name in (ETCD, "peer"))
        return [
            "--name=rig",
            f"--data-dir={self.folder / ETCD}",
            f"--listen-client-urls={client}",
            f"--advertise-client-urls={client}",
            f"--listen-peer-urls={peer}",
            f"--initial-advertise-peer-urls={peer}",
            f"--initial-cluster=rig={peer}",
            "--unsafe-no-fsync",
            "--log-level=warn",
        ]

    def _api_server_flags(self) -> list[str]:
        made = self._keys
        return [
            f"--etcd-servers=http://127.0.0.1:{self._ports[ETCD]}",
            *kubelets.api_server_flags(self._nodes, made),
            f"--secure-port={self._ports[API_SERVER]}",
            "--service-cluster-ip-range=10.96.0.0/16",
            f"--tls-cert-file={made.certificate}",
            f"--tls-private-key-file={made.key}",
            f"--token-auth-file={made.tokens}",
            f"--service-account-issuer={ISSUER}",
            f"--service-account-key-file={made.service_accounts}",
            f"--service-account-signing-key-file={made.service_accounts}",
            "--allow-privileged=true",
            "--profiling=false",
            "--shutdown-watch-termination-grace-period=2s",  # else its end waits a minute for those who watch
        ]

    def _controller_flags(self) -> list[str]:
        return [
            *self._flags_of_clients(CONTROLLERS, CONTROLLERS),
            f"--kubeconfig={self._kubeconfigs[f'system:{CONTROLLERS}']}",
            "--leader-elect=false",
            f"--kube-api-qps={QPS}",
            f"--kube-api-burst={2 * QPS}",
            kubelets.controllers_flag(self._nodes),
            "--use-service-account-credentials=true",
            f"--service-account-private-key-file={self._keys.service_accounts}",
            f"--root-ca-file={self.certificate}",
        ]

    def _scheduler_flags(self, name: str, more: Mapping[str, Any], pods_of: str = DEFAULT_NAME) -> list[str]:
        """What else it is to be is in a file."""
        config = self.folder / f"{name}.yaml"
        content = configuration(self._kubeconfigs[f"system:{SCHEDULER}"], more, pods_of)
        config.write_text(content, encoding="utf-8")
        return [*self._flags_of_clients(name, SCHEDULER), f"--config={config}"]

    def _flags_of_clients(self, name: str, user: str) -> list[str]:
        kubeconfig = self._kubeconfigs[f"system:{user}"]
        return [
            "--bind-address=127.0.0.1",
            f"--secure-port={self._ports[name]}",
            f"--tls-cert-file={self._keys.certificate}",
            f"--tls-private-key-file={self._keys.key}",
            f"--authentication-kubeconfig={kubeconfig}",
            "--authentication-skip-lookup=true",
            f"--authorization-kubeconfig={kubeconfig}",
            "--authorization-always-allow-paths=/healthz,/readyz,/livez,/metrics",
        ]

    def _is_api_ready(self) -> bool:
        """By a read that goes to etcd: what /readyz says of it can be seconds old."""
        try:
            return self._api.is_ready() and bool(self._api.find("/api/v1/namespaces/default"))
        except (RigError, Refusal):
            return False

    def _is_etcd_ready(self) -> bool:
        try:
            return bool(self._etcd("maintenance/status", {})["leader"])
        except (RigError, KeyError):
            return False

    def _etcd(self, call: str, body: dict[str, Any]) -> dict[str, Any]:
        """One call of etcd's JSON gateway."""
        url = f"http://127.0.0.1:{self._ports[ETCD]}/v3/{call}"
        try:
            with urllib.request.urlopen(url, json.dumps(body).encode(), ASK_SECONDS) as answer:
                content: dict[str, Any] = json.loads(answer.read())
                return content
        except OSError as failure:
            raise RigError(f"etcd, {call}: {failure}") from failure
