"""The API server as the rig itself needs it: JSON over HTTPS with the standard library, one connection per request."""

from __future__ import annotations

import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from http import HTTPStatus
from http.client import HTTPException
from pathlib import Path
from typing import Any, TypeAlias
from urllib.parse import urlencode

from tests.rigs.host import RigError

Json: TypeAlias = dict[str, Any]  # objects of the API, as it sends them

REQUEST_SECONDS = 20.0
POLL_SECONDS = 0.1
PATIENCE_SECONDS = 120.0
"""client-go, in the sidecars and controllers, looks for an API server that keeps dying only every 30 s to 60 s."""
MERGE_PATCH = "application/merge-patch+json"
APPLY_PATCH = "application/apply-patch+yaml"
TRIED = urlencode({"dryRun": "All", "fieldValidation": "Strict", "fieldManager": "rig", "force": "true"})


class Refusal(Exception):  # noqa: N818 - what a test looks at is an answer, not an accident
    """The API server's answer to a request that it does not do."""

    def __init__(self, status: int, message: str) -> None:
        """`message` is the sentence of its Status object."""
        super().__init__(f"{status}: {message}")
        self.status = status
        self.message = message


class Api:
    """One user at one API server. Methods raise Refusal, or RigError when nobody answers."""

    def __init__(self, server: str, certificate: Path, token: str = "") -> None:
        """`certificate` is what the server's identity is checked against. No token: whoever asks."""
        self._server = server
        self._credentials = {"Authorization": f"Bearer {token}"} if token else {}
        self._tls = ssl.create_default_context(cafile=str(certificate))

    def get(self, path: str) -> Json:
        return self._request("GET", path)

    def items(self, path: str) -> list[Json]:
        """A list's objects."""
        found: list[Json] = self.get(path)["items"]
        return found

    def find(self, path: str) -> Json | None:
        """The object, or None when there is none."""
        try:
            return self.get(path)
        except Refusal as refusal:
            if refusal.status == HTTPStatus.NOT_FOUND:
                return None
            raise

    def create(self, path: str, thing: Mapping[str, Any]) -> Json:
        """`path` is the collection's."""
        return self._request("POST", path, thing)

    def replace(self, path: str, thing: Mapping[str, Any]) -> Json:
        return self._request("PUT", path, thing)

    def patch(self, path: str, change: Mapping[str, Any]) -> Json:
        """Change some fields (a merge patch)."""
        return self._request("PATCH", path, change, MERGE_PATCH)

    def apply(self, path: str, thing: Mapping[str, Any], manager: str) -> Json:
        """Make an object, or make it so, as one of those who say what it is (server-side apply)."""
        return self._request("PATCH", f"{path}?fieldManager={manager}&force=true", thing, APPLY_PATCH)

    def try_apply(self, path: str, thing: Mapping[str, Any]) -> Json:
        """What would become of an object if it were applied, with every field checked; nothing is written."""
        return self._request("PATCH", f"{path}?{TRIED}", thing, APPLY_PATCH)

    def delete(self, path: str) -> None:
        """Ask for its deletion; what is not there is deleted."""
        try:
            self._request("DELETE", path)
        except Refusal as refusal:
            if refusal.status != HTTPStatus.NOT_FOUND:
                raise

    def is_ready(self, path: str = "/readyz") -> bool:
        """Whether the server says that it is; False when it does not answer."""
        try:
            self._bytes("GET", path)
        except (Refusal, RigError):
            return False
        return True

    def until(self, path: str, is_so: Callable[[Json], object], seconds: float = PATIENCE_SECONDS) -> Json:
        """The object once `is_so` of it; raises RigError, with what it is instead, when that takes too long."""
        deadline = time.monotonic() + seconds
        while True:
            found = self.find(path)
            if found is not None and is_so(found):
                return found
            if time.monotonic() > deadline:
                raise RigError(f"{path} is not as expected after {seconds:.0f} s: {_shown(found)}")
            time.sleep(POLL_SECONDS)

    def until_gone(self, path: str, seconds: float = PATIENCE_SECONDS) -> None:
        """Wait until there is no such object; raises RigError, with what there is."""
        deadline = time.monotonic() + seconds
        while (found := self.find(path)) is not None:
            if time.monotonic() > deadline:
                raise RigError(f"{path} is still there after {seconds:.0f} s: {_shown(found)}")
            time.sleep(POLL_SECONDS)

    def _request(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, media_type: str = "application/json"
    ) -> Json:
        answer: Json = json.loads(self._bytes(method, path, body, media_type))
        return answer

    def _bytes(
        self, method: str, path: str, body: Mapping[str, Any] | None = None, media_type: str = "application/json"
    ) -> bytes:
        headers = {**self._credentials, "Accept": "application/json", "Content-Type": media_type}
        payload = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self._server}{path}", payload, headers, method=method)  # noqa: S310 - https
        try:
            with urllib.request.urlopen(request, timeout=REQUEST_SECONDS, context=self._tls) as answer:  # noqa: S310
                content: bytes = answer.read()
                return content
        except urllib.error.HTTPError as error:
            with error:
                raise Refusal(error.code, _sentence(error.read())) from error
        except (OSError, HTTPException) as failure:  # the latter when it dies while it answers
            raise RigError(f"{method} {path}: {failure}") from failure


def _shown(found: Json | None) -> str:
    """Without who set which field, the longest part of it."""
    if found is not None:
        found["metadata"].pop("managedFields", None)
    return json.dumps(found, indent=1)


def _sentence(body: bytes) -> str:
    try:
        return str(json.loads(body)["message"])
    except (ValueError, KeyError, TypeError):
        return body.decode(errors="replace")
