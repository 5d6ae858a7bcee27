"""StorageClasses of ours: the driver's name, its keys, and which DeviceClass a StorageClass means."""

from __future__ import annotations

from collections.abc import Mapping

from ullage.errors import MIB, InvalidRequestError
from ullage.kube.foreign import StorageClass
from ullage.model import DeviceClass, DeviceClassName
from ullage.names import check_device_class_name

DRIVER = "ullage.io"
"""The driver's name, and the domain of its keys."""
NODE_KEY = f"{DRIVER}/node"
"""The one topology key; its value is the node's name, and never changes."""
CLASS_KEY = f"{DRIVER}/device-class"
FILE_SYSTEM_KEY = "csi.storage.k8s.io/fstype"
"""A parameter that Kubernetes itself gives a meaning: what is made on volumes that are to be mounted."""
LEAST_BYTES = {"ext4": 8 * MIB, "xfs": 300 * MIB, "btrfs": 256 * MIB}
"""The smallest volume that each file system fits on (`csi.fs.kinds` says why); the first one is the default."""
BINDS_LATE = "WaitForFirstConsumer"
"""A `volumeBindingMode`: a volume is made where its first Pod goes."""


def device_class_name(parameters: Mapping[str, str]) -> DeviceClassName | None:
    """The class that a StorageClass names, or None for the default; raises InvalidRequestError."""
    name = parameters.get(CLASS_KEY)
    return None if name is None else check_device_class_name(name)


def least_bytes(parameters: Mapping[str, str], *, is_block: bool) -> int:
    """The smallest volume that is made for a StorageClass: no smaller size is taken at its word."""
    return 1 if is_block else LEAST_BYTES.get(parameters.get(FILE_SYSTEM_KEY) or next(iter(LEAST_BYTES)), 1)


def device_class_of(storage_class: StorageClass, classes: Mapping[DeviceClassName, DeviceClass]) -> DeviceClass | None:
    """What its volumes are carved as; None when it is not ours, or names nothing that there is."""
    if storage_class.provisioner != DRIVER:
        return None
    try:
        name = device_class_name(storage_class.parameters)
    except InvalidRequestError:
        return None
    if name is not None:
        return classes.get(name)
    default = [each for each in classes.values() if each.is_default or len(classes) == 1]
    return default[0] if len(default) == 1 else None
