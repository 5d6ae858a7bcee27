"""Names that LVM and Kubernetes both take: volume ids, LVM names, tag values, class names, labels.

A volume id is one string in four roles: LogicalVolume object, CSI volume handle, LV name, file name. It is derived from
the CSI request name alone, so that a retry finds what the first try made. A request name that can play all four roles
is kept; any other becomes `v-` and 26 characters of its hash. A name that already has that form is hashed too, so no
kept name can ever be another name's hash. A snapshot's id is `s-` and such a hash, always; a group's `g-`; that of what
a copy reads from `f-`.

Length: a device-mapper name is at most 127 characters and holds the group's name, a hyphen, the LV's name and the
suffix of a part (`_rimage_0_iorig`), with every hyphen inside a name doubled. 63 for the id, counted that way, leaves a
group 47 and the suffix 16; `pvc-` and a UUID takes 45.

Reserved words: lvm2's lib/misc/lvm-string.c (2.03; its lvm(8) leaves out some) refuses LVs that begin with `snapshot`
or `pvmove`, or contain one of `RESERVED_INFIXES`. Of a volume group's name it checks characters and length only. Tags:
validate_tag() there; the 1024 characters are Red Hat's manual's, the code sets no limit.
"""

from __future__ import annotations

import base64
import fnmatch
import hashlib
import re
import string
from functools import cache

from ullage.errors import InvalidRequestError
from ullage.model import DeviceClassName, GroupId, Owner, VolumeId, VolumeKind
from ullage.quoting import quoted

MAX_VOLUME_ID = 63
MAX_LVM_NAME = 100
MAX_TAG_VALUE = 1024 - 64
"""LVM's 1024 is for the whole tag; 64 stay for our key in front of the value."""

RESERVED_PREFIXES = ("snapshot", "pvmove")
RESERVED_INFIXES = (
    "_cdata",
    "_cmeta",
    "_corig",
    "_cpool",
    "_cvol",
    "_imeta",
    "_iorig",
    "_mimage",
    "_mlog",
    "_pmspare",
    "_rimage",
    "_rmeta",
    "_tdata",
    "_tmeta",
    "_vdata",
    "_vorigin",
    "_wcorig",
)

_LVM_CHARACTERS = string.ascii_letters + string.digits + "_.+-"
_STAR = frozenset("*")
_LABEL = r"[a-z0-9](?:[-a-z0-9]*[a-z0-9])?"
_SUBDOMAIN = re.compile(rf"{_LABEL}(?:\.{_LABEL})*")
_CLASS_NAME = re.compile(_LABEL)
_HASHED = re.compile(r"[vsgf]-[a-z2-7]{26}")
_KINDS = {"s": VolumeKind.SNAPSHOT, "f": VolumeKind.FROZEN}
_LVM_NAME = re.compile(r"(?!\.{1,2}$)[A-Za-z0-9_.+][A-Za-z0-9_.+-]*")
_LVM_GLOB = re.compile(r"(?!\.{1,2}$)(?!-)(?:[A-Za-z0-9_.+*?-]|\[!?[A-Za-z0-9_.+-]+\])+")
_TAG_VALUE = re.compile(r"[A-Za-z0-9_+.\-/=!:&#]+")
_LABEL_NAME = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")

VOLUME_ID_ALLOWED = (
    f"1 to {MAX_VOLUME_ID} characters (a hyphen counts as two) of a-z, 0-9, '-' and '.', each part between dots "
    f"beginning and ending with a letter or digit, not beginning with {' or '.join(RESERVED_PREFIXES)}"
)


def volume_id(request_name: str) -> VolumeId:
    """The id of the volume that a CSI request of this name makes: the same for every retry, and for no other name."""
    if _is_volume_id(request_name) and not _HASHED.fullmatch(request_name):
        return VolumeId(request_name)
    return VolumeId(f"v-{_hash(request_name)}")


def snapshot_id(request_name: str) -> VolumeId:
    """The id of the snapshot that a CSI request of this name makes: always a hash, and never a volume's id.

    Volumes and snapshots have names apart from each other in CSI, and share one space of names on the disk.
    """
    return VolumeId(f"s-{_hash(request_name)}")


def group_id(request_name: str) -> GroupId:
    """The id of the group of snapshots that a CSI request of this name makes."""
    return GroupId(f"g-{_hash(request_name)}")


def member_id(group: GroupId, source: VolumeId) -> VolumeId:
    """The id of the snapshot of one volume in a group."""
    return VolumeId(f"s-{_hash(f'{group}/{source}')}")


def frozen_id(target: VolumeId) -> VolumeId:
    """The id of what a copy of a volume in use reads from; `target` is the copy."""
    return VolumeId(f"f-{_hash(target)}")


def kind_of(text: str) -> VolumeKind:
    """What an id is the id of: a volume never has a snapshot's, nor the other way round, whatever has become of it."""
    return _KINDS.get(text[0], VolumeKind.VOLUME) if _HASHED.fullmatch(text) else VolumeKind.VOLUME


def is_group_id(text: str) -> bool:
    """Whether a group of snapshots can have this id."""
    return text.startswith("g-") and _HASHED.fullmatch(text) is not None


def check_volume_id(text: str) -> VolumeId:
    """`text`, when it can be a volume's id; else raises InvalidRequestError, before it gets near a path or an argv."""
    if not _is_volume_id(text):
        raise InvalidRequestError(f"{quoted(text)} cannot be a volume id; allowed: {VOLUME_ID_ALLOWED}")
    return VolumeId(text)


