"""The top level is fixed, and the lock holds what the project declares."""

import re
import tomllib

from tests.tidy.sources import ROOT, files, modules

TOP_LEVEL = {
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE",
    "Makefile",
    "README.md",
    "controller",
    "docs",
    "hatch_build.py",
    "helm",
    "manifests",
    "pyproject.toml",
    "requirements.lock",
    "router",
    "tests",
}


def _distribution(requirement: str) -> str:
    """The normalised name at the head of a requirement."""
    name = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert name is not None, requirement
    return re.sub(r"[-_.]+", "-", name.group()).lower()


def test_the_top_level_has_nothing_but_its_fixed_names_and_dotfiles() -> None:
    top = {path.parts[0] for path in files()}
    assert {name for name in top if not name.startswith(".")} - TOP_LEVEL == set()


def test_the_lock_pins_with_a_hash_everything_that_the_project_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    project = declared["project"]
    groups = [
        project["dependencies"],
        *project["optional-dependencies"].values(),
        declared["dependency-groups"]["dev"],
    ]
    wanted = {_distribution(requirement) for group in groups for requirement in group} - {"understudy"}
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    pinned = {_distribution(pin) for pin in re.findall(r"^(\S+)==\S+.* \\\n +--hash=sha256:", lock, re.MULTILINE)}
    assert wanted - pinned == set(), "run `make lock`"


def test_no_test_replaces_our_own_parts_by_mocks() -> None:
    mocking = re.compile(r"^\s*(?:from unittest import .*\bmock\b|(?:from|import) (?:unittest\.)?mock\b)", re.MULTILINE)
    users = [path for path, _ in modules() if mocking.search((ROOT / path).read_text(encoding="utf-8"))]
    assert users == []
