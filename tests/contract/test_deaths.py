"""The process dies before and after each step of create, expand and delete: a restart and a repetition converge.

Which steps there are is found by doing the whole thing once and counting. A death here unwinds out of the operation and
silences everything that the dead agent might still do; `test_real_deaths` ends real processes.
"""

from __future__ import annotations

import pytest
from _pytest.mark import ParameterSet
from grpc import StatusCode

from tests.contract.deeds import ALL, Deed, Layer, Trial
from tests.contract.faults import Death, Fate, be_killed, code_from, idle
from tests.contract.sampling import is_died_at
from tests.contract.sites import Site
from ullage.model import Wipe

DEEDS = pytest.mark.parametrize("deed", ALL.values(), ids=ALL.keys())


POLICIES = (Wipe.NONE, Wipe.DISCARD, Wipe.ZERO)


def _cases() -> list[ParameterSet]:
    """Everything on files and, but for one policy, on plain LVM; elsewhere what is special there.

    Commands and their order do not depend on the layout, and on LVM each death takes seconds.
    """
    sites: dict[tuple[str, Wipe], list[str]] = {(name, wipe): ["file"] for name in ALL for wipe in POLICIES}
    for name in ALL:
        sites[name, Wipe.NONE] += ["thick", "thin"]
        sites[name, Wipe.DISCARD].append("thick")
    sites["expand", Wipe.ZERO].append("raid1")
    sites["expand", Wipe.DISCARD].append("striped")
    sites["create", Wipe.DISCARD].append("raid1-integrity")
    return [
        pytest.param(ALL[name], wipe, id=f"{name}-{wipe}", marks=pytest.mark.only_on(*where))
        for (name, wipe), where in sites.items()
    ]


@pytest.mark.parametrize(("deed", "wipe"), _cases())
def test_a_death_at_any_step_of_programs_files_and_wipes_converges(site: Site, deed: Deed, wipe: Wipe) -> None:
    _survives_everywhere(site, deed, wipe, Layer.INNER)


@DEEDS
@pytest.mark.only_on("file")  # on LVM a step of the port is a command
def test_a_death_at_any_step_of_the_port_converges(site: Site, deed: Deed) -> None:
    _survives_everywhere(site, deed, Wipe.DISCARD, Layer.PORT)


@DEEDS
@pytest.mark.only_on("file", "thick")
def test_a_restart_that_dies_as_well_converges(site: Site, deed: Deed) -> None:
    """The second process dies after its own first step."""
    trial = Trial(site, deed, Wipe.DISCARD, Layer.INNER)
    count = len(trial.counted())
    second_deaths = 0
    for at in range(count) if site.name == "file" else range(count % 2, count - 1, 2):
        with trial.from_the_start() as (agent, fate):
            fate.doom(at, is_after=True)
            with pytest.raises(Death):
                deed.ask(agent, site)
        second = Fate()
        second.doom(0, is_after=True)
        assembly = trial.disturbed(second).assembly()
        assembly.agent.configure([site.device_class(Wipe.DISCARD)])
        try:
            assembly.agent.recover()
            idle(assembly)
            deed.ask(assembly.agent, site)
        except Death:
            second_deaths += 1
        idle(assembly)
        trial.converges(f"a death after {second.steps}")
    assert second_deaths >= (2 if site.is_lvm else 4), second_deaths


@DEEDS
@pytest.mark.parametrize(
    "is_after",
    [
        pytest.param(False, id="before", marks=pytest.mark.only_on("file")),
        pytest.param(True, id="after", marks=pytest.mark.only_on("file", "thick")),
    ],
)
def test_a_program_that_is_killed_at_any_step_is_asked_again(site: Site, deed: Deed, *, is_after: bool) -> None:
    """The agent lives on, tells that it cannot be known what was done, and a repetition finds out."""
    trial = Trial(site, deed, Wipe.DISCARD, Layer.PROGRAMS)
    steps = trial.counted()
    answers = set()
    for at in range(len(steps)):
        with trial.from_the_start(Fate(be_killed, is_final=False)) as (agent, fate):
            fate.doom(at, is_after=is_after)
            answers.add(code_from(lambda agent=agent: deed.ask(agent, site)))  # type: ignore[misc] # a default
            deed.ask(agent, site)
        trial.converges(f"{'after' if is_after else 'before'} {steps[at]}")
    assert answers <= {StatusCode.OK, StatusCode.UNAVAILABLE}


def _survives_everywhere(site: Site, deed: Deed, wipe: Wipe, layer: Layer) -> None:
    trial = Trial(site, deed, wipe, layer)
    steps = trial.counted()
    is_brief = site.is_lvm  # and slow: after a step is before the next
    exercised = []
    died_at = [at for at in range(len(steps)) if is_died_at(site, at)]
    for at in died_at:
        step = steps[at]
        for is_after in (False, True):
            if is_brief and not is_after and at > 0:
                continue
            with trial.from_the_start() as (agent, fate):
                fate.doom(at, is_after=is_after)
                with pytest.raises(Death):
                    deed.ask(agent, site)
            exercised.append(f"{'after' if is_after else 'before'} {step}")
            trial.converges(exercised[-1])
    assert len(exercised) == (len(died_at) + 1 if is_brief else 2 * len(steps))
