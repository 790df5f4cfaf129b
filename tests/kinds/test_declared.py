"""What may be declared of each kind: the right fields are accepted, wrong ones refused by name."""

import pytest

from controller.kinds import KINDS, Kind
from controller.specfile import parse, unsupported
from tests.spec.documents import refusals

LABEL = "outcome: late, window: 1h, margin: 1pp"
RIGHT = {
    Kind.PRECISION: LABEL,
    Kind.RECALL: LABEL,
    Kind.F1: LABEL,
    Kind.AUC: "outcome: late, window: 1h, margin: 0.01",
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
        ("kind: Precision, outcome: late, margin: 1pp", "window (m): is missing; kind Precision needs"),
        (f"kind: F1, {LABEL}, cap: p99", "cap (m): kind F1 does not take it"),
        ("kind: SquaredError, window: 1h, margin: 5%", "outcome (m): is missing; kind SquaredError needs"),
        ("kind: Ratio, numerator: buy, window: 1h, margin: 5%", "denominator (m): is missing; kind Ratio needs"),
        (
            "kind: Ratio, numerator: a, denominator: a, window: 1h, margin: 5%",
            "denominator (m): a is the numerator too",
        ),
        ("kind: ActiveUnits, margin: 1pp", "window (m): is missing; kind ActiveUnits needs"),
        ("kind: ActiveUnits, window: 1d, outcome: x, margin: 1pp", "outcome (m): kind ActiveUnits does not take it"),
        ("kind: Disagreement, margin: 2%", "margin (m): 2% of Disagreement must be absolute, such as 1pp or 0.01"),
        (
            "kind: Disagreement, role: Success, margin: 2pp",
            "role (m): Disagreement is only seen in a mirror and cannot",
        ),
        ("kind: Auc, outcome: late, window: 1h, margin: 5%", "margin (m): 5% of Auc must be absolute"),
        ("kind: Recall, outcome: late, window: 1h", "margin (m): is missing; a Guardrail needs one"),
    ],
)
def test_a_wrong_field_is_named(metric: str, said: str) -> None:
    (found,) = refusals(document(metric))
    assert found.startswith(f"spec.metrics[1].{said}")


def test_a_disagreement_needs_a_mirror_and_company() -> None:
    metric = "kind: Disagreement, margin: 2pp"
    (found,) = refusals(document(metric, "{weight: 50}"))
    assert found == "spec.metrics[1].kind (m): Disagreement is only seen in a mirror, and steps has none"
    (found,) = refusals(document(metric).replace("{name: errors, kind: ErrorRate, margin: 1pp}, ", ""))
    assert found.startswith("spec.metrics: at least one Guardrail or Success that is not only seen in a mirror")
