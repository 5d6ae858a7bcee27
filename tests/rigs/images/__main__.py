"""Make the images that the full tier needs, and print where they are.

python -m tests.rigs.images [IMAGE...]
"""

from __future__ import annotations

import sys

from tests.rigs import images
from tests.rigs.host import RigError


def main(names: list[str]) -> int:
    """0 when all that are named (or all there are) are there."""
    unknown = [name for name in names if name not in images.NAMES]
    if unknown:
        sys.stderr.write(f"images: no {', '.join(unknown)}; there are: {', '.join(images.NAMES)}\n")
        return 2
    try:
        for name in names or images.NAMES:
            print(images.get(name), images.reference(name))
    except RigError as failure:
        sys.stderr.write(f"images: {failure}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
