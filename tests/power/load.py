"""Users of one node who go on until its power is cut, and what they have to find again after the next boot.

Each user has claims of its own, and takes them through whatever its dice say: they are made, of snapshots and of other
claims too, written to, grown, snapshotted, deleted. What was asked for is noted before it is asked: after a cut it is
that, and nothing else, which has to come to be (`settle`), with all that was acknowledged in it (`Claim.check`).
"""

from __future__ import annotations

import random
import secrets
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from tests.cluster import things
from tests.cluster.kubelet import CLAIMS, VOLUMES
from tests.cluster.things import SNAPSHOTS, is_bound
from tests.power.claims import Claim, Snapshot
from tests.power.node import OffError, PowerNode
from tests.rigs.cluster.api import Api, Json
from tests.rigs.host import RigError
from ullage.quantity import parse_bytes

USERS = 3
CLAIMS_AT_MOST = 3
SNAPSHOTS_AT_MOST = 2
KINDS: Mapping[str, int] = {"ext4": 48, "xfs": 304, "": 40}
"""File systems, or none, and the size of a volume in MiB: xfs is made from 300 on."""
CLASSES = ("thick", "thin")
GROWTH_MIB = 24
SETTLE_SECONDS = 420.0
POLL_SECONDS = 0.4


class Over(Exception):  # noqa: N818 - the end, and no error
    """The power was cut, or is about to be."""


@dataclass
class User:
    """One of them: what there is of his, and what he is about."""

    number: int
    dice: random.Random
    claims: dict[str, Claim] = field(default_factory=dict)
    snapshots: dict[str, Snapshot] = field(default_factory=dict)
    gone: set[str] = field(default_factory=set)
    """Paths of what he has asked to be deleted."""
    step: str = "nothing"


