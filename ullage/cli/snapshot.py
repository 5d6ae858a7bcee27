"""Keep what volumes hold at one moment, and make volumes of it again.

  ullage snapshot create before-upgrade --source db
  ullage snapshot create tuesday --source db --source wal
  ullage snapshot list db
  ullage snapshot restore before-upgrade db-as-it-was
  ullage snapshot diff monday tuesday
  ullage snapshot delete before-upgrade

For a machine without Kubernetes, where `ullage standalone` runs. Volumes may be in use meanwhile.
A snapshot has the name that you give it, and an id (s-…) that is made from the name: every command takes either. The
driver keeps the id only, and lists show that. Snapshots of several volumes, taken at one moment, are a group with a
name and an id (g-…) of its own; each of them has an id, and no name.
Every command can be repeated, and finds what it did before. `ullage snapshot COMMAND --help` tells more of each.
"""

from __future__ import annotations

import argparse

from ullage.cli.output import add_output_option
from ullage.cli.verbs import Parser, Verb, add_new_volume_options, describe_verbs, offset, size, volume_id
from ullage.model import VolumeId, VolumeKind
from ullage.names import is_group_id, kind_of, snapshot_id

SNAPSHOT = "its name or its id; `ullage snapshot list` shows the ids"


def describe(parser: Parser) -> None:
    """Name the subcommands and their options."""
    describe_verbs(parser, VERBS)


def run(options: argparse.Namespace) -> int:
    """Do what is asked; 0 when it is done."""
    from ullage.cli import snapshot_calls  # noqa: PLC0415 - grpc is for those who ask

    if options.verb == "create" and len(set(options.sources)) < len(options.sources):
        options.refuse("argument --source: the same volume is named twice")
    snapshot_calls.VERBS[options.verb](options)
    return 0


def _describe_create(parser: Parser) -> None:
    parser.add_argument("name", type=_name, metavar="NAME", help="what to call it; the same name is the same snapshot")
    parser.add_argument(
        "--source",
        dest="sources",
        action="append",
        type=volume_id,
        required=True,
        metavar="VOLUME",
        help="the volume; several: all at one moment, as a group",
    )
    add_output_option(parser)


def _describe_list(parser: Parser) -> None:
    parser.add_argument("volume", nargs="?", type=volume_id, metavar="VOLUME", help="only those of this volume")
    add_output_option(parser)


def _describe_get(parser: Parser) -> None:
    parser.add_argument("snapshot", type=_known, metavar="SNAPSHOT", help=f"a snapshot or a group: {SNAPSHOT}")
    add_output_option(parser)


def _describe_delete(parser: Parser) -> None:
    parser.add_argument("snapshot", type=_known, metavar="SNAPSHOT", help=f"a snapshot or a group: {SNAPSHOT}")
    parser.add_argument("--ignore-not-found", action="store_true", help="a snapshot that is not there is no error")


def _describe_restore(parser: Parser) -> None:
    parser.add_argument("snapshot", type=_known, metavar="SNAPSHOT", help=SNAPSHOT)
    parser.add_argument(
        "name", metavar="NAME", help="what the volume is to be called; the same name is the same volume"
    )
    parser.add_argument("--size", type=size, help="how large at least: bytes, or such as 20Gi (the snapshot's)")
    add_new_volume_options(parser)
    add_output_option(parser)


def _describe_diff(parser: Parser) -> None:
    parser.add_argument("base", nargs="?", type=_one, metavar="BASE", help="the earlier one of the same volume")
    parser.add_argument("target", type=_one, metavar="TARGET", help=f"the later one: {SNAPSHOT}")
    parser.add_argument(
        "--starting-offset", type=offset, default=0, metavar="BYTES", help="leave out what is before this place (0)"
    )
    add_output_option(parser)


def _name(text: str) -> str:
    """What can be told from an id later on; the ids' own form is theirs."""
    if is_group_id(text) or kind_of(text) is VolumeKind.SNAPSHOT:
        raise argparse.ArgumentTypeError(f"{text!r} would be taken for an id; choose another name")
    return _known(text)


