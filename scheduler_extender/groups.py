"""Which group a claim's volume is one of, and how the group wants to be spread.

The group is named by the claim: by our annotation, by Rook's label, or by its name, when the Pod's StatefulSet made it.
How it is spread is said by annotations of the claim or, one by one, of its StorageClass. Nonsense in one of them is an
InvalidRequestError that names it: a guess would put volumes where nobody wants them, and they stay there.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import count, takewhile
from typing import TypeVar

from scheduler_extender.objects import Claim
from scheduler_extender.wire import Pod
from ullage.errors import InvalidRequestError
from ullage.kube.foreign import StorageClass
from ullage.kube.meta import Key
from ullage.names import check_label_value
from ullage.quoting import quoted
from ullage.spread import HOST, LEVELS, Cap, Level, Rule, levels_from

GROUP = "spread.ullage.io/group"
"""Of a claim alone; the others may be its StorageClass's."""
KEY = "spread.ullage.io/key"
CAP = "spread.ullage.io/cap"
MODE = "spread.ullage.io/mode"
REPLICAS = "spread.ullage.io/replicas"
DEVICE_SET = "ceph.rook.io/DeviceSet"
DEVICE_SET_CLAIM = "ceph.rook.io/DeviceSetPVCId"
"""Rook's label of a claim: set, template and number. It is taken off a claim whose disk is being given up."""

MOST_REPLICAS = 10_000
_NUMBERED = re.compile(r"(.+)-([0-9]{1,9})")
_CAPS: Mapping[str, Cap | None] = {"quorum": "quorum", "third": "third", "none": None}
_Read = TypeVar("_Read")


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Claims that are spread together: those whose groups are equal."""

    namespace: str
    name: str
    """The annotation's, the device set's or the StatefulSet's."""
    part: str = ""
    """The template, where there may be several: the data and the logs of one set of Pods are spread each by itself."""
    is_stateful_set: bool = False

    def __str__(self) -> str:
        """As people call it."""
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Wish:
    """How a claim's group wants to be spread."""

    group: Group
    levels: tuple[Level, ...] = LEVELS
    capped: Level = HOST
    cap: Cap | None = None
    is_hard: bool = False
    """Whether a node whose domain has enough of them is refused; else it is taken last."""
    replicas: int = 0
    """How many there will be, as an annotation says; 0: none does."""
    ordinal: int = 0
    """Of a StatefulSet's Pod: which one it is."""

    def rule(self, *, members: int, stateful_set: int = 0, adding: int = 1) -> Rule:
        """As a rule: `members` are the claims that there are, `stateful_set` the replicas that its StatefulSet has."""
        return Rule(
            group=str(self.group),
            levels=self.levels,
            capped=self.capped,
            cap=self.cap,
            replicas=self.replicas or stateful_set or members,
            adding=adding,
        )


class Members:
    """The claims of each group, kept claim by claim. Those of StatefulSets are found by their names, at no cost."""

    def __init__(self) -> None:
        """There are none."""
        self._claims: defaultdict[Group, set[Key]] = defaultdict(set)
        self._groups: dict[Key, Group] = {}

    def put(self, claim: Claim) -> None:
        """A claim that is there, new or changed."""
        key = claim.metadata.namespace, claim.metadata.name
        group = _named(claim)
        if self._groups.get(key) == group:
            return
        self.drop(key)
        if group is not None:
            self._groups[key] = group
            self._claims[group].add(key)

    def drop(self, key: Key) -> None:
        """A claim that is gone."""
        group = self._groups.pop(key, None)
        if group is not None:
            self._claims[group].discard(key)
            if not self._claims[group]:
                del self._claims[group]

    def of(self, wish: Wish, claims: Mapping[Key, Claim], *, stateful_set: int = 0) -> list[Claim]:
        """Every claim of the group among `claims`; `stateful_set` are the replicas that its StatefulSet has."""
        if wish.group.is_stateful_set:
            return list(_of_stateful_set(wish, claims, stateful_set))
        return [claims[key] for key in sorted(self._claims.get(wish.group, ())) if key in claims]


