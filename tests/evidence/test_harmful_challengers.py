"""What must never come through, and what must: the dead, the useless and the faultless challenger."""

from typing import Any

import numpy as np
import pytest

from controller.spec import RolloutSpec
from controller.status import Progress, Reason, Verb
from tests.decide.rollouts import rollout
from tests.evidence.playing import Values, exactly, often, play

CLICKS = {"name": "ctr", "kind": "Proportion", "outcome": "click", "window": "1s", "margin": "5%", "role": "Success"}
SALES = {"name": "gmv", "kind": "Mean", "outcome": "buy", "window": "1s", "margin": "5%"}
RIGHT = {"name": "accuracy", "kind": "Accuracy", "outcome": "late", "window": "1s", "margin": "1.5pp"}
ERRORS = {"name": "errors", "kind": "ErrorRate", "margin": "0.05pp"}
QUICK = {"tick": "60s", "block": "60s", "minUnits": 1000, "maxDuration": "1d", "grace": "0s"}


def plan(
    *metrics: dict[str, Any], weights: tuple[float, ...] = (1, 5, 50), hold: str = "5m", **more: Any
) -> RolloutSpec:
    steps = [{"weight": w, "hold": hold} for w in weights]
    return rollout(metrics=list(metrics), steps=steps, decision={**QUICK, **more}).spec


def sales(rng: np.random.Generator, n: int, b: bool) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
    """Three in a hundred buy for some 20,000 units; nobody of the challenger's."""
    bought = rng.binomial(1, 0.03, n) * np.rint(rng.lognormal(10, 0.5, n))
    return np.zeros(n, dtype=np.int64) if b else bought.astype(np.int64)


@pytest.mark.parametrize("weight", [1, 5, 50])
@pytest.mark.parametrize(
    ("metric", "values", "units"),
    [
        (CLICKS, often(0.05, 0.0), 4000),
        ({**CLICKS, "role": "Guardrail"}, often(0.05, 0.0), 4000),
        (SALES, sales, 14_000),
        (RIGHT, often(0.8, 0.0), 2000),
        ({**RIGHT, "kind": "LogLoss", "margin": "0.025"}, exactly(300_000, 13_800_000), 2000),
        (ERRORS, often(0.001, 1.0, 1), 2000),
    ],
)
def test_a_challenger_with_no_click_no_sale_or_every_label_wrong_is_rolled_back_at_every_weight(
    weight: float, metric: dict[str, Any], values: Values, units: int
) -> None:
    traffic = 20_000 if weight < 50 else 2000
    spec = plan(metric, weights=(weight,), hold="10h")
    played = play(spec, {metric["name"]: values}, 90, traffic, seed=round(weight))
    harmed = "ServiceHarm" if metric["kind"] == "ErrorRate" else "OutcomeHarm"
    assert played.ended == (Progress.ROLLING_BACK, harmed, metric["name"])
    assert max(e.units[1] for e in played.evidence) <= units


def test_a_dead_challenger_behind_a_perfect_fallback_is_rolled_back_by_its_errors() -> None:
    spec = plan(CLICKS, ERRORS)
    played = play(spec, {"ctr": often(0.05), "errors": often(0.001, 1.0, 1)}, fallbacks=1.0)
    assert played.ended == (Progress.ROLLING_BACK, "ServiceHarm", "errors")
    assert not any(move.status.decision is Verb.PROMOTE for move in played.moves)


def test_a_dead_challenger_behind_a_perfect_fallback_is_never_promoted_nor_advanced_without_an_error_metric() -> None:
    played = play(plan(CLICKS, maxDuration="1h"), {"ctr": often(0.05)}, 70, fallbacks=1.0)
    assert {move.status.step for move in played.moves} == {0}
    reasons = {move.status.reason for move in played.moves[1:]}
    assert reasons == {Reason.CHALLENGER_UNAVAILABLE, Reason.INCONCLUSIVE}
    assert played.ended[:2] == (Progress.ROLLING_BACK, "Inconclusive")


def test_two_models_without_a_single_error_are_promoted() -> None:
    for seed in range(3):
        played = play(plan(ERRORS), {"errors": often(0.0)}, seed=seed)
        assert played.ended == (Progress.PROMOTING, "Proven", "errors")


def test_two_equal_models_are_promoted_and_the_challenger_s_gain_is_not_asked_for() -> None:
    played = play(plan(CLICKS, ERRORS), {"ctr": often(0.05), "errors": often(0.001, None, 1)}, 100)
    assert played.ended == (Progress.PROMOTING, "Proven", "ctr")
