"""helm installs, upgrades and uninstalls the chart on a real API server; what its Jobs would run is run."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import yaml

from tests.cluster.chart.value_sets import FILES, SETS, SNAPSHOTS
from tests.cluster.scene import until
from tests.cluster.test_admission import order
from tests.rigs.chart import CHART, NAMESPACE, RELEASE, helm, objects, run_helm, template
from tests.rigs.cluster.api import Api, Json, Refusal
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.crds import CRDS, install_snapshot_crds
from tests.rigs.cluster.jobs import Jobs

OURS = "/apis/ullage.io/v1alpha1"
ORDERS, CLASSES = f"{OURS}/logicalvolumes", f"{OURS}/deviceclasses"
SECRET = f"/api/v1/namespaces/{NAMESPACE}/secrets/ullage-extender-tls"
AGENTS = f"/apis/apps/v1/namespaces/{NAMESPACE}/daemonsets/ullage-node"
VOLUMES = "/api/v1/persistentvolumes"
DEFINITIONS = ("deviceclasses", "logicalvolumes", "nodestorages")
ACCOUNTS = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts"
ROLES = "/apis/rbac.authorization.k8s.io/v1/clusterroles"
PATIENCE = ("--timeout", "90s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A cluster without anything of ours, and somebody with helm."""

    plane: ControlPlane
    api: Api
    folder: Path

    def install(self, values: Mapping[str, Any], chart: Path = CHART) -> None:
        helm("install", *self._words(values, chart), "--create-namespace", kubeconfig=self.plane.kubeconfig)

    def upgrade(self, values: Mapping[str, Any]) -> None:
        helm("upgrade", *self._words(values), *PATIENCE, kubeconfig=self.plane.kubeconfig)

    def uninstall(self, *words: str) -> CompletedProcess[str]:
        asked = ("uninstall", RELEASE, "--namespace", NAMESPACE, *PATIENCE, *words)
        return run_helm(*asked, kubeconfig=self.plane.kubeconfig)

    def jobs(self) -> Jobs:
        return Jobs(self.api, NAMESPACE, lambda account: self.plane.kubeconfig_for(NAMESPACE, account))

    def definition(self, plural: str) -> Json:
        return self.api.get(f"{CRDS}/{plural}.ullage.io")

    def serves_classes(self) -> bool:
        """For a moment after its definition has changed a kind is answered with 429."""
        try:
            return bool(self.api.items(CLASSES))
        except Refusal:
            return False

    def is_there(self, path: str) -> bool:
        return self.api.find(path) is not None

    def _words(self, values: Mapping[str, Any], chart: Path = CHART) -> tuple[str | Path, ...]:
        file = self.folder / "values.yaml"
        file.write_text(yaml.safe_dump(dict(values)), encoding="utf-8")
        return (RELEASE, chart, "--namespace", NAMESPACE, "--values", file)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    with ControlPlane(tmp_path / "plane", only_api=True) as plane:
        yield Place(plane=plane, api=plane.api(), folder=tmp_path)


