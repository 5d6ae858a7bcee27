"""The configuration file: what it may say, and how it is told what it may not."""

from __future__ import annotations

import copy
import os
from fractions import Fraction
from pathlib import Path

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from ullage.config import Config, load, parse
from ullage.errors import ConfigError
from ullage.model import (
    DeviceClass,
    DeviceClassName,
    DeviceType,
    Layout,
    LayoutKind,
    Scoring,
    SnapshotPolicy,
    ThinPoolPolicy,
    Wipe,
)

EXAMPLE = Path(__file__).parents[2] / "deploy" / "examples" / "config.yaml"
KINDS = "linear, striped, raid1, raid5, raid6, raid10"
STRIPING = "striped, raid5, raid6, raid10"
CLASS_FIELDS = (
    "name, type, volumeGroups, thinPool, directory, sparse, reserve, layout, snapshots, wipe, copyRate, "
    "scoring, mkfsOptions, nodeSelector, default"
)


def one_class(fields: str) -> str:
    """A file with one class of the kind `thick` that also has these fields (in YAML's flow style)."""
    return f"deviceClasses: [{{name: a, type: thick, volumeGroups: [vg0], {fields}}}]"


def thin(fields: str) -> str:
    return f"deviceClasses: [{{name: a, type: thin, volumeGroups: [vg0], thinPool: {{name: p, {fields}}}}}]"


def refused(text: str) -> list[str]:
    """What the file is told, without the file's name that every line must begin with."""
    with pytest.raises(ConfigError) as error:
        parse(text, "classes.yaml")
    lines = str(error.value).split("\n")
    assert all(line.startswith("classes.yaml: ") for line in lines)
    return [line.removeprefix("classes.yaml: ") for line in lines]


def only_class(text: str) -> DeviceClass:
    (device_class,) = parse(text, "classes.yaml").device_classes
    return device_class


def test_the_example_reads_as_it_says() -> None:
    fast, safe, scratch, thin_class, files = load(EXAMPLE).device_classes
    assert fast.volume_groups == ("nvme*",)
    assert fast.is_default
    assert fast.reserve_bytes == 10 << 30
    assert fast.mkfs_options == (("ext4", ("-m", "0")), ("xfs", ("-K",)))
    assert safe.layout == Layout(kind=LayoutKind.RAID1, mirrors=1, integrity=True)
    assert fast.scoring is Scoring.SPREAD
    assert safe.wipe is Wipe.ZERO
    assert scratch.layout == Layout(kind=LayoutKind.STRIPED, stripes=3, stripe_size_bytes=256 << 10)
    assert thin_class.thin_pool == ThinPoolPolicy(
        name="pool0", overprovision_ratio=Fraction(3, 2), create_size_bytes=200 << 30
    )
    assert files.type is DeviceType.FILE
    assert files.directory == "/var/lib/ullage/files"


def test_what_is_left_out_is_the_models_default() -> None:
    assert only_class("deviceClasses: [{name: a, type: thick, volumeGroups: [vg0]}]") == DeviceClass(
        name=DeviceClassName("a"), type=DeviceType.THICK, volume_groups=("vg0",), wipe=Wipe.DISCARD
    )


def test_snapshots_get_all_their_room_unless_their_class_says_less() -> None:
    assert only_class(one_class("")).snapshots == SnapshotPolicy(size_percent=100, grow_at_percent=70)
    assert only_class(one_class("snapshots: {sizePercent: 20}")).snapshots == SnapshotPolicy(size_percent=20)
    assert only_class(one_class("snapshots: {sizePercent: 20, growAtPercent: 50}")).snapshots == SnapshotPolicy(
        size_percent=20, grow_at_percent=50
    )


@pytest.mark.parametrize("scoring", Scoring)
def test_a_class_says_which_node_is_best_for_its_volumes(scoring: Scoring) -> None:
    assert only_class(one_class(f"scoring: {scoring}")).scoring is scoring
    assert only_class(one_class("")).scoring is Scoring.SPREAD


