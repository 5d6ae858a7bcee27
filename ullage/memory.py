"""How the C library hands out memory: for processes with many threads and little to do.

glibc gives every few threads an arena of their own, and what has been freed in one of them stays there. Sixty threads
that have each served a call hold tens of megabytes of it; two arenas cost our calls, which wait for Python's own lock
anyway, nothing that could be measured (`make bench-csi`).
"""

from __future__ import annotations

import ctypes

ARENAS = 2
_M_ARENA_MAX = -8  # <malloc.h>


def share_arenas() -> None:
    """See mallopt(3). To be called before the first thread begins; a C library without it has no arenas either."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
