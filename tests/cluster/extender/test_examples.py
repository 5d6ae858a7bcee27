"""The examples of deploy/examples where the real kube-scheduler and the extender place them: as each file says.

What is asked for is theirs but for the sizes, which are small, and what their classes name: here `fast` and `hdd` are
files instead of LVM's volumes. To who places volumes these are pools with so much room, as any other.
"""

from __future__ import annotations

import copy
from collections import Counter
from collections.abc import Iterator, Sequence

import pytest

from tests.cluster.extender.crowd import RACK, VOLUME_BYTES, Crowd
from tests.cluster.kubelet import CLAIMS, PODS
from tests.cluster.scene import until
from tests.cluster.things import GROUPS, SNAPSHOTS, STORAGE, Thing
from tests.rigs.cluster.api import Json
from tests.rigs.cluster.manifests import DEPLOY, collection_of, read
from tests.rigs.cluster.nodes import NODES
from ullage.storage_classes import CLASS_KEY

HOST, ZONE = "kubernetes.io/hostname", "topology.kubernetes.io/zone"
WORKLOADS = ("PersistentVolumeClaim", "StatefulSet", "Pod", "VolumeSnapshot", "VolumeGroupSnapshot")
SECONDS = 180.0
IN_THE_CROWD = {"fast": "fast", "hdd": "bulk"}


def test_three_postgresql_are_on_three_hosts_in_three_racks_each_with_its_data_and_its_log(crowd: Crowd) -> None:
    with_pods = applied(crowd, "postgresql")
    try:
        data, wal = (claims(crowd, template, with_pods) for template in ("data", "wal"))
        assert sorted(domains(crowd, data, RACK).values()) == [1, 1, 1]
        assert [node_of(crowd, each) for each in data] == [node_of(crowd, each) for each in wal]
    finally:
        taken_away(crowd, "postgresql")


@pytest.mark.parametrize(
    ("name", "label", "counts"),
    [("redis", HOST, [1, 1, 1]), ("spread", RACK, [1, 2, 2])],
    ids=["redis-over-hosts", "etcd-over-racks"],
)
def test_a_group_lies_as_its_example_says(crowd: Crowd, name: str, label: str, counts: list[int]) -> None:
    with_pods = applied(crowd, name)
    try:
        assert sorted(domains(crowd, claims(crowd, "data", with_pods), label).values()) == counts
    finally:
        taken_away(crowd, name)


@pytest.fixture
def zones(crowd: Crowd) -> Iterator[Crowd]:
    """Each rack is a zone."""
    nodes = crowd.scene.objects.items(NODES)
    for each in nodes:
        labelled(crowd, each, f"z-{each['metadata']['labels'][RACK]}")
    yield crowd
    for each in nodes:
        labelled(crowd, each, each["metadata"]["labels"][ZONE])


def test_pd_has_a_majority_without_any_one_zone_and_tikv_has_a_third_in_each(zones: Crowd) -> None:
    """And TiKV is told its zone by the label that the API server puts on its Pod."""
    with_pods = applied(zones, "tikv")
    try:
        of_each = {name: [pod for pod in with_pods if pod.startswith(name)] for name in ("pd-", "tikv-")}
        assert sorted(domains(zones, claims(zones, "data", of_each["pd-"]), ZONE).values()) == [1, 1, 1]
        assert sorted(domains(zones, claims(zones, "data", of_each["tikv-"]), ZONE).values()) == [2, 2, 2]
        zone_of = labels_of_nodes(zones, ZONE)
        for pod in (zones.scene.objects.get(f"{PODS}/{name}") for name in with_pods):
            assert pod["metadata"]["labels"][ZONE] == zone_of[pod["spec"]["nodeName"]]
    finally:
        taken_away(zones, "tikv")


def test_ceph_device_sets_have_a_third_in_each_rack(crowd: Crowd) -> None:
    """Their claims and Pods are as Rook makes them of the CephCluster: one claim for each disk, all at once."""
    objects = read(DEPLOY / "examples" / "rook.yaml")
    (cluster,) = (each["spec"] for each in objects if each["kind"] == "CephCluster")
    classes = [each for each in objects if each["kind"] == "StorageClass" and each["metadata"].get("annotations")]
    for each in classes:
        parameters = {**each["parameters"], CLASS_KEY: IN_THE_CROWD[each["parameters"][CLASS_KEY]]}
        crowd.scene.objects.create(f"{STORAGE}/storageclasses", {**each, "parameters": parameters})
    try:
        sets = {each["name"]: disks(each) for each in cluster["storage"]["storageClassDeviceSets"]}
        for claim in (claim for made in sets.values() for claim in made):
            crowd.scene.objects.create(CLAIMS, claim)
            crowd.scene.pod(claim["metadata"]["name"], [claim["metadata"]["name"]], is_block=True)
        for made in sets.values():
            names = [claim["metadata"]["name"] for claim in made]
            crowd.scene.wait_bound(*names, seconds=SECONDS)
            assert domains(crowd, names, RACK) == dict.fromkeys(("r0", "r1", "r2"), len(names) / 3)
    finally:
        crowd.scene.delete(*(f"{STORAGE}/storageclasses/{each['metadata']['name']}" for each in classes))


