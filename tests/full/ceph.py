"""A Ceph cluster as Kubernetes objects: a monitor, a manager, and OSDs on block claims, as Rook runs them.

What matters to a driver is as in Rook: a Pod that prepares and a Pod that runs the OSD use the same block claim in
turn; an init container without privileges copies the claim's device node into a directory of the Pod, and everything
after it uses the copy; the copy is made anew when the device's number has changed. All Pods use their node's network.
"""

from __future__ import annotations

import base64
import os
import struct
import time
import uuid
from collections.abc import Sequence

from tests.full.workloads import AT, DATA, Thing, container, start_volume

CONFIGURATION = "ceph"
KEYS = "ceph-keys"
CLAIM_PATH = "/claim"
MOUNTS = {"configuration": "/etc/ceph", "keys": "/ceph"}
PRIVILEGED = {"privileged": True}
MAPS = {"capabilities": {"add": ["MKNOD"]}}


HOST = [
    {"name": "NODE_NAME", "valueFrom": {"fieldRef": {"fieldPath": "spec.nodeName"}}},
    {"name": "NODE_ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.hostIP"}}},
]


def shared(monitor_address: str) -> list[Thing]:
    """The configuration and the keys of a new cluster."""
    configuration = (DATA / "ceph.conf").read_text(encoding="utf-8").replace("FSID", str(uuid.uuid4()))
    configuration = configuration.replace("MONITOR", monitor_address)
    return [
        _named("v1", "ConfigMap", CONFIGURATION) | {"data": {"ceph.conf": configuration}},
        _named("v1", "Secret", KEYS) | {"stringData": {"keyring": _keyring()}},
    ]


def monitor(node: str, storage_class: str) -> list[Thing]:
    """The monitor, and the claim with its store."""
    volume = {"name": "data", "persistentVolumeClaim": {"claimName": "mon"}}
    main = container("mon", "sh", f"{AT}/ceph-mon.sh", mounts={**MOUNTS, "data": "/data"}, env=HOST)
    return [claim("mon", storage_class, "1Gi", is_block=False), _deployment("mon", node, [volume], [], main)]


def manager(node: str) -> Thing:
    """The manager; it keeps nothing."""
    return _deployment("mgr", node, [], [], container("mgr", "sh", f"{AT}/ceph-mgr.sh", mounts=MOUNTS, env=HOST))


def prepare(name: str, node: str) -> Thing:
    """The Job that makes an OSD of the block claim `name`, with the host's /dev: lsblk looks for the name there."""
    mounts = {**OSD_MOUNTS, "devices": "/dev"}
    main = container("prepare", "sh", f"{AT}/ceph-prepare.sh", mounts=mounts, securityContext=PRIVILEGED)
    volumes = [*_osd_volumes(name), {"name": "devices", "hostPath": {"path": "/dev"}}]
    pod = _pod(node, volumes, [_map()], main, restart="OnFailure")
    return _named("batch/v1", "Job", f"prepare-{name}") | {"spec": {"backoffLimit": 10, "template": {"spec": pod}}}


def osd(name: str, node: str) -> Thing:
    """The OSD on the block claim `name`, once it is prepared."""
    activate = container("activate", "sh", f"{AT}/ceph-activate.sh", mounts=OSD_MOUNTS, securityContext=PRIVILEGED)
    main = container("osd", "sh", f"{AT}/ceph-osd.sh", mounts=OSD_MOUNTS, securityContext=PRIVILEGED, env=HOST)
    return _deployment(name, node, _osd_volumes(name), [_map(), activate], main)


def claim(name: str, storage_class: str, size: str, *, is_block: bool) -> Thing:
    """A claim, raw or with a file system."""
    return _named("v1", "PersistentVolumeClaim", name) | {
        "spec": {
            "storageClassName": storage_class,
            "accessModes": ["ReadWriteOnce"],
            "volumeMode": "Block" if is_block else "Filesystem",
            "resources": {"requests": {"storage": size}},
        }
    }


OSD_MOUNTS = {**MOUNTS, "osd": "/osd", "udev": "/run/udev"}


def _osd_volumes(name: str) -> list[Thing]:
    return [
        {"name": "block", "persistentVolumeClaim": {"claimName": name}},
        {"name": "osd", "emptyDir": {}},
        {"name": "udev", "hostPath": {"path": "/run/udev"}},
    ]


def _map() -> Thing:
    """The only container that sees the claim itself."""
    return container(
        "map",
        *("sh", f"{AT}/ceph-map.sh", CLAIM_PATH, "/osd/block"),
        mounts={"osd": "/osd"},
        volumeDevices=[{"name": "block", "devicePath": CLAIM_PATH}],
        securityContext=MAPS,
    )


def _deployment(name: str, node: str, volumes: Sequence[Thing], first: Sequence[Thing], main: Thing) -> Thing:
    labels = {"app": name}
    template = {"metadata": {"labels": labels}, "spec": _pod(node, volumes, first, main, restart="Always")}
    strategy = {"type": "Recreate"}  # two Pods on one claim are one OSD too many
    spec = {"replicas": 1, "strategy": strategy, "selector": {"matchLabels": labels}, "template": template}
    return _named("apps/v1", "Deployment", name) | {"spec": spec}


def _pod(node: str, volumes: Sequence[Thing], first: Sequence[Thing], main: Thing, *, restart: str) -> Thing:
    shared_volumes = [
        start_volume(),
        {"name": "configuration", "configMap": {"name": CONFIGURATION}},
        {"name": "keys", "secret": {"secretName": KEYS}},
    ]
    return {
        "hostNetwork": True,
        "nodeSelector": {"kubernetes.io/hostname": node},
        "terminationGracePeriodSeconds": 30,
        "restartPolicy": restart,
        "initContainers": list(first),
        "containers": [main],
        "volumes": [*shared_volumes, *volumes],
    }


def _named(version: str, kind: str, name: str) -> Thing:
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name, "namespace": "default"}}


def _keyring() -> str:
    """Who may do what, each with a new key (src/auth/Crypto.cc: kind, seconds, nanoseconds, length, AES key)."""
    may = {
        "mon.": {"mon": "allow *"},
        "client.admin": {"mon": "allow *", "osd": "allow *", "mgr": "allow *"},
        "client.bootstrap-osd": {"mon": "allow profile bootstrap-osd"},
        "mgr.a": {"mon": "allow profile mgr", "osd": "allow *"},
    }
    lines = []
    for name, capabilities in may.items():
        key = base64.b64encode(struct.pack("<HIIH", 1, int(time.time()), 0, 16) + os.urandom(16)).decode()
        lines += [f"[{name}]", f"\tkey = {key}"]
        lines += [f'\tcaps {daemon} = "{word}"' for daemon, word in capabilities.items()]
    return "\n".join([*lines, ""])
