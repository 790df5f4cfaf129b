"""A relative margin moves with the champion's mean, and what is not known of that is not known of the boundary."""

import math

import numpy as np
import pytest
from scipy.stats import chi2

from controller.core.cells import PPM, Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.scores import ScoreFold, fold_score, score_tests
from controller.kinds import Kind

MEAN, UNITS, RUNS = 10_000, 400, 400


def at_the_margin(seed: int, kind: Kind, family: str, margin: float, share: float) -> float:
    """z of a challenger exactly ``margin`` (of the champion's mean) worse, about the boundary."""
    rng, pi = np.random.default_rng(seed), round(PPM * share)
    worse = 1 + margin if kind is Kind.ABSOLUTE_ERROR else 1 - margin
    plan = MetricPlan(
        "m", kind, family, kind is Kind.ABSOLUTE_ERROR, 1000, "o", 60, 60, margin, True, margin, True,
        frozen=True, tau=margin * MEAN,
    )  # fmt: skip
    arms = []
    for n, level, weight in ((UNITS, 1.0, -pi), (round(UNITS * share / (1 - share)), worse, PPM - pi)):
        y = np.rint(rng.gamma(1.0, MEAN, n) + (level - 1) * MEAN).astype(np.int64)
        clustered = sum((weight * int(v - MEAN)) ** 2 for v in y)
        arms.append(ScoreCell(n, n, int(y.sum()), int((y**2).sum()), int(y.sum()), n, n, clustered))
    epoch = EpochPlan(1, "weight", pi, {"m": MEAN})
    found = score_tests(plan, fold_score(plan, epoch, ScoreFold(), Block("m", "", 1, 1, arms[0], arms[1])))
    good = -found.theta if plan.decreasing else found.theta
    return (good + found.margin) / math.sqrt(found.se2)


@pytest.mark.parametrize("share", [0.5, 0.9])
@pytest.mark.parametrize(("kind", "family"), [(Kind.ABSOLUTE_ERROR, "label"), (Kind.MEAN, "unit")])
def test_the_distance_from_a_relative_margin_has_no_larger_spread_than_is_told(
    kind: Kind, family: str, share: float
) -> None:
    z = np.array([at_the_margin(seed, kind, family, 0.5, share) for seed in range(RUNS)])
    assert np.sum(z**2) < chi2.ppf(1 - 1e-4, RUNS)
