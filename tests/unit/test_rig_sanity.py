"""What the sanity rig makes of csi-sanity's reports, and what it starts where: no driver, no root."""

from __future__ import annotations

from pathlib import Path
from xml.sax.saxutils import quoteattr

import pytest

from tests.rigs.sanity import report, tier
from tests.rigs.sanity.cases import BY_NAME, CASES

ATTACH = "ControllerPublishVolume not supported"
PAGING = f"Controller Service ListVolumes {report.PENDING} and accept tokens"


def junit(tmp_path: Path, *cases: str, passed: int = 0) -> Path:
    """A report as Ginkgo writes it: `cases`, then specs that passed."""
    path = tmp_path / "junit.xml"
    more = [f'<testcase name="[It] spec {number}" status="passed"></testcase>' for number in range(passed)]
    path.write_text(f"<testsuites><testsuite>{''.join([*cases, *more])}</testsuite></testsuites>", encoding="utf-8")
    return path


def spec(name: str, status: str, tag: str, message: str) -> str:
    return (
        f"<testcase name={quoteattr(f'[It] {name}')} status={quoteattr(status)}>"
        f"<{tag} message={quoteattr(message)}/></testcase>"
    )


def skipped(name: str, message: str, status: str = "skipped") -> str:
    return spec(name, status, "skipped", message)


def full(tmp_path: Path, *cases: str) -> list[report.Spec]:
    """A report of as many specs as there are."""
    return report.read(junit(tmp_path, *cases, passed=report.SPECS - len(cases)))


def test_a_run_with_expected_skips_and_the_pending_spec_is_a_success(tmp_path: Path) -> None:
    attach = [skipped(f"attach {number}", f"skipped - {ATTACH}") for number in range(10)]
    specs = full(tmp_path, *attach, skipped(PAGING, "pending", "pending"))
    assert report.complaints(specs) == []
    assert report.counts(specs) == report.Counts(passed=85, failed=0, skipped=11)


@pytest.mark.parametrize("reason", sorted(report.EXPECTED_SKIPS))
def test_each_expected_skip_is_known_by_csi_sanitys_own_words(tmp_path: Path, reason: str) -> None:
    assert report.complaints(full(tmp_path, skipped("spec", f"skipped - {reason}"))) == []


def test_a_capability_that_is_no_longer_announced_fails_the_run_by_the_names_of_its_specs(tmp_path: Path) -> None:
    specs = full(tmp_path, skipped("ExpandVolume should work", "skipped - ControllerExpandVolume not supported"))
    [told] = report.complaints(specs)
    assert "ExpandVolume should work (ControllerExpandVolume not supported)" in told


def test_a_skip_without_a_reason_fails_the_run(tmp_path: Path) -> None:
    [told] = report.complaints(full(tmp_path, skipped("filtered away", "skipped")))
    assert "filtered away (no reason given)" in told


def test_another_pending_spec_fails_the_run(tmp_path: Path) -> None:
    [told] = report.complaints(full(tmp_path, skipped("something new", "pending", "pending")))
    assert told == "switched off: something new"


@pytest.mark.parametrize("passed", [0, 1, report.SPECS - 1, report.SPECS + 1])
def test_a_report_of_another_number_of_specs_fails_the_run(tmp_path: Path, passed: int) -> None:
    [told] = report.complaints(report.read(junit(tmp_path, passed=passed)))
    assert f"has {passed} specs" in told


@pytest.mark.parametrize(
    ("status", "tag"),
    [("failed", "failure"), ("panicked", "error"), ("timedout", "error"), ("interrupted", "error")],
)
def test_a_failure_of_any_kind_is_told_alone_without_the_skips_it_caused(tmp_path: Path, status: str, tag: str) -> None:
    specs = full(tmp_path, spec("a spec", status, tag, "Expected\n    1\nto equal\n    2"), skipped("next", "skipped"))
    assert report.complaints(specs) == ["failed: a spec: Expected 1 to equal 2"]
    assert report.counts(specs) == report.Counts(passed=94, failed=1, skipped=1)


def test_a_status_that_is_new_to_us_is_a_failure(tmp_path: Path) -> None:
    specs = full(tmp_path, '<testcase name="[It] a spec" status="pondered"/>')
    assert report.complaints(specs) == ["failed: a spec: pondered"]


def test_files_are_tested_on_this_machine_and_lvm_in_a_guest_that_keeps_its_results() -> None:
    program, folder = Path("/cache/csi-sanity"), Path("/results of a run")
    here = tier._argv(BY_NAME["file-block"], program, folder)
    guest = tier._argv(BY_NAME["thin-mount"], program, folder)
    assert "tests.rigs.vm" not in here
    assert here[-1] == str(folder)
    assert guest[guest.index("--collect") + 1] == str(folder)
    assert guest[-2:] == ["--results", "/results"]


def test_every_case_has_its_own_name() -> None:
    assert len(BY_NAME) == len(CASES)
