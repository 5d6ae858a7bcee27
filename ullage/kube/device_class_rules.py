"""The rules of a DeviceClass in CEL: those of `ullage.config` and of its readers, from the same tables.

What the API server refuses `config.parse_class` refuses, and the other way round, but for the limits below (the API
server must know how long things can be) and a few spellings of numbers that nobody writes. Rules between classes cannot
be said here: whoever reads all of them sees to those.
"""

from __future__ import annotations

from collections.abc import Iterable
from fractions import Fraction

from ullage.config import FIELDS_OF_TYPE, MIN_STRIPE_BYTES, NEEDED
from ullage.device_class_spec import (
    MAX_PATH,
    MAX_RATIO,
    RATIO_ALLOWED,
    SHAPES,
    Directory,
    LabelValue,
    MkfsOption,
    Size,
    ThinPoolName,
    VolumeGroupPattern,
)
from ullage.kube.structural import Additions, Leaves, Schema, one_of, rule, telling_rule, text
from ullage.model import Layout, LayoutKind
from ullage.names import MAX_LVM_NAME, MAX_VOLUME_ID, RESERVED_INFIXES, RESERVED_PREFIXES
from ullage.quantity import ALLOWED, MAX_BYTES, format_bytes

MOST_PATTERNS = 64
MOST_FILE_SYSTEMS = 8
MOST_OPTIONS = 64
MOST_OPTION_LETTERS = 256
MOST_LABELS = 16
MOST_SIZE_LETTERS = 64

# Patterns in CEL are RE2: without look-ahead, so what must not be is said beside them.
_SIZE = r"^[+]?([0-9]+([.][0-9]*)?|[.][0-9]+)([KMGTPE]i|[numkMGTPE]?|[eE][+-]?[0-9]{1,2})$"
_BRACKET = r"\[!?[A-Za-z0-9_.+-]+\]"
_VG_PATTERN = rf"^([A-Za-z0-9_.+*?]|{_BRACKET})([A-Za-z0-9_.+*?-]|{_BRACKET})*$"
_LVM_NAME = r"^[A-Za-z0-9_.+][A-Za-z0-9_.+-]*$"
_LABEL_NAME = r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
_DNS_LABEL = r"[a-z0-9]([-a-z0-9]*[a-z0-9])?"
_LABEL_KEY = rf"^({_DNS_LABEL}([.]{_DNS_LABEL})*/)?{_LABEL_NAME}$"
_PRINTABLE = r"^(?: |[^\pC\pZ])+$"


def matches(pattern: str, value: str = "self") -> str:
    """CEL: whether all of a text is like this."""
    return f"{value}.matches({text(pattern)})"


def _is_size(value: str) -> str:
    """CEL: whether a text may be given to quantity(), which takes an exponent of a thousand million for earnest."""
    return matches(_SIZE, f"string({value})")


_NINE_DIGITS = "1000000000.0"
_MAX = f"quantity('{MAX_BYTES}')"
SIZE: Schema = {
    "x-kubernetes-int-or-string": True,
    "maxLength": MOST_SIZE_LETTERS,
    "x-kubernetes-validations": [
        rule(
            f"type(self) == int ? self >= 0 : {_is_size('self')} && quantity(self).isLessThan({_MAX})",
            f"is not a size of at least 0 and less than 8Ei; allowed: {ALLOWED}",
        )
    ],
}
RATIO: Schema = {
    "type": "number",
    "x-kubernetes-validations": [
        rule(
            f"self >= 1.0 && self <= {MAX_RATIO}.0 && "
            f"double(int(self * {_NINE_DIGITS} + 0.5)) / {_NINE_DIGITS} == self",
            f"is not allowed; {RATIO_ALLOWED}, with at most nine digits behind the point",
        )
    ],
}

