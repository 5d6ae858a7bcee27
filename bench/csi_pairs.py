"""On LVM: bringing a volume to a Pod through the driver, beside the bare commands with the same arguments."""

from __future__ import annotations

import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.driver import Client, Driver, Spent, staging_of, target_of
from bench.lvm_rig import GROUP, BenchError, ran
from ullage.errors import MIB
from ullage.metrics import command_label
from ullage.run import ENVIRONMENT

SIZE_BYTES = 512 * MIB
"""xfs needs 300 MiB."""
BARE_STEPS = ("lvcreate", "mkfs", "mount", "bind")
CONFIGURATION = f"""
deviceClasses:
  - {{name: thick, type: thick, volumeGroups: [{GROUP}], wipe: none}}
  - {{name: thick-default, type: thick, volumeGroups: [{GROUP}]}}
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Both ways: medians of the seconds, and of the ratio of two that belong together.

    `programs` are those that the driver ran from the first call to the last answer, by name, for one volume; `after`
    those that it ran later, when storage was at rest again: its look at what has changed.
    """

    device_class: str
    fs_type: str
    ratio: float
    least_ratio: float
    most_ratio: float
    driver_seconds: dict[str, float]
    bare_seconds: dict[str, float]
    programs: dict[str, float]
    after: dict[str, float]


@dataclass(slots=True)
class _Samples:
    driver: list[Spent] = field(default_factory=list)
    bare: list[dict[str, float]] = field(default_factory=list)
    within: Counter[str] = field(default_factory=Counter)
    after: Counter[str] = field(default_factory=Counter)


class Pairs:
    """A run over one volume group."""

    def __init__(self, driver: Driver, client: Client, folder: Path, progress: Callable[[str], None]) -> None:
        """The driver serves and has nothing to do."""
        self._driver = driver
        self._client = client
        self._folder = folder
        self._progress = progress
        self._last: list[list[str]] = []

    def measure(self, device_class: str, fs_type: str, rounds: int) -> Pair:
        """So many pairs, first the one and then the other, and another one before them to warm up."""
        self._through(device_class, fs_type, f"{device_class}-{fs_type}-warm", _Samples())
        self._bare(f"{device_class}-{fs_type}-warm", _Samples())
        samples = _Samples()
        for number in range(rounds):
            name = f"{device_class}-{fs_type}-{number}"
            if number % 2:
                self._bare(name, samples)
                self._through(device_class, fs_type, name, samples)
            else:
                self._through(device_class, fs_type, name, samples)
                self._bare(name, samples)
            ratio = samples.driver[-1].total / sum(samples.bare[-1].values())
            self._progress(f"{device_class} {fs_type}: round {number + 1} of {rounds}, ratio {ratio:.2f}")
        return _pair(device_class, fs_type, samples)

    def _through(self, device_class: str, fs_type: str, name: str, samples: _Samples) -> None:
        volume_id = f"a-{name}"
        before = len(self._driver.settled())
        samples.driver.append(self._client.bring(volume_id, device_class, SIZE_BYTES, self._folder, fs_type))
        within = len(self._driver.programs())
        ran_for_it = self._driver.settled()
        samples.within.update(command_label(argv) for argv in ran_for_it[before:within])
        samples.after.update(command_label(argv) for argv in ran_for_it[within:])
        self._last = [[word.replace(volume_id, "NAME") for word in argv] for argv in ran_for_it[before:within]]
        self._client.take_away(volume_id, self._folder)
        self._driver.settled()

    def _bare(self, name: str, samples: _Samples) -> None:
        """What the driver ran the last time, but only what nobody could do without."""
        volume_id = f"b-{name}"
        staged, target = staging_of(self._folder, volume_id), target_of(self._folder, volume_id)
        for place in (staged, target):
            place.mkdir(parents=True)
        self._driver.settled()
        seconds = {}
        for step, argv in zip(BARE_STEPS, self._needed(), strict=True):
            own = [word.replace("NAME", volume_id).replace("ullage.io/", "bareone.io/") for word in argv]
            began = time.monotonic()
            done = subprocess.run(own, env=ENVIRONMENT, capture_output=True, text=True, check=False)  # noqa: S603 - the commands under test
            seconds[step] = time.monotonic() - began
            if done.returncode != 0:
                raise BenchError(f"{' '.join(own)}: {done.stderr}")
        samples.bare.append(seconds)
        ran("umount", str(target))
        ran("umount", str(staged))
        ran("lvm", "lvremove", "--yes", f"{GROUP}/{volume_id}")
        self._driver.settled()

    def _needed(self) -> list[list[str]]:
        """lvcreate, mkfs of a device, mount, bind mount: each the driver's own, the last of its sort."""
        sorts: dict[str, Callable[[list[str]], bool]] = {
            "lvcreate": lambda argv: "lvcreate" in argv,
            "mkfs": lambda argv: argv[0].startswith("mkfs.") and any("NAME" in word for word in argv),
            "mount": lambda argv: argv[0] == "mount" and "--bind" not in argv,
            "bind": lambda argv: argv[0] == "mount" and "--bind" in argv,
        }
        return [next(argv for argv in reversed(self._last) if sorts[step](argv)) for step in BARE_STEPS]


def _pair(device_class: str, fs_type: str, samples: _Samples) -> Pair:
    ratios = [spent.total / sum(bare.values()) for spent, bare in zip(samples.driver, samples.bare, strict=True)]
    return Pair(
        device_class=device_class,
        fs_type=fs_type,
        ratio=statistics.median(ratios),
        least_ratio=min(ratios),
        most_ratio=max(ratios),
        driver_seconds={
            step: statistics.median(getattr(each, step) for each in samples.driver)
            for step in ("create", "stage", "publish")
        },
        bare_seconds={step: statistics.median(each[step] for each in samples.bare) for step in BARE_STEPS},
        programs=_per_volume(samples.within, len(samples.driver)),
        after=_per_volume(samples.after, len(samples.driver)),
    )


def _per_volume(counted: Counter[str], volumes: int) -> dict[str, float]:
    return {name: count / volumes for name, count in sorted(counted.items())}