def older(definition: Json) -> Json:
    """As if it were of a time when classes had no `scoring` and another field that is gone since."""
    metadata = {key: definition["metadata"][key] for key in ("name", "labels")}
    before = {**copy.deepcopy({key: definition[key] for key in ("apiVersion", "kind", "spec")}), "metadata": metadata}
    (version,) = before["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    del spec["properties"]["scoring"]
    spec["properties"]["gone"] = {"type": "string"}
    spec.pop("x-kubernetes-validations", None)
    version["additionalPrinterColumns"].pop()
    return before


def test_a_release_begins_is_upgraded_with_its_definitions_and_ends_without_its_objects(place: Place) -> None:
    place.install(FILES)
    classes = {each["metadata"]["name"]: each["metadata"]["uid"] for each in place.api.items(CLASSES)}
    assert set(classes) == {"fast", "bulk"}, "on the first install, right after the definitions were made"
    assert "deployed" in helm("list", "--namespace", NAMESPACE, kubeconfig=place.plane.kubeconfig)
    new = place.definition("deviceclasses")
    path = f"{CRDS}/deviceclasses.ullage.io"
    place.api.apply(path, older(new), "helm")
    place.api.patch(path, {"metadata": {"labels": {"example.org/by": "somebody"}}})
    until(place.serves_classes, lambda: "the kind whose definition was changed")
    place.api.create(ORDERS, order("pvc-1", "n1"))
    uid = place.api.get(f"{ORDERS}/pvc-1")["metadata"]["uid"]
    scored = {**FILES, "deviceClasses": [{**each, "scoring": "binpack"} for each in FILES["deviceClasses"]]}
    with place.jobs() as jobs:
        place.upgrade(scored)
    assert [(each.name, each.code) for each in jobs.ended] == [("ullage-crds", 0)], jobs.ended
    assert "deviceclasses.ullage.io: changed\nnodestorages.ullage.io: as it was" in jobs.ended[0].output
    after = place.definition("deviceclasses")
    assert after["spec"] == new["spec"]
    assert after["metadata"]["uid"] == new["metadata"]["uid"]
    assert after["metadata"]["labels"]["example.org/by"] == "somebody"
    assert {each["spec"]["scoring"] for each in place.api.items(CLASSES)} == {"binpack"}
    assert {each["metadata"]["name"]: each["metadata"]["uid"] for each in place.api.items(CLASSES)} == classes
    assert place.api.get(f"{ORDERS}/pvc-1")["metadata"]["uid"] == uid

    with place.jobs() as jobs:
        refused = place.uninstall()
    assert refused.returncode != 0
    (asked,) = jobs.ended
    assert (asked.name, asked.code) == ("ullage-unused", 1)
    assert "There is 1 volume or snapshot of ullage.io in this cluster:\n  pvc-1: volume" in asked.output
    assert place.is_there(AGENTS)
    assert {each["metadata"]["name"] for each in place.api.items(CLASSES)} == set(classes)

    place.api.patch(f"{ORDERS}/pvc-1", {"metadata": {"finalizers": None}})
    place.api.delete(f"{ORDERS}/pvc-1")
    with place.jobs() as jobs:
        done = place.uninstall()
    assert done.returncode == 0, done.stderr
    assert [(each.name, each.code) for each in jobs.ended] == [("ullage-unused", 0)]
    assert not place.is_there(AGENTS)
    again = shutil.copytree(CHART, place.folder / "chart")
    file = again / "crds" / "deviceclasses.yaml"
    file.write_text(yaml.safe_dump(older(new)), encoding="utf-8")
    place.install({}, again)
    assert "scoring" not in str(place.definition("deviceclasses")), (
        "nobody else's word is in the way of other definitions"
    )


def test_a_persistent_volume_alone_keeps_the_driver_too_unless_nobody_is_asked(place: Place) -> None:
    place.install({})
    source = {"driver": "ullage.io", "volumeHandle": "pvc-7"}
    spec = {"accessModes": ["ReadWriteOnce"], "capacity": {"storage": "1Gi"}, "csi": source}
    place.api.create(VOLUMES, {"metadata": {"name": "kept"}, "spec": spec})
    with place.jobs() as jobs:
        assert place.uninstall().returncode != 0
    assert "pvc-7: PersistentVolume kept, without a LogicalVolume" in jobs.ended[0].output
    assert place.uninstall("--no-hooks").returncode == 0
    assert not place.is_there(AGENTS)
    assert place.is_there(f"{VOLUMES}/kept")


def test_a_hook_s_rights_are_gone_with_it(place: Place) -> None:
    place.install({})
    with place.jobs():
        place.upgrade({"log": {"level": "debug"}})
        for name in ("ullage-crds", "ullage-unused"):
            assert not place.is_there(f"{ACCOUNTS}/{name}")
            assert not place.is_there(f"{ROLES}/{name}")
    granted = [
        each["rules"]
        for each in objects(template({}))
        if each["metadata"]["name"] == "ullage-unused" and "rules" in each
    ]
    assert granted == [
        [
            {"apiGroups": ["ullage.io"], "resources": ["logicalvolumes"], "verbs": ["list"]},
            {"apiGroups": [""], "resources": ["persistentvolumes"], "verbs": ["list"]},
        ]
    ]


def test_the_certificate_stays_over_upgrades_and_snapshots_come_with_their_definitions(place: Place) -> None:
    place.install(SETS["webhook"])
    first = place.api.get(SECRET)["data"]
    install_snapshot_crds(place.api)
    with place.jobs():
        place.upgrade({**SETS["webhook"], "snapshots": {**SNAPSHOTS, "enabled": "auto"}, "log": {"level": "debug"}})
    assert place.api.get(SECRET)["data"] == first
    controller = place.api.get(f"/apis/apps/v1/namespaces/{NAMESPACE}/deployments/ullage-controller")
    assert "csi-snapshotter" in {each["name"] for each in controller["spec"]["template"]["spec"]["containers"]}
    assert place.is_there("/apis/snapshot.storage.k8s.io/v1/volumesnapshotclasses/ullage")
