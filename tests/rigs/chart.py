"""The chart, as helm sees it: linted, rendered, and written out as plain manifests.

python -m tests.rigs.chart deploy/manifests
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.rigs.gotools import programs
from tests.rigs.host import RigError

ROOT = Path(__file__).parents[2]
CHART = ROOT / "deploy/chart/ullage"
MANIFESTS = ROOT / "deploy/manifests"
NAMESPACE, RELEASE = "ullage-system", "ullage"
HELM_SECONDS = 900.0
HEADER = "# Made by `make manifests` of deploy/chart/ullage; what is changed here is lost.\n"
FILES = ("namespace", "crds", "csidriver", "controller", "node", "extender")
"""What a cluster needs, in the order in which it can be made: a file for each folder or file of templates."""
PLAIN: Mapping[str, Any] = {"namespace": {"create": True}, "snapshots": {"enabled": True}}
OPTIONAL: Mapping[str, tuple[Mapping[str, Any], Sequence[str]]] = {
    "node-loss": ({"controller": {"nodeLossDelaySeconds": 3600}}, ("controller/rbac-node-loss",)),
    "webhook": (
        {"webhook": {"enabled": True}, "extender": {"tls": {"secretName": "ullage-extender-tls"}}},
        ("extender/service", "extender/webhook"),
    ),
}
"""What some clusters want besides: the values that it comes with, and its templates."""
SOURCE = re.compile(r"^# Source: ullage/(?:templates/)?(\S+)\.yaml\n", re.MULTILINE)


def helm(*words: str | Path, kubeconfig: Path | None = None) -> str:
    """What helm prints; raises RigError with what it says of its failure."""
    done = run_helm(*words, kubeconfig=kubeconfig)
    if done.returncode:
        raise RigError(f"helm {words[0]} ended with {done.returncode}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def run_helm(
    *words: str | Path, kubeconfig: Path | None = None, timeout_seconds: float = HELM_SECONDS
) -> subprocess.CompletedProcess[str]:
    """The same for whoever expects that it fails. It keeps nothing of its own."""
    with tempfile.TemporaryDirectory(prefix="ullage-helm-") as home:
        places = {f"HELM_{name}_HOME": f"{home}/{name}" for name in ("CACHE", "CONFIG", "DATA")}
        return subprocess.run(
            (programs.get("helm"), *words, *(("--kubeconfig", kubeconfig) if kubeconfig else ())),
            check=False,
            capture_output=True,
            text=True,
            stdin=subprocess.DEVNULL,
            timeout=timeout_seconds,
            env={"PATH": "/usr/bin:/bin", "HOME": home, **places},
        )


def template(values: Mapping[str, Any], *words: str) -> str:
    """The chart rendered with these values, without a cluster; raises RigError."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(dict(values), file)
        file.flush()
        return helm("template", RELEASE, CHART, "--namespace", NAMESPACE, "--values", file.name, *words)


def objects(rendered: str) -> list[dict[str, Any]]:
    """The objects in what was rendered."""
    return [each for each in yaml.safe_load_all(rendered) if each]


def manifests() -> dict[str, str]:
    """What each file below deploy/manifests holds; raises RigError."""
    plain = _by_source(template(PLAIN, "--include-crds", "--no-hooks"))
    found = {
        f"{number}-{name}.yaml": _joined(text for source, text in plain if source.partition("/")[0] == name)
        for number, name in enumerate(FILES)
    }
    left = {source for source, _ in plain if source.partition("/")[0] not in FILES}
    if left:
        raise RigError(f"of the chart's defaults nothing is to be in {', '.join(sorted(left))}; say where it goes")
    for name, (values, sources) in OPTIONAL.items():
        some = _by_source(template({**PLAIN, **values}, "--no-hooks"))
        found[f"optional/{name}.yaml"] = _joined(text for source, text in some if source in sources)
    return found


def write(folder: Path) -> None:
    """Make the folder's files anew."""
    for old in folder.rglob("*.yaml"):
        old.unlink()
    for name, content in manifests().items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def _by_source(rendered: str) -> list[tuple[str, str]]:
    """The documents in helm's order, each with the template that it is of, without suffix."""
    return [
        (source[1], SOURCE.sub("", document).strip("\n") + "\n")
        for document in re.split(r"^---\n", rendered, flags=re.MULTILINE)
        if (source := SOURCE.search(document))
    ]


def _joined(documents: Iterable[str]) -> str:
    return HEADER + "---\n".join(documents)


if __name__ == "__main__":
    write(Path(sys.argv[1]))
