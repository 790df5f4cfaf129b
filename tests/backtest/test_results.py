"""What a backtest decides on logs whose truth is known."""

from pathlib import Path
from typing import Any

import pytest

from controller.backtest import Result, run_log
from controller.quantities import SECOND
from tests.backtest.logs import PLAN, Log, World, declared, drawn, write

TICK = 60 * SECOND
ERRORS = """
spec:
  model: {name: ranking}
  unit: {header: x-unit-id}
  steps: [{weight: 50, hold: 1m}]
  metrics: [{name: errors, kind: ErrorRate, margin: 1pp}]
  decision: {tick: 10s, minUnits: 50}
"""
LABELS = """
spec:
  model: {name: ranking}
  unit: {header: x-unit-id}
  steps: [{weight: 1, hold: 2m}, {weight: 5, hold: 2m}, {weight: 50, hold: 2m}]
  metrics: [{name: accuracy, kind: Accuracy, outcome: late, window: 20s, margin: 5pp}]
  decision: {tick: 10s, block: 10s, grace: 0s, minUnits: 50}
"""


def ran(folder: Path, log: Log, plan: str = PLAN, **how: Any) -> Result:
    return run_log(declared(plan), *write(folder, log), **{"tick": TICK, **how})


def said(result: Result) -> tuple[str, str, str | None]:
    return result.result, result.reason, result.metric


def test_an_honest_challenger_is_promoted_when_the_log_reaches_the_last_step(tmp_path: Path) -> None:
    result = ran(tmp_path, drawn(World()))
    assert said(result) == ("Promoted", "Proven", "ctr")
    promoted = result.decisions[-1]
    assert (promoted.decision, promoted.step, promoted.weight) == ("Promote", 2, 50.0)


def test_ten_percent_fewer_clicks_are_rolled_back_by_the_clicks(tmp_path: Path) -> None:
    result = ran(tmp_path, drawn(World(challenger=0.45)))
    assert said(result) == ("RolledBack", "OutcomeHarm", "ctr")
    ctr = next(e for e in result.evidence if e.metric == "ctr")
    assert ctr.upper < 0
    assert ctr.estimate == pytest.approx(-0.05, abs=0.02)


@pytest.mark.parametrize("weight", [1, 5, 50])
def test_a_challenger_without_any_click_is_rolled_back(tmp_path: Path, weight: int) -> None:
    result = ran(tmp_path, drawn(World(challenger=0, stretches=((weight, 6, 3000),))))
    assert said(result) == ("RolledBack", "OutcomeHarm", "ctr")


@pytest.mark.parametrize("weight", [1, 5, 50])
def test_a_challenger_with_every_label_wrong_is_rolled_back(tmp_path: Path, weight: int) -> None:
    # 30 wrong answers have to be expected of the champion in as many units: 150 at its accuracy of 0.8.
    world = World(labels=True, challenger_accuracy=0, stretches=((weight, 12, 3000),))
    assert said(ran(tmp_path, drawn(world), LABELS)) == ("RolledBack", "OutcomeHarm", "accuracy")


def test_two_arms_without_a_single_error_are_promoted(tmp_path: Path) -> None:
    result = ran(tmp_path, drawn(World(stretches=((50, 4, 3000),))), ERRORS)
    assert said(result) == ("Promoted", "Proven", "errors")


def test_a_challenger_that_fails_is_rolled_back_by_its_errors(tmp_path: Path) -> None:
    result = ran(tmp_path, drawn(World(challenger_errors=0.1)))
    assert said(result) == ("RolledBack", "ServiceHarm", "errors")


def test_a_log_that_never_reaches_the_last_step_promotes_nothing(tmp_path: Path) -> None:
    result = ran(tmp_path, drawn(World(stretches=((5, 6, 3000),))))
    assert said(result)[:2] == ("Held", "GateMet")


def test_harm_that_shows_after_a_promotion_takes_it_back(tmp_path: Path) -> None:
    good = drawn(World(stretches=((50, 4, 3000),)))
    bad = drawn(World(challenger=0.2, stretches=((50, 4, 3000),)), seed=2)
    for row in [*bad.exposures, *bad.outcomes]:
        row["ts"] += 240
        for name in ("unit", "request_id"):
            if name in row:
                row[name] += "b"
    log = Log(good.exposures + bad.exposures, good.outcomes + bad.outcomes)
    result = ran(tmp_path, log, PLAN.replace("{weight: 1, hold: 2m}, {weight: 5, hold: 2m}, ", ""))
    assert said(result) == ("RolledBack", "OutcomeHarm", "ctr")
    assert [d.decision for d in result.decisions][-2:] == ["Promote", "RollBack"]


def test_stopping_at_the_decision_changes_the_evidence_and_not_the_result(tmp_path: Path) -> None:
    log = drawn(World(challenger=0, stretches=((50, 6, 3000),)))
    whole, stopped = ran(tmp_path, log), ran(tmp_path, log, stop_at_decision=True)
    assert (said(whole), whole.at) == (said(stopped), stopped.at)
    assert sum(whole.evidence[0].units) > 2 * sum(stopped.evidence[0].units)
    assert whole.decisions == stopped.decisions


def test_arms_that_do_not_come_as_the_weights_say_are_never_promoted(tmp_path: Path) -> None:
    log = drawn(World(stretches=((25, 6, 3000),)))
    for row in log.exposures:
        row["weight"] = 50
    result = ran(tmp_path, log)
    assert said(result)[:2] == ("Held", "SampleRatioMismatch")
    assert "25." in result.message or "24." in result.message


def test_without_a_decision_the_result_is_held_with_what_was_missing(tmp_path: Path) -> None:
    result = ran(tmp_path, drawn(World(stretches=((1, 1, 60),))))
    assert said(result)[:2] == ("Held", "HoldTime")
    assert {e.verdict.value for e in result.evidence} <= {"NoData", "Inconclusive"}


def test_an_outcome_that_never_comes_in_either_arm_is_no_proof(tmp_path: Path) -> None:
    log = drawn(World(champion=0, challenger=0, stretches=((50, 4, 3000),)))
    log.outcomes.append({"unit": "u1", "name": "other", "value": 1, "ts": log.exposures[-1]["ts"]})
    log.outcomes.append({"unit": "elsewhere", "name": "click", "value": 1, "ts": log.exposures[-1]["ts"]})
    assert ran(tmp_path, log).result == "Held"
