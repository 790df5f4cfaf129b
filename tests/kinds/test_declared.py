"""What may be declared of each kind: the right fields are accepted, wrong ones refused by name."""

from typing import Any

import pytest

from controller.errors import SpecError
from controller.kinds import KINDS, Kind
from controller.specfile import parse, unsupported

LABEL = "outcome: late, window: 1h, margin: 1pp"
RIGHT = {
    Kind.PRECISION: LABEL,
    Kind.RECALL: LABEL,
    Kind.F1: LABEL,
    Kind.ABSOLUTE_ERROR: "outcome: late, window: 1h, margin: 5%, cap: p99",
    Kind.SQUARED_ERROR: "outcome: late, window: 1h, margin: 5%",
    Kind.RATIO: "numerator: buy, denominator: requests, window: 1h, margin: 5%, cap: p99.9, goal: Decrease",
    Kind.ACTIVE_UNITS: "window: 1d, margin: 1pp",
    Kind.DISAGREEMENT: "margin: 2pp",
}


def document(metric: str, steps: str = "{mirror: 100}, {weight: 50}") -> str:
    return f"""
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {{name: late}}
spec:
  model: {{name: flight-delay}}
  unit: {{header: x-unit-id}}
  steps: [{steps}]
  metrics: [{{name: errors, kind: ErrorRate, margin: 1pp}}, {{name: m, {metric}}}]
"""


@pytest.mark.parametrize("kind", RIGHT)
def test_a_kind_with_its_fields_is_accepted(kind: Kind) -> None:
    spec = parse(document(f"kind: {kind}, {RIGHT[kind]}")).spec
    assert unsupported(spec) == []
    assert KINDS[kind].supported


@pytest.mark.parametrize(
    ("metric", "said"),
    [
        ("kind: Precision, outcome: late, margin: 1pp", "m: kind Precision needs window"),
        (f"kind: F1, {LABEL}, cap: p99", "m: kind F1 does not take cap; it takes outcome, window"),
        ("kind: SquaredError, window: 1h, margin: 5%", "m: kind SquaredError needs outcome"),
        ("kind: Ratio, numerator: buy, window: 1h, margin: 5%", "m: kind Ratio needs denominator"),
        ("kind: Ratio, numerator: a, denominator: a, window: 1h", "numerator and denominator are both 'a'"),
        ("kind: ActiveUnits, margin: 1pp", "m: kind ActiveUnits needs window"),
        ("kind: ActiveUnits, window: 1d, outcome: x, margin: 1pp", "m: kind ActiveUnits does not take outcome"),
        ("kind: Disagreement, margin: 2%", "m: margin 2% of Disagreement must be absolute, such as 2pp"),
        ("kind: Disagreement, role: Success, margin: 2pp", "is only seen in a mirror and cannot be a Success"),
        ("kind: Recall, outcome: late, window: 1h", "m: a Guardrail needs a margin"),
    ],
)  # fmt: skip
def test_a_wrong_field_is_named(metric: str, said: str) -> None:
    with pytest.raises(SpecError) as raised:
        parse(document(metric))
    assert said in str(raised.value)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"steps": "{weight: 50}"}, "Disagreement is only seen in a mirror, and steps has none"),
        ({"only": True}, "at least one Guardrail or Success that weights show is needed"),
    ],
)
def test_a_disagreement_needs_a_mirror_and_company(changes: dict[str, Any], said: str) -> None:
    text = document("kind: Disagreement, margin: 2pp", **{k: v for k, v in changes.items() if k == "steps"})
    if "only" in changes:
        text = text.replace("{name: errors, kind: ErrorRate, margin: 1pp}, ", "")
    with pytest.raises(SpecError) as raised:
        parse(text)
    assert said in str(raised.value)