def check_device_class_name(text: str) -> DeviceClassName:
    """A class's name is a label of RFC 1123; raises InvalidRequestError."""
    if len(text) > MAX_VOLUME_ID or not _CLASS_NAME.fullmatch(text):
        raise InvalidRequestError(
            f"{quoted(text)} cannot be a class name; allowed: 1 to 63 characters of a-z, 0-9 and '-', "
            "beginning and ending with a letter or digit"
        )
    return DeviceClassName(text)


def check_volume_group_pattern(text: str) -> str:
    """A volume group's name, or a glob of such names as fnmatch knows them; raises InvalidRequestError."""
    if len(text) > MAX_LVM_NAME or not _LVM_GLOB.fullmatch(text):
        raise InvalidRequestError(
            f"{quoted(text)} cannot name volume groups; allowed: 1 to {MAX_LVM_NAME} characters of A-Z a-z 0-9 _ . + - "
            "and the globs * ? [abc] [!abc], not beginning with '-'"
        )
    return text


def patterns_overlap(one: str, other: str) -> bool:
    """Whether some volume group's name could match both patterns."""

    @cache
    def overlap(a: tuple[frozenset[str], ...], b: tuple[frozenset[str], ...]) -> bool:
        if a[:1] == (_STAR,):
            return overlap(a[1:], b) or (b != () and overlap(a, b[1:]))
        if b[:1] == (_STAR,):
            return overlap(b, a)
        if not a or not b:
            return a == b
        return not a[0].isdisjoint(b[0]) and overlap(a[1:], b[1:])

    return overlap(_places(one), _places(other))


def _places(pattern: str) -> tuple[frozenset[str], ...]:
    """The characters that each place of a pattern may be."""
    places = re.findall(r"\[[^]]*\]|.", pattern)
    return tuple(_STAR if place == "*" else frozenset(fnmatch.filter(_LVM_CHARACTERS, place)) for place in places)


def check_thin_pool_name(text: str) -> str:
    """The name of an LV that is not ours to derive; raises InvalidRequestError."""
    if len(text) > MAX_LVM_NAME or not _LVM_NAME.fullmatch(text) or _is_reserved(text):
        raise InvalidRequestError(
            f"{quoted(text)} cannot name a thin pool; allowed: 1 to {MAX_LVM_NAME} characters of A-Z a-z 0-9 _ . + -, "
            f"not beginning with '-', {' or '.join(RESERVED_PREFIXES)}, without {' '.join(RESERVED_INFIXES)}"
        )
    return text


def check_tag_value(text: str) -> str:
    """What may stand after our key in an LVM tag; raises InvalidRequestError."""
    if len(text) > MAX_TAG_VALUE or not _TAG_VALUE.fullmatch(text):
        raise InvalidRequestError(
            f"{quoted(text)} cannot be kept in an LVM tag; "
            f"allowed: 1 to {MAX_TAG_VALUE} characters of A-Z a-z 0-9 _ + . - / = ! : & #"
        )
    return text


def check_owner(owner: Owner) -> Owner:
    """`owner`, when every field that is not empty can be kept in a tag; else raises InvalidRequestError."""
    fields = {
        "PV name": owner.pv_name,
        "claim namespace": owner.claim_namespace,
        "claim name": owner.claim_name,
        "claim UID": owner.claim_uid,
    }
    for what, text in fields.items():
        if text:
            try:
                check_tag_value(text)
            except InvalidRequestError as refusal:
                raise InvalidRequestError(f"The owner's {what}: {refusal}") from refusal
    return owner


def check_label_key(text: str) -> str:
    """A Kubernetes label's key, with or without a prefix; raises InvalidRequestError."""
    prefix, slash, name = text.rpartition("/")
    if not _LABEL_NAME.fullmatch(name) or (slash and (len(prefix) > 253 or not _SUBDOMAIN.fullmatch(prefix))):  # noqa: PLR2004 - RFC 1123
        raise InvalidRequestError(
            f"{quoted(text)} cannot be a label's key; allowed: up to 63 characters of A-Z a-z 0-9 - _ ., beginning and "
            "ending with a letter or digit, after an optional domain and '/'"
        )
    return text


def check_label_value(text: str) -> str:
    """A Kubernetes label's value; raises InvalidRequestError."""
    if text and not _LABEL_NAME.fullmatch(text):
        raise InvalidRequestError(
            f"{quoted(text)} cannot be a label's value; allowed: up to 63 characters of A-Z a-z 0-9 - _ ., beginning "
            "and ending with a letter or digit"
        )
    return text


def _hash(request_name: str) -> str:
    if not request_name:
        raise InvalidRequestError("The request has no name; an id is derived from it, so it must have one")
    # surrogatepass: no text makes this fail; 26 base32 characters are 130 bits.
    digest = hashlib.sha256(request_name.encode("utf-8", "surrogatepass")).digest()
    return base64.b32encode(digest).decode().lower()[:26]


def _is_volume_id(text: str) -> bool:
    """No infix can occur: they all have an underscore."""
    return (
        len(text) + text.count("-") <= MAX_VOLUME_ID
        and _SUBDOMAIN.fullmatch(text) is not None
        and not text.startswith(RESERVED_PREFIXES)
    )


def _is_reserved(text: str) -> bool:
    return text.startswith(RESERVED_PREFIXES) or any(infix in text for infix in RESERVED_INFIXES)
