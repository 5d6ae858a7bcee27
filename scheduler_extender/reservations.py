"""What has been promised and is not ordered yet, so that no space is promised twice.

Definite promises are read off the view alone: a claim of ours for which a node has been chosen, and whose LogicalVolume
has not been seen. They are the same after a restart, and in a second extender. Tentative ones are remembered: these
nodes were offered to a Pod, and nobody has said yet which it is (`scheduler_extender.offers`); or a claim went after
its node was chosen, and nobody says whether its volume is made all the same. All of it is bounded, and nothing of it
lasts: what is not taken up is forgotten after a time, so that nothing can block for ever.

Not thread-safe: whoever asks holds the view's lock.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from heapq import heappop, heappush

from scheduler_extender.demand import Needs, Want, wants_of
from scheduler_extender.objects import Claim, Seen
from scheduler_extender.offers import Offer, Offers, sums
from scheduler_extender.view import View
from scheduler_extender.wire import Pod
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.foreign import StorageClass
from ullage.kube.logical_volume import LogicalVolume, Phase
from ullage.kube.meta import Key

CHOSEN_SECONDS = 600.0
"""A node that was chosen so long ago, and no volume ordered there: its provisioner does not work, or does not want."""
BOUND_SECONDS = 30.0
"""A claim is bound, and its LogicalVolume is not seen: it is on its way to us, or it is nowhere."""
GONE_SECONDS = 15.0
"""A claim went after its node was chosen: its provisioner may be about to order the volume all the same, and to give it
back only once it is there. Or it is not, and nothing ever happens that would have kube-scheduler ask again: so others
are kept from there only while they may go elsewhere."""
MOST_UNSEEN = 1000
"""So many claims are looked at even if nobody asks: an extender that stands by is asked nothing for months."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Promise:
    """Space for a claim, on one of `nodes`; with one node it is surely taken off there."""

    pod: Key | None
    """None: that is not known, for the promise is read off the claim alone."""
    want: Want
    nodes: Sequence[str]


@dataclass(slots=True, kw_only=True)
class _Chosen:
    """A claim for which a node has been chosen, for as long as that is so."""

    uid: str
    node: str
    since: float
    wants: tuple[Want, ...] = ()
    bound_since: float | None = None
    counts: bool = False
    """Whether it is a promise: it is not ordered yet, and not too old."""
    until: float = 0.0

    def promises(self) -> Iterator[Promise]:
        """What is taken off its node for it."""
        return (Promise(pod=None, want=want, nodes=(self.node,)) for want in self.wants)


