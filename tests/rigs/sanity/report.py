"""What csi-sanity's report says, and what of it is no success although csi-sanity calls it one.

It skips whatever a driver does not announce. So every skip that is not expected here fails the run: a capability that
is lost must not look like one that was never there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree as ET

SPECS = 96
"""Of csi-test v5.5.0. Fewer in a report: part of them was filtered away, or another version was built."""

EXPECTED_SKIPS = {
    # Local volumes are attached by nature: PUBLISH_UNPUBLISH_VOLUME is never announced.
    "ControllerPublishVolume not supported": "PUBLISH_UNPUBLISH_VOLUME",
    "Controller Publish, UnpublishVolume not supported": "PUBLISH_UNPUBLISH_VOLUME",
    "ControllerUnpublishVolume not supported": "PUBLISH_UNPUBLISH_VOLUME",
}
"""csi-sanity's words for a skip that is all right, each with the capability that would end it."""

PENDING = "pagination should detect volumes added between pages"
"""The one spec that its authors have switched off."""

GOOD = ("passed", "skipped", "pending")


@dataclass(frozen=True, slots=True, kw_only=True)
class Spec:
    """One of csi-sanity's tests and how it ended: `reason` is why it was skipped, or how it failed."""

    name: str
    status: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Counts:
    """Of specs; what is pending counts as skipped, whatever is neither good nor skipped as failed."""

    passed: int
    failed: int
    skipped: int


def read(junit: Path) -> list[Spec]:
    """Every spec of a JUnit report as Ginkgo writes it; raises OSError and ET.ParseError."""
    return [_spec(case) for case in ET.parse(junit).iter("testcase")]  # noqa: S314 - our own csi-sanity wrote it


def counts(specs: Sequence[Spec]) -> Counts:
    """How many ended in which way."""
    passed = sum(spec.status == "passed" for spec in specs)
    failed = sum(spec.status not in GOOD for spec in specs)
    return Counts(passed=passed, failed=failed, skipped=len(specs) - passed - failed)


def complaints(specs: Sequence[Spec]) -> list[str]:
    """A sentence for all that is not as it should be; empty: a success."""
    failed = [f"failed: {spec.name}: {spec.reason}" for spec in specs if spec.status not in GOOD]
    if failed:
        # The first failure ends the run, and everything after it is skipped without a reason.
        return failed
    told = [
        f"skipped, and no skip that is expected: {spec.name} ({spec.reason or 'no reason given'})"
        for spec in specs
        if spec.status == "skipped" and spec.reason not in EXPECTED_SKIPS
    ]
    told += [f"switched off: {spec.name}" for spec in specs if spec.status == "pending" and PENDING not in spec.name]
    if len(specs) != SPECS:
        told.append(f"the report has {len(specs)} specs, csi-sanity has {SPECS}")
    return told


def _spec(case: ET.Element) -> Spec:
    status = case.get("status", "")
    name = case.get("name", "").removeprefix("[It] ")
    if status in GOOD:
        skipped = case.find("skipped")
        said = "" if skipped is None else skipped.get("message", "")
        return Spec(name=name, status=status, reason=said.removeprefix(status).removeprefix(" - "))
    wrong = [found for found in (case.find("failure"), case.find("error")) if found is not None]
    return Spec(name=name, status=status, reason=" ".join(wrong[0].get("message", "").split()) if wrong else status)
