"""Records what LVM really says, for the unit tests: reports as JSON and refusals with their exit code and English.

    python3 -m tests.rigs.vm --smp 2 --disks 12 --disk-bytes 1GiB --collect tests/unit/reports -- \
        .venv/bin/python -m tests.unit.reports.record

Makes and breaks volume groups on /dev/vda … /dev/vdl: only for a throw-away machine.
"""

from __future__ import annotations

import json
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

from node_agent.backends.lvm import tags
from node_agent.backends.lvm.command import CONFIG
from node_agent.backends.lvm.devices import candidates
from node_agent.backends.lvm.rows import ARGUMENTS
from ullage.model import DeviceClassName, Owner, VolumeId, VolumeKind, VolumeState, Wipe

DISKS = tuple(f"/dev/vd{letter}" for letter in "abcdefghijkl")
RESULTS = Path("/results")
OWNER = Owner(
    pv_name="pvc-1", claim_namespace="shop", claim_name="db-0", claim_uid="4d1c0b9e-7d2f-4b0a-9c1e-5a6b7c8d9e0f"
)
REFUSALS: list[dict[str, str | int]] = []


def run(*argv: str, accepted: Sequence[int] = (0,)) -> subprocess.CompletedProcess[str]:
    finished = subprocess.run(
        argv, capture_output=True, text=True, check=False, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    )
    if accepted and finished.returncode not in accepted:
        raise SystemExit(f"{argv} exited with {finished.returncode}: {finished.stderr}")
    return finished


def lvm(
    verb: str, *arguments: str, without: Sequence[str] = (), accepted: Sequence[int] = (0,)
) -> subprocess.CompletedProcess[str]:
    devices = [each for each in candidates(()) if each not in without]
    return run("lvm", verb, "--config", CONFIG, "--devices", ",".join(devices), *arguments, accepted=accepted)


def marked(name: str, state: VolumeState = VolumeState.READY, snapshot_of: str = "") -> tuple[str, ...]:
    label = tags.Label(
        volume_id=VolumeId(name),
        kind=VolumeKind.SNAPSHOT if snapshot_of else VolumeKind.VOLUME,
        source=VolumeId(snapshot_of) if snapshot_of else None,
        device_class=DeviceClassName("fast"),
        wipe=Wipe.DISCARD,
        owner=OWNER,
        state=state,
    )
    return ("--yes", "--name", name, *(word for tag in tags.written(label) for word in ("--addtag", tag)))


def report(name: str, *group: str, without: Sequence[str] = ()) -> None:
    compact = json.loads(lvm("fullreport", *ARGUMENTS, *group, without=without).stdout)
    lines = ",\n".join(json.dumps(each, separators=(",", ":")) for each in compact["report"])
    (RESULTS / f"{name}.json").write_text(f'{{"report": [\n{lines}\n]}}\n', encoding="utf-8")


def refused(situation: str, verb: str, *arguments: str, without: Sequence[str] = ()) -> None:
    finished = lvm(verb, *arguments, without=without, accepted=())
    print(f"{situation}: {finished.returncode}\n{finished.stdout}{finished.stderr}", flush=True)
    if finished.returncode:
        REFUSALS.append(
            {
                "situation": situation,
                "command": " ".join((verb, *arguments)),
                "exit_code": finished.returncode,
                "stderr": finished.stderr,
            }
        )


