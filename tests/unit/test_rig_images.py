"""The pure parts of the image and of the rig that makes images: no root, no network."""

from __future__ import annotations

import hashlib
import json
import re
import sys
import tarfile
import tomllib
from pathlib import Path

import pytest

from deploy.image import build
from tests.rigs import images
from tests.rigs.gotools import programs, toolchain
from tests.rigs.host import RigError
from tests.rigs.images import archive
from ullage.run import PACKAGES

CONTAINERFILE = (build.ROOT / build.HERE / "Containerfile").read_text(encoding="utf-8")
IGNORED = (build.ROOT / build.HERE / "Containerfile.dockerignore").read_text(encoding="utf-8")
SIDECARS = [name for name in images.NAMES if name in programs.PROGRAMS]


def pins(lock: str) -> dict[str, str]:
    """The packages of a lock file, each with its version and hashes."""
    text = (build.ROOT / "requirements" / lock).read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.lstrip().startswith("#")]
    whole = "\n".join(lines).replace(" \\\n", "")
    return {line.partition("==")[0]: line for line in whole.splitlines()}


def written(folder: Path) -> Path:
    layer = folder / "layer.tar"
    with tarfile.open(layer, "w"):
        pass
    archive.write(folder / "image.tar", "localhost/empty:1", layer, entrypoint=["/nothing"])
    return folder / "image.tar"


def test_an_image_is_the_same_bytes_whenever_it_is_written(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    assert written(tmp_path / "one").read_bytes() == written(tmp_path / "other").read_bytes()


def test_an_archive_names_what_is_in_it(tmp_path: Path) -> None:
    with tarfile.open(written(tmp_path)) as opened:
        content = {name: each.read() for name in opened.getnames() if (each := opened.extractfile(name)) is not None}
    (image,) = json.loads(content["manifest.json"])
    assert image["RepoTags"] == ["localhost/empty:1"]
    config = json.loads(content[image["Config"]])
    layers = [hashlib.sha256(content[name]).hexdigest() for name in image["Layers"]]
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}" for digest in layers]
    assert image["Config"] == f"{hashlib.sha256(content[image['Config']]).hexdigest()}.json"


def test_a_program_that_needs_a_loader_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RigError, match="is not static"):
        archive.layer_of_program(tmp_path / "layer.tar", Path(sys.executable).resolve())


@pytest.mark.parametrize("name", SIDECARS)
def test_a_sidecar_is_tagged_with_the_version_it_is_built_from(name: str) -> None:
    program = programs.PROGRAMS[name]
    module, _, _ = program.package.partition("/cmd/")
    go_mod = (toolchain.HERE / program.folder / "go.mod").read_text(encoding="ascii")
    pinned = re.search(rf"^(?:require )?\s*{re.escape(module)} (v\S+)", go_mod, re.MULTILINE)
    assert pinned is not None
    assert images.reference(name) == f"localhost/{name}:{pinned[1]}"


def test_the_image_has_the_package_of_every_program_that_is_run() -> None:
    installed = re.search(r"apt-get install --yes --no-install-recommends \\\n([^&]+?)\n\nFROM", CONTAINERFILE)
    assert installed is not None
    assert set(PACKAGES.values()) <= set(installed[1].split())


def test_what_the_image_is_made_of_is_neither_ignored_nor_left_out_of_its_key() -> None:
    copied = [
        word for line in re.findall(r"^COPY ((?!--).*)$", CONTAINERFILE, re.MULTILINE) for word in line.split()[:-1]
    ]
    let_through = {line[1:] for line in IGNORED.splitlines() if line.startswith("!")}
    keyed = {str(path.relative_to(build.ROOT)) for path in images._own_files()}
    assert copied
    for word in copied:
        assert any(word == each or word.startswith(f"{each}/") for each in let_through), word
        assert any(each == word or each.startswith(f"{word}/") for each in keyed), word
    assert f"{build.HERE}/Containerfile" in keyed


def test_the_image_is_built_with_the_versions_that_are_developed_with() -> None:
    developed = pins("dev.lock")
    assert all(developed[name] == line for name, line in pins("build.lock").items())


def test_what_builds_the_wheel_is_locked() -> None:
    wanted = tomllib.loads((build.ROOT / "pyproject.toml").read_text(encoding="utf-8"))["build-system"]["requires"]
    assert {re.split(r"[=>]", each)[0] for each in wanted} <= set(pins("build.lock"))


def test_buildah_reaches_no_index() -> None:
    image = build.Image(tag="ullage:1", version="1", revision="", epoch_seconds=0)
    argv = build.build_argv(image, (), "base", Path("/packages"))
    assert f"/packages:{build.WHEELS}:ro" in argv
    assert f"PIP=--no-index --find-links {build.WHEELS}" in argv
