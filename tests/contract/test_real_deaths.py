"""The same deaths as in `test_deaths`, of real processes: nothing unwinds, nothing is closed, programs go on alone."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from grpc import StatusCode

from tests.contract import dying
from tests.contract.deeds import ALL, Deed, Layer, Trial
from tests.contract.dying import EXITED
from tests.contract.faults import LONG_SECONDS, code_from, until
from tests.contract.forked import Forked
from tests.contract.sites import GROUP, Site
from ullage.model import Wipe

DEEDS = pytest.mark.parametrize("deed", ALL.values(), ids=ALL.keys())


def died(site: Site, folder: Path, deed: Deed, at: int, end: str) -> int:
    """Run the child; its exit code."""
    config = folder / "config.yaml"
    place = f"volumeGroups: [{GROUP}]" if site.is_lvm else f"directory: {site.device_class().directory}"
    kind = "thick" if site.is_lvm else "file"
    config.write_text(f"deviceClasses:\n- {{name: main, type: {kind}, {place}, wipe: discard}}\n")
    return Forked(dying.main, config, site.name, deed.name, at, end).wait(LONG_SECONDS)


@DEEDS
@pytest.mark.only_on("file")
def test_a_process_that_dies_after_any_step_leaves_what_converges(site: Site, deed: Deed, tmp_path: Path) -> None:
    trial = Trial(site, deed, Wipe.DISCARD, Layer.INNER)
    for at, step in enumerate(trial.counted()):
        with trial.from_the_start():
            end, exit_code = ("exit after", EXITED) if at % 2 else ("kill after", -signal.SIGKILL)
            assert died(site, tmp_path, deed, at, end) == exit_code
        trial.converges(f"{end} {step}")


@DEEDS
@pytest.mark.only_on("thick")
def test_a_program_that_goes_on_after_its_agent_died_is_met_by_the_next_agent(
    site: Site, deed: Deed, tmp_path: Path
) -> None:
    """The next agent asks while the first one's command still runs."""
    trial = Trial(site, deed, Wipe.DISCARD, Layer.PROGRAMS)
    programs = trial.counted()
    at = next(at for at, step in enumerate(programs) if any(name in step for name in MAIN))
    with trial.from_the_start():
        assert died(site, tmp_path, deed, at, "kill during") == -signal.SIGKILL
        assembly = trial.begun()
        answer = code_from(lambda: deed.ask(assembly.agent, site))
        assert answer in (StatusCode.OK, StatusCode.UNAVAILABLE, StatusCode.ABORTED)
        until(lambda: not _is_running(programs[at].split()[1]))
    trial.converges(f"a death during {programs[at]}")


MAIN = ("lvcreate", "lvextend", "lvremove")


def _is_running(verb: str) -> bool:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if verb.encode() in (process / "cmdline").read_bytes().split(b"\0"):
                return True
        except OSError:
            continue
    return False
