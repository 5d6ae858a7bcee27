"""The pages of the documentation, and the blocks in them: what is run, what is only shown, and why.

A block is fenced, and behind the word for its language its fence says what becomes of it; no forge shows that:

    ```sh run=standalone        run, in the page's order with the others of that tier: tests/rigs/docs/script.py
    ```sh run=cluster exit=1    the same; its last command has to end with this code
    ```sh shown=nodes           only shown, for a reason of WHY_ONLY_SHOWN
    ```yaml file=pod.yaml       written under this name, for the commands that follow it, whatever their tier
    ```yaml                     an object is taken by a real API server; part of one has to be YAML
    ```text                     what a program says, or what is written in no language
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]
TIERS = {
    "ci": "`make` targets that CI runs by themselves",
    "standalone": "on files of this machine (tests/host)",
    "install": "helm and kubectl, and an API server that has nothing of ours (tests/cluster)",
    "cluster": "with the real control plane and our processes (tests/cluster)",
    "lvm": "on real LVM, in a VM (tests/lvm)",
    "full": "on nodes with kubelets (tests/full)",
}
WHY_ONLY_SHOWN = {
    "nodes": "it changes a machine of the reader's: its packages, its disks, its kube-scheduler",
    "registry": "it sends an image to a registry of the reader's",
    "process": "the command of a process that its Pod starts, with that Pod's paths and account",
}
LANGUAGES = ("sh", "yaml", "text")
FENCE = re.compile(r"^(?P<indent> *)```(?P<info>.*)$")


class PageError(Exception):
    """A page says something that cannot be meant; the sentence begins with where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block. `line` is that of its first line of text, and `text` has none of the fence's indentation."""

    page: str
    line: int
    language: str
    words: Mapping[str, str]
    text: str

    @property
    def place(self) -> str:
        """PAGE:LINE."""
        return f"{self.page}:{self.line}"

    @property
    def tier(self) -> str:
        """Who runs it; empty: nobody does."""
        return self.words.get("run", "")


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page: its path below the project's root, all of its lines, and its blocks."""

    path: str
    lines: tuple[str, ...]
    blocks: tuple[Block, ...]

    def prose(self) -> Iterator[tuple[int, str]]:
        """The lines outside its blocks, with their numbers."""
        inside = {
            number for each in self.blocks for number in range(each.line - 1, each.line + each.text.count("\n") + 2)
        }
        return ((number, line) for number, line in enumerate(self.lines, 1) if number not in inside)


def pages() -> list[Page]:
    """README.md and all of docs/; raises PageError."""
    paths = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    return [parsed(str(path.relative_to(ROOT)), path.read_text(encoding="utf-8")) for path in paths]


def parsed(path: str, text: str) -> Page:
    """A page from what is in its file; raises PageError."""
    lines = tuple(text.splitlines())
    blocks = []
    begun: tuple[int, re.Match[str]] | None = None
    for number, line in enumerate(lines, 1):
        fence = FENCE.match(line)
        if begun is None and fence is not None:
            begun = number, fence
        elif begun is not None and fence is not None:
            blocks.append(_block(path, lines, begun, number))
            begun = None
        elif begun is None and re.match(r"^ {4,}\S", line) and number > 1 and not lines[number - 2].strip():
            raise PageError(f"{path}:{number}: an indented block; fence it, and say what becomes of it")
    if begun is not None:
        raise PageError(f"{path}:{begun[0]}: this fence has no end")
    return Page(path=path, lines=lines, blocks=tuple(blocks))


def _block(path: str, lines: tuple[str, ...], begun: tuple[int, re.Match[str]], end: int) -> Block:
    first, fence = begun
    language, *words = shlex.split(fence["info"]) or [""]
    where = f"{path}:{first}"
    if language not in LANGUAGES:
        raise PageError(f"{where}: the language {language!r}; there are {', '.join(LANGUAGES)}")
    pairs = dict(word.split("=", 1) for word in words if "=" in word)
    if len(pairs) != len(words):
        raise PageError(f"{where}: {fence['info']!r} has a word that is no NAME=VALUE, or one twice")
    _check(where, language, pairs)
    indent = len(fence["indent"])
    text = "".join(f"{line[indent:]}\n" for line in lines[first : end - 1])
    return Block(page=path, line=first + 1, language=language, words=pairs, text=text)


def _check(where: str, language: str, pairs: Mapping[str, str]) -> None:
    allowed = {"sh": {"run", "exit", "shown"}, "yaml": {"file"}}.get(language, set())
    if unknown := set(pairs) - allowed:
        raise PageError(f"{where}: {', '.join(sorted(unknown))} means nothing for {language}")
    if language != "sh":
        return
    if ("run" in pairs) == ("shown" in pairs):
        raise PageError(f"{where}: say run=TIER, or shown=REASON")
    if pairs.get("run", "ci") not in TIERS:
        raise PageError(f"{where}: no tier {pairs['run']!r}; there are {', '.join(TIERS)}")
    if pairs.get("shown", "nodes") not in WHY_ONLY_SHOWN:
        raise PageError(f"{where}: {pairs['shown']!r} is no reason; there are {', '.join(WHY_ONLY_SHOWN)}")
    if not pairs.get("exit", "1").isdigit():
        raise PageError(f"{where}: exit={pairs['exit']} is no exit code")