LEAVES: Leaves = {
    Size: SIZE,
    Fraction: RATIO,
    VolumeGroupPattern: {
        "type": "string",
        "maxLength": MAX_LVM_NAME,
        "x-kubernetes-validations": [
            rule(
                f"{matches(_VG_PATTERN)} && !(self in ['.', '..'])",
                f"cannot name volume groups; allowed: 1 to {MAX_LVM_NAME} characters of A-Z a-z 0-9 _ . + - "
                "and the globs * ? [abc] [!abc], not beginning with '-'",
            )
        ],
    },
    ThinPoolName: {
        "type": "string",
        "maxLength": MAX_LVM_NAME,
        "x-kubernetes-validations": [
            rule(
                f"{matches(_LVM_NAME)} && !(self in ['.', '..']) && "
                f"!{one_of(RESERVED_PREFIXES)}.exists(each, self.startsWith(each)) && "
                f"!{one_of(RESERVED_INFIXES)}.exists(each, self.contains(each))",
                f"cannot name a thin pool; allowed: 1 to {MAX_LVM_NAME} characters of A-Z a-z 0-9 _ . + -, not "
                f"beginning with '-', {' or '.join(RESERVED_PREFIXES)}, without {' '.join(RESERVED_INFIXES)}",
            )
        ],
    },
    Directory: {
        "type": "string",
        "maxLength": MAX_PATH,
        "x-kubernetes-validations": [
            rule(
                f"self.startsWith('/') && {matches(_PRINTABLE)} && !{matches('(^|/)[.][.](/|$)')} && "
                f"{matches('[^/.]|[.][.]')}",
                "is not allowed; an absolute path below /, without '..' and control characters",
            )
        ],
    },
    MkfsOption: {
        "type": "string",
        "maxLength": MOST_OPTION_LETTERS,
        "x-kubernetes-validations": [rule(matches(_PRINTABLE), "is not allowed; one printable argument of mkfs")],
    },
    LabelValue: {
        "type": "string",
        "maxLength": 63,
        "x-kubernetes-validations": [
            rule(
                matches(f"^({_LABEL_NAME})?$"),
                "cannot be a label's value; allowed: up to 63 characters of A-Z a-z 0-9 - _ ., beginning and "
                "ending with a letter or digit",
            )
        ],
    },
}


def additions() -> Additions:
    """What is added to the schema that the Structs give."""
    return {
        "": {"x-kubernetes-validations": [_name()]},
        "spec": {
            "description": "The policy, with the fields of a class in the configuration file.",
            "x-kubernetes-validations": [*_fields_of_types(), *_needed(), *_lasting()],
        },
        "spec.volumeGroups": {"maxItems": MOST_PATTERNS},
        "spec.layout": {"x-kubernetes-validations": _layout()},
        "spec.mkfsOptions": {
            "maxProperties": MOST_FILE_SYSTEMS,
            "x-kubernetes-validations": [
                rule(
                    f"self.all(name, {matches('^[a-z][a-z0-9_-]{0,31}$', 'name')})",
                    "a key is not allowed; a file system's name such as ext4, xfs or btrfs",
                )
            ],
        },
        "spec.mkfsOptions[]": {"maxItems": MOST_OPTIONS},
        "spec.nodeSelector": {
            "maxProperties": MOST_LABELS,
            "x-kubernetes-validations": [
                rule(
                    f"self.all(key, size(key) <= 317 && {matches(_LABEL_KEY, 'key')})",
                    "a key cannot be a label's key; allowed: up to 63 characters of A-Z a-z 0-9 - _ ., beginning and "
                    "ending with a letter or digit, after an optional domain and '/'",
                )
            ],
        },
    }


def _name() -> Schema:
    return rule(
        f"size(self.metadata.name) <= {MAX_VOLUME_ID} && {matches(f'^{_DNS_LABEL}$', 'self.metadata.name')}",
        f"the name cannot be a class's; allowed: 1 to {MAX_VOLUME_ID} characters of a-z, 0-9 and '-', beginning and "
        "ending with a letter or digit",
    )


