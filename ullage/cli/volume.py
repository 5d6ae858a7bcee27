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

from ullage.cli.output import add_output_option
from ullage.cli.verbs import Parser, Verb, add_new_volume_options, describe_verbs, size, volume_id
from ullage.model import VolumeKind
from ullage.names import kind_of

STAGING = "/run/ullage/staging"
FS_TYPES = ("ext4", "xfs", "btrfs")


def describe(parser: Parser) -> None:
    """Name the subcommands and their options."""
    describe_verbs(parser, VERBS)


def run(options: argparse.Namespace) -> int:
    """Do what is asked; 0 when it is done."""
    from ullage.cli import volume_calls  # noqa: PLC0415 - grpc is for those who ask
    from ullage.csi_client import driver_at  # noqa: PLC0415

    if options.verb == "create":
        _check_create(options)
    if options.verb == "mount" and options.block and options.flags:
        options.refuse("argument -o: not allowed with argument --block: a device has no mount flags")
    with driver_at(options.csi_endpoint) as driver:
        volume_calls.VERBS[options.verb](driver, options)
    return 0


def _describe_create(parser: Parser) -> None:
    parser.add_argument("name", metavar="NAME", help="what it is to be called; the same name is the same volume")
    parser.add_argument("--size", type=size, help="how large at least: bytes, or such as 10Gi or 1.5Ti")
    parser.add_argument(
        "--from", dest="source", type=volume_id, metavar="VOLUME", help="begin with what this volume holds: a clone"
    )
    add_new_volume_options(parser)
    add_output_option(parser)


def _check_create(options: argparse.Namespace) -> None:
    if options.size is None and options.source is None:
        options.refuse("the following arguments are required: --size (a clone has its source's, without it)")
    if options.source is not None and kind_of(options.source) is VolumeKind.SNAPSHOT:
        options.refuse(f"argument --from: {options.source} is a snapshot; `ullage snapshot restore` makes it a volume")


def _describe_list(parser: Parser) -> None:
    add_output_option(parser)


def _describe_expand(parser: Parser) -> None:
    _add_id(parser)
    parser.add_argument("--size", type=size, required=True, help="how large at least: bytes, or such as 20Gi")
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
    parser.add_argument("id", type=volume_id, metavar="ID", help="the volume; `ullage volume list` shows them")


def _add_staging(parser: Parser) -> None:
    parser.add_argument(
        "--staging-path", metavar="PATH", help=f"where the driver mounts it once for all paths ({STAGING}/ID)"
    )


VERBS = {
    "create": Verb(
        about="Make a volume, and print its id and size.",
        details="""\
  ullage volume create db --size 10Gi
  ullage volume create db --size 10Gi --limit 12Gi --class fast --wipe zero
  ullage volume create db-to-try --from db
  id=$(ullage volume create 'Any Name!' --size 1Gi -o json | jq -r '.items[0].volumeId')

The size is rounded up to whole extents, never beyond --limit. The id is the name where LVM and Kubernetes both take it,
else made from it. The same name again is the same volume; with another size or class it is refused.
`ullage pools` shows the classes, what is free, and the largest volume that fits.
With --from it begins with what another volume of this node holds at this moment, in that one's pool and so of one of
its classes; it is as large, or larger with --size. Where its bytes have to be copied, that is told on standard error
until it is done; past --timeout it goes on, and the same command again finds how far it is.
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
