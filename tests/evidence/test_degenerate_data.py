"""Identical answers, no spread, ties, one unit, none, one arm: no NaN, no error, no promotion as better; a reason."""

import math
import warnings
from collections.abc import Iterator
from typing import Any

import pytest

from controller.core.evidence import Verdict
from controller.spec import RolloutSpec
from controller.status import Progress, Reason
from tests.decide.rollouts import rollout
from tests.evidence.playing import Played, Units, Values, exactly, often, play
from tests.evidence.test_harmful_challengers import CLICKS, ERRORS, QUICK, RIGHT, SALES

LOSS = {**RIGHT, "name": "loss", "kind": "LogLoss", "margin": "0.025"}
ALL = [{**CLICKS, "role": "Success"}, SALES, RIGHT, LOSS, ERRORS]
STEPS = [{"weight": 5, "hold": "5m"}, {"weight": 50, "hold": "5m"}]


@pytest.fixture(autouse=True)
def _warnings_are_errors() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


def spec(mode: str = "Superior", **more: Any) -> RolloutSpec:
    return rollout(metrics=ALL, steps=STEPS, decision={**QUICK, "mode": mode, "maxDuration": "40m", **more}).spec


def values(of: Values, failures: Values) -> dict[str, Values]:
    return {m["name"]: failures if m["kind"] == "ErrorRate" else of for m in ALL}


def sane(played: Played) -> None:
    """Every figure is a number, every verdict without proof has a reason, and nothing was found better."""
    for e in played.evidence:
        assert not any(math.isnan(x) for x in e if isinstance(x, float)), e
        assert e.verdict is not Verdict.BETTER
        assert math.isfinite(e.log_e_harm)
        if e.verdict is Verdict.NO_DATA or not math.isfinite(e.se):
            assert e.note
    assert all(move.status.reason and move.status.message for move in played.moves)
    assert played.status.progress is not Progress.PROMOTING


@pytest.mark.parametrize("value", [0, 1, 50_000, 1_000_000])
def test_values_that_never_vary_are_never_promoted_as_better(value: int) -> None:
    played = play(spec(), values(exactly(value), exactly(0)), 45, 4000)
    sane(played)
    assert played.ended[:2] == (Progress.ROLLING_BACK, "Inconclusive")


def test_ties_between_equal_models_are_never_promoted_as_better_though_proven_not_worse() -> None:
    tied = often(0.05)
    sane(play(spec(), values(tied, exactly(0)), 45, 8000))


@pytest.mark.parametrize(
    ("came", "reason"),
    [
        (lambda a, b: (0, 0), Reason.MIN_UNITS),
        (lambda a, b: (1, 0), Reason.MIN_UNITS),
        (lambda a, b: (0, 1), Reason.MIN_UNITS),
        (lambda a, b: (1, 1), Reason.MIN_UNITS),
        (lambda a, b: (a, 0), Reason.SAMPLE_RATIO_MISMATCH),
        (lambda a, b: (0, b), Reason.SAMPLE_RATIO_MISMATCH),
    ],
)
def test_no_unit_one_unit_or_one_arm_hold_and_say_why(came: Units, reason: Reason) -> None:
    played = play(spec(), values(often(0.05), often(0.001, None, 1)), 35, 4000, came=came)
    sane(played)
    assert {move.status.step for move in played.moves} == {0}
    assert reason in {move.status.reason for move in played.moves}


def test_nothing_at_all_holds_until_time_is_up() -> None:
    played = play(spec("NonInferior"), values(often(0.05), exactly(0)), 50, came=lambda a, b: (0, 0))
    assert {e.verdict for e in played.evidence} == {Verdict.NO_DATA}
    assert played.ended[:2] == (Progress.ROLLING_BACK, "Inconclusive")


@pytest.mark.parametrize("size", [10**12, -(10**12)])
def test_values_as_large_as_any_do_not_overflow(size: int) -> None:
    sane(play(spec(), values(often(0.05, None, size), exactly(0)), 20))
