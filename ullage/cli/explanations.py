"""How an explanation is told: to a person as a few sentences and a table, to a program as items."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ullage.cli.output import Column, table
from ullage.errors import NotFoundError, human_bytes

if TYPE_CHECKING:
    from scheduler_extender.decisions import Decisions
    from scheduler_extender.explanation import Explanation, NodeExplained, PoolExplained
    from scheduler_extender.view import View

COLUMNS = (
    Column(heading="NODE"),
    Column(heading="FITS"),
    Column(heading="SCORE"),
    Column(heading="FREE"),
    Column(heading="PROMISED"),
    Column(heading="POOLS", is_wide=True),
    Column(heading="WHY NOT"),
)


class Explainer:
    """Implements `scheduler_extender.web.Explaining`, of the Pods that wait to be placed."""

    def __init__(self, view: View, decisions: Decisions) -> None:
        """Both are asked, neither is changed."""
        self._view = view
        self._decisions = decisions

    def __call__(self, namespace: str, name: str, *, as_json: bool) -> str:
        """See the port."""
        with self._view.changed:
            pod = self._view.pods.get((namespace, name))
            if pod is None:
                raise NotFoundError(
                    f"no Pod {namespace}/{name} waits to be placed here; of one that has its node, "
                    f"`ullage explain pod {name} -n {namespace}` tells"
                )
            found = self._decisions.explain(pod)
        if as_json:
            return json.dumps({"items": items(found)}) + "\n"
        return f"{heading(found)}\n{table('table', COLUMNS, rows(found))}"


def heading(found: Explanation) -> str:
    """What the Pod asks for, and how many nodes have it."""
    return "\n".join(_heading(found)) + "\n"


def _heading(found: Explanation) -> Iterator[str]:
    who = f"Pod {found.namespace}/{found.name}"
    if found.problem:
        yield f"{who} fits nowhere: {found.problem}"
    elif found.unseen:
        yield f"{who} fits nowhere: there is no claim {', '.join(found.unseen)} (yet)"
    elif not found.wants and not found.pins:
        yield f"{who} needs no volume of ours that is still to be made: every node will do."
    elif found.wants:
        yield f"{who} needs:"
        for want in found.wants:
            where = f", in pool {want.pool}" if want.pool else ""
            yield f"  {want.claim[1]}: {human_bytes(want.size_bytes)} of {want.device_class}{where}"
    else:
        yield f"{who} has all its volumes."
    for pin in found.pins:
        yield f"It can go to {pin.node} only: {pin.why}"
    fitting = sum(each.fits for each in found.nodes)
    yield f"{fitting} of {len(found.nodes)} nodes fit." if found.nodes else "No node has reported any storage."


def rows(found: Explanation) -> list[list[str]]:
    """A row for each node: the best first, then those that do not fit, by name."""
    return [
        [
            each.node,
            "yes" if each.fits else "no",
            "-" if each.score is None else str(each.score),
            ", ".join(f"{pool.name} {human_bytes(pool.free_bytes)}" for pool in each.pools) or "-",
            ", ".join(human_bytes(pool.promised_bytes) for pool in each.pools if pool.promised_bytes) or "-",
            "; ".join(map(_pool, each.pools)) or "-",
            each.refusal,
        ]
        for each in _best_first(found)
    ]


def items(found: Explanation) -> list[dict[str, object]]:
    """One for the Pod, as JSON and YAML have it; sizes are bytes."""
    return [
        {
            "namespace": found.namespace,
            "name": found.name,
            "problem": found.problem,
            "missingClaims": list(found.unseen),
            "wants": [
                {
                    "claim": want.claim[1],
                    "deviceClass": want.device_class,
                    "sizeBytes": want.size_bytes,
                    "pool": want.pool,
                }
                for want in found.wants
            ],
            "pins": [{"node": pin.node, "why": pin.why} for pin in found.pins],
            "nodes": [
                {
                    "node": each.node,
                    "fits": each.fits,
                    "score": each.score,
                    "whyNot": each.refusal,
                    "pools": [
                        {
                            "name": pool.name,
                            "type": str(pool.type),
                            "deviceClasses": list(pool.classes),
                            "totalBytes": pool.total_bytes,
                            "freeBytes": pool.free_bytes,
                            "promisedBytes": pool.promised_bytes,
                            "problem": pool.problem,
                        }
                        for pool in each.pools
                    ],
                }
                for each in _best_first(found)
            ],
        }
    ]


def _best_first(found: Explanation) -> list[NodeExplained]:
    return sorted(found.nodes, key=lambda each: (not each.fits, -(each.score or 0), each.node))


def _pool(pool: PoolExplained) -> str:
    if pool.problem:
        return f"{pool.name} ({pool.type}): {pool.problem}"
    return f"{pool.name} ({pool.type}, {human_bytes(pool.total_bytes)})"
