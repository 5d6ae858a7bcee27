"""Words from outside in our sentences: short, escaped, and never the raw 300 bytes."""

from __future__ import annotations

from decimal import Decimal

LONGEST = 60


def quoted(value: object) -> str:  # noqa: PLR0911 - one answer per kind of value
    """What was found, for a sentence: text as its repr, cut when long; other values as YAML would call them."""
    match value:
        case None:
            return "nothing"
        case bool():
            return f"{str(value).lower()} (a boolean)"
        case str() if len(value) > LONGEST:
            return f"{value[:LONGEST]!r}… ({len(value)} characters)"
        case str():
            return repr(value)
        case int() | Decimal():
            digits = str(value)
            return f"{digits} (a number)" if len(digits) <= LONGEST else f"a number of {len(digits)} characters"
        case list():
            return "a list"
        case dict():
            return "a mapping"
        case _:
            return f"a {type(value).__name__}"
