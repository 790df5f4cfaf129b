"""Few units that are most of a difference: what is worse by the margin through them is proven as seldom as promised."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from controller.core.cells import PPM, Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.scores import ScoreFold, fold_score, score_tests
from controller.kinds import KINDS, Kind

RUNS, ALPHA, LEAST = 100, 0.05, 2000
Values = npt.NDArray[np.float64]
Draw = Callable[[np.random.Generator, int], tuple[Values, int]]  # the sums of n units, and the rows of each


def _plan(kind: Kind, margin: float, **more: Any) -> MetricPlan:
    """Absolute margins; of a ``cap`` in the metric's unit."""
    scale, size = KINDS[kind].scale, margin * KINDS[kind].scale
    family, decreasing = KINDS[kind].family, more.pop("decreasing", KINDS[kind].goal == "Decrease")
    cap = round(more["cap"] * scale) if "cap" in more else None
    return MetricPlan(
        "m", kind, family, decreasing, scale, "o", 60, 60, size, False, size, False, frozen=True, cap=cap, tau=size
    )


def _cell(values: Values, rows: int, side: int, mean: int, scale: int) -> ScoreCell:
    y = np.rint(values * scale).astype(np.int64).astype(object)
    n, score = len(y), side * (y - mean * rows)
    return ScoreCell(
        n, n * rows, sum(y), sum(y * y), sum(y) * rows, n * rows * rows, int((y != 0).sum()), sum(score * score)
    )


def promoted(seed: int, plan: MetricPlan, arms: tuple[Draw, Draw], mean: float, looks: int, share: float) -> bool:
    """Whether the challenger is proven not worse at any look from ``LEAST`` units of both arms on."""
    rng, pi, centre = np.random.default_rng(seed), round(share * PPM), round(mean * plan.scale)
    epoch, state = EpochPlan(1, "weight", pi, {"m": centre}), ScoreFold()
    for look in range(looks):
        n = int(rng.binomial(400, share))
        cells = [
            _cell(*draw(rng, size), side, centre, plan.scale)
            for draw, size, side in zip(arms, (400 - n, n), (-pi, PPM - pi), strict=True)
        ]
        state = fold_score(plan, epoch, state, Block("m", "", 1, look, *cells))
        if 400 * (look + 1) >= LEAST and score_tests(plan, state).non_inferior >= -math.log(ALPHA):
            return True
    return False


def _losses(rows: int, rare: float) -> Draw:
    """Log losses of ``rows`` requests of each unit; all of them 13 higher in a share ``rare`` of the units."""
    return lambda rng, n: (rng.gamma(rows, 0.26, n) + 13.0 * rows * (rng.random(n) < rare), rows)


def _hits(rows: int, rare: float) -> Draw:
    return lambda rng, n: (np.where(rng.random(n) < rare, 0.0, rng.binomial(rows, 0.9, n)), rows)


def _spent(usual: float, rare: float) -> Draw:
    """Exponential amounts, and 200 of a share ``rare`` of the units."""
    return lambda rng, n: (np.where(rng.random(n) < rare, 200.0, rng.exponential(usual, n)), 1)


def _seldom(plan: MetricPlan, arms: tuple[Draw, Draw], mean: float, looks: int = 40, share: float = 0.5) -> bool:
    found = sum(promoted(seed, plan, arms, mean, looks, share) for seed in range(RUNS))
    return bool(found <= binom.ppf(1 - 1e-3, RUNS, ALPHA))


@pytest.mark.parametrize(("rows", "margin"), [(10, 0.0054), (50, 0.005)])
def test_sure_errors_in_all_rows_of_few_units(rows: int, margin: float) -> None:
    arms = _losses(rows, 0.0), _losses(rows, margin / 13)
    assert _seldom(_plan(Kind.LOG_LOSS, margin), arms, 0.26)


def test_few_units_of_which_every_prediction_is_wrong() -> None:
    plan = _plan(Kind.ACCURACY, 0.01)
    assert _seldom(plan, (_hits(100, 0.0), _hits(100, 0.01 / 0.9)), 0.9, looks=15)


def test_few_units_that_cost_two_hundred_times_as_much() -> None:
    plan = _plan(Kind.MEAN, 0.1, cap=200, decreasing=True)
    assert _seldom(plan, (_spent(1.0, 0.0), _spent(1.0, 0.1 / 200)), 1.0)


@pytest.mark.parametrize("share", [0.5, 0.9])
def test_few_units_that_spend_two_hundred_times_as_much_and_are_lost(share: float) -> None:
    plan = _plan(Kind.MEAN, 0.1, cap=200)
    assert _seldom(plan, (_spent(0.9, 0.1 / 200), _spent(0.9, 0.0)), 1.0, share=share)


def test_equal_arms_are_proven_with_enough_units() -> None:
    plan = _plan(Kind.LOG_LOSS, 0.02)
    assert all(promoted(seed, plan, (_losses(10, 0.0), _losses(10, 0.0)), 0.26, 40, 0.5) for seed in range(10))
    plan = _plan(Kind.MEAN, 0.1, cap=20)
    assert all(promoted(seed, plan, (_spent(1.0, 0.0), _spent(1.0, 0.0)), 1.0, 40, 0.5) for seed in range(10))


def test_one_unit_with_very_many_rows_does_not_make_all_others_count_for_nothing() -> None:
    def draw(rng: np.random.Generator, n: int) -> tuple[Values, int]:
        return rng.binomial(1, 0.9, n).astype(float), 1

    plan, rng, pi = _plan(Kind.ACCURACY, 0.02), np.random.default_rng(1), PPM // 2
    epoch, state = EpochPlan(1, "weight", pi, {"m": 900_000}), ScoreFold()
    tenant = _cell(np.array([18_000.0]), 20_000, -pi, 900_000, plan.scale)
    for look in range(40):
        usual, other = (_cell(*draw(rng, 500), side, 900_000, plan.scale) for side in (-pi, pi))
        if look == 0:
            usual = ScoreCell(*(a + b for a, b in zip(usual[:8], tenant[:8], strict=True)))
        state = fold_score(plan, epoch, state, Block("m", "", 1, look, usual, other))
    assert score_tests(plan, state).non_inferior >= -math.log(ALPHA)
