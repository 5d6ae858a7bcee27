"""The door to the Kubernetes API: one HTTP request, one stream of lines, and what went wrong as our own errors.

Of the `kubernetes` package we use its reading of kubeconfigs and of a Pod's own account, with tokens refreshed, and the
TLS pool that it makes of them; bytes go in and come out. Its models would cost hundreds of megabytes, and its requests
have no time limit of their own. Every request here has one, and a stream ends when nothing has come for as long as its
caller allows: a half-open connection hangs nobody.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Protocol, runtime_checkable
from urllib.parse import urlencode

import msgspec
import urllib3
import yaml
from kubernetes.client import Configuration
from kubernetes.client.rest import RESTClientObject
from kubernetes.config import ConfigException, load_incluster_config, load_kube_config
from urllib3.util.ssl_ import create_urllib3_context

from ullage.errors import (
    ApiConflictError,
    ApiError,
    ApiExistsError,
    ApiForbiddenError,
    ApiGoneError,
    ApiInvalidError,
    ApiNotFoundError,
    ApiUnavailableError,
    ConfigError,
    UllageError,
)

CONNECT_SECONDS = 5.0
MOST_IDLE_CONNECTIONS = 32
MOST_ERROR_BYTES = 64 << 10
JSON = "application/json"

BY_STATUS: Mapping[int, type[ApiError]] = {
    400: ApiInvalidError,
    401: ApiForbiddenError,
    403: ApiForbiddenError,
    404: ApiNotFoundError,
    409: ApiConflictError,
    410: ApiGoneError,
    422: ApiInvalidError,
}


class Transport(Protocol):
    """What the rest of this package stands on; `Connection` is the real one."""

    def request(  # noqa: PLR0913 - a request has that many parts
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        timeout_seconds: float,
    ) -> bytes:
        """The reply's body, when its code says success; raises ApiError, ApiUnavailableError."""

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str], *, silence_seconds: float) -> Iterator[Iterator[bytes]]:
        """A reply that comes line by line, until its end or until nothing has come for `silence_seconds`.

        Raises as `request`, also while it is read: ApiUnavailableError when it breaks off. What it yields may be
        Endable.
        """


@runtime_checkable
class Endable(Protocol):
    """Lines that another thread may break off while they are waited for."""

    def end(self) -> None:
        """Have the reader see its end, or ApiUnavailableError, now."""


class Connection:
    """Thread-safe; implements `Transport`."""

    def __init__(self, configuration: Configuration) -> None:
        """`connect` makes the configuration."""
        self._configuration = configuration
        configuration.retries = False
        configuration.connection_pool_maxsize = MOST_IDLE_CONNECTIONS
        self._pool = _with_one_context(RESTClientObject(configuration).pool_manager)

    @property
    def server(self) -> str:
        """The API server's address, for people."""
        return str(self._configuration.host)

    def request(  # noqa: PLR0913 - a request has that many parts
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None = None,
        *,
        content_type: str = JSON,
        timeout_seconds: float,
    ) -> bytes:
        """See the port."""
        with self._opened(method, path, query, body, content_type, timeout_seconds) as response:
            return response.read()

    @contextmanager
    def lines(self, path: str, query: Mapping[str, str], *, silence_seconds: float) -> Iterator[Iterator[bytes]]:
        """See the port."""
        with self._opened("GET", path, query, None, JSON, silence_seconds) as response:
            yield Lines(response)

    @contextmanager
    def _opened(  # noqa: PLR0913, PLR0917 - the same
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        body: bytes | None,
        content_type: str,
        read_seconds: float,
    ) -> Iterator[urllib3.BaseHTTPResponse]:
        url = f"{self.server}{path}{'?' if query else ''}{urlencode(query)}"
        try:
            response = self._pool.request(
                method,
                url,
                body=body,
                headers=self._headers(content_type if body is not None else ""),
                timeout=urllib3.Timeout(connect=CONNECT_SECONDS, read=read_seconds),
                preload_content=False,
                redirect=False,
                retries=False,
            )
            is_whole = False
            try:
                if not 200 <= response.status < 300:  # noqa: PLR2004 - HTTP's success
                    raise refusal(method, path, response.status, response.read(MOST_ERROR_BYTES))
                yield response
                is_whole = True
            finally:
                # A stream that is left early, or broke off, has bytes to come: its connection is of no use any more.
                if is_whole:
                    response.release_conn()
                else:
                    response.close()
        except urllib3.exceptions.HTTPError as error:
            raise ApiUnavailableError(f"{method} {path}: the API server at {self.server}: {_why(error)}") from error

    def _headers(self, content_type: str) -> dict[str, str]:
        headers = {"Accept": JSON, "User-Agent": "ullage"}
        if content_type:
            headers["Content-Type"] = content_type
        try:
            token = self._configuration.get_api_key_with_prefix("BearerToken", alias="authorization")
        except (ConfigException, OSError) as error:
            raise ApiUnavailableError(f"the token for {self.server} cannot be read: {error}") from error
        if token:
            headers["Authorization"] = token
        return headers


