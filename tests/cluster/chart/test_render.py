"""What the chart makes of values: taken by a real API server, strictly, and by the programs that it starts."""

from __future__ import annotations

import argparse
import base64
import re
import subprocess
from collections.abc import Iterator, Mapping
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.cluster.chart.value_sets import SETS
from tests.rigs import chart
from tests.rigs.cluster.api import Api, Json
from tests.rigs.cluster.control_plane import ControlPlane
from tests.rigs.cluster.crds import install_snapshot_crds
from tests.rigs.cluster.manifests import collection_of, install
from tests.rigs.cluster.sidecars import CALLS, LOOK_AGAIN, NAMES, OF_EACH, SNAPSHOT_CONTROLLER
from tests.rigs.gotools import programs
from tests.rigs.host import RigError

SOCKET_PATH_CHARACTERS = 107
START_SECONDS = 600
"""Of a busy machine."""
OF_PROMETHEUS = {"PodMonitor", "PrometheusRule"}
"""No definitions of these are here for an API server to check them against."""
WORKLOADS = ("Deployment", "DaemonSet", "Job")
EACH = pytest.mark.parametrize("name", SETS)


@pytest.fixture(scope="module")
def admin(api_only: ControlPlane) -> Api:
    api = api_only.api()
    install(api)
    install_snapshot_crds(api)
    return api


@cache
def rendered(name: str) -> list[Json]:
    """With a set of values; nobody changes it."""
    return chart.objects(chart.template(SETS[name], "--include-crds"))


def of_kind(objects: list[Json], *kinds: str) -> list[Json]:
    return [each for each in objects if each["kind"] in kinds]


def one(objects: list[Json], kind: str, name: str = "") -> Json:
    (found,) = (each for each in of_kind(objects, kind) if not name or each["metadata"]["name"] == name)
    return found


def pods(objects: list[Json]) -> Iterator[Json]:
    for each in of_kind(objects, *WORKLOADS):
        yield each["spec"]["template"]["spec"]


def containers(objects: list[Json]) -> Iterator[Json]:
    for pod in pods(objects):
        yield from pod["containers"]


def test_the_manifests_are_what_the_chart_makes_of_them() -> None:
    there = {str(path.relative_to(chart.MANIFESTS)): path for path in chart.MANIFESTS.rglob("*.yaml")}
    assert {name: path.read_text(encoding="utf-8") for name, path in there.items()} == chart.manifests(), (
        "run `make manifests`"
    )


@EACH
def test_helm_finds_no_fault_in_it(name: str, tmp_path: Path) -> None:
    file = tmp_path / "values.yaml"
    file.write_text(yaml.safe_dump(dict(SETS[name])), encoding="utf-8")
    assert "0 chart(s) failed" in chart.helm("lint", "--strict", chart.CHART, "--values", file)


@EACH
def test_a_real_api_server_takes_every_object_with_every_field(admin: Api, name: str) -> None:
    objects = rendered(name)
    assert len(objects) > len(chart.FILES)
    for each in objects:
        if each["kind"] not in OF_PROMETHEUS:
            admin.try_apply(f"{collection_of(admin, each)}/{each['metadata']['name']}", each)


@EACH
def test_every_word_of_our_commands_is_one_that_the_program_knows(name: str) -> None:
    ours = [each for each in containers(rendered(name)) if each.get("command", [""])[0] == "ullage"]
    assert len(ours) >= 3
    for container in ours:
        _, subcommand, *words = (str(word) for word in (*container["command"], *container.get("args", ())))
        parser = argparse.ArgumentParser(exit_on_error=False)
        import_module(f"ullage.cli.{subcommand}").describe(parser)
        parser.parse_args(words)


def test_every_word_of_the_sidecars_commands_is_one_that_the_pinned_programs_know() -> None:
    found = {each["name"]: each for each in containers(rendered("everything")) if each["name"] in NAMES}
    assert set(found) == set(NAMES)
    for name, container in found.items():
        words = [*container["args"], "--version"]
        subprocess.run([programs.get(name), *words], check=True, capture_output=True, timeout=60)
        ours_alone = {*CALLS, LOOK_AGAIN, *(word for word in OF_EACH[SNAPSHOT_CONTROLLER] if "retry" in word)}
        assert set(OF_EACH[name]) - ours_alone <= set(container["args"])
        assert container["image"].endswith(f":{pinned(name)}")


