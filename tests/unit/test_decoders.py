"""What bytes are decoded into is prepared before there are threads.

msgspec looks a Struct's fields up when it is first decoded, and lets other threads run meanwhile: one that decodes the
same type then follows a pointer that is not there yet (0.22: a segmentation fault; seen as `ullage node` began to read
four lists at once on a slow machine). A Decoder that is made with its module, or by its owner, has all of it.
"""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONE_THREAD = {
    "csi/cluster/remaking.py",
    "scheduler_extender/feeds.py",
    "scheduler_extender/simulation.py",
    "ullage/cli/explain.py",
}
"""Commands that a person runs, and that have but one."""


def test_no_thread_decodes_into_a_type_that_was_not_prepared() -> None:
    found = {
        str(path.relative_to(ROOT))
        for room in ("ullage", "node_agent", "csi", "scheduler_extender")
        for path in (ROOT / room).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "msgspec.json.decode"
        if any(keyword.arg == "type" for keyword in node.keywords)
    }
    assert found == ONE_THREAD
