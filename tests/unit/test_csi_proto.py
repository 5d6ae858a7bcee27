"""Our CSI messages are the interface's, number by number: proto/csi/v1/csi.proto against csi-wire-v1.13.json.

Both sides are flattened to facts ("ProbeResponse.ready": 1, of type BoolValue, …), so that what differs is named.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TypedDict

from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
    ServiceDescriptorProto,
)
from google.protobuf.message import Message

from ullage.pb.csi.v1 import csi_pb2 as pb

TABLE = Path(__file__).with_name("csi-wire-v1.13.json")

Fact = tuple[str, object]


class Service(TypedDict):
    flags: list[str]
    rpcs: list[list[str]]


class Enum(TypedDict):
    flags: list[str]
    values: list[list[str | int]]


class MessageRow(TypedDict, total=False):
    flags: list[str]
    fields: list[list[str | int]]
    reserved: list[list[int]]
    messages: dict[str, MessageRow]
    enums: dict[str, Enum]


class Table(TypedDict):
    package: str
    spec_version: str
    option_extensions: dict[str, int]
    services: dict[str, Service]
    enums: dict[str, Enum]
    messages: dict[str, MessageRow]


def test_every_service_message_field_and_value_is_the_interfaces() -> None:
    table: Table = json.loads(TABLE.read_text(encoding="utf-8"))
    file = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    wanted = _unique(_of_table(table))
    ours = _unique(_of_file(file))
    assert {name: ours.get(name) for name in wanted} == wanted
    assert sorted(ours.keys() - wanted.keys()) == []


def test_the_options_that_mark_secrets_and_alpha_have_the_interfaces_numbers() -> None:
    table: Table = json.loads(TABLE.read_text(encoding="utf-8"))
    for name, extension in pb.DESCRIPTOR.extensions_by_name.items():
        key = "alpha_*" if name.startswith("alpha_") else name
        assert (name, extension.number) == (name, table["option_extensions"][key])
    assert {name.partition("_")[0] for name in pb.DESCRIPTOR.extensions_by_name} == {"csi", "alpha"}


def _unique(facts: Iterable[Fact]) -> dict[str, object]:
    listed = list(facts)
    by_name = dict(listed)
    assert len(by_name) == len(listed)
    return by_name


# The table's side.


def _of_table(table: Table) -> Iterator[Fact]:
    yield "package", table["package"]
    for name, service in table["services"].items():
        yield f"service {name}", sorted(service["flags"])
        for rpc, request, response, *flags in service["rpcs"]:
            yield f"rpc {name}.{rpc}", (request, response, sorted(flags))
    for name, enum in table["enums"].items():
        yield from _of_table_enum(name, enum)
    for name, message in table["messages"].items():
        yield from _of_table_message(name, message)


def _of_table_message(name: str, message: MessageRow) -> Iterator[Fact]:
    yield f"message {name}", sorted(message.get("flags", []))
    yield f"reserved of {name}", [tuple(span) for span in message.get("reserved", [])]
    for number, field, kind, *words in message["fields"]:
        yield f"{name}.{field}", (number, kind, sorted(map(str, words)))
    for inner, enum in message.get("enums", {}).items():
        yield from _of_table_enum(f"{name}.{inner}", enum)
    for inner, nested in message.get("messages", {}).items():
        yield from _of_table_message(f"{name}.{inner}", nested)


def _of_table_enum(name: str, enum: Enum) -> Iterator[Fact]:
    yield f"enum {name}", sorted(enum["flags"])
    yield f"reserved of {name}", []
    for value, number, *flags in enum["values"]:
        yield f"{name}.{value}", (number, sorted(map(str, flags)))


# Our side: what protoc made of the file.


def _of_file(file: FileDescriptorProto) -> Iterator[Fact]:
    assert file.syntax == "proto3"
    yield "package", file.package
    for service in file.service:
        yield from _of_service(service)
    for enum in file.enum_type:
        yield from _of_enum("", enum)
    for message in file.message_type:
        yield from _of_message("", message)


def _of_service(service: ServiceDescriptorProto) -> Iterator[Fact]:
    yield f"service {service.name}", _flags(service.options)
    for rpc in service.method:
        request = ("stream " if rpc.client_streaming else "") + _bare(rpc.input_type)
        response = ("stream " if rpc.server_streaming else "") + _bare(rpc.output_type)
        flags = _flags(rpc.options)
        yield f"rpc {service.name}.{rpc.name}", (request, response, flags)


def _of_message(scope: str, message: DescriptorProto) -> Iterator[Fact]:
    name = scope + message.name
    yield f"message {name}", _flags(message.options)
    yield f"reserved of {name}", [(span.start, span.end - 1) for span in message.reserved_range]
    maps = {
        f".{pb.DESCRIPTOR.package}.{name}.{nested.name}": f"map<{_type(nested.field[0])}, {_type(nested.field[1])}>"
        for nested in message.nested_type
        if nested.options.map_entry
    }
    oneofs = [oneof.name for oneof in message.oneof_decl]
    for field in message.field:
        yield f"{name}.{field.name}", (field.number, _kind(field, maps), _words(field, oneofs))
    for enum in message.enum_type:
        yield from _of_enum(f"{name}.", enum)
    for nested in message.nested_type:
        if not nested.options.map_entry:
            yield from _of_message(f"{name}.", nested)


def _kind(field: FieldDescriptorProto, maps: dict[str, str]) -> str:
    is_repeated = field.label == FieldDescriptorProto.LABEL_REPEATED
    if is_repeated and field.type_name in maps:
        return maps[field.type_name]
    return ("repeated " if is_repeated else "") + _type(field)


def _words(field: FieldDescriptorProto, oneofs: Sequence[str]) -> list[str]:
    words = _flags(field.options)
    if field.proto3_optional:
        words.append("optional")
    elif field.HasField("oneof_index"):
        words.append(f"oneof {oneofs[field.oneof_index]}")
    return sorted(words)


def _of_enum(scope: str, enum: EnumDescriptorProto) -> Iterator[Fact]:
    name = scope + enum.name
    yield f"enum {name}", _flags(enum.options)
    yield f"reserved of {name}", [(span.start, span.end) for span in enum.reserved_range]
    for value in enum.value:
        yield f"{name}.{value.name}", (value.number, _flags(value.options))


def _type(field: FieldDescriptorProto) -> str:
    if field.type_name:
        return _bare(field.type_name)
    return FieldDescriptorProto.Type.Name(field.type).removeprefix("TYPE_").lower()


def _bare(name: str) -> str:
    return name.removeprefix(".").removeprefix(f"{pb.DESCRIPTOR.package}.")


def _flags(options: Message) -> list[str]:
    """The table's word for every option that is set: "secret", "alpha", and an unknown one's whole name."""
    names = [
        field.full_name.removeprefix(f"{pb.DESCRIPTOR.package}.") for field, value in options.ListFields() if value
    ]
    return sorted("alpha" if name.startswith("alpha_") else name.removeprefix("csi_") for name in names)
