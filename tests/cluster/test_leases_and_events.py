"""A Lease and events at a real API server."""

from __future__ import annotations

import signal
import threading
import uuid
from functools import partial

import msgspec

from tests.rigs.cluster.control_plane import API_SERVER, ControlPlane
from ullage.kube.api import Api
from ullage.kube.connection import connect
from ullage.kube.events import Events
from ullage.kube.foreign import Node, ObjectReference
from ullage.kube.leases import Lease
from ullage.kube.meta import EVENTS, NODES

ENOUGH = 60.0
SPACE = "default"


def test_events_are_taken_by_the_real_server_on_objects_with_and_without_a_namespace(api_only: ControlPlane) -> None:
    api = Api(connect(api_only.kubeconfig))
    node = msgspec.json.decode(
        api.create(NODES, {"kind": "Node", "apiVersion": "v1", "metadata": {"name": "n1"}}), type=Node
    )
    claim = ObjectReference(
        api_version="v1", kind="PersistentVolumeClaim", namespace=SPACE, name="pg-0", uid=str(uuid.uuid4())
    )
    about = ObjectReference(api_version="v1", kind="Node", name="n1", uid=node.metadata.uid)
    now = [0.0]
    events = Events(api, "ullage-node", "n1", clock=lambda: now[0])
    events.tell(about, reason="PoolDegraded", message="vg0: a disk is missing", is_warning=True)
    events.tell(claim, reason="Refused", message="é" * 2000, action="Create")
    for _ in range(3):
        events.tell(claim, reason="Carved", message="1 GiB")
        while events.turn() <= 0:
            pass
    now[0] += 100.0
    while events.turn() <= 0:
        pass
    found = {each["reason"]: each for each in api_only.api().items(EVENTS.path(namespace=SPACE))}
    assert found["PoolDegraded"]["regarding"]["name"] == "n1"
    assert found["PoolDegraded"]["type"] == "Warning"
    assert found["Refused"]["action"] == "Create"
    assert found["Carved"]["series"]["count"] == 3


def test_of_two_candidates_one_leads_through_an_outage_and_the_other_after_its_end(api_only: ControlPlane) -> None:
    changed = threading.Condition()
    leading: list[str] = []
    most_at_once = 0

    def begin(name: str) -> None:
        nonlocal most_at_once
        with changed:
            leading.append(name)
            most_at_once = max(most_at_once, len(leading))
            changed.notify_all()

    def end(name: str) -> None:
        with changed:
            leading.remove(name)
            changed.notify_all()

    def wait_for(count: int) -> None:
        with changed:
            assert changed.wait_for(lambda: len(leading) == count, ENOUGH), leading

    candidates = {
        name: Lease(
            Api(connect(api_only.kubeconfig)),
            "ullage",
            namespace=SPACE,
            identity=name,
            on_leading=partial(begin, name),
            on_lost=partial(end, name),
            retry_seconds=0.5,
        )
        for name in ("one", "two")
    }
    for each in candidates.values():
        each.start()
    wait_for(1)
    api_only.process(API_SERVER).signal(signal.SIGSTOP)
    try:
        wait_for(0)  # at the deadline, though no request has come back
    finally:
        api_only.process(API_SERVER).signal(signal.SIGCONT)
    wait_for(1)
    api_only.kill(API_SERVER)
    api_only.start(API_SERVER)
    wait_for(1)
    (first,) = leading
    candidates.pop(first).stop()
    wait_for(1)
    assert leading != [first]
    for each in candidates.values():
        each.stop()
    assert (leading, most_at_once) == ([], 1)
