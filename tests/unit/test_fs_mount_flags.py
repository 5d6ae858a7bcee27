"""Mount flags reach mount(8) as they came; what the kernel tells of them is compared."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from csi.fs.mount_flags import differences, is_read_only, joined, kept_by_bind, per_mount
from csi.fs.mount_table import Mount, parsed, split_options

CONTEXT = 'context="system_u:object_r:container_file_t:s0:c1,c2"'


def mount(options: str, super_options: str = "rw") -> Mount:
    return parsed(f"36 35 7:3 / /p {options} - ext4 /dev/loop3 {super_options}\n".encode()).mounts[0]


def test_flags_are_joined_unchanged_with_the_commas_inside_quotes() -> None:
    assert joined(("nouuid",), ("noatime", CONTEXT, "commit=7")) == f"nouuid,noatime,{CONTEXT},commit=7"


@given(st.lists(st.sampled_from(["noatime", "ro", CONTEXT, "data=ordered", "commit=7"])))
def test_what_is_joined_comes_apart_again(flags: list[str]) -> None:
    assert list(split_options(joined(flags))) == flags


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), False),
        (("ro",), True),
        (("noatime,ro",), True),
        (("ro", "rw"), False),
        (("ro", "defaults"), False),
        (("errors=ro", CONTEXT), False),
    ],
)
def test_the_last_word_about_writing_counts(flags: tuple[str, ...], *, expected: bool) -> None:
    assert is_read_only(flags) is expected


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ((), {"relatime"}),
        (("noatime",), {"noatime"}),
        (("noatime", "relatime"), {"relatime"}),
        (("strictatime",), set()),
        (("noatime", "atime"), {"relatime"}),
        (("nodev,nosuid", "noexec"), {"relatime", "nodev", "nosuid", "noexec"}),
        (("nodev", "dev"), {"relatime"}),
        (("nodev", "defaults"), {"relatime"}),
        (("noatime", "nodiratime"), {"noatime", "nodiratime"}),
        (("commit=7", "ro", CONTEXT), {"relatime"}),
    ],
)
def test_the_kernel_is_expected_to_show(flags: tuple[str, ...], expected: set[str]) -> None:
    assert per_mount(flags) == expected


@pytest.mark.parametrize(
    ("options", "super_options", "flags"),
    [
        ("rw,relatime", "rw", ()),
        ("ro,nosuid,nodev,noatime", "rw,commit=7", ("noatime", "nodev", "nosuid", "commit=7")),
        ("rw,relatime", f"rw,{CONTEXT}", (CONTEXT,)),
        ("rw,relatime", "rw,context=a:b:c:s0", ('context="a:b:c:s0"',)),
        ("rw,relatime", "rw,seclabel", ()),
    ],
)
def test_the_same_flags_are_no_difference(options: str, super_options: str, flags: tuple[str, ...]) -> None:
    assert differences(mount(options, super_options), flags) == ()


@pytest.mark.parametrize(
    ("options", "super_options", "flags", "word"),
    [
        ("rw,noatime", "rw", (), "noatime"),
        ("rw,relatime", "rw", ("nodev",), "nodev"),
        ("rw,relatime", "rw,seclabel", (CONTEXT,), "context=none instead of system_u"),
        ("rw,relatime", f"rw,{CONTEXT}", (), "instead of none"),
        ("rw,relatime", f"rw,{CONTEXT}", (CONTEXT.replace("c2", "c3"),), "c3"),
    ],
)
def test_another_flag_or_context_is_a_difference(
    options: str, super_options: str, flags: tuple[str, ...], word: str
) -> None:
    assert word in " ".join(differences(mount(options, super_options), flags))


def test_a_read_only_bind_names_again_what_a_remount_would_drop() -> None:
    assert kept_by_bind(mount("rw,nosuid,nodev,noatime")) == ("nosuid", "nodev", "noatime")
