"""What the control plane signs and identifies itself with, and how its clients are told of it."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import yaml

from tests.rigs.host import RigError

OPENSSL_SECONDS = 60.0
ADMIN = "admin"
OF_USER_NETWORK = "10.0.2.2"
"""This machine's loopback, as a guest on QEMU's user network calls it."""
USERS = {
    ADMIN: "system:masters",
    "system:kube-controller-manager": "",
    "system:kube-scheduler": "",
}
"""Whom the API server knows by a token, each with its group; Kubernetes' own roles say what the last two may do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """Files, in a directory that goes with the control plane."""

    certificate: Path
    """The API server's, signed by itself: also what clients check it against."""
    key: Path
    service_accounts: Path
    """Signs the service accounts' tokens."""
    tokens: Path
    """The users' tokens, as the API server reads them."""
    by_user: dict[str, str]


def made(folder: Path, more_users: Mapping[str, str] = {}, addresses: Sequence[str] = ()) -> Keys:
    """New ones; raises RigError.

    `more_users` are known by a token, too, each with its group; `addresses`: where else the API server is found.
    """
    users = {**USERS, **more_users}
    keys = Keys(
        certificate=folder / "api-server.crt",
        key=folder / "api-server.key",
        service_accounts=folder / "service-accounts.key",
        tokens=folder / "tokens.csv",
        by_user={user: secrets.token_urlsafe(24) for user in users},
    )
    curve = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30")
    found_at = [f"IP:{address}" for address in ("127.0.0.1", OF_USER_NETWORK, *addresses)]
    names = f"subjectAltName={','.join([*found_at, 'DNS:localhost', 'DNS:kubernetes.default.svc'])}"
    files = ("-keyout", str(keys.key), "-out", str(keys.certificate))
    _openssl("req", "-x509", *curve, "-subj", "/CN=ullage-test-api-server", "-addext", names, *files)
    _openssl("genpkey", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048", "-out", str(keys.service_accounts))
    lines = [f'{token},{user},{user},"{users[user]}"\n' for user, token in keys.by_user.items()]
    keys.tokens.write_text("".join(lines), encoding="ascii")
    return keys


def write_kubeconfig(path: Path, server: str, certificate: Path, token: str) -> Path:
    """A kubeconfig for one user of one cluster; the file itself."""
    content = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "rig", "cluster": {"server": server, "certificate-authority": str(certificate)}}],
        "users": [{"name": "user", "user": {"token": token}}],
        "contexts": [{"name": "rig", "context": {"cluster": "rig", "user": "user"}}],
        "current-context": "rig",
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
    return path


def _openssl(*words: str) -> None:
    try:
        done = subprocess.run(("openssl", *words), check=False, capture_output=True, text=True, timeout=OPENSSL_SECONDS)
    except FileNotFoundError as missing:
        raise RigError("openssl is missing: run tests/rigs/install.py") from missing
    except subprocess.TimeoutExpired as failure:
        raise RigError(str(failure)) from failure
    if done.returncode != 0:
        raise RigError(f"openssl {words[0]} failed: {done.stderr.strip()}")
