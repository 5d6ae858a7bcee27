"""What is counted for the benchmarks: samples of a metrics page, and the API server's own record of writes. Pure.

The record is its audit log, at level Metadata, of writes alone: one JSON object a line.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.parser import text_string_to_metric_families

OURS = "ullage"
"""The user agent of all our programs; whose each request is, its account says."""
BACKGROUND = ("leases", "tokenreviews", "subjectaccessreviews", "tokens")
AUDIT_POLICY: Mapping[str, object] = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Write:
    """One request that changes something, whether it was granted or not."""

    writer: str
    verb: str
    resource: str
    """With its subresource: `logicalvolumes/status`."""
    name: str
    code: int
    began: datetime
    ended: datetime

    @property
    def what(self) -> str:
        """For a table."""
        return f"{self.verb} {self.resource}"


def total(page: str, name: str, **labels: str) -> float:
    """The sum of a metric's samples that have these labels; 0 when there is none."""
    return sum(
        sample.value
        for family in text_string_to_metric_families(page)
        for sample in family.samples
        if sample.name == name and labels.items() <= sample.labels.items()
    )


def writes(lines: Iterable[str]) -> list[Write]:
    """What the audit log says; half a line at its end is still being written, and left out."""
    return [_write(json.loads(line)) for line in lines if line.endswith("\n")]


def _write(event: Mapping[str, object]) -> Write:
    agent, user = str(event.get("userAgent", "")), event["user"]
    account = str(user["username"]) if isinstance(user, Mapping) else ""
    what = event.get("objectRef") or {}
    status = event.get("responseStatus") or {}
    if not isinstance(what, Mapping) or not isinstance(status, Mapping):
        raise TypeError(f"no audit event: {event}")
    parts = [str(what[key]) for key in ("resource", "subresource") if what.get(key)]
    program = agent.split("/", maxsplit=1)[0]
    return Write(
        writer=account.rsplit(":", 1)[-1] if program == OURS else program,
        verb=str(event["verb"]),
        resource="/".join(parts),
        name=str(what.get("name", "")),
        code=int(status.get("code", 0)),
        began=datetime.fromisoformat(str(event["requestReceivedTimestamp"])),
        ended=datetime.fromisoformat(str(event["stageTimestamp"])),
    )


def lasting(found: Iterable[Write]) -> list[Write]:
    """Without what is written with time, not with volumes, or not kept at all."""
    return [each for each in found if each.resource.split("/", maxsplit=1)[0] not in BACKGROUND]


def per_volume(found: Iterable[Write], volumes: int, *, without: frozenset[str] = frozenset()) -> dict[str, float]:
    """How many writes by writer and kind for each volume, most first; `without` are writers left out."""
    counts = Counter(f"{each.writer}: {each.what}" for each in found if each.writer not in without)
    return {name: count / volumes for name, count in counts.most_common()}
