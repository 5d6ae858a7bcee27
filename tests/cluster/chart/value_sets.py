"""Values as people have them: one set for each way in which the chart is meant to be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from tests.rigs.chart import ROOT

FILES: Mapping[str, Any] = {
    "deviceClasses": [
        {"name": "fast", "type": "thick", "volumeGroups": ["nvme*"], "reserve": "10Gi", "default": True},
        {"name": "bulk", "type": "file", "directory": "/srv/ullage/bulk", "sparse": True},
    ],
    "storageClasses": [
        {"name": "fast", "deviceClass": "fast", "fsType": "xfs", "isDefault": True},
        {
            "name": "bulk",
            "deviceClass": "bulk",
            "reclaimPolicy": "Retain",
            "annotations": {"spread.ullage.io/key": "rack"},
        },
    ],
    "volumeAttributesClasses": [{"name": "wipe-zero", "wipe": "zero"}],
}
SNAPSHOTS = {"enabled": True, "classes": [{"name": "ullage"}], "groupClasses": [{"name": "ullage", "isDefault": True}]}
MANAGED: Mapping[str, Any] = yaml.safe_load((ROOT / "deploy/scheduler/managed/values.yaml").read_text(encoding="utf-8"))
SETS: Mapping[str, Mapping[str, Any]] = {
    "defaults": {},
    "classes": FILES,
    "host-lvm": {"lvm": {"source": "host"}},
    "no-copies-of-metadata-on-the-host": {"lvm": {"backupDirectory": ""}},
    "snapshots": {"snapshots": SNAPSHOTS, "snapshotController": {"enabled": True}},
    "webhook": {"webhook": {"enabled": True}},
    "own-certificate": {
        "webhook": {"enabled": True},
        "extender": {"tls": {"secretName": "mine", "caCertificate": "-----BEGIN CERTIFICATE-----\n"}},
    },
    "managed": MANAGED,
    "managed-and-marked": {**MANAGED, "webhook": {"enabled": True}},
    "microk8s": {"kubeletDir": "/var/snap/microk8s/common/var/lib/kubelet"},
    "without-kube-proxy": {"apiServer": {"host": "10.0.0.1"}, "node": {"hostNetwork": True}},
    "small": {"controller": {"replicas": 1}, "extender": {"enabled": False}, "csiDriver": {"storageCapacity": False}},
    "monitoring": {"monitoring": {"podMonitors": {"enabled": True}, "rules": {"enabled": True}}},
    "everything": {
        **FILES,
        **MANAGED,
        "namespace": {"create": True},
        "image": {"repository": "registry.example.org/ullage", "tag": "1.2.3"},
        "imagePullSecrets": [{"name": "registry"}],
        "log": {"level": "debug", "format": "text"},
        "snapshots": SNAPSHOTS,
        "snapshotController": {"enabled": True},
        "webhook": {"enabled": True},
        "controller": {
            "replicas": 3,
            "nodeLossDelaySeconds": 3600,
            "extraArgs": ["--lease-name=other"],
            "podLabels": {"team": "storage"},
            "podAnnotations": {"example.org/note": "yes"},
        },
        "node": {
            "hostDirectories": [{"path": "/mnt/disks"}],
            "podLabels": {"team": "storage"},
            "podAnnotations": {"example.org/note": "yes"},
            "extraArgs": ["--alpha=volume-health"],
        },
        "monitoring": {
            "podMonitors": {"enabled": True, "labels": {"release": "prometheus"}},
            "rules": {"enabled": True},
        },
    },
}
