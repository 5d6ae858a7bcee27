"""Specs of device classes, right ones and wrong ones, as a person might write them.

Left out is where the API server knowingly differs from the configuration file (docs/objects.md): nulls, which it takes
for absent; ratios as text; whole numbers with a point; sizes in spellings that nobody uses.
"""

from __future__ import annotations

from typing import Any

from hypothesis import strategies as st

NAMES = st.sampled_from(["fast", "a", "fast-nvme-2", "x" * 63, "9"])
TEXTS = st.text(alphabet="/.a0Z-_ +*é\n\t\u200b\u00a0'\"\\", max_size=12)
WRONG_TYPES = st.sampled_from([True, 7, -1, "text", "", [], ["a"], {}, {"a": "b"}, 1.5])
SIZES = st.one_of(
    st.sampled_from(
        [0, 1, 4096, 1 << 30, 1 << 62, "0", "10Gi", "1.5Ti", "500M", "1e3", "010", "+1", "1m", "7Ei", "0Gi"]
    ),
    st.integers(0, 1 << 62),
    st.from_regex(r"[0-9]{1,6}([.][0-9]{0,3})?([KMGT]i|[kMGT])?", fullmatch=True),
)
WRONG_SIZES = st.one_of(
    st.sampled_from([-1, "-1", "10GB", "0x10", "8Ei", "9E9E", "1e19", "12E", "1 Gi", ".", "+", "e5", "", "1.2.3", 1.5]),
    TEXTS,
)
PATTERNS = st.sampled_from(["vg0", "nvme*", "[a-c]x", "[!a]?", "a.b+c_d", "...", "x" * 100, "*"])
WRONG_PATTERNS = st.one_of(st.sampled_from([".", "..", "-x", "a/b", "", "x" * 101, "[", "[]", "a b"]), TEXTS)
PERCENTS = st.integers(1, 95)
WRONG_PERCENTS = st.sampled_from([0, -1, 96, 100, 101, 1000])
RATIOS = st.one_of(
    st.sampled_from([1, 1.5, 1000, 1.1, 2, 1.000000001, 999.999999999, 1.3]),
    st.integers(10**9, 10**12).map(lambda billionths: billionths / 10**9),
)
WRONG_RATIOS = st.sampled_from([0, 0.999, 1001, -2, 1000.5, 1.0000000001])
POOL_NAMES = st.sampled_from(["pool0", "_x", "a+b", "p.q-r"])
WRONG_POOL_NAMES = st.one_of(st.sampled_from(["snapshot1", "pvmove", "x_tdata", "-p", ".", "..", "", "x" * 101]), TEXTS)
DIRECTORIES = st.sampled_from(["/srv", "/srv/./x/", "//a", "/...", "/a..b", "/é", "/a b"])
WRONG_DIRECTORIES = st.one_of(
    st.sampled_from(["srv", "/", "//", "/.", "/srv/..", "/../a", "", "/a\nb", "/\u200b"]), TEXTS
)
KINDS = st.sampled_from(["linear", "striped", "raid1", "raid5", "raid6", "raid10"])
COUNTS = st.integers(-1, 130)
STRIPE_SIZES = st.sampled_from([4096, "4096", "64Ki", "1Mi", 65536, 1 << 40, 4095, "6Ki", 0, "2Ki", 1 << 11, "4.0Ki"])
FILE_SYSTEMS = st.sampled_from(["ext4", "xfs", "btrfs", "Ext4", "../x", "", "x" * 33])
OPTIONS = st.one_of(st.sampled_from(["-m", "0", "-K", "a b"]), st.sampled_from(["", "a\n", "\u00a0"]))
LABEL_KEYS = st.sampled_from(
    ["disk", "a.b/c", "node.kubernetes.io/instance-type", "-x", "a/b/c", "/x", "A/b", "x" * 64]
)
LABEL_VALUES = st.sampled_from(["", "ssd", "A_b.c", "-x", "x" * 64, "a b"])


def mostly(right: st.SearchStrategy[Any], wrong: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Wrong once in a while, so that not every spec is."""
    return st.integers(0, 19).flatmap(lambda number: wrong if number == 0 else right)


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of the fields, few at a time."""
    return st.lists(st.sampled_from(sorted(fields)), max_size=3, unique=True).flatmap(
        lambda names: st.fixed_dictionaries({name: fields[name] for name in names})
    )


def joined(*parts: st.SearchStrategy[dict[str, Any]]) -> st.SearchStrategy[dict[str, Any]]:
    return st.tuples(*parts).map(lambda found: {key: value for part in found for key, value in part.items()})


sizes = mostly(SIZES, WRONG_SIZES)
patterns = st.lists(mostly(PATTERNS, WRONG_PATTERNS), min_size=1, max_size=3)
percents = mostly(PERCENTS, WRONG_PERCENTS)
layouts = joined(
    st.fixed_dictionaries({"kind": mostly(KINDS, WRONG_TYPES)}),
    some({"stripes": COUNTS, "mirrors": COUNTS, "stripeSize": STRIPE_SIZES, "integrity": st.booleans()}),
)
thin_pools = joined(
    st.fixed_dictionaries(
        {"name": mostly(POOL_NAMES, WRONG_POOL_NAMES), "overprovisionRatio": mostly(RATIOS, WRONG_RATIOS)}
    ),
    some({"createSize": sizes, "dataGuardPercent": percents, "metadataGuardPercent": percents}),
)
of_all_types = {
    "reserve": sizes,
    "wipe": mostly(st.sampled_from(["none", "signatures", "discard", "zero"]), WRONG_TYPES),
    "scoring": mostly(st.sampled_from(["spread", "binpack", "balanced"]), WRONG_TYPES),
    "mkfsOptions": st.dictionaries(FILE_SYSTEMS, st.lists(OPTIONS, max_size=2), max_size=2),
    "nodeSelector": st.dictionaries(LABEL_KEYS, LABEL_VALUES, max_size=2),
    "default": mostly(st.booleans(), WRONG_TYPES),
}
snapshots = some({"sizePercent": percents, "growAtPercent": percents})
directories = mostly(DIRECTORIES, WRONG_DIRECTORIES)
anything = {
    **of_all_types,
    "volumeGroups": patterns,
    "thinPool": thin_pools,
    "directory": directories,
    "sparse": st.booleans(),
    "layout": layouts,
    "copyRate": sizes,
    "snapshots": snapshots,
    "volume_groups": patterns,
    "name": NAMES,
}
thick = joined(
    st.fixed_dictionaries({"type": st.just("thick"), "volumeGroups": patterns}),
    some({**of_all_types, "layout": layouts, "copyRate": sizes, "snapshots": snapshots}),
)
thin = joined(
    st.fixed_dictionaries({"type": st.just("thin"), "volumeGroups": patterns, "thinPool": thin_pools}),
    some(of_all_types),
)
file = joined(
    st.fixed_dictionaries({"type": st.just("file"), "directory": directories}),
    some({**of_all_types, "copyRate": sizes, "sparse": st.booleans()}),
)
disk = joined(st.just({"type": "disk"}), some(of_all_types))
wild = joined(
    st.fixed_dictionaries({"type": mostly(st.sampled_from(["thick", "thin", "file", "disk"]), WRONG_TYPES)}),
    some(anything),
    some(dict.fromkeys(anything, WRONG_TYPES)),
)
specs = st.one_of(thick, thin, file, disk, wild)
