"""Why a node is refused, in a sentence that kube-scheduler can group.

It puts equal sentences of a Pod's event together and counts them, and writes all others one after the other: with the
exact bytes of each node a Pod that fits nowhere would get an event of many kilobytes. So there is no node's name in a
sentence, and what is free is said in tenths of what is needed, rounded down; `explain` has the exact numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scheduler_extender.demand import Want
from ullage.capacity import available_bytes, largest_volume_bytes
from ullage.errors import human_bytes
from ullage.model import DeviceClassName, Pool, PoolName

STEPS = 10
PROMISED = " promised to "
"""Behind it stands who has it, and nothing else."""


def unseen(claims: Sequence[str]) -> str:
    """On every node, for a Pod whose claims have not been made, or not been heard of."""
    return (
        f"its claim{'s' if len(claims) > 1 else ''} {', '.join(claims)} {'are' if len(claims) > 1 else 'is'} not there"
    )


def promised_to_others(sentence: str) -> str:
    """The same without saying to whom."""
    head, promised, _ = sentence.partition(PROMISED)
    return f"{head}{promised}others" if promised else sentence


def step_bytes(wants: Sequence[Want]) -> int:
    """What is free is said in multiples of this."""
    return max(1, sum(want.size_bytes for want in wants) // STEPS)


def shortage(
    wants: Sequence[Want], pools: Mapping[PoolName, Pool], before: Mapping[PoolName, Pool], promised_to: str
) -> str:
    """Why the volumes do not all fit: the classes that are short by themselves, else all of them together.

    `before` are the pools as they would be without the promises, which go to whoever `promised_to` says.
    """
    classes: dict[DeviceClassName, list[Want]] = {}
    for want in wants:
        classes.setdefault(want.device_class, []).append(want)
    told = [told for name, of in classes.items() if (told := _of_class(name, of, pools))]
    if not told:
        needed = human_bytes(sum(want.size_bytes for want in wants))
        told = [
            f"{', '.join(classes)}: {len(wants)} volumes need {needed} together, too little room is free in one piece"
        ]
    usable = [
        name for name, pool in pools.items() if pool.problem is None and not classes.keys().isdisjoint(pool.classes)
    ]
    promised = sum(before[name].free_bytes - pools[name].free_bytes for name in usable)
    if promised > 0:
        told.append(f"{_in_steps(promised, step_bytes(wants))}{PROMISED}{promised_to}")
    return ", ".join(told)


def _of_class(name: DeviceClassName, wants: Sequence[Want], pools: Mapping[PoolName, Pool]) -> str:
    """Empty when there is room for them by mere counting."""
    held = {want.pool for want in wants}
    here = [pool for pool in pools.values() if name in pool.classes and (None in held or pool.name in held)]
    if not here:
        return f"{name}: no pool of it on this node"
    if all(pool.problem is not None for pool in here):
        return f"{name}: {'; '.join(pool.problem.message for pool in here if pool.problem is not None)}"
    needed = sum(want.size_bytes for want in wants)
    layout = wants[0].layout
    if len(wants) == 1:
        free = max(largest_volume_bytes(pool, layout) for pool in here)
    else:
        free = sum(available_bytes(pool, layout) for pool in here)
    if free >= needed:
        return ""
    need = (
        f"{len(wants)} volumes need {human_bytes(needed)} together"
        if len(wants) > 1
        else f"needs {human_bytes(needed)}"
    )
    return f"{name}: {need}, {_in_steps(free, step_bytes(wants))} free"


def _in_steps(size_bytes: int, step_bytes: int) -> str:
    lost_bytes = STEPS - 1  # a step is a tenth in whole bytes; without them 6 GiB in ten steps would be 5.9
    return human_bytes(min(size_bytes, size_bytes // step_bytes * step_bytes + lost_bytes))