class Load:
    """All users. `failures` is what none of them may see."""

    def __init__(self, api: Api, node: PowerNode, seed: int) -> None:
        """Nothing is asked for yet."""
        self.api = api
        self.node = node
        self.count: Counter[str] = Counter()
        self.failures: list[str] = []
        self.users = [User(number, random.Random(f"{seed} {number}")) for number in range(USERS)]  # noqa: S311
        self._numbers = count()
        self._is_over = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def claims(self) -> list[Claim]:
        return [claim for user in self.users for claim in user.claims.values()]

    def start(self) -> None:
        """They go on."""
        self._is_over.clear()
        self._threads = [
            threading.Thread(target=self._use, args=(user,), name=f"user-{user.number}") for user in self.users
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[str]:
        """Nothing new is asked for; what each was about. The power was cut just before."""
        steps = [user.step for user in self.users]
        self._is_over.set()
        for thread in self._threads:
            thread.join()
        self._threads = []
        return steps

    def wait_for(self, acts: int, seconds: float) -> None:
        """Until so many more things are done, or the time is over, which a busy machine needs for one."""
        wanted, deadline = self.count["acts"] + acts, time.monotonic() + seconds
        while self.count["acts"] < wanted and time.monotonic() < deadline:
            time.sleep(0.1)

    def off(self) -> None:
        """The node is off: nothing is in use there."""
        for claim in self.claims:
            claim.place = ""

    def settle(self) -> None:
        """Wait until all that was asked for is so; raises RigError, with what is not."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while left := self._unsettled():
            if time.monotonic() > deadline:
                raise RigError(f"not so after {SETTLE_SECONDS:.0f} s:\n" + "\n".join(left))
            time.sleep(POLL_SECONDS)
        for user in self.users:
            user.gone.clear()

    def use_all(self) -> None:
        """Every claim is used, checked and written to, as by Pods that start with their node; raises AssertionError."""
        with ThreadPoolExecutor(max_workers=4) as together:
            list(together.map(self.use, self.claims))

    def use(self, claim: Claim) -> None:
        """A Pod starts: stage, publish, grow, check, write. Raises AssertionError, OffError, AnswerError."""
        found = self.api.get(f"{CLAIMS}/{claim.name}")
        volume = self.api.get(f"{VOLUMES}/{found['spec']['volumeName']}")
        claim.handle, claim.pod = volume["spec"]["csi"]["volumeHandle"], secrets.token_hex(8)
        claim.place = self.node.use(claim.handle, claim.pod, claim.fs_type)
        if claim.source is None or claim.fs_type:
            claim.run = claim.run or secrets.token_hex(16)
        newest = claim.check(self.node)
        self._grow_file_system(claim, found)
        if claim.run:
            self.node.ask("write", place=claim.place, run=claim.run, number=newest)

    def end_use(self, claim: Claim) -> None:
        """The Pod ends."""
        if not claim.place:
            return
        if claim.run:
            self.node.ask("end_write", run=claim.run)
        self.node.end_use(claim.handle, claim.pod, claim.fs_type)
        claim.place = ""

    def _use(self, user: User) -> None:
        try:
            while not self._is_over.is_set():
                self._act(user)
        except (Over, OffError):
            return
        except Exception as failure:  # noqa: BLE001 - whatever it is, the test says so
            time.sleep(1)  # a VM that has just died is soon known to be off
            if self.node.is_on and not self._is_over.is_set():
                self.failures.append(f"user {user.number}, {user.step}: {type(failure).__name__}: {failure}")

    def _act(self, user: User) -> None:
        """One thing, by the dice, of what can be done now."""
        acts: list[Callable[[User], None]] = []
        if len(user.claims) < CLAIMS_AT_MOST:
            acts += [self._make, self._make]
            if user.claims:
                acts.append(self._clone)
            if user.snapshots:
                acts += [self._restore, self._restore]
        if user.claims:
            acts += [self._delete, self._expand, self._pause]
            if len(user.snapshots) < SNAPSHOTS_AT_MOST:
                acts += [self._snapshot, self._snapshot]
        if user.snapshots:
            acts.append(self._delete_snapshot)
        user.dice.choice(acts)(user)
        self.count["acts"] += 1
        self._pause(user)

    def _pause(self, user: User) -> None:
        user.step = "nothing"
        if self._is_over.wait(user.dice.uniform(0, 0.5)):
            raise Over

    def _make(self, user: User) -> None:
        kind = user.dice.choice(("ext4", "ext4", "xfs", "", ""))
        self._claim(user, user.dice.choice(CLASSES), kind, KINDS[kind])

    def _restore(self, user: User) -> None:
        snapshot = user.dice.choice(tuple(user.snapshots.values()))
        source = things.of_snapshot(snapshot.name)
        self._copy(user, snapshot.of, source, dict(snapshot.rings), set(snapshot.settled))

    def _clone(self, user: User) -> None:
        claim = user.dice.choice(tuple(user.claims.values()))
        rings = claim.newest(self.node.acknowledged)
        self._copy(user, claim, things.of_claim(claim.name), rings, set(claim.settled))

    def _copy(self, user: User, of: Claim, source: Mapping[str, str], rings: dict[str, int], settled: set[str]) -> None:
        size_mib = of.size_mib + user.dice.choice((0, GROWTH_MIB))
        self._claim(user, of.storage_class, of.fs_type, size_mib, source=source, rings=rings, settled=settled)

    def _claim(self, user: User, storage_class: str, fs_type: str, size_mib: int, **more: Any) -> None:  # noqa: ANN401
        name = f"u{user.number}-{next(self._numbers)}"
        claim = Claim(
            name=name,
            storage_class=storage_class,
            fs_type=fs_type,
            size_mib=size_mib,
            **{"rings": {}, **more},
        )
        source = more.get("source")
        origin = f" of {source['name']}" if source else ""
        user.step = f"make {name} ({storage_class} {fs_type or 'block'}{origin})"
        user.claims[name] = claim
        content = things.claim(
            name,
            f"{size_mib}Mi",
            f"{storage_class}-{fs_type or 'block'}",
            is_block=not fs_type,
            source=source,
            selected_node=self.node.name,
        )
        self.api.create(CLAIMS, content)
        self.count["made" if source is None else "copied"] += 1
        if user.dice.random() < 0.15:
            time.sleep(user.dice.random())
            self._delete_claim(user, claim)
            return
        self._until(f"{CLAIMS}/{name}", is_bound)
        user.step = f"use {name} ({storage_class} {fs_type or 'block'})"
        self.use(claim)
        self.count["used"] += 1

    def _delete(self, user: User) -> None:
        self._delete_claim(user, user.dice.choice(tuple(user.claims.values())))

    def _delete_claim(self, user: User, claim: Claim) -> None:
        user.step = f"delete {claim.name} ({claim.storage_class} {claim.fs_type or 'block'})"
        for snapshot in [
            each for each in user.snapshots.values() if each.of is claim and claim.storage_class == "thick"
        ]:
            self._drop(user, f"{SNAPSHOTS}/{snapshot.name}")
            del user.snapshots[snapshot.name]
        self.end_use(claim)
        del user.claims[claim.name]
        self._drop(user, f"{CLAIMS}/{claim.name}")
        self.count["deleted"] += 1
        if user.dice.random() < 0.5:
            self._until_gone(f"{CLAIMS}/{claim.name}")

    def _expand(self, user: User) -> None:
        claim = user.dice.choice(tuple(user.claims.values()))
        if not claim.place or (claim.storage_class == "thick" and self._has_snapshots(user, claim)):
            return
        claim.size_mib += GROWTH_MIB
        user.step = f"grow {claim.name} to {claim.size_mib} MiB ({claim.storage_class} {claim.fs_type or 'block'})"
        path = f"{CLAIMS}/{claim.name}"
        self.api.patch(path, {"spec": {"resources": {"requests": {"storage": f"{claim.size_mib}Mi"}}}})
        found = self._until(path, lambda it: _awaits_growth(it) or _has(it, claim.size_mib))
        self._grow_file_system(claim, found)
        self.count["grown"] += 1

    def _snapshot(self, user: User) -> None:
        claim = user.dice.choice(tuple(user.claims.values()))
        if claim.storage_class == "thick" and self._has_snapshots(user, claim):
            return
        name = f"s{user.number}-{next(self._numbers)}"
        user.step = f"snapshot {name} of {claim.name} ({claim.storage_class} {claim.fs_type or 'block'})"
        rings = claim.newest(self.node.acknowledged)
        user.snapshots[name] = Snapshot(name=name, of=claim, rings=rings, settled=set(claim.settled))
        self.api.create(SNAPSHOTS, things.snapshot(name, claim.name))
        self._until(f"{SNAPSHOTS}/{name}", lambda it: it.get("status", {}).get("readyToUse"))
        self.count["snapshots"] += 1

    def _delete_snapshot(self, user: User) -> None:
        snapshot = user.dice.choice(tuple(user.snapshots.values()))
        user.step = f"delete snapshot {snapshot.name} ({snapshot.of.storage_class})"
        del user.snapshots[snapshot.name]
        self._drop(user, f"{SNAPSHOTS}/{snapshot.name}")
        self._until_gone(f"{SNAPSHOTS}/{snapshot.name}")

    def _drop(self, user: User, path: str) -> None:
        user.gone.add(path)
        self.api.delete(path)

    def _has_snapshots(self, user: User, claim: Claim) -> bool:
        """Or copies that are being made: a thick volume with any can neither grow nor go."""
        return any(each.of is claim for each in user.snapshots.values())

    def _grow_file_system(self, claim: Claim, found: Json) -> None:
        """What kubelet does of an expansion, and says of it."""
        if not _awaits_growth(found):
            return
        volume = self.api.get(f"{VOLUMES}/{found['spec']['volumeName']}")
        size = volume["spec"]["capacity"]["storage"]
        self.node.grow(claim.handle, claim.place, parse_bytes(size))
        path = f"{CLAIMS}/{claim.name}"
        found = self.api.get(path)
        status = dict(found["status"])
        status["capacity"] = {**status["capacity"], "storage": size}
        status["conditions"] = []
        status["allocatedResourceStatuses"] = {}
        self.api.replace(f"{path}/status", {**found, "status": status})

    def _until(self, path: str, is_so: Callable[[Json], object]) -> Json:
        while True:
            found = self.api.find(path)
            if found is not None and is_so(found):
                return found
            if self._is_over.wait(POLL_SECONDS):
                raise Over

    def _until_gone(self, path: str) -> None:
        while self.api.find(path) is not None:
            if self._is_over.wait(POLL_SECONDS):
                raise Over

    def _unsettled(self) -> list[str]:
        """What is not as it was asked for."""
        left = [path for user in self.users for path in user.gone if self.api.find(path) is not None]
        for claim in self.claims:
            found = self.api.find(f"{CLAIMS}/{claim.name}")
            if found is None or not is_bound(found) or not (_awaits_growth(found) or _has(found, claim.size_mib)):
                left.append(f"{claim.name}: {found and (found['spec'], found.get('status'))}{self._told(claim.name)}")
        for user in self.users:
            for name in user.snapshots:
                found = self.api.find(f"{SNAPSHOTS}/{name}")
                if found is None or not found.get("status", {}).get("readyToUse"):
                    left.append(f"{name}: {found and found.get('status')}{self._told(name)}")
        return left

    def _told(self, name: str) -> str:
        told = self.api.items(f"{things.EVENTS}?fieldSelector=involvedObject.name={name}")
        return "".join(f"\n    {each['reason']}: {each['message']}" for each in told[-3:])


def _awaits_growth(claim: Json) -> bool:
    return bool(claim["status"].get("allocatedResourceStatuses", {}).get("storage") == "NodeResizePending")


def _has(claim: Json, size_mib: int) -> bool:
    return parse_bytes(claim["status"].get("capacity", {}).get("storage", "0")) >= size_mib << 20
