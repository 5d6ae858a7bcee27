"""Many calls at once: a volume has one change at a time, and one that is stuck keeps no other waiting.

Nothing waits for a time to pass: a double says when a step is reached, and holds it until it is let go.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from grpc import StatusCode

from tests.contract.faults import LONG_SECONDS, Disturbed, Stall, until
from tests.contract.sites import Site
from tests.csi.drivers import SMALL_BYTES, here
from tests.csi.kubelet import MIB, Kubelet, code_of, refusal_of

pytestmark = pytest.mark.only_on("file", "thick")


def test_one_mkfs_that_is_stuck_keeps_none_of_many_others_waiting(site: Site, kubelet: Kubelet, folder: Path) -> None:
    many = 10 if site.is_lvm else 30  # one after the other where LVM makes them
    stall = Stall(("mkfs.ext4",), times=1)
    with here(site.device_class(), folder, Disturbed(change=stall)) as services, ThreadPoolExecutor(many + 1) as pool:
        client = services.client
        client.create("pvc-stuck", SMALL_BYTES)
        stuck = pool.submit(kubelet.stage, "pvc-stuck")
        try:
            stall.wait()

            def whole(number: int) -> StatusCode:
                name = f"pvc-{number:02}"
                client.create(name, 16 * MIB)
                return code_of(lambda: (kubelet.stage(name), kubelet.publish(name, "pod")))

            assert list(pool.map(whole, range(1, many))) == [StatusCode.OK] * (many - 1)
            assert not stuck.done()
            for ask in (
                lambda: kubelet.stage("pvc-stuck"),
                lambda: kubelet.publish("pvc-stuck", "pod"),
                lambda: kubelet.unstage("pvc-stuck"),
                lambda: client.expand("pvc-stuck", 2 * SMALL_BYTES),
                lambda: client.delete("pvc-stuck"),
            ):
                code, sentence = refusal_of(ask)
                assert code is StatusCode.ABORTED
                assert "NodeStageVolume of pvc-stuck" in sentence
            assert client.is_ready()
            assert len(client.ids()) == many
            assert services.calls.under_way() == 1
        finally:
            stall.release()
        stuck.result(LONG_SECONDS)
        kubelet.stage("pvc-stuck")
        assert services.calls.under_way() == 0
        assert len(kubelet.mounts()) == 2 * many - 1


@pytest.mark.parametrize("second", ["create", "expand", "modify", "delete", "stage"])
def test_a_second_change_of_a_volume_is_aborted_while_the_first_goes_on(
    site: Site, kubelet: Kubelet, folder: Path, second: str
) -> None:
    stall = Stall(("lvextend",) if site.is_lvm else ("lengthen",), times=1)
    with here(site.device_class(), folder) as services:
        services.client.create("pvc-a", SMALL_BYTES)
    with (
        here(site.device_class(), folder, Disturbed(change=stall, files=stall)) as services,
        ThreadPoolExecutor(1) as pool,
    ):
        client = services.client
        first = pool.submit(client.expand, "pvc-a", 2 * SMALL_BYTES)
        try:
            stall.wait()
            asks: dict[str, Callable[[], object]] = {
                "create": lambda: client.create("pvc-a", SMALL_BYTES),
                "expand": lambda: client.expand("pvc-a", 2 * SMALL_BYTES),
                "modify": lambda: client.modify("pvc-a", wipe="zero"),
                "delete": lambda: client.delete("pvc-a"),
                "stage": lambda: kubelet.stage("pvc-a"),
            }
            code, sentence = refusal_of(asks[second])
            assert (code, "ControllerExpandVolume of pvc-a" in sentence) == (StatusCode.ABORTED, True)
        finally:
            stall.release()
        assert first.result(LONG_SECONDS).capacity_bytes == 2 * SMALL_BYTES
        asks[second]()


def test_a_caller_that_gives_up_leaves_its_call_and_its_lock_behind(site: Site, kubelet: Kubelet, folder: Path) -> None:
    """Kubelet's two minutes are over, mkfs goes on: nobody else gets the volume before it has ended."""
    stall = Stall(("mkfs.ext4",), times=1)
    with here(site.device_class(), folder, Disturbed(change=stall)) as services:
        services.client.create("pvc-a", SMALL_BYTES)
        with ThreadPoolExecutor(1) as pool:
            call = pool.submit(kubelet.stage, "pvc-a")
            stall.wait()
            kubelet.client.close()  # as if it had run out of time
            assert code_of(lambda: call.result(LONG_SECONDS)) is StatusCode.CANCELLED
        assert services.calls.under_way() == 1
        assert code_of(lambda: services.client.delete("pvc-a")) is StatusCode.ABORTED
        stall.release()
        until(lambda: services.calls.under_way() == 0)
    assert len(kubelet.mounts()) == 1
