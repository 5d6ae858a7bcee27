"""Walk volumes, a snapshot and copies through their lives here: each CSI call, its seconds, and the free space after.

  python -m tests.rigs.demo

Starts a driver of its own (`ullage standalone`) over a temporary directory, and asks it what kubelet and the sidecars
would. Needs root (loop devices and mounts). LVM on a loop device is used where the kernel has device-mapper, files
otherwise; the first line says which. Leaves nothing behind, also on Ctrl-C and SIGTERM, and says so after a look.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from tests.rigs.demo.scene import Interruption, driver, storage, swept
from tests.rigs.demo.walk import Walk
from tests.rigs.host import RigError
from ullage.csi_client import driver_at
from ullage.errors import UllageError

INTERRUPTED = 130


def main() -> int:
    """Run the demo; 0 when every step did what it says, and nothing was left."""
    if os.geteuid() != 0:
        sys.stderr.write("demo: loop devices and mounts need root; run `sudo make demo`\n")
        return 2
    interruption = Interruption()
    base = Path(tempfile.mkdtemp(prefix="ullage-demo-"))
    code, verdict = 1, ""
    try:
        _demonstrate(base, interruption)
    except KeyboardInterrupt:
        code, verdict = INTERRUPTED, "not finished"
    except (UllageError, RigError, OSError) as failure:
        verdict = str(failure)
    else:
        code, verdict = 0, "all done"
    finally:
        left = swept(base)
    print("\n".join(f"demo: {line}" for line in (verdict, *left)), flush=True)
    print("demo: " + ("something is left behind" if left else "nothing is left behind"), flush=True)
    return code or (1 if left else 0)


def _demonstrate(base: Path, interruption: Interruption) -> None:
    with (
        storage(base, interruption) as config,
        driver(config, base, interruption) as address,
        driver_at(address) as client,
    ):
        Walk(client, base, interruption).all()


if __name__ == "__main__":
    sys.exit(main())
