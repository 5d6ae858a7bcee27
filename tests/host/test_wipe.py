"""Wiping, on loop devices of this machine: as root, with nothing pretended.

What is left is read from the file below the loop device, or through a fresh descriptor of the device.
"""

import binascii
import contextlib
import fcntl
import hashlib
import os
import struct
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from node_agent.wipe import Moment, wipe
from ullage.errors import DeviceError, InvalidRequestError, UnavailableError, VolumeInUseError
from ullage.model import Wipe

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30
NOTHING_FOUND = 2  # blkid's exit code
LOOP_CTL_ADD, LOOP_CTL_REMOVE = 0x4C80, 0x4C81  # <linux/loop.h>
PATTERN = b"an earlier tenant's row of data\n"


@dataclass(frozen=True)
class Loop:
    """A loop device over a sparse file."""

    path: str
    file: Path
    size: int

    def put(self, offset: int, data: bytes) -> None:
        with Path(self.path).open("r+b", buffering=0) as device:
            device.seek(offset)
            device.write(data)
            os.fsync(device.fileno())

    def fill(self) -> None:
        for offset in range(0, self.size, MIB):
            self.put(offset, PATTERN * (MIB // len(PATTERN)))

    def get(self, offset: int, size: int) -> bytes:
        with Path(self.path).open("rb", buffering=0) as device:
            device.seek(offset)
            found = device.read(size)
        assert found is not None
        with self.file.open("rb") as below:
            below.seek(offset)
            assert below.read(size) == found
        return found

    def zero_mib(self) -> list[int]:
        """Which MiBs read as zeroes; every other must be the pattern, whole."""
        zero = []
        for number in range(self.size // MIB):
            found = self.get(number * MIB, MIB)
            if found == bytes(MIB):
                zero.append(number)
            else:
                assert found == PATTERN * (MIB // len(PATTERN))
        return zero

    def digest(self) -> str:
        return hashlib.sha256(self.get(0, self.size)).hexdigest()

    def signatures(self) -> str:
        """What blkid and wipefs find; empty when both find nothing."""
        probed = run("blkid", "-p", "-o", "export", self.path, accepted=(0, NOTHING_FOUND, 8))
        listed = run("wipefs", "--no-act", "--noheadings", "--output", "TYPE,OFFSET", self.path)
        if probed.returncode == NOTHING_FOUND and not listed.stdout.strip():
            return ""
        return f"{probed.stdout}{probed.stderr}{listed.stdout}"


def run(*argv: str, accepted: tuple[int, ...] = (0,), stdin: str = "") -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(argv, input=stdin, capture_output=True, text=True, check=False)
    assert finished.returncode in accepted, f"{argv}: {finished.returncode} {finished.stderr}"
    return finished


@contextlib.contextmanager
def attached(file: Path, size: int, *options: str, path: str = "") -> Iterator[Loop]:
    file.touch()
    os.truncate(file, size)
    if path:
        run("losetup", *options, path, str(file))
    else:
        path = run("losetup", "--find", "--show", *options, str(file)).stdout.strip()
    try:
        yield Loop(path, file, size)
    finally:
        run("losetup", "--detach", path)


@contextlib.contextmanager
def undiscarding(file: Path, size: int) -> Iterator[Loop]:
    """A loop device that can discard nothing, with a number of its own: once it cannot, it never can again."""
    control = os.open("/dev/loop-control", os.O_RDWR)
    number = fcntl.ioctl(control, LOOP_CTL_ADD, 4096 + os.getpid())
    try:
        with attached(file, size, path=f"/dev/loop{number}") as loop:
            Path(f"/sys/block/loop{number}/queue/discard_max_bytes").write_text("0")
            yield loop
    finally:
        fcntl.ioctl(control, LOOP_CTL_REMOVE, number)
        os.close(control)


@contextlib.contextmanager
def mounted(device: str, directory: Path, *options: str) -> Iterator[None]:
    directory.mkdir(exist_ok=True)
    run("mount", *options, device, str(directory))
    try:
        yield
    finally:
        run("umount", str(directory))


@pytest.fixture(autouse=True)
def _root() -> None:
    if os.geteuid() != 0:
        pytest.fail("these tests attach loop devices: run them as root")


Attach = Callable[..., Loop]


@pytest.fixture
def attach(tmp_path: Path) -> Iterator[Attach]:
    with contextlib.ExitStack() as stack:
        yield lambda size, *options: stack.enter_context(attached(tmp_path / f"{size}.img", size, *options))


@pytest.fixture
def small(attach: Attach) -> Loop:
    """24 MiB, all pattern."""
    loop = attach(24 * MIB)
    loop.fill()
    return loop


def test_none_does_nothing(small: Loop) -> None:
    wipe(small.path, Wipe.NONE, end_bytes=small.size, moment=Moment.DELETE)
    assert small.zero_mib() == []


@pytest.mark.parametrize("moment", Moment)
@pytest.mark.parametrize("policy", [Wipe.ZERO, Wipe.DISCARD])
def test_zero_and_discard_leave_nothing_readable(small: Loop, policy: Wipe, moment: Moment) -> None:
    wipe(small.path, policy, end_bytes=small.size, moment=moment)
    assert small.zero_mib() == list(range(24))


def test_zero_does_not_give_room_back_and_discard_at_delete_does(small: Loop) -> None:
    wipe(small.path, Wipe.ZERO, end_bytes=small.size, moment=Moment.DELETE)
    wipe(small.path, Wipe.DISCARD, end_bytes=small.size, moment=Moment.CREATE)
    assert small.file.stat().st_blocks * 512 >= small.size
    wipe(small.path, Wipe.DISCARD, end_bytes=small.size, moment=Moment.DELETE)
    assert small.file.stat().st_blocks * 512 < MIB


@pytest.mark.parametrize("moment", Moment)
def test_signatures_zeroes_the_places_of_probes_and_leaves_the_rest(small: Loop, moment: Moment) -> None:
    wipe(small.path, Wipe.SIGNATURES, end_bytes=small.size, moment=moment)
    assert small.zero_mib() == [0, 1, 2, 4, 22, 23]


def test_a_volume_used_shorter_than_its_device_has_two_ends(small: Loop) -> None:
    wipe(small.path, Wipe.SIGNATURES, end_bytes=20 * MIB, moment=Moment.CREATE)
    assert small.zero_mib() == [0, 1, 2, 4, 18, 19]


def test_a_device_without_discard_gets_its_signatures_zeroed_at_delete(tmp_path: Path) -> None:
    with undiscarding(tmp_path / "file", 24 * MIB) as loop:
        loop.fill()
        wipe(loop.path, Wipe.DISCARD, end_bytes=loop.size, moment=Moment.DELETE)
        assert loop.zero_mib() == [0, 1, 2, 4, 22, 23]


def test_a_device_without_discard_is_zeroed_at_create(tmp_path: Path) -> None:
    with undiscarding(tmp_path / "file", 24 * MIB) as loop:
        loop.fill()
        wipe(loop.path, Wipe.DISCARD, end_bytes=loop.size, moment=Moment.CREATE)
        assert loop.zero_mib() == list(range(24))


@pytest.mark.parametrize(
    ("policy", "zero"),
    [(Wipe.ZERO, list(range(12, 24))), (Wipe.DISCARD, list(range(12, 24))), (Wipe.SIGNATURES, [22, 23])],
)
def test_at_grow_only_the_new_part_is_touched(small: Loop, policy: Wipe, zero: list[int]) -> None:
    wipe(small.path, policy, start_bytes=12 * MIB, end_bytes=small.size, moment=Moment.GROW)
    assert small.zero_mib() == zero


def test_growing_by_less_than_a_place_does_not_reach_into_the_old_part(small: Loop) -> None:
    wipe(small.path, Wipe.SIGNATURES, start_bytes=23 * MIB, end_bytes=small.size, moment=Moment.GROW)
    assert small.zero_mib() == [23]


@pytest.mark.parametrize("policy", [Wipe.SIGNATURES, Wipe.ZERO, Wipe.DISCARD])
def test_who_had_read_the_old_bytes_reads_zeroes_afterwards(small: Loop, policy: Wipe) -> None:
    with Path(small.path).open("rb", buffering=0) as reader:
        assert os.pread(reader.fileno(), 8 * KIB, 0).startswith(PATTERN)
        wipe(small.path, policy, end_bytes=small.size, moment=Moment.DELETE)
        assert os.pread(reader.fileno(), 8 * KIB, 0) == bytes(8 * KIB)


# Signatures, made by the programs that make them or by hand; each is (size, maker).


def _program(*argv: str, stdin: str = "") -> Callable[[Loop], None]:
    def make(loop: Loop) -> None:
        run(*argv, loop.path, stdin=stdin)

    return make


def _written(offset_of: Callable[[int], int], data_of: Callable[[int], bytes]) -> Callable[[Loop], None]:
    def make(loop: Loop) -> None:
        offset = offset_of(loop.size)
        loop.put(offset, data_of(offset))

    return make


def _lvm_label(_offset: int) -> bytes:
    body = struct.pack("<I8s32s", 32, b"LVM2 001", b"0123456789abcdefghijABCDEFGHIJ01") + bytes(512 - 64)
    body = body.ljust(512 - 20, b"\0")
    return struct.pack("<8sQI", b"LABELONE", 1, binascii.crc32(body, 0xF597A6CF ^ 0xFFFFFFFF) ^ 0xFFFFFFFF) + body


def _luks2_second_header(offset: int) -> bytes:
    header = bytearray(4096)
    header[:8] = b"SKUL\xba\xbe\0\x02"
    header[8:16] = struct.pack(">Q", 4 * MIB)
    header[256:264] = struct.pack(">Q", offset)
    return bytes(header)


def _md_0_90(_offset: int) -> bytes:
    return struct.pack("<13I", 0xA92B4EFC, 0, 90, 0, 0, 1, 2, 1, 1024, 2, 2, 0, 0).ljust(4096, b"\0")


def _md_1(offset: int) -> bytes:
    block = bytearray(256)
    block[:8] = struct.pack("<II", 0xA92B4EFC, 1)
    block[16:32] = b"sixteen bytes id"
    block[144:152] = struct.pack("<Q", offset // 512)
    block[216:220] = struct.pack("<I", _md_1_sum(bytes(block)))
    return bytes(block)


def _md_1_sum(block: bytes) -> int:
    total = sum(struct.unpack(f"<{len(block) // 4}I", block))
    return int((total & 0xFFFFFFFF) + (total >> 32)) & 0xFFFFFFFF


def _zfs_label(_offset: int) -> bytes:
    uberblocks = b"".join(struct.pack("<QQ", 0xBAB10C, 5000).ljust(KIB, b"\0") for _ in range(128))
    return bytes(128 * KIB) + uberblocks


SIGNATURES: dict[str, tuple[int, Callable[[Loop], None]]] = {
    "ext4": (96 * MIB, _program("mkfs.ext4", "-q", "-F")),
    "xfs": (320 * MIB, _program("mkfs.xfs", "-q", "-f")),
    "btrfs": (256 * MIB, _program("mkfs.btrfs", "-q", "-f")),
    "swap": (96 * MIB, _program("mkswap")),
    "gpt": (96 * MIB, _program("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", stdin="label: gpt\n,,\n")),
    "dos": (96 * MIB, _program("sfdisk", "--quiet", "--no-reread", "--no-tell-kernel", stdin="label: dos\n,,\n")),
    "LVM2_member": (96 * MIB, _written(lambda _: 512, _lvm_label)),
    "crypto_LUKS at 0": (96 * MIB, _written(lambda _: 0, lambda _: b"LUKS\xba\xbe\0\x01".ljust(592, b"\0"))),
    "crypto_LUKS at 16 KiB": (96 * MIB, _written(lambda _: 16 * KIB, _luks2_second_header)),
    "crypto_LUKS at 4 MiB": (96 * MIB, _written(lambda _: 4 * MIB, _luks2_second_header)),
    "linux_raid_member 0.90": (96 * MIB + 60 * KIB, _written(lambda size: size // 65536 * 65536 - 65536, _md_0_90)),
    "linux_raid_member 1.0": (96 * MIB + 60 * KIB, _written(lambda size: size - 8 * KIB, _md_1)),
    "linux_raid_member 1.1": (96 * MIB, _written(lambda _: 0, _md_1)),
    "linux_raid_member 1.2": (96 * MIB, _written(lambda _: 4 * KIB, _md_1)),
    "zfs_member at the start": (96 * MIB, _written(lambda _: 0, _zfs_label)),
    "zfs_member at the end": (
        96 * MIB + 255 * KIB,
        _written(lambda size: (size // (256 * KIB) - 2) * 256 * KIB, _zfs_label),
    ),
    "VMFS": (96 * MIB, _written(lambda _: 2 * MIB, lambda _: b"\x5e\xf1\xab\x2f" + bytes(508))),
    "ceph_bluestore": (96 * MIB, _written(lambda _: 0, lambda _: b"bluestore block device\n" + bytes(489))),
    "promise_fasttrack_raid_member": (
        96 * MIB,
        _written(lambda size: size - 3087 * 512, lambda _: b"Promise Technology, Inc.".ljust(512, b"\0")),
    ),
}


@pytest.mark.parametrize("name", SIGNATURES)
def test_after_signatures_no_probe_finds_anything(name: str, attach: Attach) -> None:
    size, make = SIGNATURES[name]
    loop = attach(size)
    make(loop)
    kept = size // 2 // MIB * MIB
    loop.put(kept, PATTERN)
    assert name.split(maxsplit=1)[0] in loop.signatures()
    wipe(loop.path, Wipe.SIGNATURES, end_bytes=loop.size, moment=Moment.CREATE)
    assert loop.signatures() == ""
    assert loop.get(kept, len(PATTERN)) == PATTERN


@pytest.mark.parametrize(
    "offset",
    [64 * MIB + 64, GIB, 10 * GIB, 100 * GIB, 256 * GIB + 64, 1000 * GIB],
    ids=["64M", "1G", "10G", "100G", "256G", "1000G"],
)
def test_the_far_copies_of_btrfs_and_bluestore_go(attach: Attach, offset: int) -> None:
    loop = attach(1001 * GIB)
    loop.put(offset, b"_BHRfS_M bluestore block device")
    loop.put(offset + 2 * MIB, PATTERN)
    wipe(loop.path, Wipe.SIGNATURES, end_bytes=loop.size, moment=Moment.DELETE)
    assert loop.get(offset, 32) == bytes(32)
    assert loop.get(offset + 2 * MIB, len(PATTERN)) == PATTERN


def test_a_mounted_device_is_refused_and_unchanged(attach: Attach, tmp_path: Path) -> None:
    loop = attach(96 * MIB)
    run("mkfs.ext4", "-q", "-F", loop.path)
    before = loop.digest()
    with (
        mounted(loop.path, tmp_path / "mount", "-o", "ro"),
        pytest.raises(VolumeInUseError, match=loop.path),
    ):
        wipe(loop.path, Wipe.ZERO, end_bytes=loop.size, moment=Moment.DELETE)
    assert loop.digest() == before


def test_a_device_that_another_holds_is_refused_and_unchanged(small: Loop) -> None:
    holder = os.open(small.path, os.O_RDONLY | os.O_EXCL)
    try:
        with pytest.raises(VolumeInUseError):
            wipe(small.path, Wipe.DISCARD, end_bytes=small.size, moment=Moment.DELETE)
    finally:
        os.close(holder)
    assert small.zero_mib() == []


def test_a_holder_that_lets_go_is_waited_for(small: Loop, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = os.open(small.path, os.O_RDONLY | os.O_EXCL)
    monkeypatch.setattr("node_agent.exclusive.time.sleep", lambda _: os.close(holder))
    wipe(small.path, Wipe.ZERO, end_bytes=small.size, moment=Moment.CREATE)
    assert small.zero_mib() == list(range(small.size // MIB))


def test_nobody_can_hold_the_device_during_a_wipe_and_anybody_after(small: Loop) -> None:
    refused = []

    def try_to_hold(_done: int) -> None:
        with pytest.raises(OSError, match="busy"):
            os.open(small.path, os.O_RDONLY | os.O_EXCL)
        refused.append(True)

    wipe(small.path, Wipe.ZERO, end_bytes=small.size, moment=Moment.DELETE, progress=try_to_hold)
    assert refused
    os.close(os.open(small.path, os.O_RDONLY | os.O_EXCL))


def test_a_file_is_no_device(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_bytes(PATTERN * 16)
    with pytest.raises(DeviceError, match="no block device"):
        wipe(str(file), Wipe.ZERO, end_bytes=512, moment=Moment.DELETE)
    assert file.read_bytes() == PATTERN * 16


def test_a_device_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(DeviceError, match="No such file"):
        wipe(str(tmp_path / "gone"), Wipe.ZERO, end_bytes=512, moment=Moment.DELETE)


def test_a_device_shorter_than_the_range_is_left_as_it_is(small: Loop) -> None:
    with pytest.raises(DeviceError) as refusal:
        wipe(small.path, Wipe.ZERO, end_bytes=small.size + 512, moment=Moment.DELETE)
    assert refusal.value.facts["device_bytes"] == small.size
    assert small.zero_mib() == []


@pytest.mark.parametrize(("start", "end"), [(0, 4096 + 512), (512, 8192), (8192, 4096), (-4096, 4096)])
def test_a_range_that_is_not_whole_blocks_is_refused(attach: Attach, start: int, end: int) -> None:
    loop = attach(8 * MIB, "--sector-size", "4096")
    loop.fill()
    with pytest.raises(InvalidRequestError):
        wipe(loop.path, Wipe.ZERO, start_bytes=start, end_bytes=end, moment=Moment.CREATE)
    assert loop.zero_mib() == []


def test_an_empty_range_is_no_work(small: Loop) -> None:
    for policy in Wipe:
        wipe(small.path, policy, start_bytes=small.size, end_bytes=small.size, moment=Moment.GROW)
    assert small.zero_mib() == []


@pytest.mark.parametrize(
    ("policy", "moment"), [(Wipe.ZERO, Moment.CREATE), (Wipe.DISCARD, Moment.DELETE), (Wipe.SIGNATURES, Moment.CREATE)]
)
def test_a_wipe_that_was_stopped_says_so_and_a_repeat_completes_it(
    attach: Attach, policy: Wipe, moment: Moment
) -> None:
    loop = attach(640 * MIB)
    loop.put(0, PATTERN)
    loop.put(loop.size - KIB, PATTERN)
    done: list[int] = []
    with pytest.raises(UnavailableError):
        wipe(
            loop.path,
            policy,
            end_bytes=loop.size,
            moment=moment,
            progress=done.append,
            is_stopping=lambda: len(done) == 2,
        )
    assert len(done) == 2
    assert loop.get(0, len(PATTERN)) == bytes(len(PATTERN))
    assert loop.get(loop.size - KIB, len(PATTERN)) == PATTERN
    wipe(loop.path, policy, end_bytes=loop.size, moment=moment, progress=done.append)
    assert loop.get(loop.size - KIB, len(PATTERN)) == bytes(len(PATTERN))
    assert done[-1] == loop.size
    assert done[2:] == sorted(done[2:])


def test_when_it_is_stopped_at_once_nothing_is_written(small: Loop) -> None:
    for policy in (Wipe.SIGNATURES, Wipe.ZERO, Wipe.DISCARD):
        with pytest.raises(UnavailableError):
            wipe(small.path, policy, end_bytes=small.size, moment=Moment.DELETE, is_stopping=lambda: True)
    assert small.zero_mib() == []


def test_a_device_that_fails_says_what_and_where(tmp_path: Path) -> None:
    """A loop device over a file in a file system without room for it, and without a way to zero a range but writing."""
    with mounted("none", tmp_path / "full", "-t", "tmpfs", "-o", "size=2m"):
        file = tmp_path / "full/file.img"
        with (
            attached(file, 600 * MIB) as loop,
            pytest.raises(DeviceError, match="at byte 268435456") as failure,
        ):
            wipe(loop.path, Wipe.ZERO, start_bytes=256 * MIB, end_bytes=loop.size, moment=Moment.CREATE)
    assert failure.value.facts["offset_bytes"] == 256 * MIB
    assert failure.value.facts["errno"] != 0


@pytest.mark.parametrize("policy", [Wipe.DISCARD, Wipe.ZERO])
def test_the_new_part_of_a_mounted_volume_is_wiped_and_its_file_system_is_not(
    small: Loop, policy: Wipe, tmp_path: Path
) -> None:
    """What an online growth needs: the room behind the file system is nobody's yet."""
    run("mkfs.ext4", "-q", "-F", small.path, "16M")
    with mounted(small.path, tmp_path / "mount"):
        (tmp_path / "mount" / "kept").write_bytes(PATTERN)
        wipe(small.path, policy, start_bytes=16 * MIB, end_bytes=small.size, moment=Moment.GROW)
        assert small.get(16 * MIB, 8 * MIB) == bytes(8 * MIB)
    assert run("e2fsck", "-fn", small.path).returncode == 0
    with mounted(small.path, tmp_path / "mount"):
        assert (tmp_path / "mount" / "kept").read_bytes() == PATTERN


@pytest.mark.parametrize("policy", [Wipe.DISCARD, Wipe.SIGNATURES, Wipe.ZERO])
def test_a_failed_write_of_an_earlier_user_does_not_fail_the_wipe(tmp_path: Path, policy: Wipe) -> None:
    with (
        mounted("none", tmp_path / "full", "-t", "tmpfs", "-o", "size=2m"),
        attached(tmp_path / "full/file.img", 8 * MIB) as loop,
    ):
        with Path(loop.path).open("r+b", buffering=0) as device:
            device.write(PATTERN * (8 * MIB // len(PATTERN)))
        wipe(loop.path, policy, end_bytes=MIB, moment=Moment.DELETE)
        assert loop.get(0, MIB) == bytes(MIB)
