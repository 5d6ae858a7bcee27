"""The CustomResourceDefinitions of the three objects: `python -m ullage.kube.crds FOLDER` writes them.

The schemas are the Structs'; here is what only the cluster sees: names, columns, rules over time.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import yaml

from ullage.device_class_spec import DeviceClassSpec
from ullage.kube import device_class_rules, logical_volume_rules
from ullage.kube.logical_volume import Spec, Status
from ullage.kube.meta import DEVICE_CLASSES, GROUP, LOGICAL_VOLUMES, NODE_STORAGES, VERSION, Resource
from ullage.kube.node_storage import StorageStatus
from ullage.kube.structural import Additions, Leaves, Schema, rule, schema

LINE = 120
HEADER = "# Made by `make crds` of the classes in ullage/; what is changed here is lost.\n"

CONDITIONS: Additions = {
    "status.conditions": {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]},
    "status.conditions[].status": {"enum": ["True", "False", "Unknown"]},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Column:
    """What `kubectl get` shows; with `is_wide` only `-o wide` does."""

    name: str
    path: str
    type: str = "string"
    is_wide: bool = False
    about: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Definition:
    """One of our kinds."""

    resource: Resource
    short: str
    about: str
    spec: type[msgspec.Struct] | None = None
    status: type[msgspec.Struct] | None = None
    leaves: Leaves = field(default_factory=dict)
    additions: Additions = field(default_factory=dict)
    columns: Sequence[Column] = ()
    selectable: Sequence[str] = ()


def condition(kind: str, field: str = "status") -> str:
    """The path to what a condition says."""
    return f'.status.conditions[?(@.type=="{kind}")].{field}'


AGE = Column(name="Age", path=".metadata.creationTimestamp", type="date")


def definitions() -> tuple[Definition, ...]:
    """All of them."""
    return (
        Definition(
            resource=DEVICE_CLASSES,
            short="udc",
            about="A kind of storage that StorageClasses ask for by name: where on a node its volumes are, and how.",
            spec=DeviceClassSpec,
            leaves=device_class_rules.LEAVES,
            additions=device_class_rules.additions(),
            columns=(
                Column(name="Type", path=".spec.type"),
                Column(name="Groups", path=".spec.volumeGroups", about="Volume groups, or globs of their names."),
                Column(name="Thin-Pool", path=".spec.thinPool.name"),
                Column(name="Directory", path=".spec.directory"),
                Column(name="Layout", path=".spec.layout.kind"),
                Column(name="Default", path=".spec.default", type="boolean"),
                Column(name="Wipe", path=".spec.wipe", is_wide=True),
                Column(name="Reserve", path=".spec.reserve", is_wide=True),
                AGE,
            ),
        ),
        Definition(
            resource=NODE_STORAGES,
            short="uns",
            about="What a node has to give, as its agent last reported it. There is one for each node, of its name.",
            status=StorageStatus,
            additions={
                **CONDITIONS,
                "status": {
                    "x-kubernetes-validations": [
                        rule(
                            "self.?revision.orValue(0) >= oldSelf.?revision.orValue(0)",
                            "is less than the one that was reported already; a report never replaces a later one",
                            field="revision",
                        )
                    ]
                },
            },
            columns=(
                Column(name="Ready", path=condition("Ready"), about="Whether the agent serves."),
                Column(name="Capacity-Known", path=condition("CapacityKnown"), about="Whether all pools can be read."),
                Column(name="Degraded", path=condition("Degraded"), about="Whether a person should look at it."),
                Column(name="Reported", path=".status.observedAt", type="date"),
                Column(name="Agent", path=".status.agentVersion", is_wide=True),
                Column(name="Revision", path=".status.revision", type="integer", is_wide=True),
                Column(name="Why", path=condition("Degraded", "message"), is_wide=True),
                AGE,
            ),
        ),
        Definition(
            resource=LOGICAL_VOLUMES,
            short="ulv",
            about="One volume or snapshot on one node: its order, and what has become of it.",
            spec=Spec,
            status=Status,
            additions={**CONDITIONS, **logical_volume_rules.additions()},
            columns=(
                Column(name="Node", path=".spec.nodeName"),
                Column(name="Class", path=".spec.deviceClass"),
                Column(name="Kind", path=".spec.kind"),
                Column(name="Bytes", path=".status.sizeBytes", type="integer", about="As large as it is."),
                Column(name="Phase", path=".status.phase"),
                Column(name="Namespace", path=".spec.claimRef.namespace", about="Of the claim."),
                Column(name="Claim", path=".spec.claimRef.name"),
                Column(name="Pool", path=".status.pool", is_wide=True),
                Column(name="Ordered", path=".spec.sizeBytes", type="integer", is_wide=True, about="Bytes."),
                Column(name="Applied", path=condition("Applied"), is_wide=True),
                Column(name="Degraded", path=condition("Degraded"), is_wide=True),
                AGE,
            ),
            selectable=(".spec.nodeName",),
        ),
    )


def manifest(of: Definition) -> Schema:
    """The CustomResourceDefinition."""
    names = {
        "kind": of.resource.kind,
        "listKind": f"{of.resource.kind}List",
        "plural": of.resource.plural,
        "singular": of.resource.kind.lower(),
        "shortNames": [of.short],
        "categories": ["ullage"],
    }
    version: Schema = {
        "name": VERSION,
        "served": True,
        "storage": True,
        **({"subresources": {"status": {}}} if of.status else {}),
        **({"selectableFields": [{"jsonPath": path} for path in of.selectable]} if of.selectable else {}),
        "additionalPrinterColumns": [_column(each) for each in of.columns],
        "schema": {"openAPIV3Schema": _schema(of)},
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {
            "name": f"{of.resource.plural}.{GROUP}",
            "labels": {"app.kubernetes.io/part-of": "ullage"},
        },
        "spec": {"group": GROUP, "scope": "Cluster", "names": names, "versions": [version]},
    }


def files() -> dict[str, str]:
    """What each file in the chart's crds holds."""
    return {
        f"{each.resource.plural}.yaml": HEADER
        + yaml.dump(manifest(each), Dumper=_Plain, sort_keys=False, width=LINE, allow_unicode=True)
        for each in definitions()
    }


def write(folder: Path) -> None:
    """Make the folder's files anew."""
    for name, content in files().items():
        (folder / name).write_text(content, encoding="utf-8")


class _Plain(yaml.SafeDumper):
    """Without anchors: the same schema may stand in two places."""

    def ignore_aliases(self, data: object) -> bool:  # noqa: ARG002 - PyYAML's
        return True


def _schema(of: Definition) -> Schema:
    properties: Schema = {"apiVersion": {"type": "string"}, "kind": {"type": "string"}, "metadata": {"type": "object"}}
    for name, kind in (("spec", of.spec), ("status", of.status)):
        if kind is not None:
            properties[name] = schema(kind, of.leaves, of.additions, name)
    if of.spec is DeviceClassSpec:
        _without_name(properties["spec"])
    return {
        "description": of.about,
        "type": "object",
        **({"required": ["spec"]} if of.spec else {}),
        "properties": properties,
        **of.additions.get("", {}),
    }


def _without_name(spec: Schema) -> None:
    """In the configuration file a class has its name among its fields; an object has it already."""
    del spec["properties"]["name"]
    spec["required"].remove("name")


def _column(column: Column) -> Schema:
    return {
        "name": column.name,
        "type": column.type,
        "jsonPath": column.path,
        **({"description": column.about} if column.about else {}),
        **({"priority": 1} if column.is_wide else {}),
    }


if __name__ == "__main__":
    write(Path(sys.argv[1]))
