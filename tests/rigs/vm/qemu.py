"""QEMU's command line, and what the guest's scripts are told, for whoever starts a machine and looks after it."""

from __future__ import annotations

import os
import shlex
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.rigs.host import RigError
from tests.rigs.vm import accelerator
from tests.rigs.vm.kernel import Kernel

PROGRAM = "qemu-system-x86_64"
GUEST_SCRIPT = Path(__file__).with_name("guest.sh")
GUEST_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
KERNEL_ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 nokaslr mitigations=off no_timer_check tsc=reliable"
    # What guards a machine against its users costs an emulated one dear. Above all: with programs at random addresses
    # QEMU translates each of them anew each time it is started, which makes `lvs` half as dear again.
    " norandmaps nosmap init_on_alloc=0 apparmor=0 transparent_hugepage=never no5lvl"
)
# Without the user's start-up files: a version manager in them can take ten seconds under emulation.
SHELL = ("/bin/bash", "--noprofile", "--norc")
PORTS = ("control", "stdout", "stderr")  # numbered from 1 in the guest: /dev/vport0p1…


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """Of the guest's eth0; as they are they are those of QEMU's user network, which gives no others."""

    address: str = "10.0.2.15/24"
    gateway: str = "10.0.2.2"
    nameserver: str = "10.0.2.3"


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the guest's scripts do when it is up. An empty command is a shell on the terminal.

    tree: directory of the host in which the command runs, also where the guest has a file system of its own.
    """

    command: Sequence[str]
    tree: Path
    environment: Mapping[str, str]
    has_results: bool = False
    address: Address | None = None
    hostname: str = "ullage-vm"


@dataclass(frozen=True, slots=True, kw_only=True)
class Disk:
    """One of the guest's: where it is, as QEMU's `-drive` is told of it, and the serial number that the guest sees."""

    drive: str
    serial: str


def of_file(path: Path | str, kind: str = "raw") -> str:
    """A drive that is a file. What the guest writes outlasts QEMU, and not this machine: no flush reaches its disk."""
    return f"file={_escaped(path)},format={kind},cache=unsafe,discard=unmap,detect-zeroes=unmap"


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """What QEMU has to know.

    directory: of one life of the guest: `write_job` puts its scripts there, and QEMU what its console says.
    disks: /dev/vda, /dev/vdb…
    ports: the file that each of PORTS is written to.
    network: QEMU's backend ("user", "tap,ifname=…"), if it has one.
    collect: host directory that the guest sees as /results.
    """

    directory: Path
    cpus: int
    memory_bytes: int
    disks: Sequence[Disk]
    ports: Mapping[str, str]
    network: str = ""
    mac: str = "52:54:00:12:34:56"
    collect: Path | None = None
    is_interactive: bool = False


def write_job(directory: Path, job: Job, booted: Kernel) -> None:
    """What init.sh and guest.sh read, and guest.sh itself."""
    shutil.copy(GUEST_SCRIPT, directory / "guest.sh")
    (directory / "job.sh").write_text(job_script(job, booted))


def job_script(job: Job, booted: Kernel) -> str:
    """Plain variables, and the command as a shell function."""
    size = shutil.get_terminal_size()
    address = job.address or Address(address="", gateway="", nameserver="")
    variables = {
        "rig_tree": str(job.tree),
        "rig_modules": str(booted.modules),
        "rig_results": _yes(job.has_results),
        "rig_hostname": job.hostname,
        "rig_address": address.address,
        "rig_gateway": address.gateway,
        "rig_nameserver": address.nameserver,
        "rig_interactive": _yes(not job.command),
        "rig_rows": str(size.lines),
        "rig_columns": str(size.columns),
    }
    environment = {"PATH": GUEST_PATH, "HOME": str(Path.home()), "USER": "root", "LC_ALL": "C.UTF-8", **job.environment}
    if not job.command:
        environment = {"TERM": os.environ.get("TERM", "linux"), "PS1": r"\h:\w# ", **environment}
    words = [
        "env",
        "-i",
        *(f"{name}={value}" for name, value in environment.items()),
        *(job.command or SHELL),
    ]
    lines = [f"{name}={shlex.quote(value)}" for name, value in variables.items()]
    return "\n".join([*lines, f"rig_command() {{ cd {shlex.quote(str(job.tree))} && exec {shlex.join(words)}; }}", ""])


def argv(guest: Guest, booted: Kernel) -> list[str]:
    """The words that start it; raises RigError where there is no QEMU."""
    if shutil.which(PROGRAM) is None:
        raise RigError(f"{PROGRAM} is missing: run tests/rigs/install.py")
    words = [
        *(PROGRAM, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-machine", "q35"),
        *accelerator.choose(booted),
        *("-smp", str(guest.cpus), "-m", f"{guest.memory_bytes >> 20}M"),
        *("-kernel", str(booted.image), "-initrd", str(booted.initramfs)),
        *("-append", f"{KERNEL_ARGUMENTS} ullage.job={guest.directory}"),
        *("-chardev", f"file,id=console,path={_escaped(guest.directory / 'console')}", "-serial", "chardev:console"),
        *("-device", "virtio-serial-pci,max_ports=8"),
    ]
    for number, port in enumerate(PORTS, start=1):
        words += ["-chardev", f"file,id={port},path={_escaped(guest.ports[port])}"]
        words += ["-device", f"virtserialport,chardev={port},nr={number}"]
    if guest.is_interactive:
        words += ["-chardev", "stdio,id=terminal,signal=off", "-device", "virtconsole,chardev=terminal,nr=0"]
    words += _share("root", Path("/"), ",multidevs=remap,readonly=on")
    if guest.collect is not None:
        guest.collect.mkdir(parents=True, exist_ok=True)
        words += _share("results", guest.collect.absolute(), "")
    for number, disk in enumerate(guest.disks):
        words += ["-drive", f"if=none,id=disk{number},{disk.drive}"]
        words += ["-device", f"virtio-blk-pci,drive=disk{number},serial={disk.serial}"]
    if guest.network:
        words += ["-netdev", f"{guest.network},id=net"]
        words += ["-device", f"virtio-net-pci,netdev=net,mac={guest.mac},romfile="]
    return words


def _yes(statement: bool) -> str:  # noqa: FBT001 - its only argument
    return "yes" if statement else "no"


def _escaped(path: Path | str) -> str:
    """A comma ends a value in QEMU's options, two are one."""
    return str(path).replace(",", ",,")


def _share(tag: str, path: Path, options: str) -> list[str]:
    share = f"local,id={tag},path={_escaped(path)},security_model=none{options}"
    return ["-fsdev", share, "-device", f"virtio-9p-pci,fsdev={tag},mount_tag={tag}"]
