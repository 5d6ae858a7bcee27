"""The rules of a LogicalVolume in CEL: what can be ordered, and what of an order can be changed.

An order is for one volume on one node, and stays that. Its size only grows, but for an expansion that was refused: that
is set back to what there is. A status is never refused for what it says: it is the truth.
"""

from __future__ import annotations

from ullage.kube.structural import Additions, Schema, rule, telling_rule, text
from ullage.model import VolumeKind
from ullage.names import MAX_VOLUME_ID, RESERVED_PREFIXES, VOLUME_ID_ALLOWED

MOST_IN_GROUP = 256
LONGEST_NAME = 253
_LABEL = "[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = f"^{_LABEL}([.]{_LABEL})*$"
_HASH = "-[a-z2-7]{26}$"
_A_VOLUME = "the id of a volume: that is never s- or f- and 26 letters of a hash"
_A_SNAPSHOT = "the id of a snapshot: s- and 26 letters of a hash"


def additions() -> Additions:
    """What is added to the schema that the Structs give."""
    written = "it is written on the volume"
    name = {"maxLength": LONGEST_NAME, "pattern": _SUBDOMAIN}
    return {
        "": {"x-kubernetes-validations": [_id("self.metadata.name"), _id_of_kind(), _growth()]},
        "spec": {"x-kubernetes-validations": [*_sizes(), *_sources(), *_kept()]},
        "spec.nodeName": {**name, "minLength": 1, "x-kubernetes-validations": [_stays("a volume does not move")]},
        "spec.deviceClass": {
            "maxLength": 63,
            "pattern": f"^{_LABEL}$",
            "x-kubernetes-validations": [_stays("the volume is where and what that class says")],
        },
        "spec.sizeBytes": {"minimum": 0},
        "spec.limitBytes": {"minimum": 0},
        "spec.kind": {
            "enum": [VolumeKind.VOLUME.value, VolumeKind.SNAPSHOT.value],
            "default": VolumeKind.VOLUME.value,
            "x-kubernetes-validations": [_stays("a volume does not become a snapshot, nor a snapshot a volume")],
        },
        "spec.source": {
            "x-kubernetes-validations": [
                rule("has(self.volume) != has(self.snapshot)", "exactly one of volume and snapshot is needed")
            ]
        },
        "spec.source.volume": {
            "maxLength": 63,
            "x-kubernetes-validations": [_id("self"), rule(f"!self.matches('^[sf]{_HASH}')", f"is not {_A_VOLUME}")],
        },
        "spec.source.snapshot": {
            "maxLength": 63,
            "x-kubernetes-validations": [rule(f"self.matches('^s{_HASH}')", f"is not {_A_SNAPSHOT}")],
        },
        "spec.group.name": {
            "maxLength": 63,
            "x-kubernetes-validations": [
                rule(f"self.matches('^g{_HASH}')", "is not the id of a group: g- and 26 letters of a hash")
            ],
        },
        "spec.group.sources": {"minItems": 1, "maxItems": MOST_IN_GROUP, "x-kubernetes-list-type": "set"},
        "spec.group.sources[]": {"maxLength": 63},
        "spec.claimRef.namespace": {
            "maxLength": 63,
            "pattern": f"^{_LABEL}$",
            "x-kubernetes-validations": [_stays(written)],
        },
        "spec.claimRef.name": {**name, "x-kubernetes-validations": [_stays(written)]},
        "spec.claimRef.uid": {"maxLength": 128},
        "spec.persistentVolume": name,
    }


def _id(value: str) -> Schema:
    return rule(
        f"size({value}.replace('-', '--')) <= {MAX_VOLUME_ID} && {value}.matches({text(_SUBDOMAIN)}) && "
        + " && ".join(f"!{value}.startsWith({text(prefix)})" for prefix in RESERVED_PREFIXES),
        f"the name cannot be a volume id; allowed: {VOLUME_ID_ALLOWED}",
    )


def _id_of_kind() -> Schema:
    return telling_rule(
        f"self.metadata.name.matches('^s{_HASH}') == (self.spec.kind == 'snapshot') && "
        f"!self.metadata.name.matches('^f{_HASH}')",
        f"'the name is not ' + (self.spec.kind == 'snapshot' ? {text(_A_SNAPSHOT)} : {text(_A_VOLUME)})",
    )


def _growth() -> Schema:
    there = "has(oldSelf.status) && has(oldSelf.status.sizeBytes)"
    return rule(
        "self.spec.sizeBytes >= oldSelf.spec.sizeBytes || "
        f"({there} && self.spec.sizeBytes >= oldSelf.status.sizeBytes)",
        "is less than there is (status.sizeBytes) or, before there is anything, than was ordered; a volume only grows",
        field="spec.sizeBytes",
    )


def _sizes() -> list[Schema]:
    return [
        rule(
            "self.sizeBytes > 0 || self.kind == 'snapshot'",
            "is 0; a volume has at least one byte",
            field="sizeBytes",
        ),
        rule(
            "!has(self.limitBytes) || self.limitBytes == 0 || self.limitBytes >= self.sizeBytes",
            "is less than sizeBytes; allowed: 0 (no limit), or at least sizeBytes",
            field="limitBytes",
        ),
    ]


def _sources() -> list[Schema]:
    of_a_volume = "has(self.source) && has(self.source.volume)"
    return [
        rule(
            f"self.kind != 'snapshot' || ({of_a_volume})",
            "a snapshot is one of a volume: source.volume is needed",
            field="source",
        ),
        rule("!has(self.group) || self.kind == 'snapshot'", "only a snapshot can be one of a group", field="group"),
        rule(
            f"!has(self.group) || !({of_a_volume}) || self.source.volume in self.group.sources",
            "source.volume is not one of the group's sources",
            field="group.sources",
        ),
    ]


def _kept() -> list[Schema]:
    """Fields that need not be there: they do not come, go or change."""
    why = {
        "source": "a volume has begun as what it has begun as",
        "group": "its moment has passed",
        "persistentVolume": "it is written on the volume",
    }
    return [
        *(
            rule(
                f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
                f"does not change: {reason}",
                field=field,
            )
            for field, reason in why.items()
        ),
        rule("has(self.claimRef) == has(oldSelf.claimRef)", "does not come or go", field="claimRef"),
    ]


def _stays(reason: str) -> Schema:
    return telling_rule("self == oldSelf", "'was ' + oldSelf + ' and stays so: ' + " + text(reason))
