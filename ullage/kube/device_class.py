"""DeviceClass objects: the same fields as a class in the configuration file, read by the same rules."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import msgspec

from ullage.config import parse_class
from ullage.errors import ConfigError
from ullage.kube.meta import DEVICE_CLASSES, Meta
from ullage.model import DeviceClass

_FIELDS = msgspec.json.Decoder(dict[str, Any], float_hook=Decimal)
"""A ratio keeps the digits that were written."""


class DeviceClassObject(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """ullage.io/v1alpha1 DeviceClass; its spec is read by `device_class`, which has sentences for what is wrong."""

    metadata: Meta
    spec: msgspec.Raw = msgspec.Raw(b"{}")

    @property
    def device_class(self) -> DeviceClass:
        """The policy; raises ConfigError with every fault, where the API server's rules let one through."""
        origin = f"{DEVICE_CLASSES.kind} {self.metadata.name}"
        try:
            fields = _FIELDS.decode(self.spec)
        except msgspec.ValidationError as error:
            raise ConfigError(f"{origin}: spec: {error}", origin=origin) from error
        if "name" in fields:
            raise ConfigError(f"{origin}: spec.name: there is no such field; the name is the object's", origin=origin)
        return parse_class(self.metadata.name, fields, origin)
