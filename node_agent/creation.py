"""How a volume comes to be: room is chosen and carved, what it must not show is wiped, and only then it is READY.

A repetition finds what the last attempt left under the same id: a finished volume is the answer, a carved one is gone
on with, and so is one that is being filled; a half-made one, or one whose source has gone, is removed and begun again.
"""

from __future__ import annotations

from node_agent.carving import carve
from node_agent.copies import copy
from node_agent.ground import Ground
from node_agent.refusals import check_same
from node_agent.removal import destroy
from node_agent.unfinished import finish, is_half_made, is_lost
from ullage.model import CreateVolume, Done


def create(ground: Ground, request: CreateVolume) -> Done:
    """Make a volume, or find the one that an equal request made; see `Agent.create`."""
    found = ground.stock.find(request.volume_id)
    if found is not None and (is_half_made(ground, found) or is_lost(ground, found)):
        destroy(ground, found)
        found = None
    is_new = found is None
    if found is None:
        found, is_new = copy(ground, request, request.source) if request.source else carve(ground, request)
    check_same(request, found)
    return Done(volume=finish(ground, found), is_new=is_new)