@pytest.mark.parametrize("name", ["thick", "block", "ephemeral", "clone", "restore", "group-snapshot"])
def test_all_that_an_example_asks_for_is_there_in_the_end_when_it_is_applied_at_once(crowd: Crowd, name: str) -> None:
    applied(crowd, name)
    crowd.scene.wait_bound(*(each["metadata"]["name"] for each in crowd.scene.objects.items(CLAIMS)), seconds=SECONDS)
    for path in (SNAPSHOTS, GROUPS):
        for each in crowd.scene.objects.items(path):
            crowd.scene.objects.until(f"{path}/{each['metadata']['name']}", is_ready, SECONDS)
    for each in crowd.scene.objects.items(CLAIMS):
        if source := each["spec"].get("dataSource"):
            assert node_of(crowd, each["metadata"]["name"]) == node_of(crowd, source_of(crowd, source))


def applied(crowd: Crowd, name: str) -> list[str]:
    """Make what an example has beside classes, in its order; the names of its Pods, once all are placed."""
    pods = []
    for each in read(DEPLOY / "examples" / f"{name}.yaml"):
        if each["kind"] in WORKLOADS:
            crowd.scene.objects.create(collection_of(crowd.scene.objects, each), small(each))
            if each["kind"] == "StatefulSet":
                pods += [f"{each['metadata']['name']}-{number}" for number in range(each["spec"]["replicas"])]
            elif each["kind"] == "Pod":
                pods.append(each["metadata"]["name"])
    crowd.wait_placed(len(pods), SECONDS)
    return pods


def taken_away(crowd: Crowd, name: str) -> None:
    """Its StatefulSets, which would make their Pods anew."""
    for each in read(DEPLOY / "examples" / f"{name}.yaml"):
        if each["kind"] == "StatefulSet":
            path = f"{collection_of(crowd.scene.objects, each)}/{each['metadata']['name']}"
            crowd.scene.delete(path)
            crowd.scene.objects.until_gone(path)


def small(example: Thing) -> Thing:
    """The same with claims of the crowd's size, and Pods that go at once: there is no kubelet to end them."""
    made = copy.deepcopy(example)
    spec = made["spec"]
    for each in (spec, spec.get("template", {}).get("spec", {})):
        if "containers" in each:
            each["terminationGracePeriodSeconds"] = 0
    ephemeral = (each.get("ephemeral", {}).get("volumeClaimTemplate") for each in spec.get("volumes", ()))
    own = [made] if made["kind"] == "PersistentVolumeClaim" else []
    for claim in (*own, *spec.get("volumeClaimTemplates", ()), *filter(None, ephemeral)):
        claim["spec"]["resources"]["requests"]["storage"] = str(VOLUME_BYTES)
    return made


def disks(device_set: Json) -> list[Thing]:
    """A set's claims, with Rook's labels."""
    (template,) = device_set["volumeClaimTemplates"]
    spec = copy.deepcopy(template["spec"])
    spec["resources"]["requests"]["storage"] = str(VOLUME_BYTES // 2)
    names = [f"{device_set['name']}-data-{number}" for number in range(device_set["count"])]
    labels = [{"ceph.rook.io/DeviceSet": device_set["name"], "ceph.rook.io/DeviceSetPVCId": name} for name in names]
    made = zip(names, labels, strict=True)
    return [{"metadata": {"name": name, "labels": of}, "spec": copy.deepcopy(spec)} for name, of in made]


def claims(crowd: Crowd, template: str, pods: Sequence[str]) -> list[str]:
    """Those that a StatefulSet has made of a template for these Pods, once they are bound."""
    names = [f"{template}-{pod}" for pod in pods]
    crowd.scene.wait_bound(*names, seconds=SECONDS)
    return names


def node_of(crowd: Crowd, claim: str) -> str:
    return crowd.scene.node_of(claim).name


def domains(crowd: Crowd, bound: Sequence[str], label: str) -> Counter[str]:
    """How many of the claims' volumes are in each."""
    domain_of = labels_of_nodes(crowd, label)
    return Counter(domain_of[node_of(crowd, each)] for each in bound)


def labels_of_nodes(crowd: Crowd, label: str) -> dict[str, str]:
    return {each["metadata"]["name"]: each["metadata"]["labels"][label] for each in crowd.scene.objects.items(NODES)}


def labelled(crowd: Crowd, node: Json, zone: str) -> None:
    path = f"{NODES}/{node['metadata']['name']}"
    crowd.scene.objects.patch(path, {"metadata": {"labels": {ZONE: zone}}})
    until(lambda: crowd.scene.objects.get(path)["metadata"]["labels"][ZONE] == zone, lambda: path)


def source_of(crowd: Crowd, source: Json) -> str:
    """The claim that another one begins as, or as the snapshot of which."""
    if source["kind"] == "PersistentVolumeClaim":
        return str(source["name"])
    snapshot = crowd.scene.objects.get(f"{SNAPSHOTS}/{source['name']}")
    return str(snapshot["spec"]["source"]["persistentVolumeClaimName"])


def is_ready(found: Json) -> bool:
    return bool(found.get("status", {}).get("readyToUse"))
