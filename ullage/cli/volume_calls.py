"""The CSI calls behind each verb of `ullage volume`, and what they print. Nothing is kept between two commands."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path

from ullage.cli import mounted
from ullage.cli.output import Column, show
from ullage.cli.volume import STAGING
from ullage.cli.waiting import until_done
from ullage.csi_client import Driver, driver_at
from ullage.errors import NotFoundError, PreconditionError, human_bytes
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.rpc_client import CallFailedError

CLASS_KEY = "ullage.io/device-class"
WIPE_KEY = "wipe"
PAGE_ENTRIES = 1000
MODE = pb.VolumeCapability.AccessMode(mode=pb.VolumeCapability.AccessMode.SINGLE_NODE_MULTI_WRITER)
COLUMNS = (
    Column(heading="ID"),
    Column(heading="SIZE"),
    Column(heading="BYTES", is_wide=True),
    Column(heading="NODE"),
)


def create(driver: Driver, options: argparse.Namespace) -> None:
    """CreateVolume. How it will be used is open until it is mounted."""
    if options.source is not None:
        source = pb.VolumeContentSource(volume=pb.VolumeContentSource.VolumeSource(volume_id=options.source))
        show_volumes(options.output, [copied(options, source)])
        return
    request = _new_volume(options)
    show_volumes(options.output, [driver.controller.CreateVolume(request, timeout=options.timeout).volume])


def list_(driver: Driver, options: argparse.Namespace) -> None:
    """ListVolumes, page after page."""
    show_volumes(options.output, list(_volumes(driver, options.timeout)))


def expand(driver: Driver, options: argparse.Namespace) -> None:
    """ControllerExpandVolume, and NodeExpandVolume where there is a mount."""
    wanted = pb.ControllerExpandVolumeRequest(
        volume_id=options.id, capacity_range=pb.CapacityRange(required_bytes=options.size)
    )
    grown = driver.controller.ControllerExpandVolume(wanted, timeout=options.timeout)
    _say(f"volume {options.id} has {human_bytes(grown.capacity_bytes)}")
    staging = _staging(options)
    is_staged = mounted.at(mounted.mounts(), staging) is not None
    if not options.path and not is_staged:
        if grown.node_expansion_required:
            _say(f"nothing is mounted at {staging}: a file system on it grows with --path, or when it is next mounted")
        return
    path = mounted.resolved(options.path) if options.path else staging
    request = pb.NodeExpandVolumeRequest(
        volume_id=options.id,
        volume_path=str(path),
        staging_target_path=str(staging) if is_staged else "",
        capacity_range=wanted.capacity_range,
    )
    driver.node.NodeExpandVolume(request, timeout=options.timeout)
    _say(f"what is mounted at {path} has grown with it")


def delete(driver: Driver, options: argparse.Namespace) -> None:
    """DeleteVolume, which finds a volume that never was as well deleted as any: a slip of the hand is told apart here.

    A volume between being and not being is neither; it is deleted.
    """
    if not options.ignore_not_found and not _is_known(options):
        raise NotFoundError(f"there is no volume {options.id}; `ullage volume list` shows those there are")
    driver.controller.DeleteVolume(pb.DeleteVolumeRequest(volume_id=options.id), timeout=options.timeout)
    _say(f"volume {options.id} deleted")


def mount(driver: Driver, options: argparse.Namespace) -> None:
    """NodeStageVolume and NodePublishVolume; when the second is refused, the first is undone."""
    staging, target = _staging(options), mounted.resolved(options.path)
    table = mounted.mounts()
    mounted.require_empty(table, target)
    _make_parent(staging)
    capability = _capability(options)
    stage = pb.NodeStageVolumeRequest(
        volume_id=options.id, staging_target_path=str(staging), volume_capability=capability
    )
    publish = pb.NodePublishVolumeRequest(
        volume_id=options.id,
        staging_target_path=str(staging),
        target_path=str(target),
        volume_capability=capability,
        readonly=options.read_only,
    )
    with ExitStack() as undo:
        driver.node.NodeStageVolume(stage, timeout=options.timeout)
        if mounted.at(table, staging) is None:
            undo.callback(_unstage_after_failure, options, staging)
        driver.node.NodePublishVolume(publish, timeout=options.timeout)
        undo.pop_all()
    _say(f"volume {options.id} mounted at {target}{', read-only' if options.read_only else ''}")


def unmount(driver: Driver, options: argparse.Namespace) -> None:
    """NodeUnpublishVolume, and NodeUnstageVolume when that was the last.

    The driver would unstage also while a path shows the volume: each is a mount of its own. So it is not asked to.
    """
    staging, target = _staging(options), mounted.resolved(options.path)
    before = mounted.mounts()
    mounted.require_ours(before, target, staging)
    request = pb.NodeUnpublishVolumeRequest(volume_id=options.id, target_path=str(target))
    driver.node.NodeUnpublishVolume(request, timeout=options.timeout)
    if mounted.at(before, target) is None:
        _say(f"nothing was mounted at {target}")
    else:
        _say(f"volume {options.id} unmounted from {target}")
    if others := mounted.others(mounted.mounts(), staging):
        _say(f"it stays staged at {staging}: it is mounted at {', '.join(map(str, others))}, too")
        return
    _unstage(driver, options, staging)


def copied(options: argparse.Namespace, source: pb.VolumeContentSource) -> pb.Volume:
    """CreateVolume of what begins with a source's bytes, until all of them are there; raises CallFailedError.

    Without a size it is as large as its source.
    """
    request = _new_volume(options, source)

    def call(driver: Driver, timeout: float) -> pb.Volume:
        volume: pb.Volume = driver.controller.CreateVolume(request, timeout=timeout).volume
        return volume

    return until_done(options, call)


def show_volumes(output: str, volumes: Sequence[pb.Volume]) -> None:
    """Print them as `-o` says."""

    def row(volume: pb.Volume) -> list[str]:
        nodes = {value for topology in volume.accessible_topology for value in topology.segments.values()}
        size_bytes = volume.capacity_bytes
        return [volume.volume_id, human_bytes(size_bytes), str(size_bytes), ",".join(sorted(nodes)) or "-"]

    show(output, COLUMNS, [row(volume) for volume in volumes], volumes)


def _new_volume(options: argparse.Namespace, source: pb.VolumeContentSource | None = None) -> pb.CreateVolumeRequest:
    """What `ullage.cli.verbs.add_new_volume_options` lets be said, as a request."""
    return pb.CreateVolumeRequest(
        name=options.name,
        capacity_range=pb.CapacityRange(required_bytes=options.size or 0, limit_bytes=options.limit),
        volume_capabilities=[pb.VolumeCapability(mount=pb.VolumeCapability.MountVolume(), access_mode=MODE)],
        parameters={CLASS_KEY: options.device_class} if options.device_class is not None else {},
        mutable_parameters={WIPE_KEY: options.wipe} if options.wipe is not None else {},
        volume_content_source=source,
    )


def _volumes(driver: Driver, timeout_seconds: float) -> Iterator[pb.Volume]:
    token = ""
    while True:
        request = pb.ListVolumesRequest(max_entries=PAGE_ENTRIES, starting_token=token)
        page = driver.controller.ListVolumes(request, timeout=timeout_seconds)
        yield from (entry.volume for entry in page.entries)
        token = page.next_token
        if not token:
            return


def _is_known(options: argparse.Namespace) -> bool:
    request = pb.ControllerGetVolumeRequest(volume_id=options.id)
    try:
        with driver_at(options.csi_endpoint) as driver:
            driver.controller.ControllerGetVolume(request, timeout=options.timeout)
    except CallFailedError as refusal:
        return refusal.code != "NOT_FOUND"
    return True


def _capability(options: argparse.Namespace) -> pb.VolumeCapability:
    if options.block:
        return pb.VolumeCapability(block=pb.VolumeCapability.BlockVolume(), access_mode=MODE)
    flags = [flag for each in options.flags for flag in split_flags(each)]
    how = pb.VolumeCapability.MountVolume(fs_type=options.fs, mount_flags=flags)
    return pb.VolumeCapability(mount=how, access_mode=MODE)


def split_flags(flags: str) -> list[str]:
    """At the commas, but for those in double quotes, as in `context="system_u:object_r:x:s0:c1,c2"`."""
    return re.findall(r'(?:[^,"]|"[^"]*"?)+', flags)


def _staging(options: argparse.Namespace) -> Path:
    return mounted.resolved(options.staging_path or f"{STAGING}/{options.id}")


def _make_parent(staging: Path) -> None:
    """CSI's caller makes it; the driver makes the last part."""
    try:
        staging.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as failure:
        raise PreconditionError(f"{staging.parent} cannot be made: {failure.strerror}") from failure


def _unstage(driver: Driver, options: argparse.Namespace, staging: Path) -> None:
    request = pb.NodeUnstageVolumeRequest(volume_id=options.id, staging_target_path=str(staging))
    driver.node.NodeUnstageVolume(request, timeout=options.timeout)
    if not options.staging_path:
        with suppress(OSError):  # it was never there for a block volume; what is not empty stays
            staging.rmdir()


def _unstage_after_failure(options: argparse.Namespace, staging: Path) -> None:
    with suppress(CallFailedError), driver_at(options.csi_endpoint) as driver:
        _unstage(driver, options, staging)


def _say(sentence: str) -> None:
    sys.stdout.write(f"{sentence}\n")
    sys.stdout.flush()


VERBS: Mapping[str, Callable[[Driver, argparse.Namespace], None]] = {
    "create": create,
    "list": list_,
    "expand": expand,
    "delete": delete,
    "mount": mount,
    "unmount": unmount,
}