class Reservations:
    """What is promised for certain is taken off a node; `offers` are for who decides to weigh."""

    def __init__(self, view: View, *, clock: Callable[[], float]) -> None:
        """What the view has already is looked at with the first question."""
        self.offers = Offers(self._tell)
        self._view = view
        self._clock = clock
        self._listeners: list[Callable[[str], None]] = []
        self._chosen: dict[Key, _Chosen] = {}
        self._chosen_on: dict[str, dict[Key, _Chosen]] = {}
        """By node, those that count."""
        self._gone: dict[Key, Offer] = {}
        """Claims that went after their node was chosen, each as an offer of that node to it."""
        self._deadlines: list[tuple[float, Key]] = []
        self._dirty: dict[Key, float] = {}
        """Claims that have to be looked at, and since when."""
        self._unbound: dict[Key, Claim] = {}
        """Of these, how they were before they were bound: of a bound one the view does not keep what it asked for."""
        self._is_everything_dirty = True
        view.on_change(self._heard)

    def on_node_change(self, listener: Callable[[str], None]) -> None:
        """Have the name of each node told on which another amount is promised for certain from now on."""
        self._listeners.append(listener)

    def refresh(self) -> None:
        """Take in what has happened since the last question, the passing of time included."""
        now = self._clock()
        self._view.age()
        if self._is_everything_dirty:
            self._is_everything_dirty = False
            chosen = [key for key, claim in self._view.claims.unbound.items() if _is_chosen(claim)]
            for key in (*chosen, *self._chosen):
                self._dirty.setdefault(key, now)
        while self._deadlines and self._deadlines[0][0] <= now:
            self._dirty.setdefault(heappop(self._deadlines)[1], now)
        while self._dirty:
            key, since = self._dirty.popitem()
            self._look_at(key, since, now)
        self.offers.expire(now)

    def offer(self, pod: Pod, needs: Needs, nodes: Sequence[str]) -> None:
        """Remember that the Pod may go to any of these, instead of what it was offered before."""
        wants = tuple(want for want in needs.wants if want.claim not in needs.chosen)
        if wants and nodes:
            self.offers.put(Offer(pod=pod.key, uid=pod.metadata.uid, wants=wants, nodes=nodes, since=self._clock()))
        else:
            self.offers.withdraw(pod.key)

    def certain_on(self, node: str, *, but_for: Pod | None = None) -> list[Promise]:
        """What is promised there for certain, without what is promised for this Pod's claims."""
        chosen, single = self._chosen_on.get(node), self.offers.single(node)
        if not chosen and not single:
            return []
        own = {(but_for.metadata.namespace, name) for name, _ in but_for.claims} if but_for is not None else ()
        found = [promise for key, each in (chosen or {}).items() if key not in own for promise in each.promises()]
        for offer in single:
            others = (want for want in offer.wants if want.claim not in own)
            found += [Promise(pod=offer.pod, want=want, nodes=offer.nodes) for want in others]
        return found

    def open_to_others(self, pod: Pod) -> list[Offer]:
        """The offers of several nodes to other Pods, without what is for this Pod's claims: Pods may share one.

        And what may yet be ordered for claims that are gone, an earlier one of this Pod's among them.
        """
        found = self.offers.open(but_for=pod.key)
        own = {(pod.metadata.namespace, name) for name, _ in pod.claims}
        shared = {
            offer.pod for key in own if (offer := self.offers.for_claim(key)) is not None and offer.pod != pod.key
        }
        if shared:
            found = [
                replace(offer, wants=tuple(want for want in offer.wants if want.claim not in own))
                if offer.pod in shared
                else offer
                for offer in found
            ]
        return [*found, *self._gone.values()]

    def most_open_bytes(self, extent_bytes: int, *, but_for: Pod) -> int | None:
        """The most that those can come to on any one node; None: that takes a closer look."""
        offered_bytes = self.offers.most_bytes(extent_bytes, but_for=but_for.key)
        gone = [sums(each) for each in self._gone.values()]
        if offered_bytes is None or any(spread for _, _, spread in gone):
            return None
        return offered_bytes + sum(size_bytes + volumes * extent_bytes for size_bytes, volumes, _ in gone)

    def own_nodes(self, pod: Pod) -> set[str]:
        """Where something is promised to this Pod for certain."""
        keys = [(pod.metadata.namespace, name) for name, _ in pod.claims]
        places = {self._chosen[key].node for key in keys if key in self._chosen}
        return places | {self.offers.place[key] for key in keys if key in self.offers.place}

    def all(self) -> list[Promise]:
        """Every promise."""
        found = [promise for here in self._chosen_on.values() for each in here.values() for promise in each.promises()]
        for offer in self.offers.all():
            found += [Promise(pod=offer.pod, want=want, nodes=offer.nodes) for want in offer.wants]
        for gone in self._gone.values():
            found += [Promise(pod=None, want=want, nodes=gone.nodes) for want in gone.wants]
        return found

    # Hearing.

    def _heard(self, kind: type[Seen], key: Key, found: Seen | None) -> None:
        """Note what has to be looked at again; the change itself is not in the view yet."""
        if len(self._dirty) >= MOST_UNSEEN:
            self.refresh()
        if kind is Claim:
            is_chosen = isinstance(found, Claim) and _is_chosen(found)
            if is_chosen or key in self._chosen or self.offers.for_claim(key) is not None:
                self._dirty.setdefault(key, self._clock())
            if isinstance(found, Claim) and is_chosen:
                self._unbound[key] = found
        elif kind is LogicalVolume:
            order = found if isinstance(found, LogicalVolume) else self._view.order(key[1])
            about = order.spec.claim_ref if order is not None else None
            about_key = (about.namespace, about.name) if about is not None else ("", "")
            is_promised = about_key in self._chosen or about_key in self._gone
            if is_promised or self.offers.for_claim(about_key) is not None:
                self._dirty.setdefault(about_key, self._clock())
        elif kind is Pod:
            self._heard_of_pod(found if isinstance(found, Pod) else None, key)
        elif kind in (StorageClass, DeviceClassObject):
            self._is_everything_dirty = True

    def _heard_of_pod(self, found: Pod | None, key: Key) -> None:
        """Where it goes is known, or that it goes nowhere."""
        offer = self.offers.of(key)
        about = found or self._view.pods.get(key)
        if offer is None or (about is not None and about.metadata.uid != offer.uid):
            return
        if found is None:
            self.offers.withdraw(key)
        elif found.spec.node_name:
            self.offers.narrow(offer, offer.wants, (found.spec.node_name,))

    def _look_at(self, key: Key, since: float, now: float) -> None:
        """Make of a claim what it is worth now."""
        claim, unbound = self._view.claims.get(key), self._unbound.pop(key, None)
        self._follow(key, claim)
        chosen = self._chosen.get(key)
        if chosen is not None and chosen.counts and (claim is None or claim.metadata.uid != chosen.uid):
            self._outlive(key, chosen, since)
        self._bury(key, now)
        if claim is None or not claim.selected_node:
            self._forget(key)
            return
        uid, node = claim.metadata.uid, claim.selected_node
        if chosen is None or (chosen.uid, chosen.node) != (uid, node):
            self._forget(key)
            chosen = self._chosen[key] = _Chosen(uid=uid, node=node, since=since)
        if claim.spec.volume_name and chosen.bound_since is None:
            chosen.bound_since = since
        wants = chosen.wants
        if unbound is not None or chosen.bound_since is None:
            wants = wants_of(unbound or claim, self._view)
        self._count(key, chosen, wants, is_ordered=self._view.order_of(claim) is not None, now=now)

    def _outlive(self, key: Key, chosen: _Chosen, since: float) -> None:
        """Remember what may yet be ordered for a claim that is gone."""
        self._gone[key] = Offer(pod=key, uid=chosen.uid, wants=chosen.wants, nodes=(chosen.node,), since=since)
        heappush(self._deadlines, (since + GONE_SECONDS, key))

    def _bury(self, key: Key, now: float) -> None:
        """Forget it, once that is ordered, or surely will not be."""
        gone = self._gone.get(key)
        if gone is not None and (now >= gone.since + GONE_SECONDS or self._view.order_for(gone.uid) is not None):
            del self._gone[key]

    def _follow(self, key: Key, claim: Claim | None) -> None:
        """Where one claim of a Pod goes, the others that were offered something go, too; or it is gone, or served."""
        offer = self.offers.for_claim(key)
        if offer is None:
            return
        node = self._ordered_on(claim, offer) if claim is not None else ""
        if claim is None or node or claim.spec.volume_name:
            nodes = (node,) if node else offer.nodes
            self.offers.narrow(offer, tuple(want for want in offer.wants if want.claim != key), nodes)

    def _ordered_on(self, claim: Claim, offer: Offer) -> str:
        """Where its claim was chosen to go, or is ordered already though we have not seen the choice; or nothing."""
        order = self._view.order_of(claim) if not claim.selected_node else None
        if order is None or order.is_condemned or order.status.phase is Phase.FAILED:
            return claim.selected_node
        return order.spec.node_name if order.spec.node_name in offer.among else ""

    def _count(self, key: Key, chosen: _Chosen, wants: tuple[Want, ...], *, is_ordered: bool, now: float) -> None:
        """Promise it what it wants, or nothing any more."""
        is_bound = chosen.bound_since is not None
        until = chosen.since + CHOSEN_SECONDS if chosen.bound_since is None else chosen.bound_since + BOUND_SECONDS
        if is_bound and (is_ordered or now >= until):
            self._forget(key)
            return
        if until != chosen.until and now < until:
            chosen.until = until
            heappush(self._deadlines, (until, key))
        counts = not is_ordered and now < until and bool(wants)
        if (counts, wants) != (chosen.counts, chosen.wants):
            self._drop(key, chosen)
            chosen.counts, chosen.wants = counts, wants
            if counts:
                self._chosen_on.setdefault(chosen.node, {})[key] = chosen
                self._tell(chosen.node)

    def _forget(self, key: Key) -> None:
        gone = self._chosen.pop(key, None)
        if gone is not None:
            self._drop(key, gone)

    def _drop(self, key: Key, chosen: _Chosen) -> None:
        """It is no promise any more."""
        if chosen.counts:
            chosen.counts = False
            del self._chosen_on[chosen.node][key]
            if not self._chosen_on[chosen.node]:
                del self._chosen_on[chosen.node]
            self._tell(chosen.node)

    def _tell(self, node: str) -> None:
        for listener in self._listeners:
            listener(node)


def _is_chosen(claim: Claim) -> bool:
    return bool(claim.selected_node) and not claim.spec.volume_name
