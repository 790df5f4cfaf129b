"""Every kind that a log can hold decides a backtest, and says what it found."""

from pathlib import Path

import pytest

from tests.backtest.logs import World, drawn
from tests.backtest.test_results import LABELS, ran, said

LABELLED = {
    "precision": "kind: Precision, margin: 10pp",
    "recall": "kind: Recall, margin: 10pp",
    "f1": "kind: F1, margin: 10pp",
    "size": 'kind: AbsoluteError, margin: 20%, cap: "1"',
    "square": "kind: SquaredError, margin: 20%",
}


def plan_of(name: str) -> str:
    metric = "{name: accuracy, kind: Accuracy, outcome: late, window: 20s, margin: 5pp}"
    assert metric in LABELS
    return LABELS.replace(metric, f"{{name: {name}, {LABELLED[name]}, outcome: late, window: 20s}}")


@pytest.mark.parametrize("name", LABELLED)
def test_an_equal_challenger_is_promoted_on_the_label_kind(tmp_path: Path, name: str) -> None:
    world = World(labels=True, stretches=((1, 2, 3000), (5, 2, 3000), (50, 3, 4000)))
    result = ran(tmp_path, drawn(world), plan_of(name))
    assert said(result) == ("Promoted", "Proven", name)


@pytest.mark.parametrize("name", LABELLED)
def test_a_challenger_that_is_right_half_as_often_is_rolled_back_on_it(tmp_path: Path, name: str) -> None:
    world = World(labels=True, challenger_accuracy=0.4, stretches=((50, 3, 3000),))
    result = ran(tmp_path, drawn(world), plan_of(name))
    assert said(result) == ("RolledBack", "OutcomeHarm", name)
    [evidence] = result.evidence
    assert (evidence.estimate < 0) is (name in ("precision", "recall", "f1"))
    assert name in result.message