def pinned(program: str) -> str:
    """The version of the module that the tests build the program from."""
    of = programs.PROGRAMS[program]
    module = of.package.partition("/cmd/")[0]
    go_mod = (Path(programs.__file__).parent / of.folder / "go.mod").read_text(encoding="ascii")
    found = re.search(rf"{re.escape(module)} (v\S+)", go_mod)
    assert found is not None
    return found[1]


@EACH
def test_only_the_node_s_pods_are_privileged_and_no_root_file_system_is_written_to(name: str) -> None:
    for pod in pods(rendered(name)):
        for container in pod["containers"]:
            context = container["securityContext"]
            assert context["readOnlyRootFilesystem"] is True
            if pod["serviceAccountName"] == "ullage-node":
                assert context["privileged"] is True
            else:
                assert pod["securityContext"]["runAsNonRoot"] is True
                assert context["allowPrivilegeEscalation"] is False
                assert "hostPID" not in pod
                assert "hostIPC" not in pod


@EACH
def test_every_port_that_is_probed_is_open(name: str) -> None:
    for container in containers(rendered(name)):
        ports = {each["name"]: each["containerPort"] for each in container.get("ports", ())}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            if probe in container:
                port = container[probe]["httpGet"]["port"]
                assert port in ports or port in ports.values()


@EACH
def test_nothing_is_ended_because_its_machine_is_slow_to_start_it(name: str) -> None:
    """The sidecars among them: they answer their probes once our container serves."""
    probed = [each for each in containers(rendered(name)) if "livenessProbe" in each]
    assert probed
    for container in probed:
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] >= START_SECONDS


@EACH
def test_kubelet_finds_the_node_s_socket_where_the_node_makes_it(name: str) -> None:
    pod = one(rendered(name), "DaemonSet", "ullage-node")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    flags = dict(word.removeprefix("--").split("=", 1) for word in container["args"])
    mounts = {each["name"]: each for each in container["volumeMounts"]}
    volumes = {each["name"]: each for each in pod["volumes"]}
    assert set(mounts) == set(volumes)
    for each, volume in volumes.items():  # the same path inside and outside: what we say, kubelet and LVM understand
        if "hostPath" in volume and not each.startswith("lvm-"):
            assert mounts[each]["mountPath"] == volume["hostPath"]["path"]
    root = volumes["kubelet"]["hostPath"]["path"]
    assert mounts["kubelet"]["mountPropagation"] == "Bidirectional"
    assert flags["csi-endpoint"] == f"unix://{root}/plugins/ullage.io/csi.sock"
    assert flags["register"] == f"{root}/plugins_registry"
    assert len(flags["csi-endpoint"].removeprefix("unix://")) <= SOCKET_PATH_CHARACTERS
    assert pod.get("hostPID", False) is ("lvm-prefix" in flags)