def layouts() -> None:
    report("nothing")
    run("vgcreate", "fresh", "/dev/vda")
    report("fresh")
    run("vgremove", "fresh")
    run("pvcreate", "/dev/vde")
    run("vgcreate", "vg0", "/dev/vda", "/dev/vdb", "/dev/vdc", "/dev/vdd")
    run("vgextend", "vg0", "/dev/vde")
    lvm("lvcreate", *marked("linear"), "--type", "linear", "--size", "100m", "vg0", "/dev/vda")
    lvm("lvcreate", *marked("spanning"), "--type", "linear", "--size", "24m", "vg0", "/dev/vda")
    lvm("lvextend", "--size", "40m", "vg0/spanning", "/dev/vdb")
    lvm(
        "lvcreate",
        *marked("striped"),
        "--type",
        "striped",
        "--stripes",
        "2",
        "--stripesize",
        "128k",
        "--size",
        "64m",
        "vg0",
    )
    lvm("lvcreate", *marked("raid1"), "--type", "raid1", "--mirrors", "2", "--size", "64m", "vg0")
    lvm(
        "lvcreate",
        *marked("raid1-integrity"),
        "--type",
        "raid1",
        "--mirrors",
        "1",
        "--raidintegrity",
        "y",
        "--size",
        "64m",
        "vg0",
    )
    lvm("lvcreate", *marked("raid5"), "--type", "raid5", "--stripes", "2", "--size", "64m", "vg0")
    lvm(
        "lvcreate",
        *marked("raid6"),
        "--type",
        "raid6",
        "--stripes",
        "3",
        "--size",
        "48m",
        "vg0",
        "/dev/vda",
        "/dev/vdb",
        "/dev/vdc",
        "/dev/vdd",
        "/dev/vde",
        accepted=(),
    )
    run("pvchange", "--allocatable", "n", "/dev/vde")
    lvm(
        "lvcreate",
        *marked("raid10"),
        "--type",
        "raid10",
        "--stripes",
        "2",
        "--mirrors",
        "1",
        "--stripesize",
        "32k",
        "--size",
        "64m",
        "vg0",
    )
    lvm(
        "lvcreate",
        "--yes",
        "--type",
        "thin-pool",
        "--name",
        "pool0",
        "--zero",
        "y",
        "--size",
        "128m",
        "--poolmetadatasize",
        "4m",
        "--addtag",
        tags.POOL,
        "vg0",
        "/dev/vdc",
    )
    lvm("lvcreate", *marked("thin-a"), "--type", "thin", "--virtualsize", "100m", "--thinpool", "vg0/pool0")
    lvm("lvcreate", *marked("thin-b"), "--type", "thin", "--virtualsize", "60m", "--thinpool", "vg0/pool0")
    run("dd", "if=/dev/urandom", "of=/dev/vg0/thin-a", "bs=1M", "count=10", "oflag=direct")
    lvm(
        "lvcreate",
        "--yes",
        "--name",
        "foreign-thin",
        "--type",
        "thin",
        "--virtualsize",
        "16m",
        "--thinpool",
        "vg0/pool0",
    )
    lvm("lvcreate", "--yes", "--name", "foreign", "--size", "8m", "vg0", "/dev/vdd")
    lvm(
        "lvcreate",
        "--yes",
        "--name",
        "other-driver",
        "--size",
        "8m",
        "--addtag",
        "topolvm.io/volume=x",
        "--addtag",
        "ullage.io.example/volume=x",
        "vg0",
        "/dev/vdd",
    )
    lvm(
        "lvcreate",
        *marked("with-more-tags"),
        "--size",
        "8m",
        "--addtag",
        "backup",
        "--addtag",
        "ullage.io/later=1",
        "vg0",
        "/dev/vdd",
    )
    lvm("lvcreate", *marked("asleep"), "--size", "8m", "vg0", "/dev/vdd")
    lvm("lvchange", "--activate", "n", "vg0/asleep")
    lvm("lvcreate", *marked("creating", VolumeState.CREATING), "--size", "8m", "vg0", "/dev/vdd")
    lvm("lvcreate", *marked("deleting", VolumeState.DELETING), "--size", "8m", "vg0", "/dev/vdd")
    lvm("lvcreate", *marked("growing"), "--size", "16m", "--addtag", tags.growing(8 << 20), "vg0", "/dev/vdd")
    lvm(
        "lvcreate",
        "--yes",
        "--name",
        "broken-tag",
        "--size",
        "8m",
        "--addtag",
        "ullage.io/volume=broken-tag",
        "--addtag",
        "ullage.io/wipe=shred",
        "vg0",
        "/dev/vdd",
    )
    lvm(
        "lvcreate",
        "--yes",
        "--name",
        "renamed",
        "--size",
        "8m",
        "--addtag",
        "ullage.io/volume=other-name",
        "vg0",
        "/dev/vdd",
    )
    lvm("lvcreate", *marked("origin"), "--size", "8m", "vg0", "/dev/vdd")
    lvm("lvcreate", "--yes", "--snapshot", "--name", "by-hand", "--size", "8m", "vg0/origin", "/dev/vdd")
    thick_snapshots()
    lvm("lvcreate", *marked("guest"), "--size", "100m", "vg0", "/dev/vdd")
    run("pvcreate", "--config", "devices/scan_lvs=1", "/dev/vg0/guest")
    run("vgcreate", "--config", "devices/scan_lvs=1", "inner", "/dev/vg0/guest")
    run("lvcreate", "--yes", "--config", "devices/scan_lvs=1", "--name", "secret", "--size", "8m", "inner")
    lvm("lvcreate", *marked("suspended"), "--size", "8m", "vg0", "/dev/vdd")
    run("udevadm", "settle")
    settled("vg0")
    with Path("/dev/vg0/linear").open("rb"):
        run("dmsetup", "suspend", "vg0-suspended")
        report("layouts", "vg0")
        run("dmsetup", "resume", "vg0-suspended")


