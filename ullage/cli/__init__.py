"""`ullage`: one program, one subcommand for each process and for each question a person has."""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version

from ullage.errors import ConfigError, UllageError

SUBCOMMANDS = (
    "agent",
    "controller",
    "extender",
    "node",
    "standalone",
    "volume",
    "snapshot",
    "pools",
    "volumes",
    "orphans",
    "recover",
    "explain",
    "simulate",
    "crds",
    "unused",
)
"""Modules of this package, each with `describe(parser)` and `run(options) -> exit code`."""

USAGE_ERROR = 2
"""As argparse's own."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a subcommand; 0: done, 1: it could not be done (the reason is on standard error), 2: it was asked wrongly."""
    try:
        try:
            return _run(arguments)
        finally:
            sys.stdout.flush()  # here, where its failure is ours to treat, and not at the interpreter's exit
    except BrokenPipeError:  # the reader of our output has gone, as `| head` does
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 128 + signal.SIGPIPE


def parser() -> argparse.ArgumentParser:
    """What may stand on the command line."""
    parser = argparse.ArgumentParser(
        prog="ullage",
        description="Local volumes for Kubernetes nodes, placed where the space really is.",
        epilog="`ullage COMMAND --help` tells more of each.",
    )
    parser.add_argument("--version", action="version", version=f"ullage {version('ullage')}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True, dest="command")
    for name in SUBCOMMANDS:
        module = import_module(f"ullage.cli.{name}")
        about, _, details = (module.__doc__ or "").partition("\n\n")
        subparser = commands.add_parser(
            name, help=about, description=about, epilog=details, formatter_class=argparse.RawDescriptionHelpFormatter
        )
        module.describe(subparser)
        subparser.set_defaults(run=module.run)
    return parser


def _run(arguments: Sequence[str] | None) -> int:
    options = parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except ConfigError as error:
        sys.stderr.write(f"ullage: {error}\n")
        return USAGE_ERROR
    except UllageError as error:
        sys.stderr.write(f"ullage: {error}\n")
        return 1
    except KeyboardInterrupt:
        return 130
    return code
