"""The words of a StorageClass, of a VolumeAttributesClass and of a topology: those we know, and no others."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

import pytest

from csi import parameters
from csi.parameters import MOST_MAP_BYTES, MUTABLE, topology
from ullage import storage_classes
from ullage.errors import InvalidRequestError
from ullage.model import NodeName, Owner, Wipe
from ullage.pb.csi.v1 import csi_pb2 as pb

CLASS = "ullage.io/device-class"
RESERVED = (
    "csi.storage.k8s.io/fstype",
    "csi.storage.k8s.io/pv/name",
    "csi.storage.k8s.io/pvc/name",
    "csi.storage.k8s.io/pvc/namespace",
    "csi.storage.k8s.io/provisioner-secret-name",
)
A, B, C = (NodeName(f"node-{letter}") for letter in "abc")


def test_the_keys_have_their_names_for_ever() -> None:
    """They are in StorageClasses, in PVs and on Node objects."""
    assert (storage_classes.CLASS_KEY, storage_classes.NODE_KEY) == (CLASS, "ullage.io/node")
    assert topology(A) == pb.Topology(segments={"ullage.io/node": "node-a"})


UID = "0d3adbee-0000-4000-8000-00000000c1a1"


@pytest.mark.parametrize(("given", "name"), [({}, None), ({CLASS: "fast"}, "fast"), ({"device-class": "x"}, None)])
def test_a_class_is_the_one_that_is_named_or_the_default(given: Mapping[str, str], name: str | None) -> None:
    assert storage_classes.device_class_name(given) == name


@pytest.mark.parametrize("name", ["", "Fast", "fast ", "fast\n", "a/b", "-fast", "x" * 64])
def test_a_class_that_can_have_no_such_name_is_not_taken_for_the_default(name: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"cannot be a class name"):
        storage_classes.device_class_name({CLASS: name})


def test_what_the_sidecars_add_is_let_through() -> None:
    parameters.check_parameters({CLASS: "fast", **dict.fromkeys(RESERVED, "x")})


@pytest.mark.parametrize(
    "key",
    [
        "",
        "device-class",
        "ullage.io/deviceClass",
        f"{CLASS} ",
        f"{CLASS}\n",
        "fsType",
        "mkfsOptions",
        "wipe",
        "csi.storage.k8s.io",
        "csi.storage.k8s.io.example.org/x",
        "CSI.storage.k8s.io/fstype",
        "topolvm.io/device-class",
    ],
)
def test_a_key_that_nobody_reads_is_refused_with_the_one_there_is(key: str) -> None:
    with pytest.raises(InvalidRequestError, match=rf"^{re.escape(repr(key))} is no parameter .* there is {CLASS}$"):
        parameters.check_parameters({CLASS: "fast", key: "x"})


@pytest.mark.parametrize(
    ("given", "owner"),
    [
        ({}, Owner()),
        (dict.fromkeys(RESERVED, "x"), Owner(pv_name="x", claim_namespace="x", claim_name="x")),
        (
            {"csi.storage.k8s.io/pv/name": "pvc-1", "csi.storage.k8s.io/pvc/namespace": "db"},
            Owner(pv_name="pvc-1", claim_namespace="db"),
        ),
        (
            {
                "csi.storage.k8s.io/pv/name": f"pvc-{UID}",
                "csi.storage.k8s.io/pvc/namespace": "db",
                "csi.storage.k8s.io/pvc/name": "pg-0",
            },
            Owner(pv_name=f"pvc-{UID}", claim_namespace="db", claim_name="pg-0", claim_uid=UID),
        ),
    ],
)
def test_whom_a_volume_is_for_is_what_the_provisioner_says(given: Mapping[str, str], owner: Owner) -> None:
    assert parameters.owner(given) == owner


@pytest.mark.parametrize("value", ["a b", "a\nb", "a\0b", "é", "x" * 961])
def test_an_owner_that_cannot_be_written_on_the_volume_is_refused(value: str) -> None:
    with pytest.raises(InvalidRequestError, match=r"^The owner's claim name: "):
        parameters.owner({"csi.storage.k8s.io/pvc/name": value})


@pytest.mark.parametrize(("given", "wipe"), [({}, None), *(({"wipe": each.value}, each) for each in Wipe)])
def test_every_policy_can_be_changed_to(given: Mapping[str, str], wipe: Wipe | None) -> None:
    assert parameters.wipe(given) is wipe


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"wipe": ""}, "'' is no wipe policy; there are: none, signatures, discard, zero"),
        ({"wipe": "Zero"}, "'Zero' is no wipe policy"),
        ({"wipe": "zero\n"}, r"'zero\n' is no wipe policy"),
        ({"wipe": "x" * 4000}, "(4000 characters) is no wipe policy"),
        ({"": "zero"}, "'' is no mutable parameter"),
        ({"Wipe": "zero"}, "'Wipe' is no mutable parameter; there are: wipe"),
        ({"wipe": "zero", "iops": "1"}, "'iops' is no mutable parameter"),
        ({"csi.storage.k8s.io/pvc/name": "x"}, "is no mutable parameter"),
    ],
)
def test_what_cannot_be_changed_or_not_to_that_is_refused(given: Mapping[str, str], sentence: str) -> None:
    with pytest.raises(InvalidRequestError, match=re.escape(sentence)):
        parameters.wipe(given)


def test_each_mutable_parameter_has_its_reader() -> None:
    """A key that is let in and then read by nobody would be a wish unheard."""
    assert {key: read("zero") for key, read in MUTABLE.items()} == {"wipe": Wipe.ZERO}


def test_a_map_may_have_what_csi_allows_in_bytes_and_not_one_more() -> None:
    parameters.check_size({"é": "x" * (MOST_MAP_BYTES - 3), "y": ""}, "this")
    with pytest.raises(InvalidRequestError, match=r"^this has 4097 bytes, 4096 are the most$"):
        parameters.check_size({"é": "x" * (MOST_MAP_BYTES - 3), "yy": ""}, "this")


LARGE = {"csi.storage.k8s.io/x": "y" * MOST_MAP_BYTES}


@pytest.mark.parametrize(
    ("what", "check"),
    [
        ("parameters", lambda: parameters.check_parameters(LARGE)),
        ("mutable_parameters", lambda: parameters.wipe(LARGE)),
        (
            "a topology",
            lambda: parameters.nodes(pb.TopologyRequirement(requisite=[pb.Topology(segments=LARGE)])),
        ),
    ],
)
def test_no_map_is_above_the_limit(what: str, check: Callable[[], object]) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{what} has 4116 bytes"):
        check()


@pytest.mark.parametrize(
    ("requisite", "preferred", "nodes"),
    [
        ([], [], ()),
        ([A, B], [], (A, B)),
        ([A, B, C], [C, A], (C, A, B)),
        ([A], [A], (A,)),
        ([A, A, B], [B, B], (B, A)),
        ([A], [B], (A,)),  # CSI: what is preferred is among the requisite
        ([], [A], ()),
    ],
)
def test_the_preferred_nodes_come_first_and_no_others_than_the_requisite(
    requisite: Sequence[NodeName], preferred: Sequence[NodeName], nodes: tuple[NodeName, ...]
) -> None:
    requirement = pb.TopologyRequirement(
        requisite=[topology(name) for name in requisite], preferred=[topology(name) for name in preferred]
    )
    assert parameters.nodes(requirement) == nodes


@pytest.mark.parametrize("segments", [{}, {"topology.kubernetes.io/zone": "a"}, {"ullage.io/node": ""}])
def test_a_topology_that_names_no_node_is_refused_and_not_taken_for_anywhere(segments: Mapping[str, str]) -> None:
    nowhere = pb.Topology(segments=segments)
    for requirement in (
        pb.TopologyRequirement(requisite=[topology(A), nowhere]),
        pb.TopologyRequirement(requisite=[topology(A)], preferred=[nowhere]),
    ):
        with pytest.raises(InvalidRequestError, match=r"without the key ullage.io/node says nothing"):
            parameters.nodes(requirement)


def test_keys_of_other_drivers_beside_ours_do_not_matter() -> None:
    both = pb.Topology(segments={"topology.kubernetes.io/zone": "a", "ullage.io/node": A})
    assert parameters.nodes(pb.TopologyRequirement(requisite=[both])) == (A,)