@pytest.mark.parametrize(
    ("spec", "layout"),
    [
        ("kind: linear", Layout()),
        ("kind: striped", Layout(kind=LayoutKind.STRIPED, stripes=2)),
        ("kind: raid1", Layout(kind=LayoutKind.RAID1, mirrors=1)),
        ("kind: raid5", Layout(kind=LayoutKind.RAID5, stripes=2)),
        ("kind: raid6", Layout(kind=LayoutKind.RAID6, stripes=3)),
        ("kind: raid10", Layout(kind=LayoutKind.RAID10, stripes=2, mirrors=1)),
        ("kind: raid1, mirrors: 9, integrity: true", Layout(kind=LayoutKind.RAID1, mirrors=9, integrity=True)),
        ("kind: striped, stripes: 5", Layout(kind=LayoutKind.STRIPED, stripes=5)),
        ("kind: raid5, stripeSize: 1Mi", Layout(kind=LayoutKind.RAID5, stripes=2, stripe_size_bytes=1 << 20)),
        ("kind: raid5, stripeSize: 4096", Layout(kind=LayoutKind.RAID5, stripes=2, stripe_size_bytes=4096)),
    ],
)
def test_a_layout_is_resolved_by_its_kind(spec: str, layout: Layout) -> None:
    assert only_class(one_class(f"layout: {{{spec}}}")).layout == layout


@pytest.mark.parametrize(
    ("ratio", "exact"),
    [
        ("1", Fraction(1)),
        ("1.5", Fraction(3, 2)),
        ("'1.5'", Fraction(3, 2)),
        ("1.1", Fraction(11, 10)),
        ("1.000000001", 1 + Fraction(1, 10**9)),
        ("2.", Fraction(2)),
        ("1000", Fraction(1000)),
    ],
)
def test_a_ratio_is_the_decimal_that_was_written(ratio: str, exact: Fraction) -> None:
    pool = only_class(thin(f"overprovisionRatio: {ratio}")).thin_pool
    assert pool is not None
    assert pool.overprovision_ratio == exact


@pytest.mark.parametrize(
    ("reserve", "size_bytes"),
    [("0", 0), ("5", 5), ("10Gi", 10 << 30), ("'5'", 5), ("1e3", 1000), ("1.5Gi", 3 << 29), ("010", 10), ("+1", 1)],
)
def test_a_size_is_a_number_or_a_quantity_and_never_octal(reserve: str, size_bytes: int) -> None:
    assert only_class(one_class(f"reserve: {reserve}")).reserve_bytes == size_bytes


def test_a_disk_class_is_understood() -> None:
    assert only_class("deviceClasses: [{name: a, type: disk}]").type is DeviceType.DISK


def test_no_classes_are_no_fault() -> None:
    assert parse("deviceClasses: []", "x") == Config(device_classes=())


def test_anchors_and_merge_keys_work() -> None:
    text = """
deviceClasses:
  - &base {name: a, type: thick, volumeGroups: &groups [vg0], reserve: 1Gi}
  - {<<: *base, name: b, reserve: 2Gi}
  - {name: c, type: thick, volumeGroups: *groups}
"""
    classes = parse(text, "x").device_classes
    assert [(c.name, c.reserve_bytes, c.volume_groups) for c in classes] == [
        ("a", 1 << 30, ("vg0",)),
        ("b", 2 << 30, ("vg0",)),
        ("c", 0, ("vg0",)),
    ]


