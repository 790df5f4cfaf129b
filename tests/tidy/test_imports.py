"""Imports point one way. The contracts stand in pyproject.toml; here they are held, and shown to bite."""

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.tidy.sources import ROOT, modules

_LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"


def _lint_imports(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-c", _LINT, "--no-cache", "--no-logo"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )


def _project(folder: Path, code: dict[str, str]) -> Path:
    """A project under our contracts with nothing in it but the given modules (and a pure, empty core)."""
    (folder / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    empty = ["controller/__init__.py", "controller/core/__init__.py", "router/__init__.py"]
    for name, text in [*((name, "") for name in empty), *code.items()]:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def test_the_import_contracts_hold() -> None:
    outcome = _lint_imports(ROOT)
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


@pytest.mark.parametrize(
    ("contract", "code"),
    [
        ("The core is pure", {"controller/core/evolve.py": "import time\n"}),
        (
            "The core is pure",
            {"controller/core/evolve.py": "import controller.spec\n", "controller/spec.py": "import os\n"},
        ),
        (
            "imports downwards only",
            {"controller/core/evolve.py": "import controller.ports\n", "controller/ports.py": ""},
        ),
        (
            "imports downwards only",
            {"controller/loop.py": "import controller.edges.cluster\n", "controller/edges/cluster.py": ""},
        ),
        ("imports downwards only", {"controller/homeless.py": ""}),
        (
            "The router knows nothing",
            {"router/main.py": "import controller.errors\n", "controller/errors.py": ""},
        ),
        ("The router knows nothing", {"router/main.py": "import numpy\n"}),
        ("shares only the wire types", {"controller/loop.py": "import router.main\n", "router/main.py": ""}),
        (
            "The model server stands alone",
            {"controller/serving/server.py": "import controller.spec\n", "controller/spec.py": ""},
        ),
    ],
)
def test_a_contract_refuses(tmp_path: Path, contract: str, code: dict[str, str]) -> None:
    packages = {f"{Path(name).parent}/__init__.py": "" for name in code}
    outcome = _lint_imports(_project(tmp_path, packages | code))
    assert outcome.returncode == 1, outcome.stdout + outcome.stderr
    assert any(contract in line and "BROKEN" in line for line in outcome.stdout.splitlines()), outcome.stdout


def test_the_contracts_allow_what_the_parts_need_from_each_other(tmp_path: Path) -> None:
    code = {
        "controller/__main__.py": "import controller.wiring\nimport router.main\n",
        "controller/wiring.py": "import controller.edges.routes\nimport controller.loop\n",
        "controller/edges/__init__.py": "",
        "controller/edges/routes.py": "import httpx\nimport router.table\nimport controller.ports\n",
        "controller/loop.py": "import controller.core.evolve\nimport router.events\n",
        "controller/ports.py": "import controller.spec\n",
        "controller/core/evolve.py": "import numpy\nimport router.table\nimport controller.status\n",
        "controller/spec.py": "import controller.errors\n",
        "controller/status.py": "",
        "controller/errors.py": "",
        "router/main.py": "import asyncio\nimport router.table\n",
        "router/table.py": "import router.assignment\n",
        "router/events.py": "",
        "router/assignment.py": "",
    }
    outcome = _lint_imports(_project(tmp_path, code))
    assert outcome.returncode == 0, outcome.stdout + outcome.stderr


def test_the_core_takes_the_time_and_chance_as_arguments() -> None:
    # What an import contract cannot see, because datetime and numpy are allowed for other uses.
    impure = {"now", "utcnow", "today", "random"}
    found = [
        f"{path}:{node.lineno} uses .{node.attr}"
        for path, tree in modules()
        if path.parts[:2] == ("controller", "core")
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute)
        and node.attr in impure
        and isinstance(node.value, ast.Name | ast.Attribute)
        and getattr(node.value, "id", getattr(node.value, "attr", "")) in {"datetime", "date", "np", "numpy"}
    ]
    assert found == []


@pytest.mark.parametrize("package", ["controller.core", "controller.serving"])
def test_a_package_that_stands_apart_imports_nothing_from_elsewhere_in_its_init(package: str) -> None:
    # Its modules are under contract; its __init__ is not named by the contract's wildcard.
    home = Path(*package.split("."), "__init__.py")
    imports = [node for path, tree in modules() if path == home for node in ast.walk(tree)]
    foreign = [
        ast.unparse(node)
        for node in imports
        if isinstance(node, ast.Import)
        or (isinstance(node, ast.ImportFrom) and not f"{node.module}.".startswith(f"{package}."))
    ]
    assert foreign == []
