"""What the documentation names is there: targets, subcommands and their flags, files, anchors, metrics, annotations."""

from __future__ import annotations

import argparse
import re
import shlex
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.rigs.docs import configuration
from tests.rigs.docs.pages import ROOT, TIERS, WHY_ONLY_SHOWN, Block, Page, PageError, pages, parsed
from tests.rigs.docs.script import BEFORE, has
from tests.rigs.docs.words import commands, run_by_ci, targets
from ullage import cli

PAGES = pages()
BLOCKS = [block for page in PAGES for block in page.blocks]
SHELL = [block for block in BLOCKS if block.language == "sh"]
MOST_ONLY_SHOWN = 12
SOURCES = ("ullage", "csi", "node_agent", "scheduler_extender", "deploy")
FOREIGN_FLAGS = {
    "external-provisioner, -resizer, csi-snapshotter": {
        "--strict-topology",
        "--immediate-topology",
        "--extra-create-metadata",
        "--default-fstype",
        "--enable-capacity",
        "--timeout",
        "--feature-gates",
    },
    "kube-scheduler": {"--config"},
    "kubectl": {"--validate", "--from", "--type", "--field-selector", "--watch", "--cascade", "--ignore-daemonsets"},
    "LVM": {"--zero", "--poolmetadatasize", "--size", "--removemissing", "--force", "--repair"},
    "nsenter": {"--target", "--mount", "--uts", "--ipc", "--net"},
    "blockdev": {"--setrw"},
}
"""Flags of other programs that our pages speak of."""
KNOWN_FLAGS = set[str]().union(*FOREIGN_FLAGS.values())


def named(it: Block | Page) -> str:
    """For a test's id."""
    return it.place if isinstance(it, Block) else it.path


def inline(page: Page) -> Iterator[tuple[int, str]]:
    """What stands between backquotes outside blocks; a line's end may be in it."""
    text = "\n".join(line if number else "" for number, line in sorted(dict(_numbered(page)).items()))
    for found in re.finditer(r"`([^`]+)`", text):
        yield text.count("\n", 0, found.start()) + 1, " ".join(found[1].split())


def _numbered(page: Page) -> Iterator[tuple[int, str]]:
    outside = dict(page.prose())
    return ((number, outside.get(number, "")) for number in range(1, len(page.lines) + 1))


def slug(heading: str) -> str:
    """The anchor that a forge gives a heading."""
    plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")


def anchors(path: Path) -> set[str]:
    lines = parsed(str(path), path.read_text(encoding="utf-8")).prose()
    seen: Counter[str] = Counter()
    found = set()
    for _, line in lines:
        if heading := re.match(r"#+ +(.*)", line):
            name = slug(heading[1])
            found.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
    return found


def subparsers(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    return dict(groups[0].choices) if groups else {}


def all_flags(parser: argparse.ArgumentParser) -> set[str]:
    own = set(parser._option_string_actions)
    return own.union(*(all_flags(each) for each in subparsers(parser).values()))


@pytest.fixture(scope="module")
def source() -> str:
    """All that we ship, as one text."""
    files = [
        path
        for name in SOURCES
        for path in sorted((ROOT / name).rglob("*"))
        if path.suffix in (".py", ".yaml", ".json", ".tpl")
    ]
    return "\n".join(path.read_text(encoding="utf-8") for path in files)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("```sh\nls\n```", "say run=TIER, or shown=REASON"),
        ("```sh run=moon\nls\n```", "no tier 'moon'"),
        ("```sh shown=because\nls\n```", "'because' is no reason"),
        ("```sh run=lvm shown=nodes\nls\n```", "say run=TIER, or shown=REASON"),
        ("```yaml run=lvm\na: b\n```", "run means nothing for yaml"),
        ("```\nls\n```", "the language ''"),
        ("```sh run=lvm\nls\n", "this fence has no end"),
        ("Do this:\n\n    ls\n", "an indented block"),
    ],
)
def test_a_block_that_does_not_say_what_becomes_of_it_is_refused(text: str, told: str) -> None:
    with pytest.raises(PageError, match=re.escape(told)):
        parsed("page.md", text)


@pytest.mark.parametrize("block", SHELL, ids=named)
def test_each_command_of_ours_is_one_that_our_program_takes(block: Block, capsys: pytest.CaptureFixture[str]) -> None:
    for words in commands(block.text):
        if words[0] == "ullage" and "--help" not in words:
            try:
                cli.parser().parse_args(words[1:])
            except SystemExit:
                pytest.fail(f"{block.place}: {shlex.join(words)}\n{capsys.readouterr().err}")


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_subcommand_and_flag_in_a_sentence_is_there(page: Page) -> None:
    known = all_flags(cli.parser()) | KNOWN_FLAGS
    for number, words in ((number, code.split()) for number, code in inline(page)):
        where = f"{page.path}:{number}: {' '.join(words)}"
        if words[0] == "ullage" and len(words) > 1 and not words[1].startswith("-"):
            below = subparsers(cli.parser())
            assert words[1] in below or words[1].isupper(), where
            verbs = subparsers(below[words[1]]) if words[1] in below else {}
            assert not verbs or len(words) == 2 or words[2] in verbs or not words[2].isalpha() or words[2].isupper(), (
                where
            )
        if words[0] in ("kubectl", "helm", "btrfstune", "umount", "lsblk", "pvck"):
            continue
        flags = {re.split("[=)]", word)[0] for word in words if re.fullmatch(r"--[a-z][-a-z]+(=.*)?", word)}
        assert not flags - known, where


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_target_of_make_is_there(page: Page) -> None:
    texts = [code for _, code in inline(page)] + [block.text for block in page.blocks if block.language == "sh"]
    wanted = {word for text in texts for word in re.findall(r"(?:^|\n)make (?:-\S+ )*([a-z-]+)", text)}
    assert not wanted - targets().keys()


