"""Create, expand and delete, each asked for from the same start again and again, and what must be true in the end."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum

from node_agent.agent import Agent
from node_agent.assembly import Assembly
from tests.contract.faults import Disturbed, Fate, begun, idle
from tests.contract.sites import OLD_BYTES, Site, wanted
from ullage.model import DeleteVolume, Done, ExpandVolume, VolumeId, VolumeState, Wipe

A = VolumeId("pvc-a")


class Layer(StrEnum):
    """Whose steps are counted: those of programs, files and wipes (INNER), of programs alone, or the port's."""

    INNER = "inner"
    PROGRAMS = "programs"
    PORT = "port"


@dataclass(frozen=True, kw_only=True)
class Deed:
    """What is asked for, from what on, and the sizes (in the site's steps) that the volume may have meanwhile."""

    name: str
    steps_before: int
    steps_after: int
    ask: Callable[[Agent, Site], Done]
    least: dict[bool, int]
    """Without and with a wipe: fewer inner steps than these would mean that some are not counted."""


CREATE = Deed(
    name="create",
    steps_before=0,
    steps_after=2,
    ask=lambda agent, site: agent.create(wanted(A, 2 * site.step_bytes)),
    least={False: 1, True: 4},
)
EXPAND = Deed(
    name="expand",
    steps_before=1,
    steps_after=3,
    ask=lambda agent, site: agent.expand(ExpandVolume(volume_id=A, size_bytes=3 * site.step_bytes)),
    least={False: 1, True: 5},
)
DELETE = Deed(
    name="delete",
    steps_before=1,
    steps_after=0,
    ask=lambda agent, _: agent.delete(DeleteVolume(volume_id=A)),
    least={False: 1, True: 4},
)


ALL = {deed.name: deed for deed in (CREATE, EXPAND, DELETE)}


class Trial:
    """One deed on one site, from the same start again and again."""

    def __init__(self, site: Site, deed: Deed, wipe: Wipe, layer: Layer) -> None:
        self._site, self._deed, self._wipe, self._layer = site, deed, wipe, layer
        self._free_bytes = -1

    def disturbed(self, fate: Fate) -> Disturbed:
        """The agent whose steps `fate` counts."""
        if self._layer is Layer.PORT:
            return Disturbed(port=fate)
        if self._layer is Layer.PROGRAMS:
            return Disturbed(change=fate)
        return Disturbed(change=fate, files=fate, wipes=fate)

    def begun(self, fate: Fate | None = None) -> Assembly:
        return begun(self.disturbed(fate or Fate()).assembly(), [self._site.device_class(self._wipe)])

    def counted(self) -> list[str]:
        """The steps of the deed when nothing goes wrong."""
        with self.from_the_start() as (agent, fate):
            fate.count()
            self._deed.ask(agent, self._site)
        wipes = self._wipe is not Wipe.NONE
        least = {Layer.INNER: self._deed.least[wipes], Layer.PORT: 1 + wipes, Layer.PROGRAMS: 1}[self._layer]
        assert len(fate.steps) >= least, fate.steps
        self.converges("no death")
        return fate.steps

    @contextmanager
    def from_the_start(self, fate: Fate | None = None) -> Iterator[tuple[Agent, Fate]]:
        """An agent with what the deed needs, and its fate; afterwards it has ended."""
        site, before = self._site, self._deed.steps_before * self._site.step_bytes
        if not before:
            site.empty()  # a thin pool or a directory's marker is made again, too
        if self._wipe is not Wipe.NONE and self._deed is not DELETE:
            site.dirty()
        fate = fate or Fate()
        assembly = self.begun(fate)
        if before:
            volume = assembly.agent.create(wanted(A, before)).volume
            assert volume is not None
            fill(volume.device_path, before)
        yield assembly.agent, fate
        idle(assembly)

    def converges(self, what: str) -> None:
        """After a restart the volume is as it was or as asked for; after a repetition it is as asked for."""
        site, deed = self._site, self._deed
        before, after = deed.steps_before * site.step_bytes, deed.steps_after * site.step_bytes
        assembly = self.begun()
        found = {volume.id: volume for volume in assembly.agent.volumes()}
        sizes = {volume.id: volume.size_bytes for volume in found.values()}
        assert sizes in ({A: before} if before else {}, {A: after} if after else {}), what
        assert all(volume.state is VolumeState.READY and volume.problem is None for volume in found.values()), what
        assert sizes == site.truth().sizes, what
        assert not [orphan for report in assembly.stock.reports() for orphan in report.orphans], what
        deed.ask(assembly.agent, site)
        truth = site.truth()
        assert truth.sizes == ({A: after} if after else {}), what
        if not site.is_lvm:  # what LVM leaves does not go with the volume: it is looked for at the end
            assert site.leftovers() == [], what
        if after:
            volume = assembly.agent.get(A)
            assert (volume.state, volume.size_bytes, volume.device_size_bytes) == (VolumeState.READY, after, after)
            _check_tags(site, truth.tags[A], what)
            _check_bytes(volume.device_path, before, after, what, is_wiped=self._wipe is not Wipe.NONE)
            assembly.agent.delete(DeleteVolume(volume_id=A))
            truth = site.truth()
        assert truth.sizes == {}, what
        assert site.leftovers() == [], what
        assert assembly.agent.volumes() == (), what
        if self._free_bytes < 0:
            self._free_bytes = truth.free_bytes
        assert truth.free_bytes == self._free_bytes, what


def _check_tags(site: Site, tags: frozenset[str], what: str) -> None:
    if site.is_lvm:
        assert {f"ullage.io/volume={A}", f"ullage.io/pv=pv-{A}", f"ullage.io/claim={A}"} <= tags, what
        assert not [tag for tag in tags if "state" in tag], what
    else:
        assert "ready" in tags, what


def _check_bytes(path: str, before: int, after: int, what: str, *, is_wiped: bool) -> None:
    """What was written before is there; what is new is zero, if a policy promises so."""
    with open(path, "rb", buffering=0) as device:  # noqa: PTH123 - a device
        assert device.read(before) == OLD_BYTES * (before // len(OLD_BYTES)), what
        assert not is_wiped or device.read(after - before).count(0) == after - before, what
        assert device.seek(0, os.SEEK_END) == after, what


def fill(path: str, size_bytes: int) -> None:
    with open(path, "r+b", buffering=0) as device:  # noqa: PTH123 - a device
        device.write(OLD_BYTES * (size_bytes // len(OLD_BYTES)))
        os.fsync(device.fileno())