def _fields_of_types() -> list[Schema]:
    only_if = {"sparse": " && self.sparse", "copyRate": f" && {_is_some('self.copyRate')}"}
    return [
        telling_rule(
            f"!(has(self.{field}){only_if.get(field, '')}) || self.type in {one_of(types)}",
            "'is not for a class of type ' + self.type + " + text("; only for type " + " or ".join(types)),
            field=field,
        )
        for field, types in FIELDS_OF_TYPE.items()
    ]


def _needed() -> list[Schema]:
    return [
        rule(
            f"self.type != '{kind}' || (has(self.{field}) && size(self.{field}) > 0)"
            if field == "volumeGroups"
            else f"self.type != '{kind}' || has(self.{field})",
            f"is missing; a class of type {kind} needs {what}",
            field=field,
        )
        for kind, fields in NEEDED.items()
        for field, what in fields.items()
    ]


def _lasting() -> list[Schema]:
    """What says where the volumes of a class are, in one word, stays: they are there."""
    return [
        telling_rule(
            f"!has(oldSelf.{top}) || !has(self.{top}) || self.{field} == oldSelf.{field}",
            f"'is ' + oldSelf.{field} + ' and stays so: there may be volumes of it; make another class'",
            field=field,
        )
        for top, field in (("type", "type"), ("directory", "directory"), ("thinPool", "thinPool.name"))
    ]


def _layout() -> list[Schema]:
    raid = [kind for kind in LayoutKind if Layout(kind=kind).is_raid]
    striped = [kind for kind, shape in SHAPES.items() if shape.stripes]
    mirrored = [kind for kind, shape in SHAPES.items() if shape.mirrors]
    sizes = [1 << power for power in range(63) if 1 << power >= MIN_STRIPE_BYTES]
    exact = ", ".join(f"quantity('{size}')" for size in sizes)
    return [
        _only_for("has(self.stripes)", "stripes", "stripes", striped),
        *(_range("stripes", kind, shape.stripes) for kind, shape in SHAPES.items() if shape.stripes),
        _only_for("has(self.mirrors)", "mirrors", "mirrors", mirrored),
        *(_range("mirrors", kind, shape.mirrors) for kind, shape in SHAPES.items() if shape.mirrors),
        _only_for("has(self.stripeSize)", "stripeSize", "stripes", striped),
        rule(
            "!has(self.stripeSize) || (type(self.stripeSize) == int ? "
            f"self.stripeSize in {sizes} : {_is_size('self.stripeSize')} && "
            f"[{exact}].exists(each, each.compareTo(quantity(self.stripeSize)) == 0))",
            f"is not allowed; a power of two of at least {format_bytes(MIN_STRIPE_BYTES)}",
            field="stripeSize",
        ),
        _only_for("has(self.integrity) && self.integrity", "integrity", "integrity", raid),
    ]


def _only_for(given: str, field: str, what: str, kinds: Iterable[LayoutKind]) -> Schema:
    kinds = tuple(kinds)
    return telling_rule(
        f"!({given}) || self.kind in {one_of(kinds)}",
        "'a ' + self.kind + " + text(f" layout has no {what}; allowed for: {', '.join(kinds)}"),
        field=field,
    )


def _range(field: str, kind: LayoutKind, limits: tuple[int, int, int]) -> Schema:
    _, least, most = limits
    return rule(
        f"!has(self.{field}) || self.kind != '{kind}' || (self.{field} >= {least} && self.{field} <= {most})",
        f"is not allowed; for {kind} " + (f"from {least} to {most}" if least < most else f"only {least}"),
        field=field,
    )


def _is_some(value: str) -> str:
    """CEL: whether a size, which may be a number or text, is more than nothing."""
    return f"(type({value}) == int ? {value} > 0 : {_is_size(value)} && quantity({value}).isGreaterThan(quantity('0')))"
