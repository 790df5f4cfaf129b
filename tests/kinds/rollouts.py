"""Many small rollouts of one metric, look by look, on drawn units: how often a test of it is wrong."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from scipy.stats import binom

from controller.core.cells import PPM, Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.fold import fold
from controller.core.scores import ScoreFold, score_effect
from controller.core.sequential import log_e_one_sided

Column = np.ndarray[tuple[int], np.dtype[np.int64]]
# (x, y) of n new units of an arm at a look, in integer units; the last argument runs from 0 to 1 over the rollout.
Units = Callable[[np.random.Generator, int, bool, float], tuple[Column, Column]]
RAMP = (0.05, 0.2, 0.5)
ALPHA = 0.05
RUNS = 200


class Found(NamedTuple):
    """In how many rollouts harm, or a proof of not worse, stood at any look; the mean of the last estimates."""

    harm: int
    proof: int
    theta: float


def allowed(runs: int = RUNS, alpha: float = ALPHA) -> int:
    """As many false alarms as a test at exactly ``alpha`` exceeds once in a thousand times."""
    return int(binom.ppf(0.999, runs, alpha))


def cell(units: tuple[Column, Column], share: int, mean: int) -> ScoreCell:
    """The sums of units that are all new; ``share`` is A − π in ppm."""
    x, y = (column.astype(float) for column in units)
    clustered = int(share * share * np.sum(np.square(y - mean * x)))
    sums: list[Any] = [np.sum(x), np.sum(y), np.sum(y * y), np.sum(x * y), np.sum(x * x), np.count_nonzero(y)]
    return ScoreCell(len(x), *map(int, sums), clustered)


def often(plan: MetricPlan, units: Units, mean: int, runs: int = RUNS, looks: int = 10, n: int = 2_000) -> Found:
    """``looks`` looks of ``n`` units at each weight of RAMP, centred on ``mean`` all the time."""
    harmed = proven = 0
    thetas = []
    for seed in range(runs):
        rng = np.random.default_rng(seed)
        state, shown = None, False
        for number in range(len(RAMP) * looks):
            pi = round(RAMP[number // looks] * PPM)
            epoch = EpochPlan(number // looks + 1, "weight", pi, {plan.name: mean})
            b, when = int(rng.binomial(n, pi / PPM)), number / (len(RAMP) * looks)
            a_cell = cell(units(rng, n - b, False, when), -pi, mean)
            b_cell = cell(units(rng, b, True, when), PPM - pi, mean)
            state = fold(plan, epoch, state, Block(plan.name, "", epoch.number, number, a_cell, b_cell))
            assert isinstance(state, ScoreFold)
            effect = score_effect(plan, state)
            proof = log_e_one_sided(effect.good(plan) + effect.margin, effect.se2, plan.tau) if effect.guarded else 0.0
            shown = shown or proof >= -math.log(ALPHA)
        assert isinstance(state, ScoreFold)
        harmed += state.ever_harm >= -math.log(ALPHA)
        proven += shown
        thetas.append(score_effect(plan, state).theta)
    return Found(harmed, proven, float(np.mean(thetas)))