@pytest.mark.parametrize("block", [block for block in SHELL if block.tier == "ci"], ids=named)
def test_what_ci_is_said_to_run_it_runs(block: Block) -> None:
    for words in commands(block.text):
        assert words[0] == "make", block.place
        assert set(words[1:]) <= run_by_ci(), block.place


@pytest.mark.parametrize("block", [block for block in BLOCKS if block.language == "yaml"], ids=named)
def test_each_yaml_block_is_yaml(block: Block) -> None:
    assert [each for each in yaml.safe_load_all(block.text) if each is not None], block.place


@pytest.mark.parametrize("path", [ROOT / page.path for page in PAGES], ids=lambda path: path.name)
def test_each_link_leads_somewhere(path: Path) -> None:
    text = "\n".join(line for _, line in parsed(str(path), path.read_text(encoding="utf-8")).prose())
    for target in re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`]*`", "", text)):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        file = (path.parent / name).resolve() if name else path
        assert file.exists(), f"{path.name}: {target}"
        if anchor and file.suffix == ".md" and file.parent.name != "bench":
            assert anchor in anchors(file), f"{path.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_metric_is_one_of_docs_metrics(page: Page) -> None:
    listed = set(re.findall(r"^\| `(\w+)`", (ROOT / "docs/metrics.md").read_text(encoding="utf-8"), re.MULTILINE))
    used = {re.sub(r"_(bucket|count|sum)$", "", each) for each in re.findall(r"\bullage_\w+", "\n".join(page.lines))}
    assert not used - listed


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_annotation_label_and_parameter_is_in_the_code(page: Page, source: str) -> None:
    used = set(re.findall(r"\b(?:[a-z]+\.)?ullage\.io/[a-z][-a-z]*", "\n".join(page.lines)))
    missing = {each for each in used if each not in source and each.rpartition("/")[2] not in source}
    assert not missing - {"ullage.io/v"}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_path_in_the_project_is_there(page: Page) -> None:
    used = {word.rstrip(".,") for word in re.findall(r"\b(?:deploy|docs|tests|bench)/[\w./+-]+", "\n".join(page.lines))}
    assert not [each for each in used if not (ROOT / each).exists()]


def test_each_sentence_of_the_first_column_of_troubleshooting_is_in_the_code() -> None:
    """What stands between backquotes there is a part of what we say, with … for names and numbers."""
    texts = (path.read_text(encoding="utf-8") for name in SOURCES[:4] for path in (ROOT / name).rglob("*.py"))
    said = re.sub(r"\{[^{}]*\}", "…", re.sub(r'"\s*\n\s*f?"', "", "\n".join(texts)))
    rows = re.findall(
        r"^\| ([^|]*`[^|]*) \|", (ROOT / "docs/troubleshooting.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    quoted = [quote for row in rows if "kubelet's" not in row for quote in re.findall(r"`([^`]+)`", row)]
    parts = {part.strip() for quote in quoted for part in quote.split("…") if len(part.strip()) > 2}
    assert len(parts) > 30
    assert not {part for part in parts if part not in said}


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_each_value_of_the_chart_is_one_that_it_takes(page: Page) -> None:
    reference = configuration.text()
    values = set(re.findall(r"^\| `([^`]+)`", reference, re.MULTILINE))
    roots = {value.partition(".")[0] for value in values}
    told = [code for _, code in inline(page)] + re.findall(r"--set ([\w.]+)=", "\n".join(page.lines))
    used = {re.split("[:=]", code)[0] for code in told if re.match(r"[a-z]\w*\.[a-z][\w.]*(?:$|[:=])", code)}
    assert not {each for each in used if each.partition(".")[0] in roots} - values


def test_the_configuration_reference_is_what_the_schemas_say() -> None:
    assert configuration.TARGET.read_text(encoding="utf-8") == configuration.text(), "make docs"


def test_what_a_script_takes_for_granted_is_of_a_page_that_the_tier_runs() -> None:
    known = {f"{Path(page.path).stem}.{tier}.sh" for page in PAGES for tier in TIERS if has(page, tier)}
    assert {path.name for path in BEFORE.glob("*")} <= known


def test_few_commands_are_only_shown() -> None:
    counted = Counter(block.words["shown"] for block in SHELL if "shown" in block.words)
    told = ", ".join(f"{number} {reason} ({WHY_ONLY_SHOWN[reason]})" for reason, number in counted.items())
    assert counted.total() <= MOST_ONLY_SHOWN, told
