"""YAML text as a plain tree of str, int, Decimal, bool, None, list and dict, without YAML's surprises.

PyYAML's safe loader scans, composes and resolves; the values are made here, because its constructor keeps the last of
two equal keys in silence, turns decimals into floats, reads `010` as 8 and `1:30` as 90, and answers some bad scalars
with a bare KeyError. Here a duplicate key is a fault with both its lines; only plain decimal numbers are numbers, a
decimal point keeps its exact value, and what else YAML 1.1 would convert stays the text that was written. Anchors,
aliases and merge keys work; a node that contains itself is a fault, and a shared node is made once however often it is
named.
"""

from __future__ import annotations

import re
from decimal import Decimal

import yaml

from ullage.quoting import quoted
from ullage.schema import Fault, step

_TAG = "tag:yaml.org,2002:"
_BOOLEANS = {"yes": True, "true": True, "on": True, "no": False, "false": False, "off": False}
_TEXT_TAGS = {f"{_TAG}{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "value", "merge")}
_INT = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,99})")
_DECIMAL = re.compile(r"[-+]?(?=\.?[0-9])[0-9]{0,99}\.[0-9]{0,99}(?:[eE][-+]?[0-9]{1,9})?")

Tree = str | int | Decimal | bool | list["Tree"] | dict[str, "Tree"] | None


def read_yaml(text: str, faults: list[Fault]) -> Tree:
    """The document in `text`; what is wrong with it is added to `faults`. None when nothing of it can be read."""
    try:
        loader = yaml.SafeLoader(text)
        try:
            node = loader.get_single_node()
        finally:
            loader.dispose()
        return _Maker(faults).value(node, "") if node else None
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = _where(mark) if mark else "somewhere"
        what = (
            f"{error.context}, {error.problem}" if error.context and error.problem else error.problem or error.context
        )
        faults.append(Fault(path="", sentence=f"{at}: not valid YAML: {what}"))
    except yaml.reader.ReaderError as error:
        before = text[: error.position]
        at = f"line {before.count(chr(10)) + 1}, column {error.position - before.rfind(chr(10))}"
        faults.append(Fault(path="", sentence=f"{at}: not valid YAML: {error.reason}"))
    except RecursionError:
        faults.append(Fault(path="", sentence="not valid YAML: nested too deeply"))
    except (ValueError, OverflowError) as error:  # an escape such as "\UFFFFFFFF"
        faults.append(Fault(path="", sentence=f"not valid YAML: an escape is out of range ({error})"))
    return None


def _where(mark: yaml.Mark) -> str:
    return f"line {mark.line + 1}, column {mark.column + 1}"


class _Maker:
    """Makes values of nodes; remembers them, so that aliases cost nothing and a circle is seen."""

    def __init__(self, faults: list[Fault]) -> None:
        self._faults = faults
        self._made: dict[int, Tree] = {}
        self._under_way: set[int] = set()

    def value(self, node: yaml.Node, path: str) -> Tree:
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if id(node) in self._under_way:
            self._fault(path, node, "contains itself")
            return None
        if id(node) not in self._made:
            self._under_way.add(id(node))
            self._made[id(node)] = (
                self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
            )
            self._under_way.discard(id(node))
        return self._made[id(node)]

    def _fault(self, path: str, node: yaml.Node, sentence: str) -> None:
        self._faults.append(Fault(path=path, sentence=f"{_where(node.start_mark)}: {sentence}"))

    def _scalar(self, node: yaml.ScalarNode, path: str) -> Tree:
        text, tag = node.value, node.tag.removeprefix(_TAG)
        if node.tag not in _TEXT_TAGS:
            self._fault(path, node, f"the tag {quoted(node.tag)} is not used here; leave it out")
        if tag == "null":
            return None
        if tag == "bool":
            return _BOOLEANS.get(text.lower(), text)
        if tag == "int" and _INT.fullmatch(text):
            return int(text)
        if tag == "float" and _DECIMAL.fullmatch(text):
            return Decimal(text)
        return str(text)

    def _sequence(self, node: yaml.Node, path: str) -> Tree:
        if node.tag != f"{_TAG}seq":
            self._fault(path, node, f"the tag {quoted(node.tag)} is not used here; leave it out")
        return [self.value(item, f"{path}[{i}]") for i, item in enumerate(node.value)]

    def _mapping(self, node: yaml.MappingNode, path: str) -> Tree:
        if node.tag != f"{_TAG}map":
            self._fault(path, node, f"the tag {quoted(node.tag)} is not used here; leave it out")
        made: dict[str, Tree] = {}
        first: dict[str, yaml.Mark] = {}
        merged: list[Tree] = []
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                self._fault(path, key_node, "a key must be text")
                continue
            key = str(key_node.value)
            if key in first:
                at = step(path, key)
                self._fault(
                    at, key_node, f"the key is there already, in {_where(first[key])}; each key may be given once"
                )
                continue
            first[key] = key_node.start_mark
            if key_node.tag == f"{_TAG}merge":
                value = self.value(value_node, path)
                merged.extend(value if isinstance(value, list) else [value])
            else:
                made[key] = self.value(value_node, step(path, key))
        for base in merged:
            if isinstance(base, dict):
                made = base | made
            else:
                self._fault(path, node, f"'<<' takes a mapping or a list of mappings, not {quoted(base)}")
        return made