def test_a_directory_is_normalized() -> None:
    text = "deviceClasses: [{name: a, type: file, directory: //srv/./volumes/, sparse: true}]"
    assert only_class(text).directory == "/srv/volumes"


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("", ["is empty; a mapping with the field deviceClasses is needed"]),
        ("# nothing\n", ["is empty; a mapping with the field deviceClasses is needed"]),
        ("- a", ["a list is not allowed; a mapping with the fields: deviceClasses"]),
        ("5", ["5 (a number) is not allowed; a mapping with the fields: deviceClasses"]),
        ("{}", ["deviceClasses: is missing; a list of device classes"]),
        ("deviceClasses:", ["deviceClasses: nothing is not allowed; a list of device classes"]),
        ("deviceClasses: {}", ["deviceClasses: a mapping is not allowed; a list of device classes"]),
        (
            "deviceclasses: []",
            [
                "deviceclasses: there is no such field; did you mean deviceClasses? The fields are: deviceClasses",
                "deviceClasses: is missing; a list of device classes",
            ],
        ),
        (
            "deviceClasses: [5]",
            [f"deviceClasses[0]: 5 (a number) is not allowed; a mapping with the fields: {CLASS_FIELDS}"],
        ),
        (
            "deviceClasses: [{}]",
            [
                "deviceClasses[0].name: is missing; a name such as fast-nvme",
                "deviceClasses[0].type: is missing; one of: thick, thin, disk, file",
            ],
        ),
        (
            "deviceClasses: [{name: a, type: Thick}]",
            ["deviceClasses[0].type: 'Thick' is not allowed; one of: thick, thin, disk, file"],
        ),
        (
            one_class("volume_group: x"),
            [
                (
                    "deviceClasses[0].volume_group: there is no such field; did you mean volumeGroups? "
                    f"The fields are: {CLASS_FIELDS}"
                )
            ],
        ),
        (
            one_class("zzz: x"),
            [f"deviceClasses[0].zzz: there is no such field; The fields are: {CLASS_FIELDS}"],
        ),
        (
            one_class("wipe: always"),
            ["deviceClasses[0].wipe: 'always' is not allowed; one of: none, signatures, discard, zero"],
        ),
        (
            one_class("scoring: most"),
            ["deviceClasses[0].scoring: 'most' is not allowed; one of: spread, binpack, balanced"],
        ),
        (
            one_class("wipe: null"),
            ["deviceClasses[0].wipe: nothing is not allowed; one of: none, signatures, discard, zero"],
        ),
        (
            one_class("default: 'yes'"),
            ["deviceClasses[0].default: 'yes' is not allowed; true or false"],
        ),
        (one_class("default: 1"), ["deviceClasses[0].default: 1 (a number) is not allowed; true or false"]),
        (
            one_class("reserve: -1"),
            ["deviceClasses[0].reserve: -1 (a number) is negative; a size is at least 0"],
        ),
        (
            one_class("layout: {kind: raid7}"),
            [f"deviceClasses[0].layout.kind: 'raid7' is not allowed; one of: {KINDS}"],
        ),
        (one_class("layout: {}"), [f"deviceClasses[0].layout.kind: is missing; one of: {KINDS}"]),
        (
            one_class("layout: raid1"),
            [
                (
                    "deviceClasses[0].layout: 'raid1' is not allowed; "
                    "a mapping with the fields: kind, stripes, stripeSize, mirrors, integrity"
                )
            ],
        ),
        (
            one_class("layout: {kind: linear, stripes: 1, mirrors: 1, stripeSize: 64Ki, integrity: true}"),
            [
                f"deviceClasses[0].layout.stripes: a linear layout has no stripes; allowed for: {STRIPING}",
                "deviceClasses[0].layout.mirrors: a linear layout has no mirrors; allowed for: raid1, raid10",
                f"deviceClasses[0].layout.stripeSize: a linear layout has no stripes; allowed for: {STRIPING}",
                (
                    "deviceClasses[0].layout.integrity: a linear layout has no integrity; "
                    "allowed for: raid1, raid5, raid6, raid10"
                ),
            ],
        ),
        (
            one_class("layout: {kind: striped, stripes: 1, integrity: true}"),
            [
                "deviceClasses[0].layout.stripes: 1 (a number) is not allowed; for striped from 2 to 128",
                (
                    "deviceClasses[0].layout.integrity: a striped layout has no integrity; "
                    "allowed for: raid1, raid5, raid6, raid10"
                ),
            ],
        ),
        (
            one_class("layout: {kind: raid1, mirrors: 10, stripes: 2}"),
            [
                f"deviceClasses[0].layout.stripes: a raid1 layout has no stripes; allowed for: {STRIPING}",
                "deviceClasses[0].layout.mirrors: 10 (a number) is not allowed; for raid1 from 1 to 9",
            ],
        ),
        (
            one_class("layout: {kind: raid1, mirrors: 0}"),
            ["deviceClasses[0].layout.mirrors: 0 (a number) is not allowed; for raid1 from 1 to 9"],
        ),
        (
            one_class("layout: {kind: raid6, stripes: 2}"),
            ["deviceClasses[0].layout.stripes: 2 (a number) is not allowed; for raid6 from 3 to 62"],
        ),
        (
            one_class("layout: {kind: raid10, mirrors: 2}"),
            ["deviceClasses[0].layout.mirrors: 2 (a number) is not allowed; for raid10 only 1"],
        ),
        (
            one_class("layout: {kind: raid5, stripes: true}"),
            ["deviceClasses[0].layout.stripes: true (a boolean) is not allowed; a whole number"],
        ),
        (
            one_class("layout: {kind: raid5, stripes: 2.0}"),
            ["deviceClasses[0].layout.stripes: 2.0 (a number) is not allowed; a whole number"],
        ),
        (
            one_class(f"layout: {{kind: raid5, stripes: {10**30}}}"),
            [f"deviceClasses[0].layout.stripes: {10**30} (a number) is not allowed; for raid5 from 2 to 63"],
        ),
        (
            one_class("layout: {kind: striped, stripeSize: 6Ki}"),
            ["deviceClasses[0].layout.stripeSize: 6Ki is not allowed; a power of two of at least 4Ki"],
        ),
        (
            one_class("layout: {kind: striped, stripeSize: 0}"),
            ["deviceClasses[0].layout.stripeSize: 0 is not allowed; a power of two of at least 4Ki"],
        ),
        (
            "deviceClasses: [{name: a, type: thick}]",
            [
                (
                    "deviceClasses[0].volumeGroups: is missing; "
                    "a class of type thick needs at least one volume group's name or glob"
                )
            ],
        ),
        (
            "deviceClasses: [{name: a, type: thin, volumeGroups: []}]",
            [
                (
                    "deviceClasses[0].volumeGroups: is empty; "
                    "a class of type thin needs at least one volume group's name or glob"
                ),
                "deviceClasses[0].thinPool: is missing; a class of type thin needs its thin pool",
            ],
        ),
        (
            "deviceClasses: [{name: a, type: file}]",
            ["deviceClasses[0].directory: is missing; a class of type file needs the absolute path of a directory"],
        ),
        (
            (
                "deviceClasses: [{name: a, type: disk, volumeGroups: [a], "
                "directory: /a, sparse: true, layout: {kind: raid1}}]"
            ),
            [
                "deviceClasses[0].volumeGroups: is not for a class of type disk; only for type thick or thin",
                "deviceClasses[0].directory: is not for a class of type disk; only for type file",
                "deviceClasses[0].sparse: is not for a class of type disk; only for type file",
                "deviceClasses[0].layout: is not for a class of type disk; only for type thick",
            ],
        ),
        (
            one_class("thinPool: {name: p, overprovisionRatio: 1}"),
            ["deviceClasses[0].thinPool: is not for a class of type thick; only for type thin"],
        ),
        (
            one_class("snapshots: {sizePercent: 101, growAtPercent: 96}"),
            [
                "deviceClasses[0].snapshots.sizePercent: 101 (a number) is not allowed; a whole number from 1 to 100",
                "deviceClasses[0].snapshots.growAtPercent: 96 (a number) is not allowed; a whole number from 1 to 95",
            ],
        ),
        (
            "deviceClasses: [{name: a, type: file, directory: /a, snapshots: {}}]",
            ["deviceClasses[0].snapshots: is not for a class of type file; only for type thick"],
        ),
        (
            thin("overprovisionRatio: 1, dataGuardPercent: 0, metadataGuardPercent: 101"),
            [
                "deviceClasses[0].thinPool.dataGuardPercent: 0 (a number) is not allowed; a whole number from 1 to 100",
                (
                    "deviceClasses[0].thinPool.metadataGuardPercent: "
                    "101 (a number) is not allowed; a whole number from 1 to 100"
                ),
            ],
        ),
        (
            thin("createSize: 1Gi"),
            ["deviceClasses[0].thinPool.overprovisionRatio: is missing; a decimal number from 1 to 1000 such as 1.5"],
        ),
        (
            "deviceClasses: [{name: a, type: thick, volumeGroups: vg0}]",
            ["deviceClasses[0].volumeGroups: 'vg0' is not allowed; a list"],
        ),
        (
            "deviceClasses: [{name: a, type: thick, volumeGroups: [vg0, 5]}]",
            [
                (
                    "deviceClasses[0].volumeGroups[1]: "
                    "5 (a number) is not allowed; text (a number or a boolean needs quotes)"
                )
            ],
        ),
        (
            one_class("mkfsOptions: {ext4: [-m, 0]}"),
            [
                (
                    "deviceClasses[0].mkfsOptions.ext4[1]: "
                    "0 (a number) is not allowed; text (a number or a boolean needs quotes)"
                )
            ],
        ),
        (
            one_class("mkfsOptions: {ext4: -m}"),
            ["deviceClasses[0].mkfsOptions.ext4: '-m' is not allowed; a list"],
        ),
        (
            one_class("mkfsOptions: {../ext4: []}"),
            [
                (
                    "deviceClasses[0].mkfsOptions['../ext4']: "
                    "'../ext4' is not allowed; a file system's name such as ext4, xfs or btrfs"
                )
            ],
        ),
        (
            one_class("nodeSelector: {disk: true}"),
            [
                (
                    "deviceClasses[0].nodeSelector.disk: "
                    "true (a boolean) is not allowed; text (a number or a boolean needs quotes)"
                )
            ],
        ),
        (one_class("nodeSelector: []"), ["deviceClasses[0].nodeSelector: a list is not allowed; a mapping"]),
    ],
)
def test_a_fault_names_its_place_what_was_found_and_what_is_allowed(text: str, lines: list[str]) -> None:
    assert refused(text) == lines