def connect(kubeconfig: Path | None) -> Connection:
    """To the cluster that the file names, or, without one, to the one that this Pod runs in; raises ConfigError."""
    configuration = Configuration()
    try:
        if kubeconfig is None:
            load_incluster_config(client_configuration=configuration)  # type: ignore[no-untyped-call] # it has no types
        else:
            load_kube_config(str(kubeconfig), client_configuration=configuration)  # type: ignore[no-untyped-call] # the same
    except (ConfigException, OSError, yaml.YAMLError, TypeError, AttributeError, LookupError, ValueError) as error:
        # The package takes a file for what it should be, and stumbles over what it is.
        where = f"{kubeconfig}" if kubeconfig else "no --kubeconfig, and this is no Pod with an account"
        raise ConfigError(f"{where}: {error}") from error
    return Connection(configuration)


def _with_one_context(pool: urllib3.PoolManager) -> urllib3.PoolManager:
    """The pool, with a TLS context that all its connections share.

    Else each of them makes its own when it opens: the certificates are read again, and by several threads at once when
    a process starts.
    """
    words = pool.connection_pool_kw
    context = create_urllib3_context(cert_reqs=words.pop("cert_reqs", None))
    ca_file, ca_text = words.pop("ca_certs", None), words.pop("ca_cert_data", None)
    if ca_file or ca_text:
        context.load_verify_locations(ca_file, None, ca_text)
    else:
        context.load_default_certs()
    certificate, key = words.pop("cert_file", None), words.pop("key_file", None)
    if certificate:
        context.load_cert_chain(certificate, key)
    words["ssl_context"] = context
    return pool


class Refused(msgspec.Struct, frozen=True, kw_only=True):
    """What of a metav1.Status is told on."""

    message: str = ""
    reason: str = ""
    code: int = 0


REFUSALS = msgspec.json.Decoder(Refused)


def refusal(method: str, path: str, code: int, body: bytes) -> UllageError:
    """The error that a reply without success means; 429 and 5xx may be otherwise next time."""
    try:
        status = REFUSALS.decode(body)
    except msgspec.DecodeError:
        status = Refused(message=body[:200].decode(errors="replace").strip())
    sentence = f"{method} {path}: {code} {status.reason}: {status.message}"
    if code == 409 and status.reason == "AlreadyExists":  # noqa: PLR2004 - HTTP's conflict
        return ApiExistsError(sentence, code=code)
    if code in BY_STATUS:
        return BY_STATUS[code](sentence, code=code)
    if code == 429 or code >= 500:  # noqa: PLR2004 - too many requests, the server's own failures
        return ApiUnavailableError(sentence, code=code)
    return ApiError(sentence, code=code)


class Lines:
    """Whole lines of a reply; what follows the last newline is half of one, and left out. Endable."""

    def __init__(self, response: urllib3.BaseHTTPResponse) -> None:
        """Nothing is read yet."""
        self._response = response
        self._lines = _lines(response)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        return next(self._lines)

    def end(self) -> None:
        """See Endable."""
        with suppress(ValueError, RuntimeError, OSError):  # it has ended by itself
            self._response.shutdown()


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for piece in response.stream(None):
        *lines, rest = (rest + piece).split(b"\n")
        yield from (line for line in lines if line)


def _why(error: urllib3.exceptions.HTTPError) -> str:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return "no answer in time"
    if isinstance(error, urllib3.exceptions.NewConnectionError | urllib3.exceptions.ConnectTimeoutError):
        return "cannot be reached"
    return f"{type(error).__name__}: {error}"
