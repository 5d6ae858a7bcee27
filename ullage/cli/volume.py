"""Make, grow, mount and delete volumes by hand, with the driver's own CSI calls.

  ullage volume create db --size 10Gi
  ullage volume mount db /srv/db
  ullage volume expand db --size 20Gi
  ullage volume unmount db /srv/db
  ullage volume delete db

For a machine without Kubernetes, where `ullage standalone` runs: it does what kubelet and the sidecars do in a cluster.
Every command can be repeated, and finds what it did before. `ullage volume COMMAND --help` tells more of each.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass

from ullage.cli.output import DEFAULT_CSI_SOCKET, add_output_option
from ullage.errors import InvalidRequestError
from ullage.model import VolumeId, Wipe
from ullage.names import check_volume_id
from ullage.quantity import parse_bytes

TIMEOUT_SECONDS = 300.0
STAGING = "/run/ullage/staging"
FS_TYPES = ("ext4", "xfs", "btrfs")

Parser = argparse.ArgumentParser


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A subcommand; what it does is the function of its name in `ullage.cli.volume_calls`."""

    about: str
    details: str
    describe: Callable[[Parser], None]


def describe(parser: Parser) -> None:
    """Name the subcommands and their options."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="verb")
    for name, verb in VERBS.items():
        subparser = commands.add_parser(
            name,
            help=verb.about,
            description=verb.about,
            epilog=verb.details,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        verb.describe(subparser)
        subparser.set_defaults(refuse=subparser.error)
        subparser.add_argument(
            "--csi-endpoint", default=DEFAULT_CSI_SOCKET, metavar="ADDRESS", help=f"the driver ({DEFAULT_CSI_SOCKET})"
        )
        subparser.add_argument(
            "--timeout", type=_seconds, default=TIMEOUT_SECONDS, metavar="SECONDS", help="to wait (300)"
        )


def run(options: argparse.Namespace) -> int:
    """Do what is asked; 0 when it is done."""
    from ullage.cli import volume_calls  # noqa: PLC0415 - grpc is for those who ask
    from ullage.csi_client import driver_at  # noqa: PLC0415

    if options.verb == "mount" and options.block and options.flags:
        options.refuse("argument -o: not allowed with argument --block: a device has no mount flags")
    with driver_at(options.csi_endpoint) as driver:
        volume_calls.VERBS[options.verb](driver, options)
    return 0


def _describe_create(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="what it is to be called; the same name is the same volume")
    parser.add_argument("--size", type=_size, required=True, help="how large at least: bytes, or such as 10Gi or 1.5Ti")
    parser.add_argument("--limit", type=_size, default=0, metavar="SIZE", help="how large at most (no limit)")
    parser.add_argument("--class", dest="device_class", metavar="CLASS", help="the device class (the default one)")
    parser.add_argument(
        "--wipe", choices=[each.value for each in Wipe], help="what becomes of its bytes when it goes (the class says)"
    )
    add_output_option(parser)


def _describe_list(parser: Parser) -> None:
    add_output_option(parser)


def _describe_expand(parser: Parser) -> None:
    _add_id(parser)
    parser.add_argument("--size", type=_size, required=True, help="how large at least: bytes, or such as 20Gi")
    parser.add_argument("--path", metavar="PATH", help="where it is mounted (where `mount` staged it)")
    _add_staging(parser)


def _describe_delete(parser: Parser) -> None:
    _add_id(parser)
    parser.add_argument("--ignore-not-found", action="store_true", help="a volume that is not there is no error")


def _describe_mount(parser: Parser) -> None:
    _add_id(parser)
    parser.add_argument("path", metavar="PATH", help="where; it is made, its parent has to be there")
    kind = parser.add_mutually_exclusive_group()
    kind.add_argument("--fs", choices=FS_TYPES, default="", help="the file system, made if the volume is blank (ext4)")
    kind.add_argument("--block", action="store_true", help="show the device itself, without a file system")
    parser.add_argument("--read-only", action="store_true", help="nothing can be written at this path")
    parser.add_argument(
        "-o", dest="flags", action="append", default=[], metavar="FLAGS", help="as in mount(8), comma-separated"
    )
    _add_staging(parser)


def _describe_unmount(parser: Parser) -> None:
    _add_id(parser)
    parser.add_argument("path", metavar="PATH", help="where it is mounted; the empty directory or file goes, too")
    _add_staging(parser)


def _add_id(parser: Parser) -> None:
    parser.add_argument("id", type=_id, metavar="ID", help="the volume; `ullage volume list` shows them")


def _add_staging(parser: Parser) -> None:
    parser.add_argument(
        "--staging-path", metavar="PATH", help=f"where the driver mounts it once for all paths ({STAGING}/ID)"
    )


def _size(text: str) -> int:
    try:
        size_bytes = parse_bytes(text)
    except InvalidRequestError as impossible:
        raise argparse.ArgumentTypeError(str(impossible)) from impossible
    if size_bytes <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size for a volume; it is more than nothing")
    return size_bytes


def _id(text: str) -> VolumeId:
    try:
        return check_volume_id(text)
    except InvalidRequestError as impossible:
        raise argparse.ArgumentTypeError(str(impossible)) from impossible


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


VERBS = {
    "create": Verb(
        about="Make a volume, and print its id and size.",
        details="""\
  ullage volume create db --size 10Gi
  ullage volume create db --size 10Gi --limit 12Gi --class fast --wipe zero
  id=$(ullage volume create 'Any Name!' --size 1Gi -o json | jq -r '.items[0].volumeId')

