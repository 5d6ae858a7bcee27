"""Which of many deaths a run dies on LVM, where each takes ten seconds and more under emulation; on files it dies all.

One of three, and the first; which of three is chosen by a number that is printed at the start of the run and can be
given again: ULLAGE_SEED=2. All of them: ULLAGE_EACH=1, which every change to what is died at is worth.
"""

from __future__ import annotations

import os
import secrets

from tests.contract.sites import Site

EACH = int(os.environ.get("ULLAGE_EACH", "3"))
SEED = int(os.environ.get("ULLAGE_SEED", secrets.randbelow(EACH)))
HEADER = f"deaths on LVM: the first and one of {EACH} steps, with ULLAGE_SEED={SEED}; all of them: ULLAGE_EACH=1"


def is_died_at(site: Site, at: int) -> bool:
    """Whether this run dies at the step of this number."""
    return not site.is_lvm or at == 0 or at % EACH == SEED % EACH
