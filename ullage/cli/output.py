"""What commands print: a table for people, JSON and YAML for programs."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import yaml
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

DEFAULT_SOCKET = "unix:///run/ullage/agent.sock"
DEFAULT_CSI_SOCKET = "unix:///run/ullage/csi.sock"
FORMATS = ("table", "wide", "json", "yaml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """One column: its heading, and whether it is only in `-o wide`."""

    heading: str
    is_wide: bool = False


def add_output_option(parser: argparse.ArgumentParser) -> None:
    """`-o`, with kubectl's words."""
    parser.add_argument("-o", "--output", choices=FORMATS, default="table", help="how to print it (table)")


def add_agent_option(parser: argparse.ArgumentParser) -> None:
    """`--agent`, for commands that ask a running agent."""
    parser.add_argument(
        "--agent", default=DEFAULT_SOCKET, metavar="ADDRESS", help=f"the agent's socket ({DEFAULT_SOCKET})"
    )


def show(output: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], messages: Sequence[Message]) -> None:
    """Print either the rows or the messages they were made from; sizes in messages stay whole numbers of bytes."""
    items = [_plain(MessageToDict(each, always_print_fields_with_no_presence=True)) for each in messages]
    show_items(output, columns, rows, items)


def show_items(output: str, columns: Sequence[Column], rows: Sequence[Sequence[str]], items: Sequence[object]) -> None:
    """The same with what JSON and YAML have a word for."""
    if output in ("json", "yaml"):
        document = {"items": items}
        sys.stdout.write(
            json.dumps(document, indent=2) + "\n" if output == "json" else yaml.safe_dump(document, sort_keys=False)
        )
        sys.stdout.flush()  # whoever watches through a pipe sees it now
        return
    sys.stdout.write(table(output, columns, rows))
    sys.stdout.flush()


def table(output: str, columns: Sequence[Column], rows: Sequence[Sequence[str]]) -> str:
    """The rows under their headings, each column as wide as it has to be."""
    shown = [index for index, column in enumerate(columns) if output == "wide" or not column.is_wide]
    lines = [[columns[index].heading for index in shown], *([row[index] for index in shown] for row in rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(shown))]
    padded = ("   ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in lines)
    return "".join(f"{line.rstrip()}\n" for line in padded)


def _plain(value: object) -> object:
    """Protobuf's JSON writes 64-bit numbers as text; a program that reads ours wants numbers."""
    if isinstance(value, Mapping):
        return {
            key: int(each) if key.endswith("Bytes") and isinstance(each, str) else _plain(each)
            for key, each in value.items()
        }
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value
