"""What the extender's benchmark asks about is what an API server and kube-scheduler would say."""

from __future__ import annotations

import socket
from collections import Counter

import msgspec
import pytest

from bench.extender_client import Connection, Order, timed
from bench.extender_objects import FULL_EVERY, NEW_PODS, Size, asks, changed, everything
from bench.lvm_rig import BenchError
from scheduler_extender.decisions import Decisions
from scheduler_extender.feeds import KINDS
from scheduler_extender.view import View
from scheduler_extender.wire import ExtenderArgs
from ullage.kube.meta import LOGICAL_VOLUMES, NODE_STORAGES

SIZE = Size(nodes=30, volumes=70)


def view() -> View:
    made = View()
    structs = {each.resource: each.struct for each in KINDS}
    for resource, fields in everything(SIZE):
        made.put(msgspec.json.decode(msgspec.json.encode(fields), type=structs[resource]))
    return made


def test_there_are_as_many_objects_as_were_asked_for() -> None:
    found = Counter(resource.plural for resource, _ in everything(SIZE))
    assert found["nodes"] == found["nodestorages"] == 30
    assert found["logicalvolumes"] == found["persistentvolumes"] == 70
    assert found["persistentvolumeclaims"] == 70 + (1 + 3) * NEW_PODS


@pytest.mark.parametrize("claims", [1, 3])
def test_its_pods_fit_on_all_nodes_but_the_full_ones(claims: int) -> None:
    decisions = Decisions(view(), patience_seconds=0.0)
    filtering, scoring = (msgspec.json.decode(body, type=ExtenderArgs) for body in asks(SIZE, claims, 20, 1))
    assert filtering.node_names is not None
    assert scoring.node_names is not None
    verdict = decisions.filter(filtering.pod, filtering.node_names)
    assert verdict.fitting == scoring.node_names
    assert len(verdict.refused) == 20 // FULL_EVERY
    assert len(decisions.prioritize(scoring.pod, scoring.node_names)) == len(scoring.node_names)


def test_a_change_is_one_that_the_view_takes_in() -> None:
    made = view()
    by_resource = dict(everything(SIZE))
    structs = {each.resource: each.struct for each in KINDS}
    for resource in (NODE_STORAGES, LOGICAL_VOLUMES):
        after = changed(resource, by_resource[resource], 7)
        assert after["metadata"]["resourceVersion"] == "7"
        made.put(msgspec.json.decode(msgspec.json.encode(after), type=structs[resource]))


def test_answers_are_timed_in_turn_until_their_number_is_reached() -> None:
    order = Order(address="", paths=["/a", "/b"], bodies=[[b"1", b"2"], [b"3", b"4"]], rounds=3, most_seconds=60.0)
    answered: list[str] = []

    def answer(request: str) -> bytes:
        answered.append(request)
        return b"reply"

    took = timed(order, lambda path, body: path + body.decode(), answer)
    assert answered == ["/a1", "/b2", "/a3", "/b4", "/a1", "/b2"]
    assert [len(each) for each in took.seconds] == [3, 3]
    assert took.reply_bytes == 5


def test_a_reply_that_comes_in_pieces_is_read_to_its_end_and_a_refusal_is_none() -> None:
    head = b"HTTP/1.1 200 OK\r\nX: y\r\ncontent-Length: 6\r\n\r\n"
    with socket.create_server(("127.0.0.1", 0)) as server:
        client = Connection(f"127.0.0.1:{server.getsockname()[1]}")
        with server.accept()[0] as peer:
            peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in (head[:9], head[9:] + b"ab", b"cd", b"ef"):
                peer.sendall(piece)
            assert client.answered(client.request("/filter", b"x")) == b"abcdef"
            peer.sendall(b"HTTP/1.1 503 Busy\r\nContent-Length: 5\r\n\r\nno\nyo")
            with pytest.raises(BenchError, match=r"503 Busy: no"):
                client.answered(client.request("/filter", b"x"))
        client.close()
