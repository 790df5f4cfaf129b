"""One name for one thing: the words that the glossary rejects are not used for our own names.

Only names that we define are looked at (functions, classes, arguments, variables, attributes, files): other
people's programming interfaces may call a thing as they like, and prose may explain.
"""

import ast
import re
from collections.abc import Iterator

import pytest

from tests.tidy.sources import modules

NO_MODULE_IS_CALLED = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager", "managers"}
# Word → what the glossary says instead. Words with an innocent meaning as well are left to the reader.
REJECTED = {
    "canary": "challenger",
    "candidate": "challenger",
    "treatment": "challenger",
    "variant": "arm",
    "stage": "step",
    "phase": "step, epoch or condition",
    "bucketing": "assignment",
    "impression": "exposure",
    "reward": "outcome",
    "kpi": "metric",
    "slo": "guardrail",
    "reconcile": "tick",
    "reconciler": "loop",
    "judgement": "decision",
    "judgment": "decision",
}
_WORD = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+")


def defined_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Each name that a module gives to something, with its line."""
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
                yield name, node.lineno
            case ast.arg(arg=name):
                yield name, node.lineno
            case ast.Name(id=name, ctx=ast.Store()) | ast.Attribute(attr=name, ctx=ast.Store()):
                yield name, node.lineno
            case ast.alias(asname=str(name)):
                yield name, node.lineno


def rejected_words(name: str) -> list[str]:
    """The words of an identifier, in either style, in singular or plural, that the glossary rejects."""
    words = [word.lower() for word in _WORD.findall(name)]
    singular = {"canaries": "canary"}
    return [
        known for word in words for known in (singular.get(word, word), word.removesuffix("s")) if known in REJECTED
    ][:1]


def test_no_module_has_a_name_that_says_nothing() -> None:
    named = [path for path, _ in modules() if NO_MODULE_IS_CALLED & {*path.parts[:-1], path.stem}]
    assert named == []


def test_no_name_of_ours_uses_a_word_that_the_glossary_rejects() -> None:
    found = [
        f"{path}:{line} {name}: say {REJECTED[word]}, not {word}"
        for path, tree in modules()
        for name, line in [*defined_names(tree), (path.stem, 1)]
        for word in rejected_words(name)
    ]
    assert found == []


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("canary_weight", ["canary"]),
        ("CanaryServer", ["canary"]),
        ("next_stages", ["stage"]),
        ("onPhase", ["phase"]),
        ("SLO_LIMIT", ["slo"]),
        ("slope", []),
        ("staged", []),
        ("challenger_step", []),
    ],
)
def test_words_are_found_in_either_style_and_never_inside_another_word(name: str, words: list[str]) -> None:
    assert rejected_words(name) == words


def test_every_kind_of_definition_is_looked_at() -> None:
    code = "import a as b\nclass C:\n    d: int = 1\n    def e(self, f, *, g=0):\n        self.h, i = f, g.j\n"
    assert {name for name, _ in defined_names(ast.parse(code))} == set("bCdefghi") | {"self"}
