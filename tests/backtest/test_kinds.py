"""Every kind that a log can hold decides a backtest, and says what it found."""

import random
from pathlib import Path

import pytest

from controller.errors import SpecError
from tests.backtest.logs import Log, World, drawn
from tests.backtest.test_results import LABELS, ran, said

LABELLED = {
    "precision": "kind: Precision, margin: 10pp",
    "recall": "kind: Recall, margin: 10pp",
    "f1": "kind: F1, margin: 10pp",
    "size": 'kind: AbsoluteError, margin: 20%, cap: "1"',
    "square": "kind: SquaredError, margin: 20%",
    "area": "kind: Auc, margin: 0.1",
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
    assert (evidence.estimate < 0) is (name in ("precision", "recall", "f1", "area"))
    assert name in result.message


BY_UNIT = {
    "spent": "kind: Ratio, numerator: click, denominator: requests, window: 20s, margin: 10%",
    "active": "kind: ActiveUnits, window: 30s, margin: 5pp",
}


def returning(log: Log, champion: float, challenger: float) -> Log:
    """The same log, whose units ask a second time a quarter of a minute later, each arm's at a rate."""
    rng = random.Random(5)
    again = [
        {**row, "ts": row["ts"] + 15, "request_id": f"{row['request_id']}b"}
        for row in log.exposures
        if rng.random() < (challenger if row["arm"] == "challenger" else champion)
    ]
    return Log(log.exposures + again, log.outcomes)


@pytest.mark.parametrize("name", BY_UNIT)
@pytest.mark.parametrize(("rate", "ending"), [(0.5, "Promoted"), (0.3, "RolledBack")])
def test_units_decide_by_what_they_do_per_request_and_by_coming_back(
    tmp_path: Path, name: str, rate: float, ending: str
) -> None:
    metric = "{name: accuracy, kind: Accuracy, outcome: late, window: 20s, margin: 5pp}"
    plan = LABELS.replace(metric, f"{{name: {name}, {BY_UNIT[name]}}}")
    log = drawn(World(challenger=rate, stretches=((50, 4, 3000),)))
    result = ran(tmp_path, returning(log, 0.5, rate) if name == "active" else log, plan)
    assert said(result)[::2] == (ending, name)


def test_a_log_cannot_show_answers_that_differ(tmp_path: Path) -> None:
    plan = LABELS.replace("metrics: [", "metrics: [{name: same, kind: Disagreement, margin: 2pp}, ")
    plan = plan.replace("steps: [", "steps: [{mirror: 100, hold: 1m}, ")
    with pytest.raises(SpecError, match="compares answers of a mirror"):
        ran(tmp_path, drawn(World(labels=True, stretches=((50, 1, 100),))), plan)