def test_the_parent_of_a_class_s_directory_is_mounted_and_not_the_directory() -> None:
    pod = one(rendered("everything"), "DaemonSet", "ullage-node")["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    mounts = {each["mountPath"]: each.get("mountPropagation") for each in container["volumeMounts"]}
    assert mounts["/srv/ullage"] == mounts["/mnt/disks"] == "HostToContainer"
    assert "/srv/ullage/bulk" not in mounts


def test_classes_are_those_of_the_values() -> None:
    objects = rendered("everything")
    assert one(objects, "DeviceClass", "bulk")["spec"] == {
        "type": "file",
        "directory": "/srv/ullage/bulk",
        "sparse": True,
    }
    fast, bulk = one(objects, "StorageClass", "fast"), one(objects, "StorageClass", "bulk")
    assert fast["parameters"] == {"ullage.io/device-class": "fast", "csi.storage.k8s.io/fstype": "xfs"}
    assert fast["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    assert (bulk["reclaimPolicy"], bulk["metadata"]["annotations"]) == ("Retain", {"spread.ullage.io/key": "rack"})
    assert (bulk["allowVolumeExpansion"], bulk["volumeBindingMode"]) == (True, "WaitForFirstConsumer")


def test_all_that_check_the_extender_s_certificate_have_its_authority() -> None:
    objects = rendered("managed-and-marked")
    authority = one(objects, "Secret")["data"]["ca.crt"]
    (webhook,) = one(objects, "MutatingWebhookConfiguration")["webhooks"]
    assert webhook["clientConfig"]["caBundle"] == authority
    assert base64.b64decode(authority).decode().strip() == one(objects, "ConfigMap")["data"]["ca.crt"].strip()
    assert "['default-scheduler', 'ullage-scheduler']" in webhook["matchConditions"][-1]["expression"]


def test_the_second_scheduler_s_configuration_is_one_that_kube_scheduler_takes(
    api_only: ControlPlane, tmp_path: Path
) -> None:
    for name in ("managed", "managed-and-marked"):
        text = one(rendered(name), "ConfigMap")["data"]["scheduler.yaml"]
        shown = taken_by_kube_scheduler(text, api_only, tmp_path)
        (extender,) = shown["extenders"]
        (profile,) = shown["profiles"]
        assert profile["schedulerName"] == "ullage-scheduler"
        assert extender.get("ignorable", False) is ("managedResources" not in extender)
        assert extender["tlsConfig"]["caFile"]


@pytest.mark.parametrize(
    "path", sorted((chart.ROOT / "deploy/scheduler").glob("*-pod*.yaml")), ids=lambda path: path.stem
)
def test_kube_scheduler_takes_the_configurations_that_we_ship(
    path: Path, api_only: ControlPlane, tmp_path: Path
) -> None:
    assert taken_by_kube_scheduler(path.read_text(encoding="utf-8"), api_only, tmp_path)["extenders"]


def taken_by_kube_scheduler(text: str, plane: ControlPlane, folder: Path) -> Json:
    """How kube-scheduler understands its configuration; it fails on what it does not know, and on files not there."""
    given, shown = folder / "given.yaml", folder / "shown.yaml"
    configuration = yaml.safe_load(text)
    configuration.setdefault("clientConnection", {})["kubeconfig"] = str(plane.kubeconfig)
    for extender in configuration["extenders"]:
        if "tlsConfig" in extender:
            extender["tlsConfig"]["caFile"] = str(plane.certificate)
    given.write_text(yaml.safe_dump(configuration), encoding="utf-8")
    words = (f"--config={given}", f"--write-config-to={shown}")
    done = subprocess.run(
        [programs.get("kube-scheduler"), *words], check=False, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    content: Json = yaml.safe_load(shown.read_text(encoding="utf-8"))
    return content


def test_every_alert_is_about_metrics_that_are_documented() -> None:
    (group,) = one(rendered("monitoring"), "PrometheusRule")["spec"]["groups"]
    text = (chart.ROOT / "docs/metrics.md").read_text(encoding="utf-8")
    used = {metric for rule in group["rules"] for metric in re.findall(r"ullage_\w+", rule["expr"])}
    assert used
    assert [metric for metric in used if f"| `{metric}` |" not in text] == []


MISTAKES: list[tuple[Mapping[str, Any], str]] = [
    ({"nodes": {}}, "additional properties 'nodes' not allowed"),
    ({"node": {"resource": {}}}, "at '/node': additional properties 'resource' not allowed"),
    ({"log": {"level": "loud"}}, "at '/log/level': value must be one of 'debug', 'info', 'warning', 'error'"),
    ({"controller": {"replicas": 0}}, "at '/controller/replicas': minimum: got 0, want 1"),
    ({"snapshots": {"enabled": "yes"}}, "at '/snapshots/enabled': value must be one of 'auto', true, false"),
    ({"kubeletDir": "var/lib/kubelet"}, "at '/kubeletDir'"),
    ({"deviceClasses": [{"type": "thick"}]}, "missing property 'name'"),
    ({"deviceClasses": [{"name": "a", "type": "thick", "volumeGroup": "x"}]}, "properties 'volumeGroup' not allowed"),
    ({"storageClasses": [{"name": "a", "fsType": "zfs"}]}, "must be one of 'ext4', 'xfs', 'btrfs'"),
    ({"webhook": {"enabled": True}, "extender": {"enabled": False}}, "extender.enabled must be true"),
    ({"scheduler": {"enabled": True}}, "extender.kind Deployment"),
    (
        {"scheduler": {"enabled": True}, "extender": {"kind": "Deployment", "tls": {"secretName": "mine"}}},
        "extender.tls.caCertificate is empty",
    ),
    ({"deviceClasses": [{"name": "a", "type": "file", "directory": "/data"}]}, "take one two levels deep"),
    ({"deviceClasses": [{"name": "a", "type": "file", "directory": "/etc/x"}]}, "not below the system's own"),
    ({"snapshots": {"classes": [{"name": "a"}]}}, "install those of external-snapshotter first"),
    ({"snapshots": {"enabled": False, "classes": [{"name": "a"}]}}, "snapshots.enabled is false"),
]


@pytest.mark.parametrize(("values", "sentence"), MISTAKES, ids=lambda each: each if isinstance(each, str) else "")
def test_a_mistake_in_the_values_is_told_with_its_place(values: Mapping[str, Any], sentence: str) -> None:
    with pytest.raises(RigError) as refused:
        chart.template(values)
    assert sentence in str(refused.value)
