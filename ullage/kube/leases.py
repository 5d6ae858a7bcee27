"""A Lease: at most one of several processes leads, and another takes over when that one is gone.

The rules are client-go's, so that both can compete for one object. The holder writes a new `renewTime` now and then;
to the others that is only a sign of life: when the record last changed is what each of them saw on its own clock, and
clocks of two machines are never compared. Who has seen no change for the record's duration may take it. The holder
gives itself less time than that, counted from before its last write was sent, so that it knows that it has lost before
anybody else may take over. Two things no lease can exclude: that a process is stopped between asking `is_leader` and
acting on it, and that somebody deletes the object.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable

import msgspec

from ullage.errors import ApiConflictError, ApiExistsError, ApiNotFoundError, ApiUnavailableError, UllageError
from ullage.kube.api import Api
from ullage.kube.meta import LEASES, Meta, micro_timestamp

DURATION_SECONDS = 15.0
"""After so long without a sign of life another may lead."""
DEADLINE_SECONDS = 10.0
"""Who could not renew for so long leads no more."""
RETRY_SECONDS = 2.0
"""Between two tries to renew or to take; up to as much again by chance for who waits."""
REQUEST_SECONDS = 3.0
"""A request that hangs must leave time for another one."""

log = logging.getLogger(__name__)


class LeaseSpec(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """coordination.k8s.io/v1 LeaseSpec."""

    holder_identity: str | None = None
    lease_duration_seconds: int | None = None
    acquire_time: str | None = None
    renew_time: str | None = None
    lease_transitions: int | None = None


class LeaseObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """coordination.k8s.io/v1 Lease."""

    metadata: Meta
    spec: LeaseSpec = LeaseSpec()


_LEASES = msgspec.json.Decoder(LeaseObject)


class Lease:
    """One candidate. Thread-safe."""

    def __init__(  # noqa: PLR0913 - who, for what, and what then
        self,
        api: Api,
        name: str,
        *,
        namespace: str,
        identity: str,
        on_leading: Callable[[], None] = lambda: None,
        on_lost: Callable[[], None] = lambda: None,
        clock: Callable[[], float] = time.monotonic,
        retry_seconds: float = RETRY_SECONDS,
    ) -> None:
        """`identity` must be this process's alone, also after a restart: the Pod's name and something by chance.

        `on_leading` and `on_lost` are called in turns, on one thread of their own, `on_lost` as soon as `is_leader` is
        over; they should come back soon, and what they started must look at `is_leader` before it writes.
        """
        self._api = api.within(REQUEST_SECONDS)
        self._name = name
        self._namespace = namespace
        self._identity = identity
        self._on_leading, self._on_lost = on_leading, on_lost
        self._clock = clock
        self._retry_seconds = retry_seconds
        self._seen: LeaseObject | None = None
        self._changed_at = 0.0
        """When the record was first seen as it is."""
        self._changed = threading.Condition()
        self._valid_until = clock()
        self._term = 0
        """How often it was taken, from nobody or another."""
        self._is_following, self._is_trying = True, True
        self._trier = threading.Thread(target=self._try, name=f"lease-{name}", daemon=True)
        self._follower = threading.Thread(target=self._follow, name=f"lease-{name}-follower", daemon=True)

    @property
    def is_leader(self) -> bool:
        """Whether nobody else leads now; true no longer than the last renewal allows, whatever hangs."""
        with self._changed:
            return self._clock() < self._valid_until

    def start(self) -> None:
        """Begin to try."""
        self._trier.start()
        self._follower.start()

    def stop(self) -> None:
        """End; when it leads, `on_lost` is called first, and then another may lead at once."""
        self._end(self._follower, is_following=False)
        self._end(self._trier, is_following=False, is_trying=False)
        if self.is_leader:
            self._release()

    def turn(self) -> None:
        """Renew, or take it if it is free, or look at who has it; raises UllageError when that could not be done."""
        if self._holds(self._seen):
            try:
                self._write()
            except (ApiConflictError, ApiNotFoundError) as error:
                log.debug("somebody else wrote the lease", extra={"lease": self._name, "because": str(error)})
            else:
                return
        try:
            found = self._decoded(self._api.get(LEASES, self._name, namespace=self._namespace))
        except ApiNotFoundError:
            self._lost()
            self._seen = None
        else:
            if self._seen is None or found.spec != self._seen.spec:
                self._changed_at = self._clock()
            self._seen = found
            if not self._holds(found):
                self._lost()
                if not self._is_free(found.spec):
                    return
        try:
            self._write()
        except (ApiConflictError, ApiExistsError) as error:
            log.debug("another was faster", extra={"lease": self._name, "because": str(error)})

    def _holds(self, lease: LeaseObject | None) -> bool:
        return lease is not None and lease.spec.holder_identity == self._identity

    def _is_free(self, spec: LeaseSpec) -> bool:
        duration_seconds = DURATION_SECONDS if spec.lease_duration_seconds is None else spec.lease_duration_seconds
        return not spec.holder_identity or self._changed_at + duration_seconds < self._clock()

    def _write(self) -> None:
        """Say that it is ours, if it still is as we saw it."""
        seen, is_ours = self._seen, self._holds(self._seen)
        sent_at = self._clock()
        now = micro_timestamp()
        before = seen.spec if seen is not None else LeaseSpec()
        spec = LeaseSpec(
            holder_identity=self._identity,
            lease_duration_seconds=int(DURATION_SECONDS),
            acquire_time=before.acquire_time if is_ours else now,
            renew_time=now,
            lease_transitions=(before.lease_transitions or 0) + (seen is not None and not is_ours),
        )
        if seen is None:
            body = {
                "apiVersion": LEASES.api_version,
                "kind": LEASES.kind,
                "metadata": {"name": self._name, "namespace": self._namespace},
                "spec": spec,
            }
            answer = self._api.create(LEASES, body, namespace=self._namespace)
        else:
            answer = self._api.patch(LEASES, self._name, _change(seen, spec), namespace=self._namespace)
        self._seen, self._changed_at = self._decoded(answer), self._clock()
        with self._changed:
            self._term += not is_ours
            self._valid_until = sent_at + DEADLINE_SECONDS
            self._changed.notify_all()
        if not is_ours:
            log.info("leading", extra={"lease": self._name, "identity": self._identity})

    def _lost(self) -> None:
        with self._changed:
            self._valid_until = min(self._valid_until, self._clock())
            self._changed.notify_all()

    def _release(self) -> None:
        seen = self._seen
        self._lost()
        if seen is None:
            return
        now = micro_timestamp()
        spec = LeaseSpec(
            holder_identity="",
            lease_duration_seconds=1,
            acquire_time=now,
            renew_time=now,
            lease_transitions=seen.spec.lease_transitions,
        )
        try:
            self._api.patch(LEASES, self._name, _change(seen, spec), namespace=self._namespace)
        except UllageError as error:
            log.info("the lease was not released", extra={"lease": self._name, "because": str(error)})

    def _try(self) -> None:
        while self._is_trying:
            try:
                self.turn()
            except ApiUnavailableError as error:
                log.debug("the lease cannot be seen", extra={"lease": self._name, "because": str(error)})
            except UllageError as error:
                log.warning("the lease was refused", extra={"lease": self._name, "because": str(error)})
            except Exception:
                log.exception("the lease failed", extra={"lease": self._name})  # the thread's top
            jitter = 0.0 if self.is_leader else random.random()  # noqa: S311 - spreads load, hides nothing
            with self._changed:
                self._changed.wait_for(lambda: not self._is_trying, self._retry_seconds * (1 + jitter))

    def _follow(self) -> None:
        """Tell when leading begins and ends; this thread waits for no request, and so sees the end in time."""
        told = 0
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._is_following or self._clock() < self._valid_until)
                if not self._is_following:
                    return
                told = self._term
            self._call(self._on_leading)
            with self._changed:
                while self._is_following and self._term == told and (left := self._valid_until - self._clock()) > 0:
                    self._changed.wait(left)
            log.info("leading no more", extra={"lease": self._name, "identity": self._identity})
            self._call(self._on_lost)

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            log.exception("what follows the lease failed", extra={"lease": self._name})

    def _end(self, thread: threading.Thread, *, is_following: bool, is_trying: bool = True) -> None:
        with self._changed:
            self._is_following, self._is_trying = is_following, is_trying
            self._changed.notify_all()
        if thread.is_alive():
            thread.join()

    @staticmethod
    def _decoded(answer: bytes) -> LeaseObject:
        return _LEASES.decode(answer)


def _change(seen: LeaseObject, spec: LeaseSpec) -> object:
    """What nobody but us may have changed since."""
    return {"metadata": {"resourceVersion": seen.metadata.resource_version}, "spec": spec}