def thick_snapshots() -> None:
    """One whole, one overflowed, one that LVM died over before it was one, and one that it was removing."""
    lvm("lvcreate", *marked("busy"), "--size", "16m", "vg0", "/dev/vdd")
    snapshot = ("--snapshot", "--permission", "r", "--chunksize", "65536b", "--size")
    lvm("lvcreate", *marked("s-whole", snapshot_of="busy"), *snapshot, "20m", "vg0/busy", "/dev/vdd")
    lvm("lvcreate", *marked("s-small", snapshot_of="busy"), *snapshot, "4m", "vg0/busy", "/dev/vdd")
    lvm("lvcreate", *marked("s-not-yet", snapshot_of="busy"), "--size", "4m", "vg0", "/dev/vdd")
    lvm("lvcreate", *marked("s-going", VolumeState.DELETING, "busy"), "--size", "4m", "vg0", "/dev/vdd")
    run("dd", "if=/dev/zero", "of=/dev/vg0/busy", "bs=1M", "count=8", "oflag=direct")


def settled(group: str) -> None:
    """Wait until every RAID volume is in sync: a report of one that is not would differ from run to run."""
    while any(
        row.strip() not in ("", "100.00")
        for row in lvm("lvs", "--noheadings", "-o", "sync_percent", group).stdout.splitlines()
    ):
        time.sleep(0.5)


def broken_groups() -> None:
    run("pvcreate", "/dev/vdl")
    run("vgcreate", "gone", "/dev/vdf", "/dev/vdg")
    lvm("lvcreate", *marked("half"), "--type", "linear", "--size", "16m", "gone", "/dev/vdf")
    lvm("lvcreate", *marked("other-half"), "--type", "linear", "--size", "16m", "gone", "/dev/vdg")
    lvm("lvcreate", *marked("both"), "--type", "raid1", "--mirrors", "1", "--size", "16m", "gone")
    settled("gone")
    run("vgcreate", "sold", "/dev/vdh")
    lvm("lvcreate", *marked("parked"), "--size", "16m", "sold")
    lvm("vgchange", "--activate", "n", "sold")
    lvm("vgexport", "sold")
    report("everything", without=DISKS[:5])
    report("exported", "sold")
    report("missing", "gone", without=["/dev/vdg"])
    refused("missing PV: create", "lvcreate", "--yes", "--name", "new", "--size", "8m", "gone", without=["/dev/vdg"])
    refused("missing PV: extend", "lvextend", "--size", "64m", "gone/half", without=["/dev/vdg"])
    refused("missing PV: tag", "lvchange", "--addtag", "x", "gone/half", without=["/dev/vdg"])
    refused("missing PV: remove", "lvremove", "--yes", "gone/half", without=["/dev/vdg"])
    refused(
        "missing PV: remove selected",
        "lvremove",
        "--yes",
        "--select",
        'lv_tags="ullage.io/volume=half"',
        "gone/half",
        without=["/dev/vdg"],
    )
    refused(
        "missing PV: activate what needs it", "lvchange", "--activate", "y", "gone/other-half", without=["/dev/vdg"]
    )
    refused(
        "every PV missing: create",
        "lvcreate",
        "--yes",
        "--name",
        "new",
        "--size",
        "8m",
        "gone",
        without=["/dev/vdf", "/dev/vdg"],
    )
    refused("exported: create", "lvcreate", "--yes", "--name", "new", "--size", "8m", "sold")
    refused("exported: remove", "lvremove", "--yes", "sold/parked")
    refused("exported: tag", "lvchange", "--addtag", "x", "sold/parked")
    run("vgcreate", "--systemid", "another-machine", "theirs", "/dev/vdi")
    refused("another machine's group: create", "lvcreate", "--yes", "--name", "new", "--size", "8m", "theirs")
    refused("another machine's group: report", "fullreport", *ARGUMENTS, "theirs")
    refused("another machine's group: report of all", "fullreport", *ARGUMENTS, without=DISKS[:8])


