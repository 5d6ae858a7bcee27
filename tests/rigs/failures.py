"""What failed in runs whose results are kept, in few lines: what is to be read when a long log has lost its middle.

  python -m tests.rigs.failures test-results    of every run in the folder

Each run has a folder with its log and its JUnit report. Nothing is printed of those in which nothing failed.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from xml.etree import ElementTree as ET

LINES = 12
"""Of the end of a message, or of a log."""


def failures(folder: Path) -> Iterator[str]:
    """Each failed test with the end of its message; the end of the log of a run that gave no report."""
    try:
        report = ET.parse(folder / "junit.xml")  # noqa: S314 - our own pytest or csi-sanity wrote it
    except (OSError, ET.ParseError) as missing:
        yield f"{folder.name}: no report ({missing}); the end of its log:\n{log_end(folder)}"
        return
    for case in report.iter("testcase"):
        for said in (*case.findall("failure"), *case.findall("error")):
            name = f"{case.get('classname', '')}::{case.get('name', '')}"
            yield f"{folder.name}: {name}: {said.tag}\n{_end(said.text or str(said.get('message')))}"


def log_end(folder: Path) -> str:
    """The last lines that a run has printed."""
    try:
        return _end((folder / "log").read_text(encoding="utf-8", errors="replace"))
    except OSError as missing:
        return _end(str(missing))


def _end(text: str) -> str:
    return "\n".join(f"    {line}" for line in text.rstrip().splitlines()[-LINES:])


def main(words: Sequence[str]) -> None:
    """Print them for all runs in the folders."""
    for results in words:
        for folder in sorted(each for each in Path(results).iterdir() if each.is_dir()):
            for failure in failures(folder):
                print(failure)


if __name__ == "__main__":
    main(sys.argv[1:])
