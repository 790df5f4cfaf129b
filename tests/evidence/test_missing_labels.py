"""Labels that come for one arm alone prove nothing about the other."""

import math

import numpy as np
import pytest

from controller.core.cells import PPM, Block, EpochPlan, ScoreCell
from controller.core.fold import fold
from controller.core.scores import ScoreFold, ScoreTests, score_tests
from tests.evidence.drawn import CTR, plan_for

RIGHT = {**CTR, "kind": "Accuracy", "role": "Guardrail", "margin": "3pp"}
MEAN = 800_000


def hits(n: int, k: int, share: int) -> ScoreCell:
    y = 1_000_000
    clustered = k * (share * (y - MEAN)) ** 2 + (n - k) * (share * MEAN) ** 2
    return ScoreCell(n, n, k * y, k * y * y, k * y, n, k, clustered)


def judged(seed: int, pi: float, kept: tuple[float, float], harm: float) -> ScoreTests:
    """40,000 requests of which each arm keeps a share of its labels; the challenger is right less often by ``harm``."""
    rng = np.random.default_rng(seed)
    plan, share = plan_for(RIGHT, mean=MEAN, tau=30_000.0), round(pi * PPM)
    a, b = round(40_000 * (1 - pi) * kept[0]), round(40_000 * pi * kept[1])
    right_a, right_b = int(rng.binomial(a, 0.8)), int(rng.binomial(b, 0.8 - harm))
    block = Block("ctr", "", 1, 0, hits(a, right_a, -share), hits(b, right_b, PPM - share))
    state = fold(plan, EpochPlan(1, "weight", share, {"ctr": MEAN}), None, block)
    assert isinstance(state, ScoreFold)
    return score_tests(plan, state)


@pytest.mark.parametrize("pi", [0.1, 0.5])
@pytest.mark.parametrize("kept", [(1.0, 0.5), (1.0, 0.1), (0.1, 1.0), (1.0, 1.0)])
def test_the_effect_is_not_diluted_by_labels_that_are_missing(pi: float, kept: tuple[float, float]) -> None:
    found = [judged(seed, pi, kept, 0.05) for seed in range(60)]
    assert np.mean([t.theta for t in found]) <= -45_000
    assert sum(t.non_inferior >= math.log(20) for t in found) <= 3


def test_with_all_labels_an_equal_challenger_is_proven_as_before() -> None:
    assert sum(judged(seed, 0.5, (1.0, 1.0), 0.0).non_inferior >= math.log(20) for seed in range(20)) == 20