def names_and_arguments() -> None:
    size = ("--yes", "--size", "8m")
    refused("group missing: create", "lvcreate", *size, "--name", "new", "nosuch")
    refused("group missing: extend", "lvextend", "--size", "64m", "nosuch/linear")
    refused("group missing: tag", "lvchange", "--addtag", "x", "nosuch/linear")
    refused("group missing: remove", "lvremove", "--yes", "nosuch/linear")
    refused("group missing: remove selected", "lvremove", "--yes", "--select", 'lv_tags="x"', "nosuch/linear")
    refused(
        "group missing: thin",
        "lvcreate",
        "--yes",
        "--name",
        "new",
        "--type",
        "thin",
        "--virtualsize",
        "8m",
        "--thinpool",
        "nosuch/pool0",
    )
    refused("group missing: report", "fullreport", *ARGUMENTS, "nosuch")
    refused("volume missing: extend", "lvextend", "--size", "64m", "vg0/nosuch")
    refused("volume missing: tag", "lvchange", "--addtag", "x", "vg0/nosuch")
    refused("volume missing: tag selected", "lvchange", "--addtag", "x", "--select", 'lv_tags="x"', "vg0/nosuch")
    refused("volume missing: remove", "lvremove", "--yes", "vg0/nosuch")
    refused("volume missing: remove selected", "lvremove", "--yes", "--select", 'lv_tags="x"', "vg0/nosuch")
    refused("volume missing: activate", "lvchange", "--activate", "y", "vg0/nosuch")
    refused(
        "thin pool missing: create",
        "lvcreate",
        "--yes",
        "--name",
        "new",
        "--type",
        "thin",
        "--virtualsize",
        "8m",
        "--thinpool",
        "vg0/nosuch",
    )
    refused(
        "no thin pool: create",
        "lvcreate",
        "--yes",
        "--name",
        "new",
        "--type",
        "thin",
        "--virtualsize",
        "8m",
        "--thinpool",
        "vg0/linear",
    )
    refused("exists: linear", "lvcreate", *size, "--name", "linear", "vg0")
    refused("exists: raid1", "lvcreate", *size, "--type", "raid1", "--mirrors", "1", "--name", "linear", "vg0")
    refused(
        "exists: thin",
        "lvcreate",
        "--yes",
        "--name",
        "thin-a",
        "--type",
        "thin",
        "--virtualsize",
        "8m",
        "--thinpool",
        "vg0/pool0",
    )
    refused(
        "exists: thin pool",
        "lvcreate",
        *size,
        "--type",
        "thin-pool",
        "--name",
        "pool0",
        "--poolmetadatasize",
        "4m",
        "vg0",
    )
    refused("same size: extend linear", "lvextend", "--size", "100m", "vg0/linear")
    refused("same size: extend raid1", "lvextend", "--size", "64m", "vg0/raid1")
    refused("same size: extend thin", "lvextend", "--size", "100m", "vg0/thin-a")
    refused("smaller: extend linear", "lvextend", "--size", "50m", "vg0/linear")
    refused("reserved prefix", "lvcreate", *size, "--name", "snapshot1", "vg0")
    refused("reserved infix", "lvcreate", *size, "--name", "a_rimage_b", "vg0")
    refused("name too long", "lvcreate", *size, "--name", "x" * 128, "vg0")
    refused("name just too long with its group", "lvcreate", *size, "--name", "x" * 127, "vg0")
    refused("name with a space", "lvcreate", *size, "--name", "a b", "vg0")
    refused("name with a hyphen first", "lvcreate", *size, "--name=-a", "vg0")
    refused("tag with a space", "lvcreate", *size, "--name", "new", "--addtag", "a b", "vg0")
    refused("tag empty", "lvcreate", *size, "--name", "new", "--addtag", "", "vg0")
    refused("size 0", "lvcreate", "--yes", "--size", "0b", "--name", "new", "vg0")
    refused("size beyond all", "lvcreate", "--yes", "--size", "99999999999999999999b", "--name", "new", "vg0")
    refused("unknown option", "lvcreate", *size, "--name", "new", "--colour", "red", "vg0")
    refused(
        "stripe size too small",
        "lvcreate",
        *size,
        "--name",
        "new",
        "--type",
        "striped",
        "--stripes",
        "2",
        "--stripesize",
        "1k",
        "vg0",
    )
    refused("PV of no group", "lvcreate", *size, "--name", "new", "vg0", "/dev/vdl")
    refused("PV that is not there", "lvcreate", *size, "--name", "new", "vg0", "/dev/vdz")
    refused("PV not allocatable", "lvcreate", *size, "--name", "new", "vg0", "/dev/vde")


