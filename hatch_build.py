"""Compiles the path of a request when a wheel is built: the router's own modules, by mypyc, from the types they have.

What is compiled is the same source, and every module of it is in the wheel as well: without a C compiler, or where
mypyc fails, the wheel is a pure one, which takes more of the processor for a request and does the same.
``UNDERSTUDY_COMPILE=1`` makes such a failure one of the build; ``UNDERSTUDY_COMPILE=0`` does not try.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface

_SETUP = """
from mypyc.build import mypycify
from setuptools import setup

modules = mypycify({modules!r}, opt_level="3", debug_level="0", group_name="understudy_router")
setup(name="understudy", packages=[], ext_modules=modules)
"""
# setuptools would stumble over our pyproject.toml. Libraries without types are no reason to build nothing.
_MYPY = """
[mypy]
plugins = pydantic.mypy
ignore_missing_imports = True
"""
_SECONDS = 1_200


class CompileHook(BuildHookInterface[Any]):
    """``modules``, in the hook's part of pyproject.toml, are compiled together: they call each other directly then."""

    _directory: Path | None = None

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        wanted = os.environ.get("UNDERSTUDY_COMPILE", "")
        if version == "editable" or wanted == "0":
            return
        self._directory = directory = Path(tempfile.mkdtemp(prefix="understudy-compiled-"))
        try:
            compiled = self._compiled(directory)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stdout", None) or str(error)
            self.finalize(version, build_data, "")
            if wanted == "1":
                self.app.abort(f"the router could not be compiled:\n{said}")
            self.app.display_warning(f"the router is not compiled, which does the same at a higher cost:\n{said}")
            return
        for path in compiled:
            build_data["force_include"][str(path)] = path.relative_to(directory).as_posix()
        build_data["pure_python"] = False
        build_data["infer_tag"] = True

    def finalize(self, version: str, build_data: dict[str, Any], artifact_path: str) -> None:
        if self._directory is not None:
            shutil.rmtree(self._directory, ignore_errors=True)

    def _compiled(self, directory: Path) -> list[Path]:
        """The shared libraries, below the directory as they are to be in the wheel."""
        shutil.copytree(
            Path(self.root) / "router", directory / "router", ignore=shutil.ignore_patterns("*.so", "*.pyd")
        )
        modules = [f"router/{name}.py" for name in self.config["modules"]]
        (directory / "setup.py").write_text(_SETUP.format(modules=modules))
        (directory / "mypy.ini").write_text(_MYPY)
        command = [sys.executable, "setup.py", "-q", "build_ext", "--inplace", "--parallel", str(os.cpu_count() or 1)]
        subprocess.run(
            command, cwd=directory, check=True, timeout=_SECONDS,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        return sorted(
            path for place in ("*", "router/*") for end in ("so", "pyd") for path in directory.glob(f"{place}.{end}")
        )
