"""Which accelerator QEMU may use: KVM where it really works, else TCG (emulation, some ten times slower).

/dev/kvm alone proves nothing: inside some virtual machines it exists and a guest hangs on it. So the CPU must have the
flag, and a probe boot must answer; the answer is kept for as long as the host stays up.
"""

import re
import subprocess
import tempfile
from pathlib import Path

from tests.rigs.host import cache_directory
from tests.rigs.vm.kernel import Kernel

KVM = ("-accel", "kvm", "-cpu", "host")
TCG = ("-accel", "tcg,thread=multi", "-cpu", "max,-erms")
"""Without `erms` the kernel fills and copies memory by eight bytes at a time, where QEMU would take them one by one."""
PROBE_SECONDS = 10.0


def choose(kernel: Kernel) -> tuple[str, ...]:
    """QEMU's arguments for the best accelerator that works here."""
    if not re.search(r"^flags\s*:.*\b(vmx|svm)\b", Path("/proc/cpuinfo").read_text(), re.MULTILINE):
        return TCG
    boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    answer = cache_directory() / "vm" / f"accelerator-{boot_id}"
    if not answer.exists():
        answer.write_text("kvm" if _answers(KVM, kernel) else "tcg")
    return KVM if answer.read_text() == "kvm" else TCG


def _answers(accelerator: tuple[str, ...], kernel: Kernel) -> bool:
    """Boot the initramfs, which says "ready" and powers off when asked for a probe."""
    with tempfile.NamedTemporaryFile(prefix="ullage-vm-probe-") as said:
        argv = (
            *("qemu-system-x86_64", "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"),
            *(*accelerator, "-m", "512M"),
            *("-kernel", str(kernel.image), "-initrd", str(kernel.initramfs), "-append", "quiet panic=-1 ullage.probe"),
            *("-device", "virtio-serial-pci,max_ports=4", "-chardev", f"file,id=control,path={said.name}"),
            *("-device", "virtserialport,chardev=control,nr=1"),
        )
        try:
            subprocess.run(argv, check=True, timeout=PROBE_SECONDS, stdin=subprocess.DEVNULL, capture_output=True)
        except (subprocess.TimeoutExpired, subprocess.CalledProcessError):
            return False
        return said.read().startswith(b"ready")