@pytest.mark.parametrize(
    "ratio", ["0.999", "0", "-2", "1001", "true", "1e3", "'3/2'", "' 2'", ".inf", ".nan", "1_5", "[2]"]
)
def test_a_ratio_below_one_or_no_decimal_is_refused(ratio: str) -> None:
    (line,) = refused(thin(f"overprovisionRatio: {ratio}"))
    assert line.startswith("deviceClasses[0].thinPool.overprovisionRatio: ")
    assert line.endswith(" is not allowed; a decimal number from 1 to 1000 such as 1.5")


@pytest.mark.parametrize("reserve", ["10GB", "0x10", "1:30", "1_000", "1.5", "true", "[]", "8Ei", "1" * 30, "1" * 5000])
def test_a_size_that_is_none_is_refused_with_the_grammar(reserve: str) -> None:
    (line,) = refused(one_class(f"reserve: {reserve}"))
    assert line.startswith("deviceClasses[0].reserve: ")
    assert "; allowed: " in line
    assert len(line) < 500


@pytest.mark.parametrize("directory", ["volumes", "/srv/../etc", "/", "//", '"/a\\nb"', "''", "/" + "x" * 5000])
def test_a_directory_is_absolute_and_stays_where_it_says(directory: str) -> None:
    (line,) = refused(f"deviceClasses: [{{name: a, type: file, directory: {directory}}}]")
    assert line.startswith("deviceClasses[0].directory: ")
    assert line.endswith("is not allowed; an absolute path below /, without '..' and control characters")


