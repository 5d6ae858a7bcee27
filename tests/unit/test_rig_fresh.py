"""What of a machine's settings goes into a bare Debian, and what stays out of it."""

from __future__ import annotations

from pathlib import Path

from tests.rigs.fresh import HANDED_ON, deb822, fetching, mounted_below, one_line

STANZAS = """Types: deb
# of another day
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main

Types: deb
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main

Types: deb
URIs: https://elsewhere.example/tool
Suites: nodistro
Components: main
"""


def test_stanzas_of_this_debian_are_kept_and_those_of_other_archives_are_not() -> None:
    kept = deb822(STANZAS, "bookworm")
    assert "Suites: bookworm bookworm-updates" in kept
    assert "Suites: bookworm-security" in kept
    assert "elsewhere" not in kept
    assert deb822(STANZAS, "trixie") == ""


def test_lines_of_this_debian_are_kept_and_those_of_other_archives_are_not() -> None:
    wanted = (
        "deb http://mirror.example/debian bookworm main\n"
        "deb [arch=amd64 signed-by=/k] http://mirror.example/debian-security bookworm-security main\n"
    )
    other = "deb https://elsewhere.example/apt tool-bookworm main\ndeb-src http://mirror.example/debian bookworm main\n"
    assert one_line(f"# a comment\n{wanted}{other}", "bookworm") == wanted


def test_of_an_apt_conf_only_what_is_said_of_fetching_in_one_line_is_handed_on() -> None:
    said = """Acquire::http::Proxy "http://proxy.example:3128";
DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb"; };
Acquire::IndexTargets {
    deb::Contents-deb { DefaultEnabled "false"; };
};
"""
    assert fetching(said) == ['Acquire::http::Proxy "http://proxy.example:3128";']


def test_how_packages_are_reached_is_handed_on_and_whose_shell_it_is_is_not() -> None:
    kept = ("PIP_INDEX_URL", "GOPROXY", "GOFLAGS", "SSL_CERT_FILE", "https_proxy", "NO_PROXY", "ULLAGE_EACH")
    left = ("HOME", "PATH", "PYTHONPATH", "ULLAGE_CACHE", "LD_PRELOAD", "VIRTUAL_ENV")
    assert [name for name in (*kept, *left) if HANDED_ON.fullmatch(name)] == list(kept)


def test_a_root_in_which_something_of_the_machine_is_mounted_is_told_from_its_neighbours() -> None:
    lines = "36 35 0:5 / /dev rw - devtmpfs udev rw\n37 35 0:5 / /srv/r/dev rw - devtmpfs udev rw\n"
    assert mounted_below(Path("/srv/r"), lines) == ["/srv/r/dev"]
    assert mounted_below(Path("/srv/r"), lines.replace("/r/", "/rr/")) == []
