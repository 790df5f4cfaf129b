"""What a wheel has of the router is compiled, and does what the sources do: the tests of its traffic are run on it.

Nothing is tried twice that does not go through compiled code; ``make test-compiled`` runs all tests of the router.
"""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests import compiled
from tests.kubernetes.binaries import Unavailable

ROOT = Path(__file__).resolve().parents[2]
_HOOK = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]["hooks"][
    "custom"
]
_WITHIN_S = 600


@pytest.fixture(scope="module")
def tree() -> Path:
    try:
        return compiled.tree()
    except Unavailable as unavailable:
        pytest.skip(f"needs-compiler: {unavailable}")


def _python(tree: Path, *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=tree, capture_output=True, text=True, timeout=_WITHIN_S, check=False
    )
    assert done.returncode == 0, done.stdout[-8_000:] + done.stderr[-2_000:]
    return done.stdout


def test_every_module_that_is_to_be_is_compiled_and_its_source_is_there(tree: Path) -> None:
    names = [f"router.{name}" for name in _HOOK["modules"]]
    code = f"import importlib; [print(importlib.import_module(name).__file__) for name in {names}]"
    files = [Path(line) for line in _python(tree, "-c", code).split()]
    assert len(files) == len(names)
    for file in files:
        assert file.parent == tree / "router"
        assert file.suffix != ".py"
        assert (tree / "router" / file.name).with_name(file.name.partition(".")[0] + ".py").exists()


@pytest.mark.parametrize("name", _HOOK["modules"])
def test_nothing_that_is_compiled_waits_in_the_middle_of_a_function(name: str) -> None:
    """mypyc's coroutines lose the exception that they handle where they wait: the process ends by a signal."""
    waiting = (ast.AsyncFunctionDef, ast.Await, ast.Yield, ast.YieldFrom)
    found = [node.lineno for node in ast.walk(ast.parse((ROOT / "router" / f"{name}.py").read_text()))
             if isinstance(node, waiting)]  # fmt: skip
    assert found == []


def _wheel(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Built of this checkout where there is no C compiler."""
    none = {"CC": "no-such-compiler", "PATH": str(Path(sys.executable).parent)}
    return compiled.wheel(directory, **none, **environment)


def test_without_a_compiler_the_wheel_is_a_pure_one_unless_that_is_refused(tmp_path: Path) -> None:
    done = _wheel(tmp_path, UNDERSTUDY_COMPILE="0")
    assert done.returncode == 0, done.stderr
    done = _wheel(tmp_path)
    assert done.returncode == 0, done.stderr
    assert [wheel.name for wheel in tmp_path.iterdir()] == ["understudy-0.1.0-py3-none-any.whl"]
    done = _wheel(tmp_path, UNDERSTUDY_COMPILE="1")
    assert done.returncode != 0
    assert "the router could not be compiled" in done.stdout + done.stderr
    assert "no-such-compiler" in done.stdout + done.stderr


@pytest.mark.timeout(_WITHIN_S + 20)
@pytest.mark.parametrize(
    "tried",
    [
        "framing http_answers http_requests http_smuggling upstream pool outbox",
        "capture lines harmless journal_writer worker_fallback worker_mirror held_answers readiness",
    ],
)
def test_it_does_what_the_sources_do(tree: Path, tried: str) -> None:
    """``make test-compiled`` runs all others as well, also those that mind how busy the machine is."""
    files = [f"tests/router/test_{name}.py" for name in tried.split()]
    said = _python(tree, "-m", "pytest", "-q", "-n", "2", "-p", "no:cacheprovider", *files)
    passed = re.search(r"(\d+) passed", said)
    assert passed is not None
    assert int(passed[1]) > 50
