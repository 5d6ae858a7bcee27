"""What the commands with verbs share: `ullage volume` and `ullage snapshot` ask the driver on its CSI socket."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ullage.cli.output import DEFAULT_CSI_SOCKET
from ullage.errors import InvalidRequestError
from ullage.model import VolumeId, Wipe
from ullage.names import check_volume_id
from ullage.quantity import parse_bytes

TIMEOUT_SECONDS = 300.0

Parser = argparse.ArgumentParser


@dataclass(frozen=True, slots=True, kw_only=True)
class Verb:
    """A subcommand; what it does is the function of its name in the `…_calls` module of its command."""

    about: str
    details: str
    describe: Callable[[Parser], None]


def describe_verbs(parser: Parser, verbs: Mapping[str, Verb]) -> None:
    """Name the subcommands and their options."""
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="verb")
    for name, verb in verbs.items():
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


def add_new_volume_options(parser: Parser) -> None:
    """What may be said of a volume that is to be, but for its name and its size."""
    parser.add_argument("--limit", type=size, default=0, metavar="SIZE", help="how large at most (no limit)")
    parser.add_argument("--class", dest="device_class", metavar="CLASS", help="the device class (the default one)")
    parser.add_argument(
        "--wipe", choices=[each.value for each in Wipe], help="what becomes of its bytes when it goes (the class says)"
    )


def size(text: str) -> int:
    """Whole bytes of what stands after `--size`; for argparse."""
    return _counted(text, "no size for a volume; it is more than nothing", least=1)


def offset(text: str) -> int:
    """A place in a volume; for argparse."""
    return _counted(text, "no place in a volume; the first is 0", least=0)


def volume_id(text: str) -> VolumeId:
    """A volume's id; for argparse."""
    try:
        return check_volume_id(text)
    except InvalidRequestError as impossible:
        raise argparse.ArgumentTypeError(str(impossible)) from impossible


def _counted(text: str, otherwise: str, *, least: int) -> int:
    try:
        size_bytes = parse_bytes(text)
    except InvalidRequestError as impossible:
        raise argparse.ArgumentTypeError(str(impossible)) from impossible
    if size_bytes < least:
        raise argparse.ArgumentTypeError(f"{text!r} is {otherwise}")
    return size_bytes


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds
