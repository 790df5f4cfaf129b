"""Labelled answers of both arms through the engine, and what its folds say of them."""

import numpy as np

from controller.core.cells import EpochPlan, MetricPlan, StatisticsQuery
from controller.core.scores import Effect, ScoreFold, score_effect
from controller.edges.engine import ExposureRow, OutcomeRow
from tests.engine.twins import Twins
from tests.engine.worlds import SECOND

HALF = 500_000


class Answers:
    """Scores and labels of ``n`` units in each arm, one request each."""

    def __init__(self, seed: int, n: int) -> None:
        rng = np.random.default_rng(seed)
        self.label = rng.binomial(1, 0.4, (2, n)).astype(float)
        # The challenger says yes less often, and is as often right.
        shift = np.array([[0.1], [-0.05]])
        self.score = np.clip(rng.normal(0.35 + 0.3 * self.label + shift, 0.2), 0, 1).round(3)

    def said(self, arm: int) -> "np.ndarray[tuple[int], np.dtype[np.bool_]]":
        return np.asarray(self.score[arm] >= 0.5)


def effect_of(plan: MetricPlan, answers: Answers, mean: float = 0.5) -> Effect:
    """What the engine and the core make of them, in one epoch of equal shares that opened when ``mean`` was known."""
    exposures, outcomes = [], []
    for arm in (0, 1):
        for i, (score, label) in enumerate(zip(answers.score[arm], answers.label[arm], strict=True)):
            name, t = f"{arm}.{i}", (i % 50) * SECOND
            exposures.append(
                ExposureRow(1, 1, t, name, name, bool(arm), hashed=True, evidence=True, scores=(float(score),))
            )
            outcomes.append(OutcomeRow(name, t + SECOND, t + SECOND, "late", float(label), None, name))
    epoch = EpochPlan(1, "weight", HALF, {plan.name: round(plan.scale * mean)})
    engine = Twins()
    engine.ingest(exposures, outcomes)
    said = engine.advance(StatisticsQuery("r", 1, (epoch,), (plan,), (), SECOND), 1_000 * SECOND)
    engine.close()
    state = said.folds[plan.name, ""]
    assert isinstance(state, ScoreFold)
    return score_effect(plan, state)
