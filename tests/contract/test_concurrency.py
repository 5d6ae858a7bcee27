"""Many at once: what is full stays full, what is busy says so, and what hangs keeps nobody else waiting.

Nothing here waits for a time to pass: a double says when a step is reached, and holds it until it is let go.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from grpc import StatusCode

from node_agent.locks import MOST_JOINING, Operations
from tests.contract.faults import LONG_SECONDS, Disturbed, Stall, T, begun, code_from, idle, until
from tests.contract.sites import OTHER_CLASS, Site, wanted
from ullage.errors import MIB, PendingOperationError, StillRunningError, StoreBusyError, TooManyOperationsError
from ullage.model import DeleteVolume, Done, ExpandVolume, VolumeId, Wipe

A, B, C = VolumeId("pvc-a"), VolumeId("pvc-b"), VolumeId("pvc-c")


@contextmanager
def threads(count: int) -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(count, thread_name_prefix="caller") as pool:
        yield pool


@pytest.mark.only_on("file", "thick", "thin")
def test_many_creates_at_once_never_give_out_more_than_there_is(site: Site) -> None:
    size_bytes = 400 * MIB
    with site.second() as other, threads(16) as pool:
        assembly = begun(Disturbed().assembly(), [site.device_class(Wipe.NONE), other])
        agent = assembly.agent
        fitting = {each.classes[0]: each.free_bytes // size_bytes for each in agent.pools()}
        requests = [
            wanted(f"pvc-{name}-{number}", size_bytes, device_class=name)
            for name, count in fitting.items()
            for number in range(count + 2)
        ]
        answers = list(pool.map(lambda request: code_from(lambda: agent.create(request)), requests))
        assert all(count > 0 for count in fitting.values())
        assert Counter(answers) == {
            StatusCode.OK: sum(fitting.values()),
            StatusCode.RESOURCE_EXHAUSTED: 2 * len(fitting),
        }
        made = [request.volume_id for request, code in zip(requests, answers, strict=True) if code is StatusCode.OK]
        assert sorted(volume.id for volume in agent.volumes()) == sorted(made)
        truth = site.truth()
        assert truth.sizes == {volume_id: size_bytes for volume_id in made if "main" in volume_id}
        if site.name == "thick":
            believed = agent.pools()
            assembly.reporter.look_now()
            assert agent.pools() == believed
        gone = list(pool.map(lambda volume_id: agent.delete(DeleteVolume(volume_id=volume_id)).is_new, made))
        assert all(gone)
        assert site.truth().sizes == {}


@pytest.mark.only_on("file", "thick", "thin")
def test_one_request_from_many_threads_makes_one_volume_and_all_get_it(site: Site) -> None:
    agent = begun(Disturbed().assembly(), [site.device_class()]).agent
    with threads(8) as pool:
        request = wanted(A, site.step_bytes)
        answers: list[Done] = list(pool.map(lambda _: agent.create(request), range(8)))
    assert len({answer.volume for answer in answers}) == 1
    assert site.truth().sizes == {A: site.step_bytes}


@pytest.mark.only_on("file", "thick")
def test_a_stalled_wipe_keeps_neither_its_store_nor_another(site: Site) -> None:
    stall = Stall(("half a wipe",), times=1)
    with site.second() as other, threads(1) as pool:
        agent = begun(Disturbed(wipes=stall).assembly(), [site.device_class(Wipe.ZERO), other]).agent
        first = pool.submit(agent.create, wanted(A, site.step_bytes))
        stall.wait()
        with pytest.raises(PendingOperationError):
            agent.delete(DeleteVolume(volume_id=A))
        assert agent.create(wanted(B, site.step_bytes)).is_new
        assert agent.create(wanted(C, site.step_bytes, device_class=OTHER_CLASS)).is_new
        assert agent.delete(DeleteVolume(volume_id=B)).is_new
        assert not first.done()
        stall.release()
        assert first.result(LONG_SECONDS).is_new


@pytest.mark.only_on("file", "thick")
def test_a_store_that_is_busy_for_long_says_with_what(site: Site) -> None:
    stall = Stall((f"create {A}",))
    assembly = begun(Disturbed(port=stall).assembly(store_patience_seconds=0.01), [site.device_class(Wipe.NONE)])
    with threads(1) as pool:
        first = pool.submit(assembly.agent.create, wanted(A, site.step_bytes))
        stall.wait()
        with pytest.raises(StoreBusyError, match=f"busy with create of {A} for .* create of {B} has to wait"):
            assembly.agent.create(wanted(B, site.step_bytes))
        assert code_from(lambda: assembly.agent.create(wanted(B, 1))) is StatusCode.UNAVAILABLE
        stall.release()
        first.result(LONG_SECONDS)


@pytest.mark.only_on("file")
def test_a_removal_that_nobody_waited_for_is_told_later_once_without_a_look_at_everything(site: Site) -> None:
    stall = Stall((f"remove {A}",))
    assembly = begun(Disturbed(port=stall).assembly(), [site.device_class()])
    assembly.agent.create(wanted(A, site.step_bytes))
    request = DeleteVolume(volume_id=A)
    with pytest.raises(StillRunningError):
        assembly.agent.delete(request, patience_seconds=0)
    stall.release()
    idle(assembly)
    looks = assembly.reporter._looks_begun
    assert assembly.agent.delete(request).is_new
    assert assembly.reporter._looks_begun == looks
    assert not assembly.agent.delete(request).is_new
    assert assembly.reporter._looks_begun > looks


@pytest.mark.only_on("file")
def test_operations_and_those_who_wait_for_them_are_bounded(site: Site) -> None:
    stall = Stall(("create",))
    assembly = begun(Disturbed(port=stall).assembly(most_operations=2), [site.device_class()])
    agent = assembly.agent

    def impatient(volume_id: VolumeId) -> Callable[[], object]:
        return lambda: agent.create(wanted(volume_id, site.step_bytes), patience_seconds=0)

    assert code_from(impatient(A)) is StatusCode.DEADLINE_EXCEEDED
    assert code_from(impatient(B)) is StatusCode.DEADLINE_EXCEEDED
    with pytest.raises(TooManyOperationsError, match="2 operations are under way"):
        impatient(C)()
    most = 2 + MOST_JOINING
    with threads(most) as pool:
        waiting = [pool.submit(agent.create, wanted(A, site.step_bytes)) for _ in range(most)]
        until(lambda: assembly.operations._waiting == most)
        with pytest.raises(TooManyOperationsError, match=f"{most} callers wait"):
            impatient(B)()
        assert agent.volumes() == ()  # reads go on
        stall.release()
        assert {each.result(LONG_SECONDS).volume for each in waiting} == {agent.get(A)}
    idle(assembly)
    assert agent.create(wanted(C, site.step_bytes)).is_new


def test_who_waits_for_an_operation_that_outlives_the_agent_is_told_so() -> None:
    operations = Operations()
    stall = Stall()
    with threads(1) as pool:
        request = wanted(A, 1)
        caller: Future[int] = pool.submit(
            lambda: operations.run(A, request, lambda: stall("work", lambda: 1), patience_seconds=10 * LONG_SECONDS)
        )
        stall.wait()
        try:
            assert not operations.stop(0)
            with pytest.raises(StillRunningError):
                caller.result(LONG_SECONDS)
        finally:
            stall.release()


@pytest.mark.only_on("file", "thick")
def test_a_look_that_sees_a_change_before_it_is_booked_does_not_book_it_twice(site: Site) -> None:
    """The command has ended, the stock does not know yet, and just then a report comes."""
    looks: list[Callable[[], None]] = []

    def beside(_step: str, act: Callable[[], T]) -> T:
        result = act()
        for look in looks:
            look()
        return result

    assembly = begun(Disturbed(port=beside).assembly(), [site.device_class(Wipe.NONE)])
    agent = assembly.agent
    agent.create(wanted(B, site.step_bytes))
    looks.append(assembly.reporter.look_now)
    changes: tuple[Callable[[], object], ...] = (
        lambda: agent.create(wanted(A, 2 * site.step_bytes)),
        lambda: agent.expand(ExpandVolume(volume_id=A, size_bytes=3 * site.step_bytes)),
        lambda: agent.delete(DeleteVolume(volume_id=A)),
    )
    for change in changes:
        change()
        believed = agent.pools(), agent.volumes()
        assembly.reporter.look_now()
        assert (agent.pools(), agent.volumes()) == believed


@pytest.mark.only_on("file", "thick")
def test_a_change_that_hangs_does_not_keep_other_stores_from_being_looked_at(site: Site) -> None:
    stall = Stall((f"create {A}",))
    with site.second() as other, threads(1) as pool:
        disturbed = Disturbed(port=stall).assembly(store_patience_seconds=2 * LONG_SECONDS)
        assembly = begun(disturbed, [site.device_class(Wipe.NONE), other])
        reporter, stock = assembly.reporter, assembly.stock
        (main_store,) = {each.store for each in assembly.agent.pools() if other.name not in each.classes}
        (other_store,) = {each.store for each in assembly.agent.pools() if other.name in each.classes}
        hanging = pool.submit(assembly.agent.create, wanted(A, site.step_bytes, device_class=OTHER_CLASS))
        stall.wait()
        reporter.start()
        reporter.wish(other_store)
        version = stock.wait_for_change(-1, 0)
        site.make_foreign("theirs", site.step_bytes)
        reporter.wish(main_store)
        assert stock.wait_for_change(version, LONG_SECONDS) > version
        site.remove_foreign("theirs")
        stall.release()
        hanging.result(LONG_SECONDS)
        assert assembly.stop(LONG_SECONDS)


@pytest.mark.only_on("file")
def test_a_report_that_fails_unforeseen_is_not_the_last(site: Site) -> None:
    failed = threading.Event()

    def once(_step: str, act: Callable[[], T]) -> T:
        if not failed.is_set():
            failed.set()
            raise RuntimeError("nobody thought of this")
        return act()

    assembly = begun(Disturbed(reports=once).assembly(), [site.device_class()])
    (store,) = [report.name for report in assembly.stock.reports()]
    assembly.reporter.start()
    assembly.reporter.wish(store)
    assert failed.wait(LONG_SECONDS)
    version = assembly.stock.wait_for_change(-1, 0)
    site.make_foreign("theirs", site.step_bytes)
    assembly.reporter.wish(store)
    assert assembly.stock.wait_for_change(version, LONG_SECONDS) > version
    assert assembly.stop(LONG_SECONDS)


@pytest.mark.only_on("file")
def test_a_start_survives_what_cannot_be_finished_at_once(site: Site) -> None:
    """More half-made volumes than the bound on operations, on a store that then refuses them all."""
    stall = Stall(("half a wipe",))
    classes = [site.device_class(Wipe.ZERO)]
    before = begun(Disturbed(wipes=stall).assembly(), classes)
    for volume_id in (A, B, C):
        with pytest.raises(StillRunningError):
            before.agent.create(wanted(volume_id, site.step_bytes), patience_seconds=0)
    until(lambda: stall.count == 3)
    second = Stall(("half a wipe",))
    after = Disturbed(wipes=second).assembly(most_operations=1)
    after.agent.configure(classes)
    after.agent.recover()
    second.release()
    idle(after)
    answers = [after.agent.create(wanted(each, site.step_bytes)) for each in (A, B, C)]
    assert all(answer.volume is not None and answer.volume.size_bytes == site.step_bytes for answer in answers)
    stall.release()
    idle(before)
