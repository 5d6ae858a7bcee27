"""LVM, thick and thin, as a backend.

LVM is the only record. Before anything is destroyed the command itself checks, under LVM's own lock, that the logical
volume carries our tag with this very id and that nobody has it open (`--select`); what does not match is left alone and
a fresh look tells why.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import replace

from node_agent.backends.lvm import cow, creation, free_runs, renewal, tags
from node_agent.backends.lvm.command import Lvm
from node_agent.backends.lvm.metadata_snapshots import MetadataSnapshots
from node_agent.backends.lvm.pool_messages import PoolMessages
from node_agent.backends.lvm.pools import PHYSICAL_VOLUME_MISSING, data_bytes, metadata_bytes
from node_agent.backends.lvm.report import COMPONENT
from node_agent.backends.lvm.stores import Stores
from node_agent.backends.lvm.thin_metadata import ThinMetadata
from node_agent.backends.port import HeldStep, NewVolume, StoreReport
from node_agent.block import block_device
from node_agent.debts import Debts
from ullage.capacity import Allocation
from ullage.errors import (
    ConflictError,
    NotFoundError,
    NotOursError,
    PoolUnavailableError,
    PreconditionError,
    UnsupportedError,
    VolumeInUseError,
)
from ullage.model import (
    ByteRange,
    DeviceClass,
    DeviceType,
    Layout,
    Pool,
    StoreName,
    Volume,
    VolumeKind,
    VolumeState,
    Wipe,
)
from ullage.run import Finished

NOT_OPEN = 'lv_device_open!="open"'
NOT_ORIGIN = 'lv_role!="thickorigin"'
REMOVABLE = (NOT_ORIGIN, "vg_missing_pv_count=0")
"""A classic snapshot would go with its origin: such an origin counts as in use. And of a volume that lies partly on a
missing physical volume LVM would remove what lies on the others, and then not take the missing one back by itself."""
OPEN_LOOKS, OPEN_LOOK_SECONDS = 5, 0.3


class LvmBackend:
    """Implements `node_agent.backends.port.Backend`."""

    types = frozenset({DeviceType.THICK, DeviceType.THIN})

    def __init__(self, lvm: Lvm, debts: Debts | None = None) -> None:
        """Nothing is looked at until the first `look`, but for what is owed."""
        self._lvm = lvm
        self._stores = Stores(lvm)
        self._metadata_snapshots = MetadataSnapshots(lvm, debts or Debts(), self._stores.devices_or_all)
        self._pool_messages = PoolMessages(lvm, self._stores.devices)
        self._thin_metadata = ThinMetadata(lvm, self._stores, self._metadata_snapshots)
        self._is_configured = False

    def configure(self, classes: Sequence[DeviceClass]) -> None:
        """See Backend. A metadata snapshot that a dead process has left is released."""
        if not self._is_configured:
            self._metadata_snapshots.take_over()
            self._is_configured = True
        self._metadata_snapshots.release_left_over()
        self._stores.configure(
            tuple(each for each in classes if each.type in self.types),
            file_directories=tuple(each.directory for each in classes if each.directory),
        )

    def look(self) -> tuple[StoreReport, ...]:
        """See Backend. A metadata snapshot that a power cut has left is released."""
        reports = self._stores.look()
        self._metadata_snapshots.recover(self._stores.marked)
        return reports

    def look_at(self, store: StoreName) -> StoreReport:
        """See Backend."""
        return self._stores.look_at(store)

    def make_pool(self, pool: Pool, device_class: DeviceClass) -> None:
        """See Backend."""
        policy = device_class.thin_pool
        if policy is None or not policy.create_size_bytes:
            raise PoolUnavailableError(f"{pool.name} is not there and its class does not ask to make it")
        try:
            self._change(
                pool.store,
                *("lvcreate", "--yes", "--type", "thin-pool", "--name", policy.name, "--zero", "y"),
                *("--size", f"{data_bytes(policy, pool.extent_bytes)}b"),
                *("--poolmetadatasize", f"{metadata_bytes(policy, pool.extent_bytes)}b"),
                *("--addtag", tags.POOL, pool.store),
            )
        except ConflictError:
            return  # a thin pool of that name has come into being since the last report

    def needs_wipe(self, volume_type: DeviceType, wipe: Wipe) -> bool:
        """See Backend. A thin pool zeroes what it gives out (one that does not is refused, see `pools`)."""
        return volume_type is DeviceType.THICK and wipe is not Wipe.NONE

    def create(self, new: NewVolume) -> Volume:
        """See Backend. LVM wipes the signatures it knows and the first 4 KiB whatever the policy."""
        is_snapshot = new.source is not None and new.kind is not VolumeKind.VOLUME
        if is_snapshot and new.source is not None and new.source.layout.integrity:
            raise UnsupportedError(
                f"{new.source.id} has integrity, and LVM takes no snapshots of such a volume", volume_id=new.source.id
            )
        marks = (word for tag in creation.marks(new) for word in ("--addtag", tag))
        with self._pool_messages.doubted(new.pool.name):
            self._change(
                new.pool.store,
                *("lvcreate", "--yes", "--name", new.id, *creation.shape(new), *marks, *self._where_new(new)),
            )
        made = creation.volume(new, creation.label(new))
        if new.source is not None and is_snapshot and new.pool.type is DeviceType.THIN:
            size_bytes = new.source.device_size_bytes
            return replace(made, size_bytes=size_bytes, device_size_bytes=size_bytes, device_path="", is_active=False)
        made = _as_kernel_shows(made)
        if made.layout.is_raid and not new.needs_wipe:
            self._select_ours(made, "lvchange", "--deltag", tags.CREATING)
            made = replace(made, state=VolumeState.READY if made.state is VolumeState.CREATING else made.state)
        return made

    def held_step(self, source: Volume, *, is_mounted: bool) -> HeldStep:
        """See Backend. lvcreate on a frozen thick origin fails half-way, and leaves devices to be put right by hand."""
        if source.type is DeviceType.THIN:
            return HeldStep.RENEW
        if is_mounted:
            raise PreconditionError(
                f"{source.id} is thick and mounted: LVM makes no snapshot of a frozen file system; unmount it first",
                volume_id=source.id,
            )
        return HeldStep.CREATE

    def renew(self, snapshots: Sequence[Volume]) -> None:
        """See Backend."""
        for store in {each.store for each in snapshots}:
            of_store = [each for each in snapshots if each.store == store]
            renewal.renew(self._lvm, store, of_store, devices=self._stores.devices(store))

    def is_copied_by_bytes(self, source: Volume) -> bool:
        """See Backend."""
        return source.type is not DeviceType.THIN

    def reading(self, volume: Volume) -> AbstractContextManager[int]:
        """See Backend, and `cow.reading`."""
        return cow.reading(volume)

    def image(self, volume: Volume) -> AbstractContextManager[int | None]:  # noqa: ARG002 - the port's shape
        """See Backend."""
        return nullcontext()

    def note_filled(self, volume: Volume, filled_bytes: int) -> Volume:
        """See Backend. One command, so one commit: there is no moment with two marks, or with none."""
        marks = ("--deltag", tags.filling(volume.filled_bytes), "--addtag", tags.filling(filled_bytes))
        self._select_ours(volume, "lvchange", *marks)
        return replace(volume, filled_bytes=filled_bytes)

    def allocated(self, snapshot: Volume) -> Iterator[ByteRange]:
        """See Backend."""
        _check_thin(snapshot)
        return self._thin_metadata.allocated(snapshot)

    def changed(self, base: Volume, target: Volume) -> Iterator[ByteRange]:
        """See Backend."""
        _check_thin(target)
        return self._thin_metadata.changed(base, target)

    def expand(self, volume: Volume, growth: Allocation, *, needs_wipe: bool) -> Volume:
        """See Backend. The mark is on the disk before the first new extent is.

        lvextend knows no `--select`: that the volume is the one of the last report the kernel says, without a process.
        Of a thick snapshot the room grows for what it keeps. A volume that has some cannot: LVM refuses it.
        """
        is_cow = cow.is_cow(volume)
        if needs_wipe and volume.state is not VolumeState.GROWING:
            self._select_ours(volume, "lvchange", "--addtag", tags.growing(volume.size_bytes), only_if=[NOT_ORIGIN])
            volume = replace(volume, state=VolumeState.GROWING)
        elif block_device(os.path.realpath(volume.device_path)).dm_uuid != volume.dm_uuid:
            self._check_ours(volume)
        if is_cow or volume.device_size_bytes < growth.size_bytes:
            try:
                self._change(
                    volume.store,
                    *("lvextend", "--size", f"{growth.size_bytes}b", f"{volume.store}/{volume.id}"),
                    *self._where(volume.store, volume.layout, growth),
                )
            except VolumeInUseError as refusal:
                raise _unmatched(volume, self.look_at(volume.store)) from refusal
        shares = {share.physical_volume: share for share in volume.taken}
        for share in growth.taken:
            before = shares.get(share.physical_volume)
            shares[share.physical_volume] = (
                replace(share, size_bytes=share.size_bytes + before.size_bytes) if before else share
            )
        return _as_kernel_shows(replace(volume, taken=tuple(shares[name] for name in sorted(shares))))

    def settle(self, volume: Volume) -> Volume:
        """See Backend. Without a device a volume's mark stays: nothing is said to be there before it is."""
        mark = {
            VolumeState.CREATING: tags.CREATING,
            VolumeState.FILLING: tags.filling(volume.filled_bytes),
        }.get(volume.state, tags.growing(volume.size_bytes))
        settled = replace(volume, state=VolumeState.READY, filled_bytes=0)
        if volume.kind is VolumeKind.VOLUME:
            settled = _as_kernel_shows(settled)
        self._select_ours(volume, "lvchange", "--deltag", mark)
        return settled

    def set_wipe(self, volume: Volume, wipe: Wipe) -> Volume:
        """See Backend. One command, so one commit: there is no moment with two policies, or with none."""
        marks = ("--deltag", tags.wipe_tag(volume.wipe), "--addtag", tags.wipe_tag(wipe))
        self._select_ours(volume, "lvchange", *marks)
        return replace(volume, wipe=wipe)

    def condemn(self, volume: Volume) -> Volume:
        """See Backend.

        udevd opens a volume for a moment after each close by a writer, so one that is open is asked about a few times.
        """
        condemned = replace(volume, state=VolumeState.DELETING)
        if volume.state is VolumeState.DELETING:
            return self._parted(condemned)
        for looks_left in reversed(range(OPEN_LOOKS)):
            try:
                self._select_ours(volume, "lvchange", "--addtag", tags.DELETING, only_if=(*REMOVABLE, NOT_OPEN))
                break
            except VolumeInUseError:
                if not looks_left:
                    raise
                time.sleep(OPEN_LOOK_SECONDS)
        return self._parted(condemned)

    def remove(self, volume: Volume) -> None:
        """See Backend. That nobody has it open lvremove itself checks, for five seconds, under its lock."""
        if volume.layout.is_raid and not volume.layout.integrity and volume.state is not VolumeState.READY:
            self._remove_loose_parts(volume)
        is_thin = volume.type is DeviceType.THIN
        with self._pool_messages.ended(volume.pool, volume) if is_thin else nullcontext():
            self._select_ours(volume, "lvremove", "--yes", only_if=REMOVABLE)

    def activate(self, store: StoreName, volumes: Sequence[Volume]) -> None:
        """See Backend."""
        self._change(store, "lvchange", "--yes", "--activate", "y", *(f"{store}/{volume.id}" for volume in volumes))
        self._metadata_snapshots.release_left_over()  # after a boot their pools are there only now

    def _parted(self, condemned: Volume) -> Volume:
        """A condemned thick snapshot parted from its volume: what it kept is then a plain volume, which can be wiped.

        lvconvert knows no `--select`: the command before it does.
        """
        if not cow.is_cow(condemned):
            return condemned
        with suppress(ConflictError):  # an earlier removal has come so far
            self._select_ours(condemned, "lvchange", "--permission", "rw")
        with suppress(ConflictError):
            name = f"{condemned.store}/{condemned.id}"
            self._change(condemned.store, "lvconvert", "--yes", "--splitsnapshot", name)
        kept_bytes = sum(share.size_bytes for share in condemned.taken)
        return replace(condemned, size_bytes=kept_bytes, device_size_bytes=kept_bytes, used_percent=None)

    def _where_new(self, new: NewVolume) -> tuple[str, ...]:
        """What lvcreate is told last: the origin, nothing for a volume in a thin pool, or the group and where in it."""
        is_thin = new.pool.type is DeviceType.THIN
        is_derived = new.source is not None and not creation.is_filled(new)
        within = f"{new.source.store}/{new.source.id}" if new.source and is_derived else new.pool.store
        if is_thin:
            return (within,) if is_derived else ()
        return (within, *self._where(new.pool.store, creation.layout(new), new.allocation))

    def _where(self, store: StoreName, layout: Layout, allocation: Allocation) -> tuple[str, ...]:
        """The physical volumes as LVM is told them: the last of several linear ones only up to where the volume ends.

        LVM begins where the largest free run is, whatever their order: told names alone, it would take other shares.
        """
        if layout.is_spread or len(allocation.taken) < 2:  # noqa: PLR2004 - one is exact by itself
            return allocation.physical_volumes
        *whole, last = allocation.taken
        devices = self._stores.devices(store)
        runs = self._lvm.look("pvs", *free_runs.ARGUMENTS, last.physical_volume, devices=devices)
        end = free_runs.end_of_free(runs, last.size_bytes)
        return (*(share.physical_volume for share in whole), f"{last.physical_volume}:0-{end}")

    def _change(self, store: StoreName, verb: str, *arguments: str) -> Finished:
        """Run a changing command on the devices we know its group by; once more if it turns out to have others."""
        known = self._stores.devices(store)
        try:
            return self._lvm.change(verb, *arguments, devices=known)
        except PoolUnavailableError:
            self.look_at(store)
            devices = self._stores.devices(store)
            if devices == known:
                raise
            return self._lvm.change(verb, *arguments, devices=devices)

    def _select_ours(self, volume: Volume, verb: str, *arguments: str, only_if: Sequence[str] = ()) -> None:
        """Change this logical volume if LVM, under its lock, finds it ours and `only_if` true; raise why not."""
        conditions = " && ".join((f'lv_tags="{tags.volume_tag(volume.id)}"', *only_if))
        name = f"{volume.store}/{volume.id}"
        finished = self._change(volume.store, verb, *arguments, "--select", conditions, name)
        if volume.id not in finished.stdout:
            raise _unmatched(volume, self.look_at(volume.store))

    def _remove_loose_parts(self, volume: Volume) -> None:
        """Remove what LVM left when it died over adding integrity: it bears no tag, and would be in the next one's way.

        Such names are LVM's own (nobody else can give them), and begin with that of the volume they were made for.
        """
        self._check_ours(volume)
        group = self._stores.group(volume.store)
        for name in group.loose_parts if group else ():
            if COMPONENT.split(name)[0] == volume.id:
                self._change(volume.store, "lvremove", "--yes", f"{volume.store}/{name}")

    def _check_ours(self, volume: Volume) -> None:
        """Look again before a command that cannot be told to look itself; raises NotOursError, PoolUnavailableError."""
        report = self.look_at(volume.store)
        if report.problem is not None or all(each.id != volume.id for each in report.volumes):
            raise _unmatched(volume, report)


