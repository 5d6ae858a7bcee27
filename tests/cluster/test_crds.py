"""Device classes: what the API server lets through, and what it says of the rest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from urllib.parse import urlencode

import msgspec
import pytest
import yaml
from hypothesis import HealthCheck, event, given, settings

from tests.cluster.device_class_specs import NAMES, specs
from tests.rigs.cluster.api import Api, Json, Refusal
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.manifests import DEPLOY, install
from ullage.config import load
from ullage.device_class_spec import SHAPES
from ullage.errors import ConfigError
from ullage.kube.device_class import DeviceClassObject
from ullage.kube.meta import API_VERSION
from ullage.model import DeviceClass

OURS = "/apis/ullage.io/v1alpha1"
CLASSES = f"{OURS}/deviceclasses"
TRY = "?" + urlencode({"dryRun": "All", "fieldValidation": "Strict"})


@pytest.fixture(scope="module")
def admin(api_only: ControlPlane) -> Api:
    api = api_only.api()
    install(api)
    return api


def device_class(name: str, spec: Json) -> Json:
    return {"apiVersion": API_VERSION, "kind": "DeviceClass", "metadata": {"name": name}, "spec": spec}


def refused(api: Api, path: str, thing: Json) -> str:
    """What the API server says of an object that it does not take."""
    with pytest.raises(Refusal) as refusal:
        api.create(f"{path}{TRY}", thing)
    return refusal.value.message


def thick(**fields: object) -> Json:
    return {"type": "thick", "volumeGroups": ["vg0"], **fields}


def thin(**fields: object) -> Json:
    return {"type": "thin", "volumeGroups": ["vg0"], "thinPool": {"name": "p", "overprovisionRatio": 1.5, **fields}}


STRIPING = "striped, raid5, raid6, raid10"
NONSENSE: list[tuple[Json, str]] = [
    ({**thin(), "volumeGroups": []}, "is missing; a class of type thin needs at least one volume group's name or glob"),
    (thick(thinPool=thin()["thinPool"]), "is not for a class of type thick; only for type thin"),
    ({}, "spec.type: Required value"),
    ({"type": "Thick"}, 'spec.type: Unsupported value: "Thick": supported values: "thick", "thin", "disk", "file"'),
    (
        {"type": "thick"},
        "spec.volumeGroups: Invalid value: is missing; a class of type thick needs at least one volume",
    ),
    (
        {"type": "thin", "volumeGroups": ["a"]},
        "spec.thinPool: Invalid value: is missing; a class of type thin needs its thin pool",
    ),
    ({"type": "file"}, "spec.directory: Invalid value: is missing; a class of type file needs the absolute path"),
    (
        {"type": "disk", "volumeGroups": ["a"]},
        "spec.volumeGroups: Invalid value: is not for a class of type disk; only",
    ),
    (thick(sparse=True), "spec.sparse: Invalid value: is not for a class of type thick; only for type file"),
    (thick(directory="/a"), "spec.directory: Invalid value: is not for a class of type thick; only for type file"),
    (
        {**thin(), "copyRate": "1Mi"},
        "spec.copyRate: Invalid value: is not for a class of type thin; only for type thick or",
    ),
    (
        {**thin(), "layout": {"kind": "raid1"}},
        "spec.layout: Invalid value: is not for a class of type thin; only for type",
    ),
    (
        {**thin(), "snapshots": {}},
        "spec.snapshots: Invalid value: is not for a class of type thin; only for type thick",
    ),
    (thick(volume_groups=["a"]), 'unknown field "spec.volume_groups"'),
    (thick(name="a"), 'unknown field "spec.name"'),
    (
        {"type": "thick", "volumeGroups": ["../x"]},
        'spec.volumeGroups[0]: Invalid value: "../x": cannot name volume groups;',
    ),
    (
        thick(reserve="10GB"),
        'spec.reserve: Invalid value: "10GB": is not a size of at least 0 and less than 8Ei; allowed:',
    ),
    (thick(reserve=-1), "spec.reserve: Invalid value: -1: is not a size of at least 0"),
    (thick(copyRate="fast"), 'spec.copyRate: Invalid value: "fast": is not a size'),
    (thin(createSize="-1Gi"), 'spec.thinPool.createSize: Invalid value: "-1Gi": is not a size'),
    (thick(reserve="8Ei"), 'spec.reserve: Invalid value: "8Ei": is not a size'),
    (thick(reserve="1e999999999"), "is not a size"),
    (thick(copyRate="1e999999999"), "is not a size"),
    (thick(layout={"kind": "striped", "stripeSize": "1e999999999"}), "a power of two of at least 4Ki"),
    (
        thick(layout={"kind": "striped", "stripeSize": -4096}),
        "spec.layout.stripeSize: Invalid value: -4096: is not a size",
    ),
    (thick(reserve=True), "spec.reserve in body must be of type integer,string"),
    (thick(wipe="always"), 'spec.wipe: Unsupported value: "always": supported values: "none", "signatures", "discard"'),
    (
        thick(scoring="most"),
        'spec.scoring: Unsupported value: "most": supported values: "spread", "binpack", "balanced"',
    ),
    (thick(layout={"kind": "raid7"}), 'spec.layout.kind: Unsupported value: "raid7"'),
    (thick(layout={"kind": "linear", "stripes": 2}), f"a linear layout has no stripes; allowed for: {STRIPING}"),
    (thick(layout={"kind": "linear", "mirrors": 1}), "a linear layout has no mirrors; allowed for: raid1, raid10"),
    (thick(layout={"kind": "raid1", "stripeSize": 4096}), f"a raid1 layout has no stripes; allowed for: {STRIPING}"),
    (
        thick(layout={"kind": "striped", "integrity": True}),
        "a striped layout has no integrity; allowed for: raid1, raid5",
    ),
    (
        thick(layout={"kind": "raid6", "stripes": 2}),
        "spec.layout.stripes: Invalid value: is not allowed; for raid6 from 3 to",
    ),
    (
        thick(layout={"kind": "raid10", "mirrors": 2}),
        "spec.layout.mirrors: Invalid value: is not allowed; for raid10 only 1",
    ),
    (thick(layout={"kind": "raid5", "stripeSize": "6Ki"}), "is not allowed; a power of two of at least 4Ki"),
    (thick(snapshots={"growAtPercent": 96}), "spec.snapshots.growAtPercent in body should be less than or equal to 95"),
    (thin(name="x_tdata"), 'spec.thinPool.name: Invalid value: "x_tdata": cannot name a thin pool; allowed: 1 to 100'),
    (thin(overprovisionRatio=0.5), "0.5: is not allowed; a decimal number from 1 to 1000 such as 1.5"),
    (thin(overprovisionRatio="1.5"), 'overprovisionRatio in body must be of type number: "string"'),
    (thin(dataGuardPercent=101), "spec.thinPool.dataGuardPercent in body should be less than or equal to 100"),
    ({"type": "file", "directory": "/srv/../etc"}, '"/srv/../etc": is not allowed; an absolute path below /, without'),
    (thick(mkfsOptions={"../x": []}), "a key is not allowed; a file system's name such as ext4, xfs or btrfs"),
    (thick(mkfsOptions={"ext4": [""]}), "is not allowed; one printable argument of mkfs"),
    (thick(nodeSelector={"a/b/c": "x"}), "a key cannot be a label's key; allowed: up to 63 characters"),
    (thick(nodeSelector={"a": "-"}), 'spec.nodeSelector[a]: Invalid value: "-": cannot be a label\'s value; allowed:'),
]


@pytest.mark.parametrize(
    ("spec", "sentence"), NONSENSE, ids=lambda value: "" if isinstance(value, str) else str(value)[:60]
)
def test_a_class_that_is_nonsense_is_refused_with_a_sentence(admin: Api, spec: Json, sentence: str) -> None:
    assert sentence in refused(admin, CLASSES, device_class("fast", spec))


LIMITS = [
    (kind, field, limits)
    for kind, shape in SHAPES.items()
    for field, limits in (("stripes", shape.stripes), ("mirrors", shape.mirrors))
    if limits is not None
]


@pytest.mark.parametrize(("kind", "field", "limits"), LIMITS)
def test_a_layout_s_counts_have_the_limits_that_lvm_has(
    admin: Api, kind: str, field: str, limits: tuple[int, int, int]
) -> None:
    _, least, most = limits
    for count in (least, most):
        admin.create(f"{CLASSES}{TRY}", device_class("a", thick(layout={"kind": kind, field: count})))
    for count in (least - 1, most + 1):
        said = refused(admin, CLASSES, device_class("a", thick(layout={"kind": kind, field: count})))
        assert f"spec.layout.{field}: Invalid value: is not allowed; for {kind} " in said


def test_a_class_s_name_is_a_label(admin: Api) -> None:
    sentence = "the name cannot be a class's; allowed: 1 to 63 characters of a-z, 0-9 and '-'"
    for name in ("a.b", "x" * 64):
        assert sentence in refused(admin, CLASSES, device_class(name, {"type": "disk"}))


@pytest.fixture
def stored(admin: Api, request: pytest.FixtureRequest) -> Iterator[str]:
    """A class that is there."""
    admin.create(CLASSES, device_class("stored", request.param))
    yield f"{CLASSES}/stored"
    admin.delete(f"{CLASSES}/stored")


@pytest.mark.parametrize(
    ("stored", "change", "sentence"),
    [
        (thick(), {"type": "disk", "volumeGroups": None}, "is thick and stays so: there may be volumes of it"),
        ({"type": "file", "directory": "/a"}, {"directory": "/b"}, "is /a and stays so: there may be volumes of it"),
        (thin(), {"thinPool": {"name": "q"}}, "is p and stays so: there may be volumes of it; make another class"),
    ],
    indirect=["stored"],
)
def test_where_the_volumes_of_a_class_are_stays(admin: Api, stored: str, change: Json, sentence: str) -> None:
    with pytest.raises(Refusal) as refusal:
        admin.patch(stored, {"spec": change})
    assert sentence in refusal.value.message


@pytest.mark.parametrize("stored", [thick()], indirect=True)
def test_all_else_of_a_class_can_change(admin: Api, stored: str) -> None:
    change = thick(reserve="1Gi", layout={"kind": "raid1"}, wipe="zero", volumeGroups=["vg0", "vg1"])
    assert admin.patch(stored, {"spec": change})["spec"] == change


def read_class(text: str) -> DeviceClass | None:
    """The policy, or None for one that the file would not be allowed."""
    try:
        return msgspec.json.decode(text, type=DeviceClassObject).device_class
    except ConfigError:
        return None


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(name=NAMES, spec=specs)
def test_the_api_server_and_the_file_s_reader_agree_about_every_class(admin: Api, name: str, spec: Json) -> None:
    thing = device_class(name, spec)
    expected = read_class(json.dumps(thing, sort_keys=True))  # as the API server answers
    try:
        made = admin.create(f"{CLASSES}{TRY}", thing)
    except Refusal as refusal:
        event("refused")
        assert expected is None, refusal  # noqa: PT017 - both outcomes are right
        return
    event("taken")
    assert expected is not None, spec
    assert read_class(json.dumps(made)) == expected


def test_the_classes_of_the_example_file_are_classes_here(admin: Api) -> None:
    path = DEPLOY / "examples" / "config.yaml"
    written = yaml.safe_load(path.read_text(encoding="utf-8"))["deviceClasses"]
    read_here = []
    for each in written:
        name = each.pop("name")
        read_here.append(read_class(json.dumps(admin.create(f"{CLASSES}{TRY}", device_class(name, each)))))
    assert tuple(read_here) == load(path).device_classes