def around_snapshots() -> None:
    refused("not a snapshot: split", "lvconvert", "--yes", "--splitsnapshot", "vg0/linear")
    refused("writable already: permission", "lvchange", "--permission", "rw", "vg0/linear")
    refused("origin: extend", "lvextend", "--size", "64m", "vg0/busy")
    integrity = ("--snapshot", "--size", "8m", "--name", "new", "vg0/raid1-integrity")
    refused("integrity: snapshot", "lvcreate", "--yes", *integrity)


def no_space() -> None:
    new = ("lvcreate", "--yes", "--name", "new")
    refused("no space: linear", *new, "--type", "linear", "--size", "90g", "vg0")
    refused("no space: linear on named PVs", *new, "--type", "linear", "--size", "1020m", "vg0", "/dev/vda")
    refused("no space: striped", *new, "--type", "striped", "--stripes", "2", "--size", "90g", "vg0")
    refused(
        "no space: striped on named PVs",
        *new,
        "--type",
        "striped",
        "--stripes",
        "2",
        "--size",
        "2000m",
        "vg0",
        "/dev/vda",
        "/dev/vdb",
    )
    refused("no space: striped on too few PVs", *new, "--type", "striped", "--stripes", "6", "--size", "60m", "vg0")
    refused("no space: raid1", *new, "--type", "raid1", "--mirrors", "1", "--size", "90g", "vg0")
    refused(
        "no space: raid1 on named PVs",
        *new,
        "--type",
        "raid1",
        "--mirrors",
        "1",
        "--size",
        "1000m",
        "vg0",
        "/dev/vda",
        "/dev/vdb",
    )
    refused("no space: raid1 on too few PVs", *new, "--type", "raid1", "--mirrors", "5", "--size", "8m", "vg0")
    refused(
        "no space: raid1 with integrity",
        *new,
        "--type",
        "raid1",
        "--mirrors",
        "1",
        "--raidintegrity",
        "y",
        "--size",
        "90g",
        "vg0",
    )
    free = lvm("pvs", "--noheadings", "--units", "b", "--nosuffix", "-o", "pv_free", "/dev/vda").stdout.strip()
    refused(
        "no space: integrity's metadata",
        *new,
        "--type",
        "raid1",
        "--mirrors",
        "1",
        "--raidintegrity",
        "y",
        "--size",
        f"{int(free) - (8 << 20)}b",
        "vg0",
        "/dev/vda",
        "/dev/vdd",
    )
    print(lvm("lvs", "--all", "vg0").stdout)
    lvm("lvremove", "--yes", "vg0/new", accepted=())
    refused("no space: raid5 on too few PVs", *new, "--type", "raid5", "--stripes", "5", "--size", "60m", "vg0")
    refused(
        "no space: raid10 on too few PVs",
        *new,
        "--type",
        "raid10",
        "--stripes",
        "3",
        "--mirrors",
        "1",
        "--size",
        "60m",
        "vg0",
    )
    refused(
        "no space: thin pool",
        "lvcreate",
        "--yes",
        "--type",
        "thin-pool",
        "--name",
        "new",
        "--size",
        "90g",
        "--poolmetadatasize",
        "4m",
        "vg0",
    )
    refused("no space: extend linear", "lvextend", "--size", "90g", "vg0/linear")
    refused("no space: extend linear on named PVs", "lvextend", "--size", "1100m", "vg0/linear", "/dev/vda")
    refused("no space: extend striped", "lvextend", "--size", "90g", "vg0/striped")
    refused("no space: extend raid1", "lvextend", "--size", "90g", "vg0/raid1")
    refused(
        "no space: extend raid1 on named PVs",
        "lvextend",
        "--size",
        "1000m",
        "vg0/raid1",
        "/dev/vda",
        "/dev/vdb",
        "/dev/vdc",
    )
    refused("no space: extend raid5", "lvextend", "--size", "90g", "vg0/raid5")
    refused("no space: extend raid1 with integrity", "lvextend", "--size", "90g", "vg0/raid1-integrity")
    refused("no space: extend thin pool", "lvextend", "--size", "90g", "vg0/pool0")
    run("vgcreate", "--maxlogicalvolumes", "1", "small", "/dev/vdj")
    lvm("lvcreate", "--yes", "--name", "only", "--size", "8m", "small")
    refused("most volumes reached", "lvcreate", "--yes", "--name", "new", "--size", "8m", "small")


