"""Committed text reads the same everywhere: no stray characters, unfinished marks, hosts or machine paths."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.tidy.sources import texts

_TABS_BELONG = {"Makefile"}
_TABS_BELONG_IN = {".tsv", ".go", ".mod"}
# The words are put together here so that this file passes its own test.
_UNFINISHED = re.compile(r"\b(?:{})\b".format("|".join(("TO" + "DO", "FIX" + "ME", "X" * 3))))
_REGISTRIES = [
    ".".join(host)
    for host in (
        ("pypi", "org"),
        ("pypi", "python", "org"),
        ("pythonhosted", "org"),
        ("anaconda", "org"),
        ("npmjs", "org"),
        ("docker", "io"),
        ("ghcr", "io"),
        ("gcr", "io"),
        ("quay", "io"),
        ("registry", "k8s", "io"),
        ("proxy", "golang", "org"),
    )
]
_REGISTRY = re.compile("|".join(rf"(?<![\w-]){re.escape(host)}(?!\w)" for host in _REGISTRIES))
_INDEX_OPTION = re.compile(r"^\s*--(?:index-url|extra-index-url|find-links|trusted-host)\b", re.MULTILINE)
_FOLDERS = "|".join(("home", "Users", "root", "work", "tmp"))
_MACHINE_PATH = re.compile(rf"(?<![\w./~$}}-])/(?:{_FOLDERS})/[\w.-]|\b[A-Z]:\\Users\\")


def stray_characters(path: Path, text: str) -> Iterator[str]:
    """Tabs, spaces at the end of a line, foreign line ends, and a missing or doubled end of the file."""
    tabs = path.name in _TABS_BELONG or path.suffix in _TABS_BELONG_IN
    for number, line in enumerate(text.split("\n"), 1):
        if "\t" in line and not tabs:
            yield f"{path}:{number} has a tab"
        if line != line.rstrip():
            yield f"{path}:{number} ends with a blank or a carriage return"
    if text and (not text.endswith("\n") or text.endswith("\n\n")):
        yield f"{path} does not end with exactly one newline"


def _matches(pattern: re.Pattern[str]) -> Callable[[Path, str], Iterator[str]]:
    def look(path: Path, text: str) -> Iterator[str]:
        for match in pattern.finditer(text):
            yield f"{path}:{text.count(chr(10), 0, match.start()) + 1} has {match.group()!r}"

    return look


RULES = {
    "stray characters": stray_characters,
    "unfinished marks": _matches(_UNFINISHED),
    "registry hosts": _matches(_REGISTRY),
    "index options": _matches(_INDEX_OPTION),
    "machine paths": _matches(_MACHINE_PATH),
}


@pytest.mark.parametrize("rule", RULES)
def test_no_committed_text_has(rule: str) -> None:
    assert [finding for path, text in texts() for finding in RULES[rule](path, text)] == []


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ("stray characters", "a\tb\n"),
        ("stray characters", "a \n"),
        ("stray characters", "a\r\n"),
        ("stray characters", "a"),
        ("stray characters", "a\n\n"),
        ("unfinished marks", "# " + "TO" + "DO: later\n"),
        ("registry hosts", f"see https://{_REGISTRIES[0]}/project\n"),
        ("registry hosts", f"https://files.{_REGISTRIES[2]}/a.whl\n"),
        ("index options", "--index" + "-url https://somewhere.example\n"),
        ("machine paths", 'open("' + "/ho" + 'me/ada/model.pkl")\n'),
        ("machine paths", "cd " + "/tm" + "p/a\n"),
    ],
)
def test_the_rule_finds(rule: str, text: str) -> None:
    assert list(RULES[rule](Path("a.py"), text))


@pytest.mark.parametrize(
    "text",
    ["a\n", "", "https://example.com" + "/home" + "/page\n", "mountPath: /tmp\n", "happy" + "pi.org\n"],
)
def test_no_rule_objects_to_plain_text(text: str) -> None:
    assert [finding for look in RULES.values() for finding in look(Path("a.py"), text)] == []