@pytest.mark.parametrize("name", ["A", "a.b", "-a", "a_b", "x" * 64, "''"])
def test_a_class_name_is_a_label(name: str) -> None:
    (line,) = refused(f"deviceClasses: [{{name: {name}, type: disk}}]")
    assert line.startswith("deviceClasses[0].name: ")
    assert "allowed: 1 to 63 characters of a-z, 0-9 and '-'" in line


def test_lvm_names_are_checked_where_they_stand() -> None:
    lines = refused(
        """
deviceClasses:
  - {name: a, type: thin, volumeGroups: [ok, ../x], thinPool: {name: x_tdata, overprovisionRatio: 1}}
"""
    )
    assert [line.split(" ")[0] for line in lines] == [
        "deviceClasses[0].volumeGroups[1]:",
        "deviceClasses[0].thinPool.name:",
    ]


def test_classes_are_told_apart_by_name_and_only_one_is_the_default() -> None:
    text = """
deviceClasses:
  - {name: a, type: disk, default: true}
  - {name: b, type: disk}
  - {name: a, type: disk, default: true}
"""
    assert refused(text) == [
        "deviceClasses[2].name: 'a' is already the name of deviceClasses[0]; each class needs its own",
        "deviceClasses[2].default: deviceClasses[0] is the default already; at most one class can be",
    ]


