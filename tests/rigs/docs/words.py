"""What the pages' commands name: the simple commands of a script, make's targets, and those of them that CI runs."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from tests.rigs.docs.pages import ROOT

SEPARATORS = frozenset("|;&\n")


def commands(script: str) -> Iterator[list[str]]:
    """The simple commands of a script, in words, without what they assign and where they write.

    Raises ValueError where a quotation does not end.
    """
    lexer = shlex.shlex(re.sub(r"\\\n", " ", script), posix=True, punctuation_chars="".join(SEPARATORS))
    lexer.whitespace = " \t"
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    is_comment = False
    for word in [*lexer, "\n"]:
        is_comment = "\n" not in word and (is_comment or word.startswith("#"))
        if set(word) <= SEPARATORS:
            if plain := _plain(words):
                yield plain
            words = []
        elif not is_comment:
            words.append(word)


def targets() -> dict[str, set[str]]:
    """The Makefile's targets, with those that each needs or calls."""
    found: dict[str, set[str]] = {}
    name = ""
    for line in (ROOT / "Makefile").read_text(encoding="utf-8").splitlines():
        if begun := re.match(r"([a-z-]+):(?!=)([^#]*)", line):
            name = begun[1]
            found[name] = set(begun[2].split())
        elif line.startswith("\t") and "$(MAKE)" in line:
            found[name] |= set(re.findall(r"[a-z][a-z-]+", line.partition("$(MAKE)")[2]))
    return {name: needs & found.keys() for name, needs in found.items()}


def run_by_ci() -> set[str]:
    """The targets that CI's script makes, and all that those need."""
    needs = targets()
    script = (ROOT / ".ci/run").read_text(encoding="utf-8")
    queue = [each for line in script.splitlines() if "make " in line for each in line.partition("make ")[2].split()]
    found: set[str] = set()
    while queue:
        name = queue.pop()
        if name in needs and name not in found:
            found.add(name)
            queue += needs[name]
    return found


def _plain(words: list[str]) -> list[str]:
    end = next((at for at, word in enumerate(words) if re.fullmatch(r"\d?[<>].*", word)), len(words))
    first = next((at for at, word in enumerate(words) if not re.match(r"[A-Za-z_]+=", word)), end)
    keywords = ("until", "while", "if", "do", "then", "done")
    return [word for word in words[first:end] if word not in keywords]