def _known(text: str) -> str:
    if not text:
        raise argparse.ArgumentTypeError("a snapshot's name is not empty")
    return text


def _one(text: str) -> VolumeId:
    """The id of a single snapshot."""
    if is_group_id(text):
        raise argparse.ArgumentTypeError(f"{text!r} is a group; name one of its snapshots")
    return VolumeId(text) if kind_of(text) is VolumeKind.SNAPSHOT else snapshot_id(_known(text))


VERBS = {
    "create": Verb(
        about="Take a snapshot of a volume, or of several at one moment, and print it.",
        details="""\
  ullage snapshot create before-upgrade --source db
  ullage snapshot create tuesday --source db --source wal
  id=$(ullage snapshot create monday --source db -o json | jq -r '.items[0].snapshotId')

It holds what the volume holds at that moment, and nobody can write to it. The volume may be mounted and in use: its
file system is brought to rest for that moment. The same name again is the same snapshot, at its first moment; of
another volume it is refused.
With several --source, no write is in one of the snapshots without those before it in the others; volumes whose writes
cannot be held still are refused. What a snapshot costs depends on the class: see docs/snapshots.md.
""",
        describe=_describe_create,
    ),
    "list": Verb(
        about="List the snapshots of the driver, or of one volume.",
        details="""\
  ullage snapshot list
  ullage snapshot list db -o wide
  ullage snapshot list -o json | jq -r '.items[] | select(.readyToUse | not) | .snapshotId'

SIZE is what a volume restored from it needs at least, not what the snapshot takes. The source may be gone by now.
""",
        describe=_describe_list,
    ),
    "get": Verb(
        about="Show one snapshot, or all of one group.",
        details="""\
  ullage snapshot get before-upgrade
  ullage snapshot get s-dpnwqh64qu6ltqhdgzg5xzhscy -o json

By its name this also tells its id.
""",
        describe=_describe_get,
    ),
    "delete": Verb(
        about="Delete a snapshot, or a group with all of its snapshots.",
        details="""\
  ullage snapshot delete before-upgrade
  ullage snapshot delete s-dpnwqh64qu6ltqhdgzg5xzhscy --ignore-not-found
  ullage snapshot delete tuesday

The volume it was taken of stays, and so do volumes restored from it. A snapshot that volumes are still being restored
from is refused, and so is one of a group by itself. There is no way back.
""",
        describe=_describe_delete,
    ),
    "restore": Verb(
        about="Make a new volume that begins with what a snapshot holds, and print it.",
        details="""\
  ullage snapshot restore before-upgrade db-as-it-was
  ullage snapshot restore before-upgrade db-larger --size 20Gi
  ullage volume mount db-as-it-was /srv/db-as-it-was

The volume is like any other from then on, and can be mounted beside the one the snapshot was taken of. It is in the
snapshot's pool, so --class has to be one of that pool's. A file system grows to a larger --size when it is mounted.
Thin volumes, and files where the file system shares blocks (xfs, btrfs), are there at once. Elsewhere all bytes are
copied: how far that is, standard error tells until it is done. Past --timeout it goes on, and the same command again
finds how far it is; the volume cannot be used before.
`ullage volume create NAME --from VOLUME` does the same without a snapshot.
""",
        describe=_describe_restore,
    ),
    "diff": Verb(
        about="List the bytes that may differ between two snapshots of a volume, or those a snapshot has at all.",
        details="""\
  ullage snapshot diff monday tuesday
  ullage snapshot diff tuesday
  ullage snapshot diff monday tuesday -o json | jq -r '.items[] | [.byteOffset, .sizeBytes] | @tsv'

Whoever has a copy of BASE and reads these ranges of TARGET has a copy of TARGET; without BASE, whoever begins with
zeroes. What is not listed is not read. Ranges are whole blocks, ascending, and may hold more than was changed.
Thin volumes answer from their pool's books, files where their file system's are exact; thick volumes cannot
answer. A list that broke off goes on with the --starting-offset that the error names.
""",
        describe=_describe_diff,
    ),
}
