"""Authorities, and certificates that they sign: files, made by openssl."""

from __future__ import annotations

import subprocess
from dataclasses import dataclass
from pathlib import Path

OPENSSL_SECONDS = 60.0
CURVE = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-days", "30")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A certificate and its key."""

    certificate: Path
    key: Path


def authority(folder: Path, name: str) -> Pair:
    """One that signs itself."""
    made = Pair(certificate=folder / f"{name}.crt", key=folder / f"{name}.key")
    _openssl("req", "-x509", *CURVE, "-subj", f"/CN={name}", "-keyout", str(made.key), "-out", str(made.certificate))
    return made


def signed(folder: Path, name: str, by: Pair) -> Pair:
    """A certificate for 127.0.0.1, or for a client."""
    made = Pair(certificate=folder / f"{name}.crt", key=folder / f"{name}.key")
    names = ("-addext", "subjectAltName=IP:127.0.0.1", "-addext", "basicConstraints=critical,CA:FALSE")
    signer = ("-CA", str(by.certificate), "-CAkey", str(by.key))
    files = ("-keyout", str(made.key), "-out", str(made.certificate))
    _openssl("req", "-x509", *CURVE, "-subj", f"/CN={name}", *names, *signer, *files)
    return made


def _openssl(*words: str) -> None:
    subprocess.run(("openssl", *words), check=True, capture_output=True, timeout=OPENSSL_SECONDS)
