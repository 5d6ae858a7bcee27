"""Kubernetes quantities and bytes: the one place where a size is read from text or written as one.

The grammar is that of k8s.io/apimachinery/pkg/api/resource: a sign, decimal digits with an optional point, and one
suffix: decimal (n u m k M G T P E), binary (Ki Mi Gi Ti Pi Ei) or a decimal exponent. `1E` is exa, `1E3` a thousand.
A fraction of a byte is rounded away from zero, as Quantity.Value() does; all arithmetic is on int.

Unlike the Go code on purpose:
- what does not fit int64 is refused. Go makes `8Ei` one byte less and lets Value() of `12E` overflow: a size that
  nobody asked for.
- the grammar's digits are required: Go reads `.`, `+` and `e5` as zero.
- a negative quantity keeps its value: Value() of `-8Pi` comes out wrong in Go (0.34).
- more than 128 characters are refused, and so need no arithmetic.
"""

from __future__ import annotations

import re

from ullage.errors import InvalidRequestError
from ullage.quoting import quoted

MIN_BYTES, MAX_BYTES = -(1 << 63), (1 << 63) - 1
MAX_TEXT = 128

BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}

ALLOWED = (
    "a whole number of bytes, or a decimal number with one of the suffixes Ki Mi Gi Ti Pi Ei, n u m k M G T P E, "
    "or an exponent such as e9"
)

_QUANTITY = re.compile(
    r"""(?P<sign>[+-]?)
        (?P<whole>[0-9]*) (?:\.(?P<fraction>[0-9]*))?
        (?: (?P<suffix>[KMGTPE]i|[numkMGTPE]?) | [eE](?P<exponent>[+-]?[0-9]+) )""",
    re.VERBOSE,
)


def parse_bytes(text: str) -> int:
    """Whole bytes of a quantity, rounded away from zero; raises InvalidRequestError.

    A negative quantity is a quantity; whether it is a size is for the caller to say.
    """
    if len(text) > MAX_TEXT:
        raise InvalidRequestError(f"{quoted(text)} is too long for a size; allowed: {ALLOWED}")
    match = _QUANTITY.fullmatch(text)
    if match is None or not (match["whole"] or match["fraction"]):
        raise InvalidRequestError(f"{quoted(text)} is not a size; allowed: {ALLOWED}")
    fraction = match["fraction"] or ""
    suffix = match["suffix"] or ""
    tens = (int(match["exponent"]) if match["exponent"] else DECIMAL.get(suffix, 0)) - len(fraction)
    magnitude = _magnitude(int(match["whole"] + fraction) << BINARY.get(suffix, 0), tens)
    size_bytes = -magnitude if match["sign"] == "-" else magnitude
    if not MIN_BYTES <= size_bytes <= MAX_BYTES:
        raise InvalidRequestError(
            f"{quoted(text)} is out of range; allowed: what int64 holds, {MIN_BYTES} to {MAX_BYTES} (just under 8Ei)"
        )
    return size_bytes


def format_bytes(size_bytes: int) -> str:
    """The shortest exact binary form: `10Gi`, `1536Mi`; else the plain number."""
    for suffix, shift in reversed(BINARY.items()):
        if size_bytes and size_bytes % (1 << shift) == 0:
            return f"{size_bytes >> shift}{suffix}"
    return str(size_bytes)


def _magnitude(mantissa: int, tens: int) -> int:
    """`mantissa` × 10^`tens`, rounded up. No power is computed that could not matter."""
    if mantissa == 0:
        return 0
    # 10^20 alone is past int64; a mantissa is below 10^MAX_TEXT × 2^60, and past twice its digits it is 1 anyhow.
    power: int = 10 ** min(abs(tens), 2 * MAX_TEXT if tens < 0 else 20)
    return mantissa * power if tens >= 0 else -(-mantissa // power)
