"""Users who never rest: claims are made, bound, snapshotted and deleted all the time, and each has to come to its end.

Each of many threads takes one claim through its life and begins anew. A control plane that is away, or answers badly,
is asked again: what was asked for is asked for until it is so.
"""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from http import HTTPStatus
from itertools import count
from types import TracebackType
from typing import Any, Self

from tests.cluster import things
from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.machine import CLASSES
from tests.cluster.things import CONTENTS, EVENTS, SNAPSHOTS, is_bound
from tests.rigs.cluster.api import Api, Json, Refusal
from tests.rigs.host import RigError

CLAIMS_AT_ONCE = 50
SIZES = ("16Mi", "24Mi", "32Mi")
LABEL = "load"
HASTY_PART = 0.15
"""So many are deleted before they can be bound …"""
SNAPSHOT_PART = 0.15
"""… and of so many of the others a snapshot is taken."""
PATIENCE_SECONDS = 240.0
"""For one step of one claim's life, faults included."""
TOLD_SECONDS = 180.0
"""client-go looks for an API server that has died up to a minute apart, and for what it has missed after that."""
LOOK_SECONDS = 0.3
PAUSE_SECONDS = 0.5
LASTING = frozenset({HTTPStatus.BAD_REQUEST, HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.UNPROCESSABLE_ENTITY})
"""Refusals that time does not mend."""
SOURCE_FINALIZER = "snapshot.storage.kubernetes.io/pvc-as-source-protection"
"""On a claim, for as long as snapshot-controller believes that a snapshot is being made of it."""