def wish_of(
    claim: Key,
    *,
    labels: Mapping[str, str],
    annotations: Mapping[str, str],
    storage_class: StorageClass | None = None,
    pod: Pod | None = None,
) -> Wish | None:
    """How a claim wants to be spread, and with which others; None: it is in no group.

    `pod` is the one that uses it: whether a StatefulSet made a claim, its Pod tells. Raises InvalidRequestError.
    """
    read = _Annotations(claim=claim, own=annotations, storage_class=storage_class)
    levels = read(KEY, levels_from, "host, rack, zone or the key of a node label")
    cap = read(CAP, _cap, f"quorum, third, none or a number from 1 to {MOST_REPLICAS}")
    mode = read(MODE, _mode, "soft or hard")
    replicas = read(REPLICAS, _number, f"a number from 1 to {MOST_REPLICAS}")
    is_hard = mode == "hard" or (mode is None and cap is not None)
    if is_hard and cap is None:
        raise InvalidRequestError(f"{read.about(MODE)} is 'hard', and {CAP} does not say how many are too many")
    if GROUP in annotations:
        read(GROUP, _group_name, "1 to 63 characters of A-Z a-z 0-9 - _ .")
    group = group_of(claim, labels=labels, annotations=annotations, pod=pod)
    if group is None:
        if CAP in annotations and cap is not None:
            raise InvalidRequestError(f"{read.about(CAP)} is of no use in no group; {GROUP} says which group it is in")
        return None
    return Wish(
        group=group,
        levels=levels or LEVELS,
        capped=levels[0] if levels else HOST,
        cap=cap,
        is_hard=is_hard,
        replicas=replicas or 0,
        ordinal=_ordinal(pod) if group.is_stateful_set and pod is not None else 0,
    )


def group_of(
    claim: Key, *, labels: Mapping[str, str], annotations: Mapping[str, str], pod: Pod | None = None
) -> Group | None:
    """The group that a claim is in; without `pod` those of StatefulSets are not known."""
    namespace, name = claim
    if annotations.get(GROUP):
        return Group(namespace=namespace, name=annotations[GROUP])
    device_set = labels.get(DEVICE_SET)
    if device_set:
        template = _NUMBERED.fullmatch(labels.get(DEVICE_SET_CLAIM, ""))
        return Group(namespace=namespace, name=device_set, part=template[1] if template else "")
    if pod is None or not name.endswith(f"-{pod.metadata.name}"):
        return None
    owner = next(
        (each.name for each in pod.metadata.owner_references if each.controller and each.kind == "StatefulSet"), ""
    )
    numbered = _NUMBERED.fullmatch(pod.metadata.name)
    if not numbered or numbered[1] != owner:
        return None
    part = name.removesuffix(f"-{pod.metadata.name}")
    return Group(namespace=namespace, name=owner, part=part, is_stateful_set=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Annotations:
    """Those of a claim, and where it has none of a key its StorageClass's."""

    claim: Key
    own: Mapping[str, str]
    storage_class: StorageClass | None

    def __call__(self, key: str, read: Callable[[str], _Read], allowed: str) -> _Read | None:
        """What one says; None: nothing. Raises InvalidRequestError."""
        of_class = self.storage_class.metadata.annotations if self.storage_class is not None else {}
        text = self.own.get(key, of_class.get(key))
        if text is None:
            return None
        try:
            return read(text)
        except (ValueError, InvalidRequestError):
            raise InvalidRequestError(f"{self.about(key)} is {quoted(text)}; allowed: {allowed}") from None

    def about(self, key: str) -> str:
        """Whose annotation it is, for a sentence."""
        where = f"claim {'/'.join(self.claim)}"
        if key not in self.own and self.storage_class is not None:
            where = f"StorageClass {self.storage_class.metadata.name}"
        return f"{where}: the annotation {key}"


def _named(claim: Claim) -> Group | None:
    """The group that a claim itself names."""
    meta = claim.metadata
    return group_of((meta.namespace, meta.name), labels=meta.labels, annotations=meta.annotations)


def _of_stateful_set(wish: Wish, claims: Mapping[Key, Claim], replicas: int) -> Iterator[Claim]:
    """By number: as many as there are to be, before and after this one, and those that a larger set has left behind."""
    group, reach = wish.group, max(1, min(replicas, MOST_REPLICAS))

    def numbered(number: int) -> Claim | None:
        claim = claims.get((group.namespace, f"{group.part}-{group.name}-{number}"))
        return claim if claim is not None and _named(claim) is None else None

    low, high = max(0, wish.ordinal - reach + 1), wish.ordinal + reach
    yield from filter(None, map(numbered, range(low, high)))
    yield from takewhile(lambda claim: claim is not None, map(numbered, count(high)))
    yield from takewhile(lambda claim: claim is not None, map(numbered, range(low - 1, -1, -1)))


def _ordinal(pod: Pod) -> int:
    numbered = _NUMBERED.fullmatch(pod.metadata.name)
    return int(numbered[2]) if numbered else 0


def _group_name(text: str) -> str:
    if not text:
        raise ValueError(text)
    return check_label_value(text)


def _cap(text: str) -> Cap | None:
    return _CAPS[text] if text in _CAPS else _number(text)


def _mode(text: str) -> str:
    if text not in ("soft", "hard"):
        raise ValueError(text)
    return text


def _number(text: str) -> int:
    if (
        not text.isascii()
        or not text.isdecimal()
        or len(text) > len(str(MOST_REPLICAS))
        or not 1 <= int(text) <= MOST_REPLICAS
    ):
        raise ValueError(text)
    return int(text)
