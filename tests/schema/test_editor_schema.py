"""An editor accepts what the controller accepts, but for the few rules JSON Schema has no words for."""

import json
from collections import Counter
from typing import Any

import jsonschema
import pytest

from controller.cli.init import EXAMPLE
from controller.schema.editor import editor_schema
from controller.specfile import parse
from tests.schema.models import PYTHON_ALONE, refusals
from tests.schema.mutations import PLAIN, SMALL, mutated

EDITOR = jsonschema.Draft202012Validator(editor_schema())
# What Python says, and CEL, but no JSON Schema.
BEYOND = (
    *PYTHON_ALONE,
    "weights must not decrease",
    "mirror steps come before every weight",
    "names must differ",
    "is finer than 0.01",
    "allowSameVersion: true makes it an A/A run",
    "is more than the reserved control",
    "is shorter than timeout",
)


def test_the_schema_is_a_json_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(editor_schema())


@pytest.mark.parametrize("tree", [PLAIN, SMALL])
def test_a_right_document_is_accepted_by_both(tree: dict[str, Any]) -> None:
    assert refusals(tree) == []
    assert [e.message for e in EDITOR.iter_errors(tree)] == []


def test_the_example_of_init_is_accepted_by_the_editors_schema() -> None:
    tree = parse(EXAMPLE).model_dump(mode="json", by_alias=True, exclude_none=True)
    assert [e.message for e in EDITOR.iter_errors(tree)] == []


def test_an_editor_refuses_nothing_that_the_controller_accepts_and_misses_only_what_it_cannot_say() -> None:
    seen: Counter[str] = Counter()
    for seed in range(1_500):
        tree = mutated(seed)
        said = refusals(tree)
        if EDITOR.is_valid(tree):
            unexplained = [text for text in said if not any(known in text for known in BEYOND)]
            assert unexplained == [], f"seed {seed}: {tree}"
            seen["both accept" if not said else "beyond the schema"] += 1
        else:
            assert said, f"seed {seed}: {tree}: {[e.message for e in EDITOR.iter_errors(tree)]}"
            seen["both refuse"] += 1
    assert min(seen["both accept"], seen["both refuse"]) > 100
    assert seen["beyond the schema"] > 5, seen


@pytest.mark.parametrize(
    ("field", "value"),
    [("limit", "2Gi"), ("window", "1h"), ("cap", "p99"), ("numerator", "a"), ("outcome", "b"), ("query", "q")],
)
def test_an_editor_refuses_a_field_that_a_kind_does_not_take(field: str, value: str) -> None:
    tree = json.loads(json.dumps(SMALL))
    tree["spec"]["metrics"] = [{"name": "errors", "kind": "ErrorRate", "margin": "1pp", field: value}]
    assert not EDITOR.is_valid(tree)
    assert refusals(tree)
