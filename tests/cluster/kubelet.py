"""A kubelet as far as volumes go: it mounts what a Pod on its node claims, grows it, and takes it away again.

It does so when a test says so, with kubelet's paths and in kubelet's order (`tests.csi.kubelet`), and it leaves in the
objects what kubelet would: a Pod that runs, a claim whose file system has grown (volume/util/resize_util.go).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc

from tests.csi import kubelet as driver
from tests.rigs.cluster.api import Api, Json
from ullage.pb.csi.v1 import csi_pb2 as pb
from ullage.quantity import parse_bytes

PODS = "/api/v1/namespaces/default/pods"
CLAIMS = "/api/v1/namespaces/default/persistentvolumeclaims"
VOLUMES = "/api/v1/persistentvolumes"
PATIENCE_SECONDS = 60.0
POLL_SECONDS = 0.2
RESIZING = ("Resizing", "FileSystemResizePending")
MODES = {"ReadWriteOnce": driver.RWO, "ReadWriteOncePod": driver.RWOP}


@dataclass(frozen=True, slots=True)
class Kubelet:
    """One node's."""

    api: Api
    node: str
    calls: driver.Kubelet

    def run(self, pod: str) -> dict[str, Path]:
        """Wait until the Pod is on this node and its claims are bound; mount them: where, by claim. It runs then."""
        found = self.api.until(f"{PODS}/{pod}", lambda it: it["spec"].get("nodeName"))
        assert found["spec"]["nodeName"] == self.node
        places = {}
        for claim in _claims(found):
            volume = self._volume(claim)
            places[claim] = self._publish(volume, found["metadata"]["uid"])
        self.api.patch(f"{PODS}/{pod}/status", {"status": {"phase": "Running"}})
        return places

    def end(self, pod: str) -> None:
        """Take away what the Pod has, which no other Pod here uses, and the Pod."""
        found = self.api.get(f"{PODS}/{pod}")
        for claim in _claims(found):
            self.take_away(self._volume(claim), found["metadata"]["uid"])
        self.api.delete(f"{PODS}/{pod}?gracePeriodSeconds=0")

    def take_away(self, volume: Json, pod: str) -> None:
        """Of one volume of a Pod, that is named by its uid."""
        handle = volume["spec"]["csi"]["volumeHandle"]
        if _is_block(volume):
            self.calls.unlock_block(handle, pod)
            _patiently(lambda: self.calls.unpublish_block(handle, pod))
            _patiently(lambda: self.calls.unstage_block(handle))
        else:
            _patiently(lambda: self.calls.unpublish(handle, pod))
            _patiently(lambda: self.calls.unstage(handle))

    def grow(self, claim: str, place: Path) -> None:
        """Once the volume has grown: grow its file system, mounted here, and say so in the claim's status."""
        path = f"{CLAIMS}/{claim}"
        found = self.api.until(path, lambda it: _awaits_growth(it["status"]))
        volume = self._volume(claim)
        size = volume["spec"]["capacity"]["storage"]
        self.calls.expand(volume["spec"]["csi"]["volumeHandle"], place, parse_bytes(size))
        status = dict(found["status"])
        status["capacity"] = {**status["capacity"], "storage": size}
        status["conditions"] = [each for each in status.get("conditions", ()) if each["type"] not in RESIZING]
        left = {key: word for key, word in status.get("allocatedResourceStatuses", {}).items() if key != "storage"}
        status["allocatedResourceStatuses"] = left
        self.api.replace(f"{path}/status", {**found, "status": status})

    def _volume(self, claim: str) -> Json:
        bound = self.api.until(f"{CLAIMS}/{claim}", lambda it: it["status"].get("phase") == "Bound")
        return self.api.get(f"{VOLUMES}/{bound['spec']['volumeName']}")

    def _publish(self, volume: Json, pod: str) -> Path:
        handle = volume["spec"]["csi"]["volumeHandle"]
        mode = MODES[volume["spec"]["accessModes"][0]]
        if _is_block(volume):
            self.calls.stage_block(handle, mode)
            self.calls.publish_block(handle, pod, mode)
            return self.calls.map_block(handle, pod)
        capability = _capability(volume["spec"], mode)
        self.calls.stage(handle, capability)
        return self.calls.publish(handle, pod, capability)


def _patiently(ask: Callable[[], object]) -> None:
    """Kubelet asks again and again, whatever the answer was; here only while another call has the volume."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while (told := driver.refusal_of(ask))[0] is not grpc.StatusCode.OK:
        assert told[0] is grpc.StatusCode.ABORTED, told
        assert time.monotonic() < deadline, told
        time.sleep(POLL_SECONDS)


def _capability(spec: Mapping[str, Any], mode: int) -> pb.VolumeCapability:
    return driver.mounted(spec["csi"].get("fsType", ""), *spec.get("mountOptions", ()), mode=mode)


def _claims(pod: Json) -> list[str]:
    """Those it names, and those that are made for it."""
    name = pod["metadata"]["name"]
    own = [f"{name}-{volume['name']}" for volume in pod["spec"]["volumes"] if "ephemeral" in volume]
    named = (volume.get("persistentVolumeClaim") for volume in pod["spec"]["volumes"])
    return [*own, *(each["claimName"] for each in named if each)]


def _is_block(volume: Json) -> bool:
    return bool(volume["spec"].get("volumeMode") == "Block")


def _awaits_growth(status: Mapping[str, Any]) -> bool:
    return bool(status.get("allocatedResourceStatuses", {}).get("storage") == "NodeResizePending")
