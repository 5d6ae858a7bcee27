"""Notices that something about block devices has changed: hints to look again, never the record of what there is.

A thread of its own listens on netlink for events of the subsystem "block": after udev has handled them where udevd
runs (with its properties, so that a logical volume can be told), straight from the kernel otherwise. A burst can
overflow the socket's buffer, and an overflow shows as an OSError out of poll (pyudev#194: it ends MonitorObserver's
thread for ever); then, and whenever listening fails, the thread makes a new monitor after a while and says that events
may have been lost. It ends with `stop` and for no other reason: not for an exception in a callback, not where netlink
is forbidden, not without libudev.

Events that udevd has handled reach only its own network namespace, which is the machine's first; the kernel's reach
every one, so in another one (a Pod without hostNetwork) those are listened to. They come before udevd is done, and
without LVM's names: there are more looks, at more. Whoever needs to be sure looks again from time to time anyway.
"""

from __future__ import annotations

import logging
import random
import socket
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Protocol

import pyudev

POLL_SECONDS = 0.5
"""How long `stop` waits at most for the thread to notice."""
RECEIVE_BUFFER_BYTES = 16 << 20
"""Thousands of events. Memory is taken only as it is filled; needs CAP_NET_ADMIN past net.core.rmem_max."""
UDEV_CONTROL = Path("/run/udev/control")
"""There while udevd runs (and while systemd would start it)."""
SO_NETNS_COOKIE = 71
"""Linux 5.14, include/uapi/asm-generic/socket.h: the number of a socket's network namespace, counted from boot."""
FIRST_NETWORK = 1
LVM_UUID_PREFIX = "LVM-"
"""Of the device-mapper UUIDs of everything that LVM activates."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """One event. What its source did not say is empty (the kernel does not know LVM's names; udev's rules do)."""

    device_name: str
    """As in /sys/block: `sda`, `dm-3`, `loop0`."""
    action: str
    """`add`, `remove`, `change`, `online`, `offline`, `move`, `bind`, `unbind`."""
    device_type: str = ""
    """`disk` or `partition`."""
    sequence_number: int = 0
    dm_name: str = ""
    dm_uuid: str = ""
    volume_group: str = ""
    logical_volume: str = ""
    """LVM's hidden ones too (`pool0_tmeta`, `lv_rimage_0`)."""

    @property
    def is_logical_volume(self) -> bool:
        """Whether the device is LVM's, as far as the event says."""
        return self.dm_uuid.startswith(LVM_UUID_PREFIX)


class Monitor(Protocol):
    """Something that events come from."""

    def poll(self, timeout_seconds: float) -> Event | None:
        """The next event, or None when none came in time; raises OSError when events are lost."""


class BlockEvents:
    """Calls `on_event` for each event, and `on_lost` each time that it begins to listen, the first time too.

    `on_lost` means: whatever happened until now may not have been told; look at everything. It is called when the new
    monitor already listens, so that nothing falls between. Both are called on this object's thread, one at a time, and
    hold up the events behind them; an exception out of them is logged and forgotten.
    """

    def __init__(
        self,
        on_event: Callable[[Event], None],
        on_lost: Callable[[], None],
        *,
        listen: Callable[[], Monitor] | None = None,
        first_delay_seconds: float = 1.0,
        longest_delay_seconds: float = 60.0,
    ) -> None:
        """`listen` makes a monitor that is listening already, or raises; the default is netlink's.

        The delays are between two attempts to listen; they double up to the longest and are jittered by half.
        """
        self._on_event = on_event
        self._on_lost = on_lost
        self._listen = listen or listen_on_netlink
        self._first_delay = first_delay_seconds
        self._longest_delay = longest_delay_seconds
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="block-events", daemon=True)

    def start(self) -> None:
        """Begin; returns at once."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it: POLL_SECONDS and what a callback takes at most. May be repeated."""
        self._stopping.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        delay = self._first_delay
        is_outage_known = False
        while not self._stopping.is_set():
            # The thread's top: no kind of failure may end it, be it netlink, a missing libudev or an undecodable name.
            try:
                monitor = self._listen()
            except Exception as failure:
                level = logging.DEBUG if is_outage_known else logging.WARNING
                log.log(level, "Block device events cannot be had; trying again from time to time", exc_info=failure)
                is_outage_known = True
            else:
                is_outage_known = False
                if self._follow(monitor):
                    delay = self._first_delay
                del monitor  # its socket would fill up while the next is waited for
            self._stopping.wait(delay * random.uniform(0.5, 1.5))  # noqa: S311 (no secret)
            delay = min(2 * delay, self._longest_delay)

    def _follow(self, monitor: Monitor) -> bool:
        """Pass on what comes until the monitor fails or we stop; whether anything but the failure came of it."""
        self._call(self._on_lost)
        is_useful = False
        while not self._stopping.is_set():
            try:
                event = monitor.poll(POLL_SECONDS)
            except Exception as failure:
                log.warning("Block device events were lost; listening anew", exc_info=failure)
                return is_useful
            is_useful = True
            if event is not None:
                self._call(partial(self._on_event, event))
        return is_useful

    def _call(self, callback: Callable[[], None]) -> None:
        try:
            callback()
        except Exception:
            log.exception("A block device event was not handled")


def listen_on_netlink() -> Monitor:
    """Listen to udev, or to the kernel where no udevd is heard; raises OSError, or ImportError without libudev."""
    is_heard = UDEV_CONTROL.exists() and is_in_first_network()
    monitor = pyudev.Monitor.from_netlink(pyudev.Context(), "udev" if is_heard else "kernel")
    monitor.filter_by("block")
    try:
        monitor.set_receive_buffer_size(RECEIVE_BUFFER_BYTES)
    except OSError as failure:
        log.debug("The receive buffer for block device events stays small", exc_info=failure)
    monitor.start()
    return _Netlink(monitor)


def is_in_first_network() -> bool:
    """Whether this is the machine's own network namespace, as far as the kernel tells."""
    with socket.socket(socket.AF_UNIX) as any_socket:
        try:
            cookie = any_socket.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
        except OSError:
            return True
    return int.from_bytes(cookie, sys.byteorder) == FIRST_NETWORK


class _Netlink:
    """pyudev's monitor as our Monitor."""

    def __init__(self, monitor: pyudev.Monitor) -> None:
        self._monitor = monitor

    def poll(self, timeout_seconds: float) -> Event | None:
        """See Monitor."""
        device = self._monitor.poll(timeout_seconds)
        return None if device is None else _event(device)


def _event(device: pyudev.Device) -> Event:
    properties = device.properties
    return Event(
        device_name=device.sys_name,
        action=device.action or "",
        device_type=device.device_type or "",
        sequence_number=device.sequence_number,
        dm_name=properties.get("DM_NAME", ""),
        dm_uuid=properties.get("DM_UUID", ""),
        volume_group=properties.get("DM_VG_NAME", ""),
        logical_volume=properties.get("DM_LV_NAME", ""),
    )
