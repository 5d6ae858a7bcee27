"""Quantities against the grammar, against the API machinery's own examples, and against fractions."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ullage.errors import InvalidRequestError
from ullage.quantity import MAX_BYTES, MIN_BYTES, format_bytes, parse_bytes

FACTORS = {
    "n": Fraction(1, 10**9),
    "u": Fraction(1, 10**6),
    "m": Fraction(1, 1000),
    "": Fraction(1),
    "k": Fraction(1000),
    "M": Fraction(10**6),
    "G": Fraction(10**9),
    "T": Fraction(10**12),
    "P": Fraction(10**15),
    "E": Fraction(10**18),
    "Ki": Fraction(1024),
    "Mi": Fraction(1024**2),
    "Gi": Fraction(1024**3),
    "Ti": Fraction(1024**4),
    "Pi": Fraction(1024**5),
    "Ei": Fraction(1024**6),
}

int64s = st.integers(MIN_BYTES, MAX_BYTES)
digits = st.text("0123456789", min_size=1, max_size=25)
numbers = st.one_of(
    digits,
    digits.map(lambda whole: f"{whole}."),
    digits.map(lambda fraction: f".{fraction}"),
    st.tuples(digits, digits).map(".".join),
)
exponents = st.tuples(st.sampled_from("eE"), st.sampled_from(["", "+", "-"]), st.integers(0, 40)).map(
    lambda parts: "".join(map(str, parts))
)
suffixes = st.sampled_from(list(FACTORS)) | exponents
signs = st.sampled_from(["", "+", "-"])


def exactly(sign: str, number: str, suffix: str) -> Fraction:
    """What a quantity means, without ullage and without floats."""
    factor = FACTORS[suffix] if suffix in FACTORS else Fraction(10) ** int(suffix[1:])
    return Fraction(f"{sign}{number.strip('.') if number.endswith('.') else number}") * factor


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [
        ("0", 0),
        ("1", 1),
        ("-0", 0),
        ("+7", 7),
        ("1.5Gi", 3 << 29),
        (".5Gi", 1 << 29),
        ("5.", 5),
        ("5.Ki", 5120),
        ("1E", 10**18),
        ("1E3", 1000),
        ("1e3", 1000),
        ("12E6", 12_000_000),
        ("1E+3", 1000),
        ("1Ei", 1 << 60),
        ("3k", 3000),
        ("100.035k", 100_035),
        ("1n", 1),
        ("1500m", 2),
        ("-1500m", -2),
        ("1E-3", 1),
        ("100.035Ki", 102_436),
        ("0.000000000001Ki", 1),
        ("0e999999999999", 0),
        ("1e-999999999999", 1),
        ("-1e-999999999999", -1),
        ("000000000000000000000000000001Ki", 1024),
        (str(MAX_BYTES), MAX_BYTES),
        (str(MIN_BYTES), MIN_BYTES),
        ("8191Pi", 8191 << 50),
    ],
)
def test_a_quantity_is_read_as_the_api_machinery_reads_it(text: str, size_bytes: int) -> None:
    assert parse_bytes(text) == size_bytes


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        " 1",
        "1 ",
        "1\n",
        "1 Gi",
        "Gi",
        "e5",
        ".",
        "+",
        "-.",
        "..5",
        "1.1.M",
        "1+1.0M",
        "--1",
        "0x10",
        "1_000",
        "1K",
        "1ki",
        "1mi",
        "1g",
        "1i",
        ".5i",
        "1KI",
        "1B",
        "1GiB",
        "1Gib",
        "1e",
        "1E+",
        "1Ee3",
        "1e3Ki",
        "1Ki3",
        "1e1.5",
        "NaN",
        "inf",
        "-3.01e-",
        "٣",
        "1²",
        "true",
    ],
)
def test_what_the_grammar_does_not_know_is_refused_with_the_text_and_the_suffixes(text: str) -> None:
    with pytest.raises(InvalidRequestError) as refusal:
        parse_bytes(text)
    assert str(refusal.value).startswith(f"{text!r} is not a size; allowed: ")
    assert "Ki Mi Gi Ti Pi Ei, n u m k M G T P E" in str(refusal.value)


@pytest.mark.parametrize(
    "text", ["8Ei", "9223372036854775808", "-9223372036854775809", "12E", "1e19", "1e999999999999"]
)
def test_more_than_int64_holds_is_refused_and_never_capped(text: str) -> None:
    with pytest.raises(InvalidRequestError, match="is out of range; allowed: what int64 holds"):
        parse_bytes(text)


def test_a_very_long_text_is_refused_and_not_repeated_whole() -> None:
    with pytest.raises(InvalidRequestError, match="too long for a size") as refusal:
        parse_bytes("9" * 5000)
    assert len(str(refusal.value)) < 400
    assert "(5000 characters)" in str(refusal.value)


@given(signs, numbers, suffixes)
def test_every_quantity_is_its_fraction_rounded_away_from_zero(sign: str, number: str, suffix: str) -> None:
    exact = exactly(sign, number, suffix)
    rounded = math.ceil(exact) if exact >= 0 else math.floor(exact)
    if MIN_BYTES <= rounded <= MAX_BYTES:
        assert parse_bytes(f"{sign}{number}{suffix}") == rounded
    else:
        with pytest.raises(InvalidRequestError, match="out of range"):
            parse_bytes(f"{sign}{number}{suffix}")


@given(st.tuples(signs, numbers, suffixes), st.tuples(signs, numbers, suffixes))
def test_the_larger_quantity_never_has_fewer_bytes(one: tuple[str, str, str], other: tuple[str, str, str]) -> None:
    smaller, larger = sorted((one, other), key=lambda parts: exactly(*parts))
    try:
        assert parse_bytes("".join(smaller)) <= parse_bytes("".join(larger))
    except InvalidRequestError as refusal:
        assert "out of range" in str(refusal)  # noqa: PT017 - only one of the two may be out of range


@pytest.mark.parametrize(
    ("size_bytes", "text"),
    [
        (0, "0"),
        (5, "5"),
        (1023, "1023"),
        (1024, "1Ki"),
        (1025, "1025"),
        (10 << 30, "10Gi"),
        (3 << 29, "1536Mi"),
        (-(3 << 29), "-1536Mi"),
        (1 << 60, "1Ei"),
        (10**18, "976562500000000Ki"),
        (MAX_BYTES, str(MAX_BYTES)),
    ],
)
def test_bytes_are_written_as_the_api_machinery_writes_binary_quantities(size_bytes: int, text: str) -> None:
    assert format_bytes(size_bytes) == text


@given(int64s | st.builds(lambda n, shift: n << shift, st.integers(-1023, 1023), st.sampled_from([10, 20, 30, 40, 50])))
def test_what_is_written_is_read_back(size_bytes: int) -> None:
    assert parse_bytes(format_bytes(size_bytes)) == size_bytes


@given(int64s)
def test_no_binary_form_is_shorter(size_bytes: int) -> None:
    forms = [f"{size_bytes // factor}{suffix}" for suffix, factor in FACTORS.items() if suffix.endswith("i")]
    exact = [
        form
        for form in [*forms, str(size_bytes)]
        if exactly("", form.rstrip("KMGTPEi"), form.lstrip("-0123456789")) == size_bytes
    ]
    assert len(format_bytes(size_bytes)) <= min(map(len, exact))


@given(st.text())
def test_any_text_is_a_number_or_an_invalid_request(text: str) -> None:
    try:
        assert isinstance(parse_bytes(text), int)
    except InvalidRequestError as refusal:
        assert "allowed: " in str(refusal)  # noqa: PT017 - either outcome is right
