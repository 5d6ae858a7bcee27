"""What each message to the node becomes, and which paths it may name."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from csi.capabilities import Capability, Mode
from csi.orders import node as orders
from csi.orders.fields import MOST_SIZE_BYTES
from tests.unit.csi_doubles import ROX, block, mounted
from ullage.errors import GIB, InvalidRequestError, NotFoundError, OutOfRangeError, UllageError, UnsupportedError
from ullage.model import VolumeId
from ullage.pb.csi.v1 import csi_pb2 as pb

ID = VolumeId("pvc-1")
STAGING = "/var/lib/kubelet/plugins/kubernetes.io/csi/ullage.io/0/globalmount"
TARGET = "/var/lib/kubelet/pods/0/volumes/kubernetes.io~csi/pvc-1/mount"

NO_PATHS = (
    "relative/path",
    "./path",
    " /path",
    "..",
    "/..",
    "/a/../b",
    "/a/b/..",
    "/a\0b",
    "/",
    "//",
    "///",
    "/./",
    f"/{'x' * 4095}",
    f"/{'é' * 2048}",
)
PATHS = {
    "/a": "/a",
    "/a//b/./c/": "/a/b/c",
    "/a/..b/c..": "/a/..b/c..",
    "/a b\n": "/a b\n",
    f"/{'x' * 4094}": f"/{'x' * 4094}",
}
AT: dict[str, Callable[[str], Path | None]] = {
    "staging_target_path of stage": lambda path: (
        orders.stage(
            pb.NodeStageVolumeRequest(volume_id=ID, staging_target_path=path, volume_capability=mounted())
        ).staging_path
    ),
    "staging_target_path of unstage": lambda path: (
        orders.unstage(pb.NodeUnstageVolumeRequest(volume_id=ID, staging_target_path=path)).path
    ),
    "target_path of publish": lambda path: publish(target_path=path).target_path,
    "staging_target_path of publish": lambda path: publish(staging_target_path=path).staging_path,
    "target_path of unpublish": lambda path: (
        orders.unpublish(pb.NodeUnpublishVolumeRequest(volume_id=ID, target_path=path)).path
    ),
    "volume_publish_path of health": lambda path: (
        orders.health(pb.NodeGetVolumeHealthRequest(volume_id=ID, volume_publish_path=path)).path
    ),
    "staging_target_path of health": lambda path: (
        orders.health(pb.NodeGetVolumeHealthRequest(volume_id=ID, staging_target_path=path)).path
    ),
}
FOUND_AT: dict[str, Callable[[str], Path | None]] = {
    "volume_path of stats": lambda path: orders.at(pb.NodeGetVolumeStatsRequest(volume_id=ID, volume_path=path)).path,
    "volume_path of grow": lambda path: orders.grow(pb.NodeExpandVolumeRequest(volume_id=ID, volume_path=path)).path,
}
EVERYWHERE = AT | FOUND_AT
OPTIONAL = ("staging_target_path of publish", "volume_publish_path of health", "staging_target_path of health")


def first(words: str) -> str:
    return words.split(maxsplit=1)[0]


def shown(path: str) -> str:
    return ascii(path[:16])


def stage(**fields: object) -> orders.Stage:
    right: dict[str, object] = {"volume_id": ID, "staging_target_path": STAGING, "volume_capability": mounted()}
    return orders.stage(pb.NodeStageVolumeRequest(**{**right, **fields}))  # type: ignore[arg-type] # under test


def publish(**fields: object) -> orders.Publish:
    right: dict[str, object] = {
        "volume_id": ID,
        "staging_target_path": STAGING,
        "target_path": TARGET,
        "volume_capability": mounted(),
    }
    return orders.publish(pb.NodePublishVolumeRequest(**{**right, **fields}))  # type: ignore[arg-type] # under test


@pytest.mark.parametrize("field", EVERYWHERE)
@pytest.mark.parametrize(("path", "plain"), PATHS.items(), ids=shown)
def test_a_path_is_taken_in_its_plain_form(field: str, path: str, plain: str) -> None:
    assert str(EVERYWHERE[field](path)) == plain


@pytest.mark.parametrize("field", AT)
@pytest.mark.parametrize("path", NO_PATHS, ids=shown)
def test_what_is_no_absolute_path_below_the_root_is_refused_by_the_fields_name(field: str, path: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{first(field)} .*is (no absolute path without|the root)"):
        AT[field](path)


@pytest.mark.parametrize("field", FOUND_AT)
@pytest.mark.parametrize("path", NO_PATHS, ids=shown)
def test_at_what_is_no_path_there_is_no_volume(field: str, path: str) -> None:
    """csi-sanity asks for the stats at "some/path" and wants NOT_FOUND."""
    with pytest.raises(NotFoundError, match=r"pvc-1 is not there$"):
        FOUND_AT[field](path)


@pytest.mark.parametrize("field", sorted(EVERYWHERE.keys() - set(OPTIONAL)))
def test_a_path_that_is_missing_is_told_by_its_name(field: str) -> None:
    with pytest.raises(InvalidRequestError, match=f"^{first(field)} is missing$"):
        EVERYWHERE[field]("")


@pytest.mark.parametrize("field", OPTIONAL)
def test_a_path_that_may_be_missing_is_none_then(field: str) -> None:
    assert AT[field]("") is None


def test_staging_is_a_volume_at_a_path_in_one_way() -> None:
    assert stage(volume_capability=mounted("xfs", "noatime")) == orders.Stage(
        volume_id=ID,
        staging_path=Path(STAGING),
        capability=Capability(is_block=False, fs_type="xfs", mount_flags=("noatime",)),
    )


@pytest.mark.parametrize(
    ("use", "error", "sentence"),
    [
        (None, InvalidRequestError, "volume_capability is missing"),
        (pb.VolumeCapability(), InvalidRequestError, "has no access mode"),
        (mounted("ntfs"), InvalidRequestError, "File system 'ntfs' is none of"),
        (mounted("", "a\0b"), InvalidRequestError, "is no mount flag"),
        (mounted(mode=ROX), UnsupportedError, "is not possible with a volume of one node"),
    ],
)
def test_a_way_of_use_that_cannot_be_is_refused_at_stage_and_at_publish(
    use: pb.VolumeCapability | None, error: type[UllageError], sentence: str
) -> None:
    for ask in (stage, publish):
        with pytest.raises(error, match=re.escape(sentence)):
            ask(volume_capability=use)


READER = Mode.SINGLE_NODE_READER_ONLY


@pytest.mark.parametrize(
    ("use", "is_asked_read_only", "is_read_only"),
    [
        (mounted(), False, False),
        (mounted(), True, True),
        (mounted(mode=READER), False, True),
        (block(), False, False),
        (block(), True, True),
        (block(READER), False, True),
    ],
)
def test_what_is_published_is_read_only_for_the_pods_sake_or_the_claims(
    use: pb.VolumeCapability,
    is_asked_read_only: bool,  # noqa: FBT001 - a table
    is_read_only: bool,  # noqa: FBT001
) -> None:
    order = publish(volume_capability=use, readonly=is_asked_read_only)
    assert order.is_read_only is is_read_only
    assert order.capability.is_block is use.HasField("block")
    assert (order.volume_id, order.staging_path, order.target_path) == (ID, Path(STAGING), Path(TARGET))


@pytest.mark.parametrize(
    ("capacity", "size_bytes"),
    [(None, 0), (pb.CapacityRange(), 0), (pb.CapacityRange(required_bytes=GIB, limit_bytes=2 * GIB), GIB)],
)
def test_a_file_system_grows_to_what_is_required_or_to_what_there_is(
    capacity: pb.CapacityRange | None, size_bytes: int
) -> None:
    request = pb.NodeExpandVolumeRequest(volume_id=ID, volume_path=TARGET, capacity_range=capacity)
    assert orders.grow(request) == orders.Grow(volume_id=ID, path=Path(TARGET), size_bytes=size_bytes)


def test_a_file_system_larger_than_any_volume_is_out_of_range() -> None:
    capacity = pb.CapacityRange(required_bytes=MOST_SIZE_BYTES + 1)
    with pytest.raises(OutOfRangeError):
        orders.grow(pb.NodeExpandVolumeRequest(volume_id=ID, volume_path=TARGET, capacity_range=capacity))


@pytest.mark.parametrize(
    ("published", "staged", "path"),
    [("", "", None), ("", "/s", Path("/s")), ("/t", "", Path("/t")), ("/t", "/s", Path("/t"))],
)
def test_health_is_looked_at_where_the_pod_sees_it_or_where_it_is_staged(
    published: str, staged: str, path: Path | None
) -> None:
    request = pb.NodeGetVolumeHealthRequest(volume_id=ID, volume_publish_path=published, staging_target_path=staged)
    assert orders.health(request) == orders.Health(volume_id=ID, path=path)
