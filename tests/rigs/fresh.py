"""What the README promises, on a Debian 12 that has nothing: a bare root, a clone of this tree in it, and `make` there.

The root is a directory that mmdebstrap fills with Debian's essential packages, apt, and what the README says one
needs; all else is for our own scripts to install. The tree is what is committed. The machine's kernel, its /dev (loop
devices are the kernel's) and its network are shared; processes, mounts, /run and every file are the root's own.

  python3 tests/rigs/fresh.py                   make demo
  python3 tests/rigs/fresh.py demo test         one after the other, in the same root
  python3 tests/rigs/fresh.py --keep            the root stays, and its path is printed
  python3 tests/rigs/fresh.py --root DIR lint   in a root that stayed, with what is committed now

How this machine reaches packages is a setting of this machine, and is handed on: its apt sources of this Debian, what
its apt.conf says of fetching, its pip.conf, its certificates, and the environment variables of HANDED_ON.
"""

import argparse
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

SUITE = "bookworm"
BEFORE = ("ca-certificates", "git", "make")
"""What the README says one needs."""
HANDED_ON = re.compile(r"(PIP|GO|SSL)_?[A-Z_]+|(?i:[a-z]+_proxy)|ULLAGE_(?!CACHE)[A-Z_]+")
APT = Path("/etc/apt")
FILES = (
    Path("/etc/resolv.conf"),
    Path("/etc/hosts"),
    Path("/etc/pip.conf"),
    Path("/etc/ssl/certs/ca-certificates.crt"),
)
TREE = Path("root/ullage")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
NAMESPACES = ("--mount", "--pid", "--ipc", "--uts", "--fork", "--kill-child", "--propagation", "private")
MOUNTS = """
set -e
# Shared, as systemd has it: what is mounted there is to be seen in the namespaces that tests make.
mount --bind "$1" "$1"
mount --make-shared "$1"
mount -t proc proc "$1/proc"
mount --rbind /sys "$1/sys"
mount --make-rslave "$1/sys"
mount --rbind /dev "$1/dev"
mount --make-rslave "$1/dev"
mount -t tmpfs -o mode=0755 run "$1/run"
root=$1
shift
chroot "$root" "$@"
"""
LACKING = 126


def deb822(text: str, suite: str) -> str:
    """The stanzas that are of this Debian and no other archive's."""
    found = (stanza for stanza in re.split(r"\n\s*\n", text) if _is_of(suite, re.search(r"(?m)^Suites:(.*)", stanza)))
    return "\n\n".join(f"{stanza.strip()}\n" for stanza in found)


def one_line(text: str, suite: str) -> str:
    """The same, where each line is a source."""
    lines = (line for line in text.splitlines() if line.startswith("deb "))
    return "".join(f"{line}\n" for line in lines if _is_of(suite, re.match(r"deb (?:\[.*?\] )?\S+ (\S+)", line)))


def fetching(text: str) -> list[str]:
    """Of an apt.conf, what it says of fetching: a proxy, a date that is not checked."""
    return [line for line in text.splitlines() if re.fullmatch(r"Acquire::\S+ .*;", line)]


def mounted_below(root: Path, mount_info: str) -> list[str]:
    """The mount points in and below the root, of the lines of a /proc/PID/mountinfo."""
    points = (Path(line.split()[4]) for line in mount_info.splitlines())
    return [str(point) for point in points if point.is_relative_to(root)]


def _is_of(suite: str, found: re.Match[str] | None) -> bool:
    return found is not None and any(re.fullmatch(rf"{suite}(-(updates|security))?", each) for each in found[1].split())


def _sources(folder: Path) -> Iterator[Path]:
    """Files for mmdebstrap, in the folder."""
    for path in (APT / "sources.list", *sorted((APT / "sources.list.d").glob("*"))):
        if path.is_file() and (text := (deb822 if path.suffix == ".sources" else one_line)(path.read_text(), SUITE)):
            kept = folder / path.name
            kept.write_text(text)
            yield kept


