"""Hundreds of operations in any order, against a model: sizes, tags and free space agree after each of them."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
from grpc import StatusCode
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from node_agent.assembly import Assembly
from tests.contract.faults import Disturbed, begun, code_from
from tests.contract.sites import Site, wanted
from ullage.errors import MIB
from ullage.model import CreateVolume, DeleteVolume, ExpandVolume, VolumeId, Wipe

OURS = tuple(VolumeId(f"pvc-{letter}") for letter in "abcdef")
THEIRS = ("theirs-1", "theirs-2", OURS[0])
"""The last is a name that we want, too."""
FILE_SYSTEM_BYTES = 2 * MIB
"""What records and the file system's own books may take beside the volumes."""
STEPS = st.integers(1, 150)
SHORT = st.integers(0, 4095)
"""Bytes that a request lacks to whole extents."""


class Life(RuleBasedStateMachine):
    """One store, the agent on it, and what should be there."""

    def __init__(self, site: Site, tally: Counter[str]) -> None:
        super().__init__()
        self._site, self._tally = site, tally
        self._assembly: Assembly
        self._sizes: dict[VolumeId, int] = {}
        self._foreign: dict[str, int] = {}
        self._last: CreateVolume | ExpandVolume | DeleteVolume | None = None
        self._start_bytes = 0
        self._is_by_hand = self._has_changed = False

    @initialize()
    def begin(self) -> None:
        self._site.empty()
        self._start_bytes = self._site.truth().free_bytes
        self._assembly = self._begun()

    @rule(volume_id=st.sampled_from(OURS), steps=STEPS, short=SHORT)
    def create(self, volume_id: VolumeId, steps: int, short: int) -> None:
        self._asked("create", self._request(volume_id, steps, short))

    @rule(volume_id=st.sampled_from(OURS), steps=STEPS, short=SHORT)
    def expand(self, volume_id: VolumeId, steps: int, short: int) -> None:
        self._asked("expand", ExpandVolume(volume_id=volume_id, size_bytes=steps * self._site.step_bytes - short))

    @rule(volume_id=st.sampled_from(OURS))
    def delete(self, volume_id: VolumeId) -> None:
        self._asked("delete", DeleteVolume(volume_id=volume_id))

    @precondition(lambda self: self._last is not None)
    @rule()
    def repeat(self) -> None:
        assert self._last is not None
        self._asked("repeat", self._last)

    @precondition(lambda self: self._sizes)
    @rule(pick=st.integers(0, 1000))
    def ask_for_another_size_under_a_taken_id(self, pick: int) -> None:
        volume_id = sorted(self._sizes)[pick % len(self._sizes)]
        request = self._request(volume_id, 1, 0)
        larger = replace(request, size_bytes=self._sizes[volume_id] + 1)
        self._asked("conflict", larger)

    @rule(volume_id=st.sampled_from(OURS))
    def ask_for_more_than_there_is(self, volume_id: VolumeId) -> None:
        steps = self._free_bytes() // self._site.step_bytes + 1
        if volume_id in self._sizes:
            size_bytes = self._sizes[volume_id] + steps * self._site.step_bytes
            self._asked("too large", ExpandVolume(volume_id=volume_id, size_bytes=size_bytes))
        else:
            self._asked("too large", self._request(volume_id, steps, 0))

    @precondition(lambda self: self._has_changed)
    @rule()
    def restart(self) -> None:
        self._has_changed = False
        self._tally["restart"] += 1
        self._assembly.stop(0)
        self._assembly = self._begun()

    @rule(name=st.sampled_from(THEIRS), steps=st.integers(1, 30))
    def somebody_makes_or_removes_a_volume_by_hand(self, name: str, steps: int) -> None:
        size_bytes = steps * self._site.step_bytes
        self._tally["by hand"] += 1
        self._is_by_hand = True
        if name in self._foreign:
            self._site.remove_foreign(name)
            del self._foreign[name]
        elif name not in self._sizes and size_bytes <= self._free_bytes():
            self._site.make_foreign(name, size_bytes)
            self._foreign[name] = size_bytes

    @invariant()
    def agrees(self) -> None:
        agent = self._assembly.agent
        if self._site.is_lvm:
            believed = [replace(volume, is_open=False) for volume in agent.volumes()]
            rooms = agent.pools()[0].physical_volumes
        self._assembly.reporter.look_now()
        truth = self._site.truth()
        assert truth.sizes == self._foreign | dict(self._sizes)
        assert {volume.id: volume.size_bytes for volume in agent.volumes()} == self._sizes
        for volume_id in self._sizes:
            mark = {f"ullage.io/volume={volume_id}", f"ullage.io/pv=pv-{volume_id}"}
            assert (mark if self._site.is_lvm else {volume_id, "ready"}) <= truth.tags[volume_id]
        (pool,) = agent.pools()
        used_bytes = sum(self._sizes.values()) + sum(self._foreign.values())
        if self._site.is_lvm:
            assert truth.free_bytes == self._start_bytes - used_bytes
            assert pool.free_bytes == sum(each.free_bytes for each in pool.physical_volumes) == truth.free_bytes
            assert believed == [replace(volume, is_open=False) for volume in agent.volumes()]
            if not self._is_by_hand:
                assert [(each.name, each.free_bytes) for each in rooms] == [
                    (each.name, each.free_bytes) for each in pool.physical_volumes
                ]
            self._is_by_hand = False
        else:
            assert 0 <= self._start_bytes - used_bytes - truth.free_bytes <= FILE_SYSTEM_BYTES
            assert pool.free_bytes == truth.free_bytes // pool.extent_bytes * pool.extent_bytes

    def teardown(self) -> None:
        for name in self._foreign:
            self._site.remove_foreign(name)
        for volume_id in self._sizes:
            assert self._assembly.agent.delete(DeleteVolume(volume_id=volume_id)).is_new
        assert self._site.truth().sizes == {}
        assert self._site.leftovers() == []

    def _begun(self) -> Assembly:
        return begun(Disturbed().assembly(), [self._site.device_class(Wipe.NONE)])

    def _request(self, volume_id: VolumeId, steps: int, short: int) -> CreateVolume:
        return wanted(volume_id, steps * self._site.step_bytes - short)

    def _free_bytes(self) -> int:
        """By our own arithmetic on LVM; a file system keeps books of its own."""
        if self._site.is_lvm:
            return self._start_bytes - sum(self._sizes.values()) - sum(self._foreign.values())
        return self._site.truth().free_bytes // self._site.step_bytes * self._site.step_bytes

    def _asked(self, what: str, request: CreateVolume | ExpandVolume | DeleteVolume) -> None:
        expected, after = self._foreseen(request)
        agent = self._assembly.agent
        match request:
            case CreateVolume():
                answer = code_from(lambda: agent.create(request))
            case ExpandVolume():
                answer = code_from(lambda: agent.expand(request))
            case DeleteVolume():
                answer = code_from(lambda: agent.delete(request))
        assert answer in expected, (what, request)
        self._has_changed |= after != self._sizes
        self._sizes = after
        self._last = request
        self._tally[what] += 1
        self._tally[answer.name] += 1

    def _foreseen(
        self, request: CreateVolume | ExpandVolume | DeleteVolume
    ) -> tuple[tuple[StatusCode, ...], dict[VolumeId, int]]:
        """The answer, and what is there after it."""
        volume_id, there = request.volume_id, self._sizes.get(request.volume_id)
        if isinstance(request, DeleteVolume):
            left = {each: size for each, size in self._sizes.items() if each != volume_id}
            return (StatusCode.OK,), left
        step = self._site.step_bytes
        size_bytes = -(-request.size_bytes // step) * step
        answers: tuple[StatusCode, ...] = (StatusCode.OK,)
        if isinstance(request, ExpandVolume) and there is None:
            answers = (StatusCode.NOT_FOUND,)
        elif there is not None and there >= request.size_bytes:
            size_bytes = there
        elif isinstance(request, CreateVolume) and there is not None:
            answers = (StatusCode.ALREADY_EXISTS,)
        elif size_bytes - (there or 0) > self._free_bytes():
            answers = (StatusCode.RESOURCE_EXHAUSTED,)
        elif volume_id in self._foreign:
            answers = (StatusCode.ALREADY_EXISTS, StatusCode.FAILED_PRECONDITION)
        return answers, {**self._sizes, volume_id: size_bytes} if answers == (StatusCode.OK,) else self._sizes


@pytest.mark.only_on("file", "thick")
def test_hundreds_of_random_operations_agree_with_a_model(site: Site) -> None:
    # Each example leaves some rules out, so there have to be several for each rule to be in one of them.
    least, examples, steps = (100, 7, 23) if site.is_lvm else (500, 12, 58)
    tally: Counter[str] = Counter()
    run_state_machine_as_test(
        lambda: Life(site, tally),  # type: ignore[arg-type] # whatever makes one, says its documentation
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
            phases=[Phase.generate] if site.is_lvm else [Phase.generate, Phase.shrink],
        ),
    )
    codes = {code.name for code in StatusCode}
    operations = sum(count for name, count in tally.items() if name not in codes)
    print(f"{operations} operations on {site.name}: {dict(tally)}")
    assert operations >= least
    assert {"OK", "ALREADY_EXISTS", "NOT_FOUND", "RESOURCE_EXHAUSTED", "restart", "by hand", "repeat"} <= tally.keys()
