"""The command line: help, version, exit codes, and errors without a trace."""

import importlib
from importlib.metadata import version
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from controller.cli import group
from tests.cli.states import understudy


def test_help_names_every_command_and_needs_none_of_them() -> None:
    code = (
        "import sys; from controller.cli.group import understudy\n"
        "try: understudy(['--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'asyncio', 'duckdb', 'fastapi', 'httpx', 'kubernetes', 'mlflow', 'numpy', 'pydantic', 'yaml'}\n"
        "print('imported:', heavy & set(sys.modules) or 'nothing')"
    )
    import subprocess
    import sys

    outcome = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert all(f"  {name} " in outcome.stdout for name in group.COMMANDS)
    assert "imported: nothing" in outcome.stdout


@pytest.mark.parametrize("name", sorted(group.COMMANDS))
def test_every_command_that_is_named_exists_and_has_help(name: str) -> None:
    outcome = CliRunner().invoke(group.understudy, [name, "--help"])
    assert outcome.exit_code == 0, outcome.output
    assert "Usage: understudy" in outcome.output


@pytest.mark.parametrize("name", sorted(group.COMMANDS))
def test_every_command_is_where_the_list_says(name: str) -> None:
    module, attribute, text = group.COMMANDS[name]
    assert isinstance(getattr(importlib.import_module(module), attribute), click.Command)
    assert text.endswith(".")


def test_the_version_is_that_of_the_distribution() -> None:
    assert understudy("--version").stdout.strip() == f"understudy, version {version('understudy')}"


@pytest.mark.parametrize(
    "arguments", [["nonsense"], ["status", "--nonsense"], ["validate"], ["status", "-o", "yaml"], ["replay"]]
)
def test_bad_usage_ends_with_2_and_says_what_is_allowed(arguments: list[str]) -> None:
    outcome = understudy(*arguments)
    assert outcome.returncode == 2
    assert "Usage: understudy" in outcome.stderr


def test_an_error_is_lines_and_never_a_trace(tmp_path: Path) -> None:
    outcome = understudy("status", "--state-dir", str(tmp_path))
    assert outcome.returncode == 2
    assert outcome.stdout == ""
    assert outcome.stderr.startswith(f"error: --state-dir: {tmp_path} holds no rollout")
    assert outcome.stderr.count("\n") == 1


def test_a_state_that_cannot_be_read_ends_with_1(tmp_path: Path) -> None:
    (tmp_path / "rollouts.sqlite").write_bytes(b"no database" * 1000)
    outcome = understudy("status", "--state-dir", str(tmp_path))
    assert outcome.returncode == 1
    assert "damaged or no SQLite database" in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_a_command_whose_extra_is_missing_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(group.COMMANDS, "serve", ("controller.serving.not_there", "serve", "Serve."))
    outcome = CliRunner().invoke(group.understudy, ["serve"])
    assert outcome.exit_code == 1
    assert "pip install 'understudy[serve]'" in outcome.output