def test_two_classes_cannot_disagree_about_one_directory() -> None:
    text = """
deviceClasses:
  - {name: a, type: file, directory: /srv/files}
  - {name: b, type: file, directory: /srv/files/, sparse: true}
  - {name: c, type: file, directory: /srv/other, sparse: true}
"""
    assert refused(text) == [
        (
            "deviceClasses[1].sparse: differs from deviceClasses[0].sparse, and both have the directory '/srv/files'; "
            "make them alike"
        )
    ]
    assert len(parse(text.replace("sparse: true", "sparse: false"), "x").device_classes) == 3


@pytest.mark.parametrize(("group", "is_shared"), [("vg0", True), ("vg*", True), ("vg[0-3]", True), ("vg1", False)])
def test_two_classes_cannot_disagree_about_one_thin_pool(group: str, is_shared: bool) -> None:  # noqa: FBT001
    text = f"""
deviceClasses:
  - {{name: a, type: thin, volumeGroups: [vg0], thinPool: {{name: p, overprovisionRatio: 2}}}}
  - {{name: b, type: thin, volumeGroups: ["{group}"], thinPool: {{name: p, overprovisionRatio: 1.5}}}}
  - {{name: c, type: thin, volumeGroups: [vg0], thinPool: {{name: q, overprovisionRatio: 3}}}}
"""
    if is_shared:
        assert refused(text) == [
            (
                "deviceClasses[1].thinPool.overprovisionRatio: "
                "differs from deviceClasses[0].thinPool.overprovisionRatio, "
                "and both can mean the thin pool 'p'; make them alike"
            )
        ]
    else:
        assert len(parse(text, "x").device_classes) == 3


def test_all_faults_of_a_file_are_told_at_once() -> None:
    text = """
deviceClasses:
  - {name: a, type: thick, wipe: no-such}
  - {name: b, type: thick}
  - {name: b, type: thin, volumeGroups: [vg0]}
more: 1
"""
    assert [line.split(" ")[0] for line in refused(text)] == [
        "more:",
        "deviceClasses[0].wipe:",
        "deviceClasses[1].volumeGroups:",
        "deviceClasses[2].thinPool:",
        "deviceClasses[2].name:",
    ]


def test_the_thousandth_fault_is_only_counted() -> None:
    lines = refused("deviceClasses: [" + "5, " * 1000 + "]")
    assert len(lines) == 51
    assert lines[-1] == "and 950 more"


def test_a_key_given_twice_is_a_fault_and_not_the_last_one() -> None:
    text = "deviceClasses:\n- name: a\n  type: disk\n  name: b\n"
    assert refused(text) == [
        (
            "deviceClasses[0].name: line 4, column 3: the key is there already, in line 2, column 3; "
            "each key may be given once"
        )
    ]


