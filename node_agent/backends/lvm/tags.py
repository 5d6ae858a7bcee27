"""The tags on every logical volume of ours: who it is, whose it is, and where it is in its life.

They are the record. From the disks alone they tell which volumes exist, for which claim, and what was being done to
them when the power went. lvm(8): letters, digits and `_+.-/=!:&#`, at most 1,024 characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from ullage.model import DeviceClassName, GroupId, Owner, VolumeId, VolumeKind, VolumeState, Wipe

PREFIX = "ullage.io/"
POOL = f"{PREFIX}pool"
"""On a thin pool that we made on demand."""
METADATA_SNAPSHOT = f"{PREFIX}metadata-snapshot"
"""On a thin pool, whoever made it, for as long as we hold its metadata snapshot."""
CREATING = f"{PREFIX}state=creating"
DELETING = f"{PREFIX}state=deleting"
GROWING = re.compile(rf"{re.escape(PREFIX)}state=growing:([0-9]+)")
FILLING = re.compile(rf"{re.escape(PREFIX)}state=filling:([0-9]+)")
KEYS = ("volume", "kind", "source", "at", "group", "class", "wipe", "pv", "namespace", "claim", "uid")
"""What else has our prefix is of a later version, and left alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Label:
    """What the tags of one logical volume say.

    `settled_bytes` is the size before a growth that is not wiped yet, `filled_bytes` what is copied already.
    """

    volume_id: VolumeId
    device_class: DeviceClassName
    wipe: Wipe
    owner: Owner
    kind: VolumeKind = VolumeKind.VOLUME
    source: VolumeId | None = None
    taken_at: int = 0
    group: GroupId | None = None
    state: VolumeState = VolumeState.READY
    settled_bytes: int = 0
    filled_bytes: int = 0


def growing(settled_bytes: int) -> str:
    """The mark put on before a volume grows: bytes past `settled_bytes` are not fit to be seen."""
    return f"{PREFIX}state=growing:{settled_bytes}"


def filling(filled_bytes: int) -> str:
    """The mark of a volume that its source is copied into: so many bytes of it are there for good."""
    return f"{PREFIX}state=filling:{filled_bytes}"


def volume_tag(volume_id: VolumeId) -> str:
    """The tag without which nothing of ours touches a logical volume."""
    return f"{PREFIX}volume={volume_id}"


def wipe_tag(wipe: Wipe) -> str:
    """The policy a volume was made with, or was changed to."""
    return f"{PREFIX}wipe={wipe}"


def written(label: Label) -> tuple[str, ...]:
    """Tags for a label, its state among them unless it is READY."""
    owner = label.owner
    facts = {
        "kind": label.kind if label.kind is not VolumeKind.VOLUME else "",
        "source": label.source,
        "at": label.taken_at,
        "group": label.group,
        "class": label.device_class,
        "wipe": label.wipe,
        "pv": owner.pv_name,
        "namespace": owner.claim_namespace,
        "claim": owner.claim_name,
        "uid": owner.claim_uid,
    }
    marks = {
        VolumeState.CREATING: (CREATING,),
        VolumeState.FILLING: (filling(label.filled_bytes),),
        VolumeState.DELETING: (DELETING,),
    }.get(label.state, ())
    return (
        volume_tag(label.volume_id),
        *(f"{PREFIX}{key}={value}" for key, value in facts.items() if value),
        *marks,
    )


def read(tags: Iterable[str]) -> Label | None:
    """The label that these tags carry, or None: not ours. Raises ValueError when they are ours and make no sense."""
    facts: dict[str, str] = {}
    marks: list[str] = []
    for tag in tags:
        if tag.startswith(f"{PREFIX}state="):
            marks.append(tag)
        elif tag.startswith(PREFIX) and "=" in tag:
            key, _, value = tag.removeprefix(PREFIX).partition("=")
            if key in KEYS and facts.setdefault(key, value) != value:
                raise ValueError(f"{key} is both {facts[key]} and {value}")
    if "volume" not in facts:
        return None
    state, state_bytes = _state(marks)
    return Label(
        volume_id=VolumeId(facts["volume"]),
        device_class=DeviceClassName(facts.get("class", "")),
        wipe=Wipe(facts.get("wipe", Wipe.DISCARD)),
        kind=VolumeKind(facts.get("kind", VolumeKind.VOLUME)),
        source=VolumeId(facts["source"]) if "source" in facts else None,
        taken_at=int(facts.get("at", 0)),
        group=GroupId(facts["group"]) if "group" in facts else None,
        owner=Owner(
            pv_name=facts.get("pv", ""),
            claim_namespace=facts.get("namespace", ""),
            claim_name=facts.get("claim", ""),
            claim_uid=facts.get("uid", ""),
        ),
        state=state,
        settled_bytes=state_bytes if state is VolumeState.GROWING else 0,
        filled_bytes=state_bytes if state is VolumeState.FILLING else 0,
    )


def _state(marks: list[str]) -> tuple[VolumeState, int]:
    """The furthest mark holds: a volume condemned while it was being made is being deleted.

    With the bytes that the mark names: of several, what is surely settled, or filled.
    """
    settled = [int(found[1]) for mark in marks if (found := GROWING.fullmatch(mark))]
    filled = [int(found[1]) for mark in marks if (found := FILLING.fullmatch(mark))]
    if len(settled) + len(filled) + marks.count(CREATING) + marks.count(DELETING) != len(marks):
        raise ValueError(f"a state of {', '.join(marks)} is unknown")
    if DELETING in marks:
        return VolumeState.DELETING, 0
    if CREATING in marks:
        return VolumeState.CREATING, 0
    if filled:
        return VolumeState.FILLING, min(filled)
    return (VolumeState.GROWING, min(settled)) if settled else (VolumeState.READY, 0)
