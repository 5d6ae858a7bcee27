"""mountinfo is read as the kernel writes it, whatever the paths are called and however mounts are stacked."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st

from csi.fs import mount_table
from csi.fs.mount_table import Mount, parsed, split_options

TABLE = rb"""22 27 0:21 / /proc rw,relatime - proc proc rw
24 27 0:6 / /dev rw,relatime shared:2 - devtmpfs devtmpfs rw,size=1k
27 1 254:0 / / rw,relatime - ext4 /dev/vda rw,discard
40 27 7:3 / /var/a\040b\134c\011d\012e\043f rw,nosuid,noatime shared:7 master:2 propagate_from:3 - ext4 /dev/loop3 rw
41 27 7:3 / /var/pod ro,relatime master:7 - ext4 /dev/loop3 rw,errors=continue
42 27 0:6 /loop3 /var/block rw,relatime shared:2 - devtmpfs devtmpfs rw
43 27 0:50 / /var/btrfs rw unbindable - btrfs /no/such/device rw,subvolid=5,subvol=/
44 27 7:4 / /var/label rw - xfs /dev/loop4 rw,context="system_u:object_r:x_t:s0:c1,c2",noquota
45 27 0:51 / /var/none rw - tmpfs  rw
"""


def at(place: str) -> Mount:
    (mount,) = parsed(TABLE).at(Path(place))
    return mount


def test_every_field_is_found_with_any_number_of_optional_ones() -> None:
    mount = at("/var/a b\\c\td\ne#f")
    assert (mount.id, mount.parent_id, mount.device, mount.root) == (40, 27, os.makedev(7, 3), "/")
    assert mount.options == ("rw", "nosuid", "noatime")
    assert mount.propagation == ("shared:7", "master:2", "propagate_from:3")
    assert (mount.kind, mount.source, mount.super_options) == ("ext4", "/dev/loop3", ("rw",))
    assert mount.is_shared
    assert at("/").propagation == ()
    assert at("/var/none").source == ""


def test_only_shared_is_shared() -> None:
    assert not at("/var/pod").is_shared
    assert not at("/").is_shared
    assert not at("/var/btrfs").is_shared


def test_a_mount_is_read_only_by_itself_or_by_its_file_system() -> None:
    assert at("/var/pod").is_read_only
    assert not at("/var/label").is_read_only
    (stopped,) = parsed(b"1 2 7:3 / /x rw - ext4 /dev/loop3 ro\n").mounts
    assert stopped.is_read_only


def test_the_comma_in_a_context_parts_no_options() -> None:
    assert at("/var/label").super_options == ("rw", 'context="system_u:object_r:x_t:s0:c1,c2"', "noquota")


def test_mounts_of_a_device_are_found_by_its_number() -> None:
    places = [mount.place for mount in parsed(TABLE).of_device(os.makedev(7, 3))]
    assert places == ["/var/a b\\c\td\ne#f", "/var/pod"]


def test_a_btrfs_whose_source_is_gone_has_no_device() -> None:
    assert at("/var/btrfs").device_number() is None
    assert at("/proc").device_number() is None


def test_one_file_of_a_dev_is_a_node_and_the_whole_of_it_is_not() -> None:
    assert [mount.place for mount in parsed(TABLE).nodes()] == ["/var/block"]
    assert at("/var/block").is_node
    assert not at("/dev").is_node
    assert at("/dev").node_number() is None


def test_what_is_below_a_place_is_not_what_begins_with_its_name() -> None:
    table = parsed(b"1 0 7:0 / /a rw - ext4 x rw\n2 1 7:1 / /a/b rw - ext4 x rw\n3 0 7:2 / /ab rw - ext4 x rw\n")
    assert [mount.place for mount in table.below(Path("/a"))] == ["/a/b"]


@given(st.permutations(range(10, 16)))
def test_a_stack_is_told_from_below_in_whatever_order_it_is_listed(order: list[int]) -> None:
    lines = [f"{number} {number - 1} 7:{number} / /place rw - ext4 x rw\n".encode() for number in order]
    other = b"9 1 254:0 / / rw - ext4 x rw\n"
    assert [mount.id for mount in parsed(b"".join([*lines, other])).at(Path("/place"))] == [10, 11, 12, 13, 14, 15]


def test_two_mounts_that_do_not_stack_are_both_told() -> None:
    """One may be hidden below a mount on a parent of theirs."""
    table = parsed(b"5 1 7:1 / /place rw - ext4 x rw\n6 2 7:2 / /place rw - ext4 x rw\n")
    assert [mount.id for mount in table.at(Path("/place"))] == [5, 6]


PATHS = st.binary(min_size=1, max_size=20).filter(lambda path: b"\0" not in path)


def escaped(text: bytes) -> bytes:
    """As seq_path_root does it (fs/proc_namespace.c), and mangle for sources: these five, nothing else."""
    return b"".join(b"\\%03o" % byte if byte in b" \t\n\\#" else bytes([byte]) for byte in text)


@given(root=PATHS, place=PATHS, source=PATHS, optional=st.lists(st.sampled_from([b"shared:1", b"master:22"])))
def test_any_path_comes_back_as_it_was(root: bytes, place: bytes, source: bytes, optional: list[bytes]) -> None:
    before = [b"36 35 98:0", escaped(b"/" + root), escaped(b"/" + place), b"rw", *optional]
    line = b" ".join([*before, b"-", b"ext4", escaped(source), b"rw"])
    (mount,) = parsed(line + b"\n").mounts
    assert os.fsencode(mount.root) == b"/" + root
    assert os.fsencode(mount.place) == b"/" + place
    assert os.fsencode(mount.source) == source
    assert mount.propagation == tuple(field.decode() for field in optional)


OPTION = st.text(st.characters(exclude_characters=',"', exclude_categories=["Cs"]), min_size=1)
QUOTED = st.builds(
    lambda name, value: f'{name}="{value}"', OPTION, st.text(st.characters(exclude_characters='"'), max_size=9)
)


@given(st.lists(OPTION | QUOTED))
def test_options_come_apart_where_they_were_joined(options: list[str]) -> None:
    assert list(split_options(",".join(options))) == options


@given(st.text())
def test_no_text_of_options_is_lost_but_commas(options: str) -> None:
    assert "".join(split_options(options)).replace(",", "") == options.replace(",", "")


def test_this_machine_s_own_table_is_read() -> None:
    table = mount_table.read()
    assert table.at(Path("/"))
    assert mount_table.at(Path("/")) == table.at(Path("/"))
    assert table.with_id(table.mounts[0].id) == table.mounts[0]
    assert table.with_id(-1) is None


FEW = st.sampled_from([b"/", b"/a", b"/a b", b"/a\\b", b"/a#", b"/\xff", b"/a/b", b"ext4"])


@given(st.lists(st.tuples(FEW, FEW, FEW), max_size=8), FEW)
def test_one_place_is_read_alone_as_the_whole_table_has_it(
    mounts: list[tuple[bytes, bytes, bytes]], wanted: bytes
) -> None:
    lines = [
        b"%d %d 7:1 %s %s rw - ext4 %s rw\n" % (number, number - 1, escaped(root), escaped(place), escaped(source))
        for number, (root, place, source) in enumerate(mounts, 10)
    ]
    table, place = b"".join(lines), Path(os.fsdecode(wanted))
    assert mount_table.parsed_at(table, place) == parsed(table).at(place)
