"""People may ask more often of one model than of the other while quality drifts in both: labels compare models all the
same, not how many rows there were when things were better."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from controller.core.cells import PPM, Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.scores import ScoreFold, ScoreTests, fold_score, score_tests
from controller.kinds import KINDS, Kind

SCALE = KINDS[Kind.ACCURACY].scale
HALF = PPM // 2
MEAN = 900_000  # what the champion's accuracy was when the epoch opened
BLOCKS, UNITS = 24, 1000
MARGIN = 0.02 * SCALE
PLAN = MetricPlan(
    "acc", Kind.ACCURACY, "label", False, SCALE, "l", 60, 60, MARGIN, False, MARGIN, False, frozen=True, tau=MARGIN
)


def _cell(rng: np.random.Generator, units: int, rows: float, accuracy: float, share: int) -> ScoreCell:
    x = 1 + rng.poisson(rows - 1, units)
    y = rng.binomial(x, accuracy) * SCALE
    scores = [share * (int(b) - MEAN * int(a)) for a, b in zip(x, y, strict=True)]
    return ScoreCell(
        units,
        int(x.sum()),
        int(y.sum()),
        sum(int(b) ** 2 for b in y),
        sum(int(a) * int(b) for a, b in zip(x, y, strict=True)),
        int((x * x).sum()),
        int((y > 0).sum()),
        sum(score**2 for score in scores),
    )


def judged(seed: int, worse: float, rows: tuple[float, float], last: float) -> tuple[float, ScoreTests]:
    """Ever-harm and the tests after an accuracy that falls from .9 to ``last`` over half of the blocks in both arms."""
    rng = np.random.default_rng(seed)
    epoch, state = EpochPlan(1, "weight", HALF, {"acc": MEAN}), ScoreFold()
    for block in range(BLOCKS):
        accuracy = 0.9 + (last - 0.9) * min(1, block / (BLOCKS / 2))
        units = int(rng.binomial(UNITS, 0.5))
        a = _cell(rng, UNITS - units, rows[0], accuracy, -HALF)
        b = _cell(rng, units, rows[1], accuracy - worse, PPM - HALF)
        state = fold_score(PLAN, epoch, state, Block("acc", "", 1, block, a, b))
    return state.ever_harm, score_tests(PLAN, state)


@pytest.mark.parametrize("rows", [(1.0, 2.0), (2.0, 1.0), (1.5, 1.5)])
def test_equal_models_are_equal_whoever_is_asked_more_often(rows: tuple[float, float]) -> None:
    found = [judged(seed, 0.0, rows, 0.7) for seed in range(8)]
    assert sum(harm > math.log(100) for harm, _ in found) <= 1  # at .01 each: more in 1 of 400 runs of this test
    assert abs(np.mean([tests.theta for _, tests in found])) < 0.01 * SCALE


@pytest.mark.parametrize("rows", [(1.0, 2.0), (2.0, 1.0)])
def test_a_challenger_twice_the_margin_worse_is_not_proven_whoever_is_asked_more_often(
    rows: tuple[float, float],
) -> None:
    found = [judged(seed, 2 * MARGIN / SCALE, rows, 0.8)[1] for seed in range(8)]
    assert sum(tests.non_inferior > math.log(20) for tests in found) <= 1
    assert np.mean([tests.theta for tests in found]) == pytest.approx(-2 * MARGIN, rel=0.25)


def returning(seed: int, swing: float, icc: float = 0.9, units: int = 800) -> float:
    """z of two equal arms whose units all come in each of eight epochs, while the level of both alternates by ``swing``
    standard deviations of a unit."""
    rng, scale, mean = np.random.default_rng(seed), 500.0, 3000
    lasting = rng.normal(0, math.sqrt(icc), units)
    challenger = rng.random(units) < 0.5
    sums, state = np.zeros(units, dtype=np.int64), ScoreFold()
    for number in range(1, 9):
        level = 3000 + scale * swing * (-1) ** number
        noise = rng.normal(0, math.sqrt(1 - icc), units)
        y = np.rint(level + scale * (lasting + noise)).astype(np.int64)
        after = sums + np.where(challenger, HALF, -HALF) * (y - mean)
        arms = [
            ScoreCell(
                int(who.sum()), int(who.sum()), int(y[who].sum()), int((y[who] ** 2).sum()), int(y[who].sum()),
                int(who.sum()), int(who.sum()),
                sum(int(s) ** 2 for s in after[who]) - sum(int(s) ** 2 for s in sums[who]),
            )
            for who in (~challenger, challenger)
        ]  # fmt: skip
        epoch = EpochPlan(number, "weight", HALF, {"acc": mean})
        sums, state = after, fold_score(PLAN, epoch, state, Block("acc", "", number, number, arms[0], arms[1]))
    found = score_tests(PLAN, state)
    return found.theta / math.sqrt(found.se2)


@pytest.mark.parametrize("swing", [0.0, 1.0, 3.0])
def test_units_that_return_by_day_and_by_night_are_not_taken_for_new_ones(swing: float) -> None:
    z = np.array([returning(seed, swing) for seed in range(100)])
    assert np.sum(z**2) < chi2.ppf(1 - 1e-4, len(z))  # with too small a standard error it is beyond
