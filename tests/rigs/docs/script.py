"""A page's blocks of one tier as one bash script, run in a folder where the project's files are, too.

The blocks are run in their order by one shell, so that what one sets or starts the next one has. Whatever fails ends
the script, with the place in the page. What a page takes for granted (a volume, a Pod) is made by before/PAGE.TIER.sh,
if that is there, and what the script leaves running ends with it.
"""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.rigs.docs.pages import ROOT, Block, Page
from tests.rigs.host import RigError

BEFORE = Path(__file__).parent / "before"
SECONDS = 300.0
PROLOGUE = """\
set -Eeuo pipefail
trap 'echo "failed at $PLACE (exit $?): $BASH_COMMAND" >&2' ERR
trap 'for pid in $(jobs -p); do kill $pid 2>/dev/null || true; done; wait' EXIT
"""
PATH = f"{ROOT}/.venv/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def has(page: Page, tier: str) -> bool:
    """Whether anything of the page is run by the tier."""
    return any(each.tier == tier for each in page.blocks)


def script(page: Page, tier: str) -> str:
    """All that the tier runs of a page."""
    before = BEFORE / f"{Path(page.path).stem}.{tier}.sh"
    parts = [PROLOGUE, f"PLACE={before.name}\n", before.read_text(encoding="utf-8") if before.exists() else ""]
    for block in page.blocks:
        if block.tier == tier or "file" in block.words:
            parts += [f"PLACE={block.place}\n", f'echo "--- {block.place}"\n', _part(block)]
    return "".join(parts)


def run(  # noqa: PLR0913 - what differs from tier to tier
    page: Page,
    tier: str,
    folder: Path,
    env: Mapping[str, str],
    *,
    around: Sequence[str] = (),
    path: Sequence[Path] = (),
    seconds: float = SECONDS,
) -> str:
    """Run what the tier runs of a page, in `folder`: what it said. `around` is put before bash's argv.

    `path` are folders of further programs. Raises RigError with the place and the end of what was said.
    """
    for each in ROOT.iterdir():
        if each.name != ".git" and not (folder / each.name).exists():
            (folder / each.name).symlink_to(each)
    words = {"HOME": str(folder), "LC_ALL": "C.UTF-8", "PATH": ":".join([*map(str, path), PATH]), **env}
    keep = {name: os.environ[name] for name in ("ULLAGE_CACHE", "TMPDIR") if name in os.environ}
    try:
        done = subprocess.run(
            (*around, "bash", "-c", script(page, tier)),
            cwd=folder,
            env={**keep, **words},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired as late:
        said = late.stdout.decode(errors="replace") if isinstance(late.stdout, bytes) else ""
        raise RigError(f"{page.path} did not end in {seconds:.0f} s:\n{said[-4000:]}") from late
    if done.returncode != 0:
        raise RigError(f"{page.path}, tier {tier}:\n{done.stdout[-4000:]}")
    return done.stdout


def _part(block: Block) -> str:
    if "file" in block.words:
        return f"cat > {shlex.quote(block.words['file'])} <<'END OF FILE'\n{block.text}END OF FILE\n"
    if "exit" not in block.words:
        return block.text
    return f"set +e\n{block.text}code=$?\nset -e\ntest $code -eq {block.words['exit']}\n"
