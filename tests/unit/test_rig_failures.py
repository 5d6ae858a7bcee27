"""A log that was cut still ends with what failed."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.rigs.failures import LINES, failures, main

REPORT = """<?xml version="1.0"?>
<testsuites><testsuite name="pytest" errors="1" failures="1" tests="3">
<testcase classname="tests.csi.test_a" name="test_good[thick]" time="0.1"/>
<testcase classname="tests.csi.test_a" name="test_bad[thick]"><failure message="short">{lines}</failure></testcase>
<testcase classname="tests.csi.test_b" name="test_late" time="0.1"><error message="failed on teardown"/></testcase>
</testsuite></testsuites>
"""


def test_a_failed_test_is_told_by_its_name_and_the_end_of_its_message(tmp_path: Path) -> None:
    said = [f"line {number}" for number in range(3 * LINES)]
    _run(tmp_path / "csi-thick", "all of it", REPORT.format(lines="\n".join(said)))
    bad, late = failures(tmp_path / "csi-thick")
    first, *end = bad.splitlines()
    assert first == "csi-thick: tests.csi.test_a::test_bad[thick]: failure"
    assert [line.strip() for line in end] == said[-LINES:]
    assert late.splitlines() == ["csi-thick: tests.csi.test_b::test_late: error", "    failed on teardown"]


def test_a_run_without_a_report_is_told_by_the_end_of_its_log(tmp_path: Path) -> None:
    _run(tmp_path / "thin", "it came up\nthe guest died\n")
    _run(tmp_path / "thick", "it came up\n", "<testsuites><testsuite>")
    for name, last in (("thin", "the guest died"), ("thick", "it came up")):
        (told,) = failures(tmp_path / name)
        assert (told.startswith(f"{name}: no report"), told.splitlines()[-1].strip()) == (True, last)
    (tmp_path / "never-ran").mkdir()
    assert len(list(failures(tmp_path / "never-ran"))) == 1


def test_of_runs_in_which_nothing_failed_nothing_is_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _run(tmp_path / "thin", "", "<testsuites><testsuite><testcase name='test_good'/></testsuite></testsuites>")
    main([str(tmp_path)])
    assert capsys.readouterr().out == ""
    _run(tmp_path / "thick", "it died\n")
    main([str(tmp_path)])
    assert "it died" in capsys.readouterr().out


def _run(folder: Path, log: str, report: str = "") -> None:
    folder.mkdir()
    (folder / "log").write_text(log, encoding="utf-8")
    if report:
        (folder / "junit.xml").write_text(report, encoding="utf-8")
