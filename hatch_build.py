"""Build hook: compiles proto/ into ullage/pb/, so that wheels, source installs and editable installs carry stubs.

The stubs are never committed. Virtual proto paths place every package below `ullage.pb`
(`proto/ullage/agent/v1` → `ullage.pb.agent.v1`, `proto/csi/v1` → `ullage.pb.csi.v1`), so that the imports protoc writes
are the real ones.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

GOOGLE_INCLUDE = "_proto"


def compile_protos(root: Path) -> None:
    """Write `ullage/pb/` anew from every `.proto` below `proto/`; raises RuntimeError when protoc refuses."""
    import grpc_tools  # noqa: PLC0415 - a build requirement only, absent at run time
    from grpc_tools import protoc  # noqa: PLC0415

    proto = root / "proto"
    out = root / "ullage" / "pb"
    shutil.rmtree(out, ignore_errors=True)
    own = sorted((proto / "ullage").rglob("*.proto"))
    others = sorted(path for path in proto.rglob("*.proto") if proto / "ullage" not in path.parents)
    names = [str(Path("ullage/pb") / path.relative_to(proto / "ullage")) for path in own]
    names += [str(Path("ullage/pb") / path.relative_to(proto)) for path in others]
    arguments = [
        "protoc",
        f"-Iullage/pb={proto / 'ullage'}",
        f"-Iullage/pb={proto}",
        f"-I{Path(grpc_tools.__file__).parent / GOOGLE_INCLUDE}",
        f"--python_out={root}",
        f"--pyi_out={root}",
        f"--grpc_python_out={root}",
        *names,
    ]
    if protoc.main(arguments) != 0:
        message = f"protoc refused one of: {', '.join(names)}"
        raise RuntimeError(message)
    for folder in [out, *(path for path in out.rglob("*") if path.is_dir())]:
        (folder / "__init__.py").touch()
    (out / "py.typed").touch()


class ProtoBuildHook(BuildHookInterface[Any]):
    """Compiles the protos before hatchling collects files."""

    PLUGIN_NAME = "custom"

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:  # noqa: ARG002 - the hook's signature
        """Called by hatchling before each build, also of an editable install."""
        compile_protos(Path(self.root))
        build_data["artifacts"].append("ullage/pb/**")