def in_use() -> None:
    run("mkfs.ext4", "-q", "/dev/vg0/linear")
    run("mount", "/dev/vg0/linear", "/mnt")
    refused("mounted: remove", "lvremove", "--yes", "vg0/linear")
    refused("mounted: deactivate", "lvchange", "--activate", "n", "vg0/linear")
    run("umount", "/mnt")
    with Path("/dev/vg0/spanning").open("rb"):
        refused("open: remove", "lvremove", "--yes", "vg0/spanning")
    refused("held: remove", "lvremove", "--yes", "vg0/guest")
    with Path("/dev/vg0/thin-a").open("rb"):
        refused("open: remove thin", "lvremove", "--yes", "vg0/thin-a")
        refused("open: remove its pool", "lvremove", "--yes", "vg0/pool0")
    with Path("/dev/vg0/raid5").open("rb"):
        refused("open: remove raid5", "lvremove", "--yes", "vg0/raid5")
    run("mkfs.ext4", "-q", "/dev/vg0/thin-a")
    run("mount", "/dev/vg0/thin-a", "/mnt")
    run("fsfreeze", "--freeze", "/mnt")
    refused("frozen: snapshot of thin", "lvcreate", "--yes", "--name", "new", "--snapshot", "vg0/thin-a")
    run("fsfreeze", "--unfreeze", "/mnt")
    run("umount", "/mnt")


def thin_pools() -> None:
    run("vgcreate", "thin", "/dev/vdk")
    for name, zero in (("full", "y"), ("showing", "n"), ("ahead", "y"), ("damaged", "y")):
        lvm(
            "lvcreate",
            "--yes",
            "--type",
            "thin-pool",
            "--name",
            name,
            "--zero",
            zero,
            "--size",
            "16m",
            "--poolmetadatasize",
            "4m",
            "thin",
        )
        lvm("lvcreate", *marked(f"in-{name}"), "--type", "thin", "--virtualsize", "32m", "--thinpool", f"thin/{name}")
    new = ("lvcreate", *marked("new"), "--type", "thin", "--virtualsize", "8m", "--thinpool")
    lvm("lvchange", "--errorwhenfull", "y", "thin/full")
    run("dd", "if=/dev/urandom", "of=/dev/thin/in-full", "bs=1M", "count=32", "oflag=direct", accepted=())
    lvm("lvchange", "--activate", "n", "thin/in-damaged")
    lvm("lvchange", "--activate", "n", "thin/damaged")
    report("thin-pools", "thin")
    refused("thin pool full", *new, "thin/full")
    refused("thin: extend in a full pool", "lvextend", "--size", "64m", "thin/in-full")
    run("dmsetup", "message", "thin-ahead-tpool", "0", "set_transaction_id 1 5", accepted=())
    refused("thin pool of another transaction: create", *new, "thin/ahead")
    refused("thin pool of another transaction: extend", "lvextend", "--size", "64m", "thin/in-ahead")
    refused("thin pool of another transaction: remove", "lvremove", "--yes", "thin/in-ahead")
    rows = lvm("lvs", "--all", "--noheadings", "-o", "lv_name,seg_pe_ranges", "thin").stdout.splitlines()
    extent = next(int(row.rpartition("-")[2]) for row in rows if row.split()[0] == "[damaged_tmeta]")
    Path("/garbage").write_bytes(b"not the metadata of a thin pool!" * 256)
    run("dd", "if=/garbage", "of=/dev/vdk", "bs=4096", f"seek={256 + extent * 1024}", "oflag=direct", "conv=notrunc")
    refused("damaged thin pool: create", *new, "thin/damaged")
    refused("damaged thin pool: activate", "lvchange", "--activate", "y", "thin/in-damaged")
    report("thin-pools-broken", "thin")


def main() -> None:
    """Everything, in one boot."""
    layouts()
    for scene in (broken_groups, names_and_arguments, around_snapshots, no_space, in_use, thin_pools):
        try:
            scene()
        except SystemExit as failure:
            print(f"{scene.__name__} ended early: {failure}", flush=True)
    lines = ",\n".join(json.dumps(each) for each in REFUSALS)
    (RESULTS / "refusals.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")


if __name__ == "__main__":
    main()
