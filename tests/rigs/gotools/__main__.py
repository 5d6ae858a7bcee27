"""Build the Go programs that the tests need, and print where they are.

python -m tests.rigs.gotools [PROGRAM...]

Without a name: all but those that only nodes with a kubelet need.
"""

from __future__ import annotations

import sys

from tests.rigs.gotools import programs
from tests.rigs.host import RigError


def main(names: list[str]) -> int:
    """0 when all that are named (or that every tier needs) are there."""
    unknown = [name for name in names if name not in programs.PROGRAMS]
    if unknown:
        sys.stderr.write(f"gotools: no {', '.join(unknown)}; there are: {', '.join(programs.PROGRAMS)}\n")
        return 2
    try:
        for name in names or programs.of_every_tier():
            print(programs.get(name))
    except RigError as failure:
        sys.stderr.write(f"gotools: {failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
