"""Whom the connection to the API server believes: the real one, and nobody else who answers in its place."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rigs.cluster import keys
from tests.rigs.cluster.control_plane import ControlPlane
from ullage.errors import ApiUnavailableError
from ullage.kube.api import Api
from ullage.kube.connection import connect
from ullage.kube.meta import NODES


def test_a_server_with_another_certificate_is_not_spoken_to(api_only: ControlPlane, tmp_path: Path) -> None:
    assert Api(connect(api_only.kubeconfig)).page(NODES)
    others = keys.made(tmp_path)
    server = connect(api_only.kubeconfig).server
    kubeconfig = keys.write_kubeconfig(tmp_path / "config", server, others.certificate, "a token")
    with pytest.raises(ApiUnavailableError, match=r"certificate verify failed"):
        Api(connect(kubeconfig)).page(NODES)
