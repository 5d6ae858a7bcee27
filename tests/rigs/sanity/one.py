"""One run of csi-sanity on this machine: a store, a driver, all specs, and a look at what they left."""

from __future__ import annotations

import subprocess
import tempfile
from pathlib import Path
from xml.etree import ElementTree as ET

from tests.rigs.host import RigError
from tests.rigs.sanity import driver, report, stores
from tests.rigs.sanity.cases import Case
from ullage.errors import GIB, MIB

VOLUME_BYTES = 512 * MIB
EXPANDED_BYTES = GIB
"""Whole extents, since csi-sanity wants exactly what it asked for; large enough for XFS."""
SECONDS = 3600.0
"""All specs of a case; under emulation they take a sixth of it, and several times that on a machine that is busy."""
GRACE_SECONDS = 30.0
CLASS_PARAMETER = "ullage.io/device-class"
MUTABLE_PARAMETERS = "wipe: signatures\n"
TAIL_LINES = 60
CLIENT_LOG = "csi-sanity.log"
DRIVER_LOG = "driver.log"


def run(case: Case, program: Path, results: Path) -> int:
    """0 when all is well; else what is not is printed, and the logs are in `results`."""
    results.mkdir(parents=True, exist_ok=True)
    told = _complaints(case, program, results)
    for sentence in told:
        print(sentence, flush=True)
    if told:
        for name in (CLIENT_LOG, DRIVER_LOG):
            _print_tail(results / name)
    return 1 if told else 0


def _complaints(case: Case, program: Path, results: Path) -> list[str]:
    told: list[str] = []
    junit = results / "junit.xml"
    for earlier in (junit, results / CLIENT_LOG, results / DRIVER_LOG):
        earlier.unlink(missing_ok=True)
    with tempfile.TemporaryDirectory(prefix="ullage-sanity-") as scratch:
        base = Path(scratch)
        try:
            with stores.made(case.storage, base) as store:
                told += _tested(case, program, base, store, results)
                told += stores.remains(store, base)
        except RigError as failure:
            return [*told, f"the rig could not go on: {failure}"]
        told += [f"csi-sanity left {path}" for path in (base / "target", base / "staging") if path.exists()]
    try:
        return told + report.complaints(report.read(junit))
    except (OSError, ET.ParseError) as failure:
        return [*told, f"csi-sanity wrote no report: {failure}"]


def _tested(case: Case, program: Path, base: Path, store: stores.Store, results: Path) -> list[str]:
    config = base / "config.yaml"
    config.write_text(store.config(), encoding="utf-8")
    try:
        with driver.serving(config, base, results / DRIVER_LOG) as endpoint:
            code = _csi_sanity((str(program), *_flags(case, endpoint, base, results)), results / CLIENT_LOG)
    except driver.DriverError as failure:
        return [str(failure)]
    if code is None:
        return [f"csi-sanity took more than {SECONDS + GRACE_SECONDS:.0f} s and was ended"]
    return [f"csi-sanity ended with {code}"] if code != 0 else []


def _flags(case: Case, endpoint: str, base: Path, results: Path) -> list[str]:
    parameters = base / "parameters.yaml"
    parameters.write_text(f"{CLASS_PARAMETER}: {stores.CLASS}\n", encoding="utf-8")
    mutable = base / "mutable-parameters.yaml"
    mutable.write_text(MUTABLE_PARAMETERS, encoding="utf-8")
    return [
        f"--csi.endpoint={endpoint}",
        f"--csi.mountdir={base}/target",
        f"--csi.stagingdir={base}/staging",
        f"--csi.testvolumeaccesstype={case.access}",
        f"--csi.testvolumesize={VOLUME_BYTES}",
        f"--csi.testvolumeexpandsize={EXPANDED_BYTES}",
        f"--csi.testvolumeparameters={parameters}",
        f"--csi.testvolumemutableparameters={mutable}",
        "--ginkgo.fail-fast",
        "--ginkgo.no-color",
        "--ginkgo.v",
        f"--ginkgo.timeout={SECONDS:.0f}s",
        f"--ginkgo.junit-report={results}/junit.xml",
    ]


def _csi_sanity(argv: tuple[str, ...], log: Path) -> int | None:
    """Its exit code; None: its time was over, and it did not end by itself."""
    with log.open("wb") as output:
        process = driver.started(argv, output.fileno())
        try:
            return process.wait(SECONDS + GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            return None
        finally:
            driver.end(process, GRACE_SECONDS)


def _print_tail(log: Path) -> None:
    if not log.exists():
        return
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    print(f"--- the end of {log.name}:")
    print("\n".join(lines[-TAIL_LINES:]), flush=True)
