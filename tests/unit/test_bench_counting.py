"""The arithmetic of the cluster's benchmarks: what a metrics page says, and whose each write in an audit log is."""

from __future__ import annotations

import json
from datetime import timedelta

from bench.counting import Write, lasting, per_volume, total, writes

PAGE = """
# HELP ullage_operation_seconds How long.
# TYPE ullage_operation_seconds histogram
ullage_operation_seconds_bucket{le="+Inf",operation="CreateVolume",outcome="ok"} 3.0
ullage_operation_seconds_count{operation="CreateVolume",outcome="ok"} 2.0
ullage_operation_seconds_sum{operation="CreateVolume",outcome="ok"} 0.5
ullage_operation_seconds_count{operation="CreateVolume",outcome="Conflict"} 1.0
ullage_operation_seconds_sum{operation="CreateVolume",outcome="Conflict"} 0.25
ullage_operation_seconds_count{operation="DeleteVolume",outcome="ok"} 7.0
# HELP ullage_informer_events_total Changes.
# TYPE ullage_informer_events_total counter
ullage_informer_events_total{resource="logicalvolumes"} 4.0
ullage_informer_events_total{resource="nodes"} 9.0
"""


def line(agent: str, user: str, verb: str, resource: str, subresource: str = "") -> str:
    """As the API server writes it."""
    what = {"resource": resource, "subresource": subresource, "name": "one"}
    event = {
        "userAgent": agent,
        "user": {"username": user},
        "verb": verb,
        "objectRef": {key: word for key, word in what.items() if word},
        "responseStatus": {"code": 200},
        "requestReceivedTimestamp": "2026-01-01T00:00:00.000100Z",
        "stageTimestamp": "2026-01-01T00:00:00.002100Z",
    }
    return json.dumps(event) + "\n"


AGENT = line("ullage", "system:serviceaccount:ullage-system:ullage-node", "patch", "logicalvolumes", "status")
SIDECAR = line("csi-provisioner/v6.3.0 (linux/amd64) kubernetes/$Format", "admin", "create", "persistentvolumes")
BENCH = line("ullage", "admin", "create", "logicalvolumes")


def test_samples_that_have_the_labels_are_summed_and_no_others() -> None:
    assert total(PAGE, "ullage_operation_seconds_sum", operation="CreateVolume") == 0.75
    assert total(PAGE, "ullage_operation_seconds_count", operation="CreateVolume", outcome="ok") == 2
    assert total(PAGE, "ullage_informer_events_total", resource="logicalvolumes") == 4


def test_a_sample_that_is_not_there_counts_nothing() -> None:
    assert total(PAGE, "ullage_informer_events_total", resource="deviceclasses") == 0
    assert total("", "ullage_informer_events_total") == 0


def test_our_programs_are_told_apart_by_their_accounts_and_others_by_their_names() -> None:
    found = [(each.writer, each.what) for each in writes([AGENT, SIDECAR, BENCH])]
    assert found == [
        ("ullage-node", "patch logicalvolumes/status"),
        ("csi-provisioner", "create persistentvolumes"),
        ("admin", "create logicalvolumes"),
    ]


def test_a_write_knows_when_it_began_and_ended() -> None:
    (found,) = writes([AGENT])
    assert found.ended - found.began == timedelta(milliseconds=2)


def test_a_line_that_is_still_being_written_is_left_out() -> None:
    assert [each.writer for each in writes([AGENT, SIDECAR[:40]])] == ["ullage-node"]


def test_writes_are_divided_by_volumes_most_first_without_those_of_the_bench() -> None:
    found: list[Write] = writes([BENCH, SIDECAR, AGENT, AGENT, AGENT])
    assert list(per_volume(found, 2, without=frozenset({"admin"})).items()) == [
        ("ullage-node: patch logicalvolumes/status", 1.5),
        ("csi-provisioner: create persistentvolumes", 0.5),
    ]


def test_what_is_written_with_time_is_no_volume_s() -> None:
    lease = line("ullage", "system:serviceaccount:ullage-system:ullage-controller", "patch", "leases")
    assert [each.what for each in lasting(writes([lease, AGENT]))] == ["patch logicalvolumes/status"]