class Load:
    """It runs for as long as the context lasts; then every claim is brought to its end, which has to come.

    `made`, `bound` and `deleted` count claims, `snapshots` those that were ready. Those that were `stranded` were made,
    and csi-snapshotter has said so of their contents, but snapshot-controller did not come to know it by itself.
    """

    def __init__(
        self, api: Api, seed: int, *, at_once: int = CLAIMS_AT_ONCE, operator: Callable[[], object] = lambda: None
    ) -> None:
        """Nothing is asked for yet. The `operator` is called for a stranded snapshot: restarts snapshot-controller."""
        self.count: Counter[str] = Counter()
        self.errors: list[str] = []
        self._api = api
        self._operator = operator
        self._is_over = threading.Event()
        self._are_gone = threading.Event()
        self._numbers = count()
        self._counting = threading.Lock()
        self._looked = threading.Condition()
        self._look: tuple[float, Mapping[str, Json]] = (0.0, {})
        """What there is, by path, and when the look at it was begun."""
        self._eyes = threading.Thread(target=self._watch, name="load-eyes")
        self._users = [
            threading.Thread(target=self._use, args=(number, seed), name=f"load-{number}") for number in range(at_once)
        ]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in (self._eyes, *self._users):
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._is_over.set()
        for thread in self._users:
            thread.join()
        self._are_gone.set()
        self._eyes.join()

    def wait_for(self, what: str, more: int, seconds: float) -> None:
        """Until so many more are `bound`, say; RigError when that takes too long."""
        wanted, deadline = self.count[what] + more, time.monotonic() + seconds
        while self.count[what] < wanted:
            if time.monotonic() > deadline:
                raise RigError(f"{self.count[what]} of {wanted} are {what} after {seconds:.0f} s: {dict(self.count)}")
            time.sleep(LOOK_SECONDS)

    def insist(self, ask: Callable[[], object]) -> None:
        """Ask until it is answered; what is there, or gone, is as wanted. Raises Refusal, RigError."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            try:
                ask()
            except Refusal as refusal:
                if refusal.status in (HTTPStatus.CONFLICT, HTTPStatus.NOT_FOUND):
                    return
                if refusal.status in LASTING or time.monotonic() > deadline:
                    raise
                self._add(f"refused {refusal.status}")
            except RigError:
                if time.monotonic() > deadline:
                    raise
                self._add("unanswered")
            else:
                return
            time.sleep(PAUSE_SECONDS)

    def _use(self, number: int, seed: int) -> None:
        dice = random.Random(f"{seed} {number}")  # noqa: S311 - a load
        while not self._is_over.is_set():
            name = f"load-{number}-{next(self._numbers)}"
            try:
                self._live(name, dice)
            except (RigError, Refusal) as failure:
                self.errors.append(f"{name}: {failure}\n{self._events(name)}")
                return

    def _live(self, name: str, dice: random.Random) -> None:
        """One claim's life."""
        has_pod = dice.random() < 0.6
        storage_class = f"{dice.choice(CLASSES)}{'' if has_pod else '-now'}"
        claim = things.claim(
            name, dice.choice(SIZES), storage_class, is_block=dice.random() < 0.3, labels={LABEL: "yes"}
        )
        self._make(CLAIMS, claim)
        self._add("made")
        if has_pod:
            self._make(PODS, things.pod(name, [name], is_block=claim["spec"]["volumeMode"] == "Block"))
        if dice.random() < HASTY_PART:
            time.sleep(dice.random() * 0.5)
        else:
            self._see(f"{CLAIMS}/{name}", lambda found: found is not None and is_bound(found))
            self._add("bound")
            if dice.random() < SNAPSHOT_PART:
                self._snapshot(name)
        if has_pod:
            self._delete(f"{PODS}/{name}?gracePeriodSeconds=0")
        self._delete(f"{CLAIMS}/{name}")
        self._see(f"{CLAIMS}/{name}", lambda found: found is None)
        self._add("deleted")

    def _snapshot(self, name: str) -> None:
        """To its end, too: its claim cannot end before.

        Two bugs of snapshot-controller (8.7) are borne as they have to be. When the answer to its creation of a content
        is lost, it takes its own draft for the content, and because a draft has no version takes none that comes later:
        until it is restarted the snapshot is not ready. (And who deletes the snapshot then leaves it on the disk: the
        content has not got its finalizer.) And a claim's finalizer stays for ever if the snapshot is gone before
        snapshot-controller, whose watch of claims may be a minute behind, has seen the finalizer that it has itself
        set: so that is waited for.
        """
        path = f"{SNAPSHOTS}/{name}"
        self._make(SNAPSHOTS, things.snapshot(name, name))
        self._see(f"{CONTENTS}/{name}", _is_ready)
        try:
            self._see(path, _is_ready, TOLD_SECONDS)
        except RigError:
            self._add("stranded")
            self._operator()
            self._see(path, _is_ready)
        self._add("snapshots")
        self._see(f"{CLAIMS}/{name}", lambda found: found is not None and not _is_a_source(found))
        self._delete(path)
        self._see(path, lambda found: found is None)

    def _make(self, path: str, thing: Mapping[str, Any]) -> None:
        self.insist(lambda: self._api.create(path, thing))

    def _delete(self, path: str) -> None:
        self.insist(lambda: self._api.delete(path))

    def _see(
        self, path: str, is_so: Callable[[Json | None], object], patience_seconds: float = PATIENCE_SECONDS
    ) -> None:
        """Wait until it is seen to be so, by a look that was begun after this; raises RigError, with what it is."""
        began = time.monotonic()

        def is_seen() -> bool:
            looked, found = self._look
            return looked > began and bool(is_so(found.get(path)))

        with self._looked:
            if not self._looked.wait_for(is_seen, patience_seconds):
                raise RigError(f"{path} is not as expected after {patience_seconds:.0f} s: {self._look[1].get(path)}")

    def _watch(self) -> None:
        while not self._are_gone.wait(LOOK_SECONDS):
            began = time.monotonic()
            try:
                found = {
                    f"{path}/{_user_name(each)}": each
                    for path in (CLAIMS, SNAPSHOTS, CONTENTS)
                    for each in self._api.items(path)
                }
            except (RigError, Refusal):
                continue
            with self._looked:
                self._look = (began, found)
                self._looked.notify_all()

    def _events(self, about: str) -> str:
        try:
            told = self._api.items(f"{EVENTS}?fieldSelector=involvedObject.name={about}")
        except (RigError, Refusal) as failure:
            return str(failure)
        return "\n".join(f"  {each['reason']}: {each['message']}" for each in told)

    def _add(self, what: str) -> None:
        with self._counting:
            self.count[what] += 1


def _user_name(thing: Json) -> str:
    """What its user calls it: a content has its snapshot's name."""
    return str(thing["spec"].get("volumeSnapshotRef", thing["metadata"])["name"])


def _is_ready(snapshot: Json | None) -> bool:
    """Of its content likewise."""
    return snapshot is not None and bool(snapshot.get("status", {}).get("readyToUse"))


def _is_a_source(claim: Json) -> bool:
    return SOURCE_FINALIZER in claim["metadata"].get("finalizers", ())