def _bootstrap(root: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        options = [line for path in sorted((APT / "apt.conf.d").glob("*")) for line in fetching(path.read_text())]
        _run(
            "mmdebstrap",
            "--variant=apt",
            f"--include={','.join(BEFORE)}",
            *(f"--aptopt={line}" for line in options),
            SUITE,
            str(root),
            *map(str, _sources(Path(folder))),
        )
    for path in FILES:
        if path.is_file():
            shutil.copyfile(path, root / path.relative_to("/"))


def _clone(root: Path) -> None:
    here = Path(__file__).resolve().parents[2]
    if _said("git", "-C", str(here), "status", "--porcelain"):
        sys.stderr.write("fresh: what is not committed is not in the clone\n")
    tree = root / TREE
    if not tree.exists():
        _run("git", "clone", "--quiet", "--no-hardlinks", str(here), str(tree))
        return
    _run("git", "-C", str(tree), "fetch", "--quiet", str(here), "HEAD")
    _run("git", "-C", str(tree), "checkout", "--quiet", "--detach", "FETCH_HEAD")


def _inside(root: Path, *argv: str) -> int:
    """The exit code of a command in the root, as root, in the tree."""
    environment = {name: word for name, word in os.environ.items() if HANDED_ON.fullmatch(name)}
    settings = {**environment, "PATH": PATH, "HOME": "/root", "LANG": "C.UTF-8", "TERM": os.environ.get("TERM", "dumb")}
    command = ("env", "-i", "-C", f"/{TREE}", *(f"{name}={word}" for name, word in settings.items()), *argv)
    entered = ("unshare", *NAMESPACES, "sh", "-c", MOUNTS, "sh", str(root), *command)
    return subprocess.run(entered, check=False, stdin=subprocess.DEVNULL).returncode


def _run(*argv: str) -> None:
    sys.stderr.write(f"fresh: {shlex.join(argv)}\n")
    subprocess.run(argv, check=True, stdin=subprocess.DEVNULL)


def _said(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout


def _parser() -> argparse.ArgumentParser:
    about, _, details = (__doc__ or "").partition("\n\n")
    parser = argparse.ArgumentParser(
        prog="tests/rigs/fresh.py",
        description=about,
        epilog=details,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--keep", action="store_true", help="leave the root where it is")
    parser.add_argument("--root", type=Path, metavar="DIR", help="a root that was kept; it stays")
    parser.add_argument(
        "goals", nargs="*", default=["demo"], metavar="GOAL", help="of make (demo); NAME=VALUE for each"
    )
    return parser


def main(arguments: Sequence[str]) -> int:
    """The exit code of the first goal that failed; LACKING where there is no root to try it in."""
    chosen = _parser().parse_args(arguments)
    if os.geteuid() != 0:
        sys.stderr.write("fresh: mounts and a root of its own need root\n")
        return LACKING
    if shutil.which("mmdebstrap") is None:
        sys.stderr.write("fresh: run this first: apt-get install --no-install-recommends mmdebstrap\n")
        return LACKING
    signal.signal(signal.SIGTERM, lambda number, _: sys.exit(128 + number))  # what is inside ends with it
    root = chosen.root or Path(tempfile.mkdtemp(prefix="ullage-fresh-", dir="/var/tmp"))
    root.chmod(0o755)
    try:
        if chosen.root is None:
            _bootstrap(root)
        _clone(root)
        return _make_each(root, chosen.goals)
    except subprocess.CalledProcessError as failure:
        sys.stderr.write(f"fresh: {failure}\n")
        return LACKING
    finally:
        if chosen.keep or chosen.root is not None:
            sys.stderr.write(f"fresh: the root is {root}\n")
        elif left := mounted_below(root, Path("/proc/self/mountinfo").read_text()):
            # They go with their namespace; were one of the machine's own left there, removing the root would empty it.
            sys.stderr.write(f"fresh: {root} stays: something is mounted there: {', '.join(left)}\n")
        else:
            shutil.rmtree(root)


def _make_each(root: Path, words: Sequence[str]) -> int:
    settings = [word for word in words if "=" in word]
    for goal in (word for word in words if "=" not in word):
        code = _inside(root, "make", goal, *settings)
        sys.stderr.write(f"fresh: make {goal} {'is as it should be' if code == 0 else f'failed ({code})'}\n")
        if code != 0:
            return code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
