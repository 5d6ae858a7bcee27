"""The parts of the VM rig and the installer that are pure: no QEMU, no root."""

import argparse
import lzma
import subprocess
from pathlib import Path

import pytest

from tests.rigs import install
from tests.rigs.host import RigError
from tests.rigs.vm import __main__ as cli
from tests.rigs.vm import kernel, machine, qemu

ELF = b"\x7fELF and the rest"
KERNEL = kernel.Kernel(release="6.1", image=Path("/k"), initramfs=Path("/i"), modules=Path("/cache/my modules"))


@pytest.mark.parametrize(
    ("text", "size_bytes"), [("2GiB", 2 << 30), ("100G", 100 << 30), ("1TB", 1 << 40), ("512", 512)]
)
def test_a_size_is_in_powers_of_1024(text: str, size_bytes: int) -> None:
    assert cli.bytes_of(text) == size_bytes


@pytest.mark.parametrize("text", ["", "GiB", "1.5G", "-1", "2 GiB", "2g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        cli.bytes_of(text)


def test_a_value_may_hold_the_equals_sign() -> None:
    assert cli.assignment("OPTIONS=a=b") == ("OPTIONS", "a=b")


def test_every_early_module_comes_after_what_it_needs_and_once() -> None:
    lines = [f"kernel/{name}.ko:" for name in kernel.EARLY_MODULES if name not in {"9p", "virtio_blk", "overlay"}]
    lines += [
        "a/9p.ko: a/9pnet.ko a/netfs.ko",
        "a/virtio_blk.ko: a/netfs.ko",
        "a/overlay.ko:",
        "a/9pnet.ko:",
        "a/netfs.ko:",
    ]
    order = kernel.early_modules("\n".join(lines))
    assert order.index("a/netfs.ko") < order.index("a/9pnet.ko") < order.index("a/9p.ko")
    assert order.index("a/netfs.ko") < order.index("a/virtio_blk.ko")
    assert len(order) == len(set(order))


def test_the_kernel_is_found_inside_its_boot_image() -> None:
    decoy = kernel.XZ_MAGIC + b"not a stream"
    assert kernel.uncompressed(b"boot code" + decoy + lzma.compress(ELF) + b"its size, a signature") == ELF


def test_an_image_packed_otherwise_says_what_to_do() -> None:
    with pytest.raises(RigError, match="teach"):
        kernel.uncompressed(b"boot code and a zstd stream")


def test_an_archive_entry_ends_on_four_bytes() -> None:
    packed = kernel.archive({"init": b"12345"}, {"bin/sh": "busybox"})
    assert len(packed) % 4 == 0
    assert packed.count(b"070701") == len(kernel.EMPTY_DIRECTORIES) + 3
    assert packed.index(b"12345") % 4 == 0


def test_the_guest_runs_exactly_the_words_it_was_given(tmp_path: Path) -> None:
    words = ["printf", "<%s>", "a b", "it's", "$HOME", "", "*", 'say "x"', "é\nnew line"]
    job = qemu.job_script(qemu.Job(command=words, tree=tmp_path, environment={}), KERNEL)
    script = job + 'printf "%s|" "$rig_modules"\n(rig_command)\n'
    said = subprocess.run(["/bin/sh", "-c", script], check=True, capture_output=True, text=True).stdout
    assert said == "/cache/my modules|" + "".join(f"<{word}>" for word in words[2:])


def test_the_guest_gets_a_fresh_environment_and_what_was_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET_OF_THE_CALLER", "1")
    wanted = qemu.Job(command=["env"], tree=tmp_path, environment={"GREETING": "a 'b' $c"})
    job = qemu.job_script(wanted, KERNEL)
    said = subprocess.run(["/bin/sh", "-c", f"{job}rig_command"], check=True, capture_output=True, text=True).stdout
    assert "GREETING=a 'b' $c" in said.splitlines()
    assert f"PATH={qemu.GUEST_PATH}" in said.splitlines()
    assert "SECRET" not in said


def test_the_guests_words_are_understood_in_any_pieces() -> None:
    progress = machine._Progress()
    for piece in (b"rea", b"dy\nex", b"it 1", b"7"):
        progress.hear(piece)
    assert progress.ready_at is not None
    assert progress.exit_code is None
    progress.hear(b"\n")
    assert progress.exit_code == 17


def test_a_package_removed_but_not_purged_is_missing() -> None:
    lines = "\n".join(f"{name} installed" for name in install.PACKAGES if name not in {"lvm2", "fio"})
    assert install.missing_packages(f"{lines}\nlvm2 config-files\n") == ["lvm2", "fio"]


def test_a_group_of_packages_is_installed_only_when_it_is_named() -> None:
    assert install.wanted_packages([]) == install.PACKAGES
    assert "runc" in install.wanted_packages(["full"]).keys() - install.PACKAGES.keys()
