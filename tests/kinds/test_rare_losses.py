"""A challenger whose loss is larger by a few errors of which it is sure is not proven equal before they were met."""

import math

import numpy as np
import pytest
from scipy.stats import binom

from controller.core.cells import PPM, Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.scores import ScoreFold, fold_score, score_tests, worst_loss
from controller.kinds import KINDS, Kind

MEAN, WORST, LOOKS, UNITS, RUNS = 0.26, 13.0, 40, 400, 200
ALPHA = 0.05


def _plan(kind: Kind, margin: float, cap: int | None = None) -> MetricPlan:
    scale = KINDS[kind].scale
    size = margin * scale
    return MetricPlan(
        "loss", kind, "label", True, scale, "l", 60, 60, size, False, size, False, frozen=True, cap=cap, tau=size
    )


def _cell(losses: np.ndarray, share: int, mean: int) -> ScoreCell:
    y = np.rint(losses * 1_000_000).astype(np.int64).tolist()
    total = sum(y)
    squares = sum(v * v for v in y)
    scores = sum((share * (v - mean)) ** 2 for v in y)
    n = len(y)
    return ScoreCell(n, n, total, squares, total, n, sum(v > 0 for v in y), scores)


def promoted(seed: int, plan: MetricPlan, rare: float, share: int = PPM // 2) -> bool:
    """Whether a challenger that loses ``WORST`` more in a share ``rare`` of its rows is ever proven not worse."""
    rng, mean = np.random.default_rng(seed), round(MEAN * plan.scale)
    epoch, state = EpochPlan(1, "weight", share, {"loss": mean}), ScoreFold()
    for block in range(LOOKS):
        n = int(rng.binomial(UNITS, share / PPM))
        usual, other = rng.exponential(MEAN, UNITS - n), rng.exponential(MEAN, n) + WORST * rng.binomial(1, rare, n)
        arms = _cell(usual, -share, mean), _cell(other, PPM - share, mean)
        state = fold_score(plan, epoch, state, Block("loss", "", 1, block, *arms))
        if score_tests(plan, state).non_inferior >= -math.log(ALPHA):
            return True
    return False


@pytest.mark.parametrize("share", [PPM // 2, PPM // 10])
def test_as_much_worse_as_the_margin_by_rare_and_sure_errors_is_promoted_as_seldom_as_promised(share: int) -> None:
    plan = _plan(Kind.LOG_LOSS, 0.025)
    found = sum(promoted(seed, plan, 0.025 / WORST, share) for seed in range(RUNS))
    assert found <= binom.ppf(1 - 1e-3, RUNS, ALPHA)


def test_an_equal_challenger_is_still_proven() -> None:
    assert all(promoted(seed, _plan(Kind.LOG_LOSS, 0.025), 0.0) for seed in range(20))


def test_the_worst_row_is_that_of_the_kind() -> None:
    assert worst_loss(_plan(Kind.LOG_LOSS, 0.1)) == pytest.approx(13.8155e6, rel=1e-4)
    assert worst_loss(_plan(Kind.BRIER, 0.1)) == 1_000_000
    assert worst_loss(_plan(Kind.ABSOLUTE_ERROR, 1, cap=7_000)) == 7_000
    assert worst_loss(_plan(Kind.SQUARED_ERROR, 1)) == 0
    assert worst_loss(_plan(Kind.ACCURACY, 0.1)) == 0