@pytest.mark.parametrize(
    ("text", "beginning"),
    [
        ("deviceClasses: [", "line 1, column 17: not valid YAML: "),
        ("deviceClasses:\n  - name: a: b\n", "line 2, column 12: not valid YAML: mapping values are not allowed here"),
        ("a: 1\n\tb: 2\n", "line 2, column 1: not valid YAML: "),
        ("a: 1\n---\nb: 2\n", "line 2, column 1: not valid YAML: expected a single document"),
        ("a: *x", "line 1, column 4: not valid YAML: found undefined alias"),
        ("a: 1\nb: \x07\n", "line 2, column 4: not valid YAML: special characters are not allowed"),
        ('a: "\\UFFFFFFFF"', "not valid YAML: an escape is out of range"),
        ("[" * 10000, "not valid YAML: nested too deeply"),
        ("[a]: b", "line 1, column 1: a key must be text"),
        ("deviceClasses: !!binary aGk=", "deviceClasses: line 1, column 16: the tag 'tag:yaml.org,2002:binary' is not"),
        ("deviceClasses: !!python/name:os.system x", "deviceClasses: line 1, column 16: the tag "),
        ("deviceClasses: !!set {a}", "deviceClasses: line 1, column 16: the tag 'tag:yaml.org,2002:set' is not used"),
        ("deviceClasses: &a [*a]", "deviceClasses[0]: line 1, column 16: contains itself"),
        ("<<: 5", "line 1, column 1: '<<' takes a mapping or a list of mappings, not 5 (a number)"),
    ],
)
def test_what_is_not_yaml_is_shown_by_line_and_column(text: str, beginning: str) -> None:
    assert refused(text)[0].startswith(beginning)


def test_ten_levels_of_aliases_do_not_explode() -> None:
    layers = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    layers += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 30)]
    assert len(refused("\n".join(layers))) == 31


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"classes.yaml: there is no such file"):
        load(tmp_path / "classes.yaml")


def test_a_directory_is_not_a_file(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^{tmp_path}: is a directory"):
        load(tmp_path)


def test_a_file_that_is_no_text_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.write_bytes(b"a: 1\nb: \xff\n")
    with pytest.raises(ConfigError, match="line 2: is not UTF-8 at byte 8"):
        load(path)


def test_a_file_without_end_is_not_read_to_its_end() -> None:
    with pytest.raises(ConfigError, match=r"^/dev/zero: is larger than 1Mi"):
        load(Path("/dev/zero"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "classes.yaml"
    path.touch(mode=0)
    with pytest.raises(ConfigError, match=r"classes.yaml: cannot be read: Permission denied"):
        load(path)


scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=20), st.dates(), st.binary(max_size=5)
)
wrong_values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
)


def places(tree: object, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Every member of every mapping and list, by the steps that lead to it."""
    members = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    return [place for key, value in members for place in [(*path, key), *places(value, (*path, key))]]


def parses_or_says_where(text: str) -> None:
    try:
        assert isinstance(parse(text, "classes.yaml"), Config)
    except ConfigError as error:
        assert all(line.startswith("classes.yaml: ") for line in str(error).split("\n"))  # noqa: PT017


@given(st.data())
def test_any_mutation_of_a_valid_file_parses_or_says_where_it_is_wrong(data: st.DataObject) -> None:
    tree = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))
    for _ in range(data.draw(st.integers(1, 3))):
        *steps, last = data.draw(st.sampled_from(places(tree) or [("deviceClasses",)]))
        parent = tree
        for key in steps:
            parent = parent[key]
        match data.draw(st.sampled_from(["drop", "change", "add", "move"])):
            case "drop":
                parent.pop(last, None) if isinstance(parent, dict) else parent.pop(last)
            case "change":
                parent[last] = data.draw(wrong_values)
            case "add" if isinstance(parent, dict):
                parent[data.draw(st.text(max_size=10))] = data.draw(wrong_values)
            case _:
                parent[last] = copy.deepcopy(tree)
    parses_or_says_where(yaml.safe_dump(tree, allow_unicode=True))


@given(st.data())
def test_any_slip_of_the_pen_in_a_valid_file_parses_or_says_where_it_is_wrong(data: st.DataObject) -> None:
    text = EXAMPLE.read_text()
    start = data.draw(st.integers(0, len(text)))
    length = data.draw(st.integers(0, 30))
    slip = data.draw(st.text(max_size=5) | st.text("[]{}&*!|>'\"%@`,:-?#\t\n <", max_size=8))
    parses_or_says_where(text[:start] + slip + text[start + length :])


@given(st.text())
def test_any_text_parses_or_says_where_it_is_wrong(text: str) -> None:
    parses_or_says_where(text)