The size is rounded up to whole extents, never beyond --limit. The id is the name where LVM and Kubernetes both take it,
else made from it. The same name again is the same volume; with another size or class it is refused.
`ullage pools` shows the classes, what is free, and the largest volume that fits.
""",
        describe=_describe_create,
    ),
    "list": Verb(
        about="List the volumes of the driver.",
        details="""\
  ullage volume list
  ullage volume list -o wide
  ullage volume list -o json | jq '[.items[].capacityBytes] | add'

`ullage volumes` asks this node's agent instead, and shows pools, devices, claims and problems, too.
""",
        describe=_describe_list,
    ),
    "expand": Verb(
        about="Make a volume larger, with the file system on it if that is mounted.",
        details="""\
  ullage volume expand db --size 20Gi
  ullage volume expand db --size 20Gi --path /srv/db

A file system that `ullage volume mount` has mounted grows at once, in use; with --path, one that is mounted somewhere
else; without a mount it grows when it is next mounted. A block volume has its new room at once; one that is mounted
read-only shows it when --path names it. Nothing ever shrinks: a smaller size finds the volume large enough.
Growing a mounted ext4 needs CAP_SYS_RESOURCE in the driver, which root lacks in some containers; xfs and btrfs do not.
""",
        describe=_describe_expand,
    ),
    "delete": Verb(
        about="Delete a volume with everything on it.",
        details="""\
  ullage volume delete db
  ullage volume delete db --ignore-not-found

What is mounted or open is refused; `ullage volume unmount` comes first. There is no way back.
""",
        describe=_describe_delete,
    ),
    "mount": Verb(
        about="Mount a volume: its file system, or with --block its device.",
        details=f"""\
  ullage volume mount db /srv/db
  ullage volume mount db /srv/db --fs xfs -o noatime,nodev
  ullage volume mount db /mnt/db-to-look --read-only
  ullage volume mount raw /dev/shm/raw --block

A blank volume gets its file system first; one with anything else on it is refused and left alone. It is mounted once
at {STAGING}/ID (staged), and shown from there at as many paths as you like (published), with the same
-o at each. PATH is made; a directory there must be empty, and for --block a file there.
xfs needs 300Mi, btrfs 109Mi, ext4 8Mi.
Mounts outlive the driver, and end with the machine: after a reboot, mount again.
""",
        describe=_describe_mount,
    ),
    "unmount": Verb(
        about="Unmount a volume at a path, and unstage it when that was the last.",
        details=f"""\
  ullage volume unmount db /srv/db
  ullage volume unmount db /srv/db --staging-path /run/elsewhere/db

While the volume is mounted anywhere else it stays staged, and the command says where. What is in use is refused, never
forced. What is mounted at PATH without being the volume staged at {STAGING}/ID is left alone.
""",
        describe=_describe_unmount,
    ),
}
