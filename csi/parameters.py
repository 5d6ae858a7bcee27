"""The words of a StorageClass, of a VolumeAttributesClass, and of a topology."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping

from ullage.errors import InvalidRequestError
from ullage.model import NodeName, Owner, Wipe
from ullage.names import check_owner
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.quoting import quoted
from ullage.storage_classes import CLASS_KEY, NODE_KEY

SIDECAR_KEYS = "csi.storage.k8s.io/"
"""What sidecars add (--extra-create-metadata), and what external-provisioner leaves in those of GetCapacity."""
_AFTER_A_CLAIM = re.compile(r"pvc-([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})")
MOST_MAP_BYTES = 4096
"""For all keys and values of a map together (CSI spec, "Size Limits")."""


def check_parameters(parameters: Mapping[str, str]) -> None:
    """Refuse what nobody will read: a misspelt key would otherwise be a wish unheard."""
    check_size(parameters, "parameters")
    for key in parameters:
        if key != CLASS_KEY and not key.startswith(SIDECAR_KEYS):
            raise InvalidRequestError(f"{quoted(key)} is no parameter of a StorageClass; there is {CLASS_KEY}")


def check_snapshot_parameters(parameters: Mapping[str, str]) -> None:
    """A VolumeSnapshotClass, or one of groups, has nothing to say: what it says by mistake is refused."""
    check_size(parameters, "parameters")
    for key in parameters:
        if not key.startswith(SIDECAR_KEYS):
            raise InvalidRequestError(f"{quoted(key)} is no parameter of a VolumeSnapshotClass; there are none")


def owner(parameters: Mapping[str, str]) -> Owner:
    """Whom the volume is for, as far as external-provisioner tells; raises InvalidRequestError.

    It does not tell the claim's uid, without which `kubectl describe` finds no event of ours; but it names the volume
    after it (--volume-name-prefix, --volume-name-uuid-length: `pvc-` and the uid, unless they are set otherwise).
    """
    pv_name = parameters.get(f"{SIDECAR_KEYS}pv/name", "")
    named = _AFTER_A_CLAIM.fullmatch(pv_name)
    claim_name = parameters.get(f"{SIDECAR_KEYS}pvc/name", "")
    return check_owner(
        Owner(
            pv_name=pv_name,
            claim_namespace=parameters.get(f"{SIDECAR_KEYS}pvc/namespace", ""),
            claim_name=claim_name,
            claim_uid=named[1] if named and claim_name else "",
        )
    )


def _wipe(value: str) -> Wipe:
    try:
        return Wipe(value)
    except ValueError:
        raise InvalidRequestError(f"{quoted(value)} is no wipe policy; there are: {', '.join(Wipe)}") from None


MUTABLE: Mapping[str, Callable[[str], Wipe]] = {"wipe": _wipe}
"""What a VolumeAttributesClass may say, and who reads it. `wipe`: what is done with the bytes when the volume goes."""


def wipe(parameters: Mapping[str, str]) -> Wipe | None:
    """The wipe policy among the mutable parameters; raises InvalidRequestError for what is not one of them."""
    check_size(parameters, "mutable_parameters")
    read = {}
    for key, value in parameters.items():
        if key not in MUTABLE:
            raise InvalidRequestError(f"{quoted(key)} is no mutable parameter; there are: {', '.join(MUTABLE)}")
        read[key] = MUTABLE[key](value)
    return read.get("wipe")


def check_size(parameters: Mapping[str, str], what: str) -> None:
    """Raise InvalidRequestError for a map above CSI's limit."""
    size_bytes = sum(len(key.encode()) + len(value.encode()) for key, value in parameters.items())
    if size_bytes > MOST_MAP_BYTES:
        raise InvalidRequestError(f"{what} has {size_bytes} bytes, {MOST_MAP_BYTES} are the most")


def nodes(requirement: pb.TopologyRequirement) -> tuple[NodeName, ...]:
    """Where a volume may be, best first; nothing: anywhere. Raises InvalidRequestError.

    Without requisite topologies the preferred ones are a wish, and a volume elsewhere is right.
    """
    requisite = dict.fromkeys(_names(requirement.requisite))
    preferred = [name for name in _names(requirement.preferred) if name in requisite]
    return tuple(dict.fromkeys((*preferred, *requisite)))


def _names(topologies: Iterable[pb.Topology]) -> list[NodeName]:
    names = []
    for each in topologies:
        check_size(each.segments, "a topology")
        name = each.segments.get(NODE_KEY)
        if not name:
            raise InvalidRequestError(f"A topology without the key {NODE_KEY} says nothing about a local volume")
        names.append(NodeName(name))
    return names


def topology(node: NodeName) -> pb.Topology:
    """Where a node's volumes can be used."""
    return pb.Topology(segments={NODE_KEY: node})
