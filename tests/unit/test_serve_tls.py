"""The HTTP server over TLS, with certificates of its own."""

from __future__ import annotations

import http.client
import logging
import socket
import ssl
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from wsgiref.types import StartResponse, WSGIEnvironment

import pytest

from tests.unit.tls_keys import Pair, authority, signed
from ullage.connections import TlsFiles
from ullage.errors import ConfigError
from ullage.serve import THREADS, HttpServer


def application(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Says how it was reached, and what was sent."""
    sent = environ["wsgi.input"].read()
    body = f"{environ['wsgi.url_scheme']} {environ.get('SSL_CLIENT_VERIFY')} {len(sent)}".encode()
    start_response("200 OK", [("Content-Length", str(len(body)))])
    return [body]


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    folder: Path
    authority: Pair
    server: Pair
    client: Pair
    stranger: Pair
    """Of an authority that nobody here believes."""


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Keys:
    folder = tmp_path_factory.mktemp("keys")
    ours = authority(folder, "ours")
    return Keys(
        folder=folder,
        authority=ours,
        server=signed(folder, "server", ours),
        client=signed(folder, "client", ours),
        stranger=signed(folder, "stranger", authority(folder, "theirs")),
    )


@pytest.fixture
def address(keys: Keys) -> Iterator[str]:
    files = TlsFiles(
        certificate=keys.server.certificate, key=keys.server.key, client_authority=keys.authority.certificate
    )
    with HttpServer("127.0.0.1:0", application, tls=files) as server:
        yield server.address


def client_of(address: str, keys: Keys, shown: Pair | None = None) -> http.client.HTTPSConnection:
    context = ssl.create_default_context(cafile=str(keys.authority.certificate))
    if shown is not None:
        context.load_cert_chain(shown.certificate, shown.key)
    return http.client.HTTPSConnection(address, timeout=10, context=context)


def said(client: http.client.HTTPConnection, body: bytes = b"") -> str:
    client.request("POST", "/", body)
    return client.getresponse().read().decode()


def test_a_client_without_a_certificate_is_served_and_not_taken_for_verified(address: str, keys: Keys) -> None:
    with closing(client_of(address, keys)) as client:
        assert said(client) == "https NONE 0"


def test_a_certificate_of_the_authority_is_verified_for_every_request_of_its_connection(
    address: str, keys: Keys
) -> None:
    with closing(client_of(address, keys, keys.client)) as client:
        assert {said(client) for _ in range(3)} == {"https SUCCESS 0"}


def test_a_certificate_of_another_authority_is_refused(keys: Keys, caplog: pytest.LogCaptureFixture) -> None:
    files = TlsFiles(
        certificate=keys.server.certificate, key=keys.server.key, client_authority=keys.authority.certificate
    )
    with (
        HttpServer("127.0.0.1:0", application, tls=files) as server,
        closing(client_of(server.address, keys, keys.stranger)) as client,
        pytest.raises(OSError, match=r"(?i)alert|reset|broken|closed|EOF"),
    ):
        said(client)
    assert "no TLS with a client" in caplog.messages


def test_without_an_authority_for_clients_nobody_is_verified(keys: Keys) -> None:
    files = TlsFiles(certificate=keys.server.certificate, key=keys.server.key)
    with (
        HttpServer("127.0.0.1:0", application, tls=files) as server,
        closing(client_of(server.address, keys, keys.client)) as client,
    ):
        assert said(client) == "https NONE 0"


def test_a_large_body_comes_through(address: str, keys: Keys) -> None:
    with closing(client_of(address, keys)) as client:
        assert said(client, b"x" * 3_000_001) == "https NONE 3000001"
        assert said(client, b"x") == "https NONE 1"


def test_old_versions_of_tls_are_refused(address: str, keys: Keys) -> None:
    context = ssl.create_default_context(cafile=str(keys.authority.certificate))
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    with (
        closing(http.client.HTTPSConnection(address, timeout=10, context=context)) as client,
        pytest.raises(OSError, match=r"."),
    ):
        said(client)


def test_plain_http_is_told_that_this_is_https(address: str) -> None:
    with closing(http.client.HTTPConnection(address, timeout=10)) as client:
        client.request("GET", "/")
        answer = client.getresponse()
        assert (answer.status, answer.read()) == (400, b"only HTTPS is spoken here\n")


def test_clients_that_never_say_hello_do_not_keep_others_waiting(address: str, keys: Keys) -> None:
    host, _, port = address.rpartition(":")
    with ExitStack() as silent:
        for _ in range(THREADS + 1):
            silent.enter_context(socket.create_connection((host, int(port))))
        with closing(client_of(address, keys)) as client:
            assert said(client) == "https NONE 0"


def test_requests_that_come_together_are_all_answered(address: str, keys: Keys) -> None:
    """More than one fits into a record of TLS: what is deciphered already no selector tells of."""
    with closing(client_of(address, keys)) as client:
        client.connect()
        one = b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1500\r\n\r\n" + b"x" * 1500
        client.sock.sendall(one * 60)
        received = b""
        while received.count(b"https NONE 1500") < 60:
            received += client.sock.recv(1 << 16)


def test_a_new_certificate_is_used_without_a_restart(keys: Keys, tmp_path: Path) -> None:
    """As Kubernetes replaces the files of a Secret: behind links. Connections that are there stay."""
    link = tmp_path / "now"
    link.symlink_to(keys.folder)
    files = TlsFiles(certificate=link / "server.crt", key=link / "server.key")
    later = tmp_path / "later"
    later.mkdir()
    new_authority = authority(later, "new")
    signed(later, "server", new_authority)
    with (
        HttpServer("127.0.0.1:0", application, tls=files) as server,
        closing(client_of(server.address, keys)) as before,
    ):
        assert said(before) == "https NONE 0"
        other = tmp_path / "other"
        other.symlink_to(later)
        other.rename(link)
        context = ssl.create_default_context(cafile=str(new_authority.certificate))
        with closing(http.client.HTTPSConnection(server.address, timeout=10, context=context)) as after:
            assert said(after) == "https NONE 0"
        assert said(before) == "https NONE 0"


def test_a_certificate_that_cannot_be_used_leaves_the_one_before(
    keys: Keys, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files = TlsFiles(certificate=tmp_path / "a.crt", key=tmp_path / "a.key")
    files.certificate.write_bytes(keys.server.certificate.read_bytes())
    files.key.write_bytes(keys.server.key.read_bytes())
    with HttpServer("127.0.0.1:0", application, tls=files) as server, caplog.at_level(logging.INFO, "ullage"):
        files.certificate.write_bytes(keys.client.certificate.read_bytes())
        with closing(client_of(server.address, keys)) as client:
            assert said(client) == "https NONE 0"
        assert "certificate not taken; the one before is used" in caplog.messages
        files.key.write_bytes(keys.client.key.read_bytes())
        with closing(client_of(server.address, keys)) as client:
            assert said(client) == "https NONE 0"
        assert "certificate taken" in caplog.messages


@pytest.mark.parametrize(
    ("certificate", "key", "client_authority"),
    [("none.crt", "server.key", None), ("server.crt", "client.key", None), ("server.crt", "server.key", "server.key")],
)
def test_files_that_are_no_pair_are_a_configuration_error(
    keys: Keys, certificate: str, key: str, client_authority: str | None
) -> None:
    files = TlsFiles(
        certificate=keys.folder / certificate,
        key=keys.folder / key,
        client_authority=None if client_authority is None else keys.folder / client_authority,
    )
    with pytest.raises(ConfigError, match=str(keys.folder)):
        HttpServer("127.0.0.1:0", application, tls=files)