def _check_thin(snapshot: Volume) -> None:
    if snapshot.type is not DeviceType.THIN:
        raise PreconditionError(
            f"changed blocks are known of thin volumes; {snapshot.id} is thick, and what it shares with another is not"
        )


def _as_kernel_shows(volume: Volume) -> Volume:
    device = block_device(os.path.realpath(volume.device_path))
    return replace(
        volume,
        size_bytes=volume.size_bytes if volume.state is VolumeState.GROWING else device.size_bytes,
        device_size_bytes=device.size_bytes,
        device_major=device.major,
        device_minor=device.minor,
        dm_uuid=device.dm_uuid,
        is_active=True,
    )


def _unmatched(
    volume: Volume, report: StoreReport
) -> NotFoundError | NotOursError | VolumeInUseError | PoolUnavailableError:
    """Why LVM found no volume of ours, closed, under this name, in a whole group."""
    missing = (pool.problem for pool in report.pools if pool.problem and pool.problem.reason == PHYSICAL_VOLUME_MISSING)
    problem = report.problem or next(missing, None)
    if problem is not None:
        return PoolUnavailableError(problem.message, store=volume.store)
    found = next((each for each in report.volumes if each.id == volume.id), None)
    if found is None:
        return NotOursError(f"{volume.store}/{volume.id} does not carry our tag {tags.volume_tag(volume.id)}")
    why = cow.who_holds(found, report.volumes) or "is open or has snapshots; close or unmount it first"
    return VolumeInUseError(f"{found.store}/{found.id} {why}")
