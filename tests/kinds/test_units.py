"""Ratios by unit and active units: counted as declared, right by independent oracles, and seldom wrong."""

import numpy as np
import pandas as pd
import pytest
import tea_tasting as tt
from statsmodels.stats.proportion import confint_proportions_2indep

from controller.core.cells import Block, EpochPlan, MetricPlan, ScoreCell, StatisticsQuery
from controller.core.scores import Effect, ScoreFold, score_effect
from controller.edges.engine import ExposureRow, OutcomeRow
from controller.kinds import Kind
from tests.engine.test_counting import said, seen
from tests.engine.twins import Twins
from tests.engine.worlds import SECOND
from tests.engine.worlds import plan as counted
from tests.evidence.drawn import plan_for
from tests.kinds.rollouts import Column, Units, allowed, often

RATIO = {
    "name": "m", "kind": "Ratio", "numerator": "buy", "denominator": "view", "window": "1m", "role": "Guardrail",
    "margin": "10%",
}  # fmt: skip
FROM_ZERO = {**RATIO, "harmMargin": "0%"}
PER_VIEW = counted(Kind.RATIO, outcome="purchase", denominator="click", window=60 * SECOND, cap=8_000)
BACK = counted(Kind.ACTIVE_UNITS, window=60 * SECOND, block=10 * SECOND)


def blocks_of(
    metric: MetricPlan, exposures: list[ExposureRow], outcomes: list[OutcomeRow], epochs: int = 1
) -> list[Block]:
    query = StatisticsQuery(
        "r", 1, tuple(EpochPlan(e, "weight", 500_000, {}) for e in range(1, epochs + 1)), (metric,), (), SECOND
    )
    engine = Twins()
    engine.ingest(exposures, outcomes)
    engine.advance(query, 1_000 * SECOND)
    return engine.blocks()


def sums(block: Block) -> tuple[int, int, int]:
    """Units, x and y of the champion."""
    assert isinstance(block.champion, ScoreCell)
    return block.champion[:3]


def test_a_ratio_sums_a_units_outcomes_above_and_below_the_line() -> None:
    exposures = [seen(1, "a"), seen(2, "b"), seen(3, "c")]
    outcomes = [said(5, "purchase", 3.5, "a"), said(6, "purchase", 90, "a"), said(7, "purchase", 1, "c")]
    outcomes += [
        said(8, "click", 2, "a"),
        said(9, "click", 1, "b"),
        said(9, "click", -4, "c"),
        said(90, "click", 1, "a"),
    ]
    [block] = blocks_of(PER_VIEW, exposures, outcomes)
    assert sums(block) == (3, 3, 8_000 + 1_000)  # a is cut at 8, and nothing below the line counts below 0


def test_requests_are_a_denominator_that_needs_no_outcome() -> None:
    metric = counted(Kind.RATIO, outcome="click", denominator="requests", window=20 * SECOND)
    exposures = [seen(t, "a") for t in (1, 2, 21, 22)] + [seen(3, "b"), seen(4, "b", mirror=True), seen(5, "b", 2)]
    exposures[-1] = seen(5, "b", epoch=2)
    blocks = blocks_of(metric, exposures, [said(4, "click", 2, "a")], epochs=2)
    assert [sums(b) for b in blocks] == [(2, 3 + 1, 2_000), (1, 1, 0)]


def test_a_unit_is_active_if_it_asks_again_in_a_later_block_within_the_window() -> None:
    exposures = [seen(1, "a"), seen(9, "a"), seen(2, "b"), seen(11, "b"), seen(3, "c"), seen(64, "c"), seen(4, "d")]
    exposures += [seen(12, "d", epoch=2), seen(5, "e"), seen(30, "e", hashed=False, evidence=False)]
    first, second = blocks_of(BACK, exposures, [], epochs=2)
    assert sums(first) == (5, 5, 2_000_000)  # b, and d, whose request opened its next epoch
    assert sums(second) == (1, 1, 0)


def drawn_units(seed: int, n: int = 1_500) -> "np.ndarray[tuple[int, int], np.dtype[np.int64]]":
    """arm, views, purchases of units; the challenger shows a third more."""
    rng = np.random.default_rng(seed)
    arm = rng.integers(0, 2, n)
    views = rng.poisson(3 + arm)
    return np.column_stack([arm, views, rng.binomial(views, 0.3)])


def effect_of(metric: MetricPlan, exposures: list[ExposureRow], outcomes: list[OutcomeRow]) -> Effect:
    epoch = EpochPlan(1, "weight", 500_000, {metric.name: 3 * metric.scale // 10})
    engine = Twins()
    engine.ingest(exposures, outcomes)
    state = engine.advance(StatisticsQuery("r", 1, (epoch,), (metric,), (), SECOND), 1_000 * SECOND)
    fold = state.folds[metric.name, ""]
    assert isinstance(fold, ScoreFold)
    return score_effect(metric, fold)


def test_the_effect_and_its_error_are_those_of_tea_tasting() -> None:
    rows = drawn_units(1)
    exposures = [seen(i % 50, f"u{i}", bool(arm)) for i, (arm, _, _) in enumerate(rows)]
    outcomes = [
        said(60 + i % 40, name, float(value), f"u{i}")
        for i, (_, views, bought) in enumerate(rows)
        for name, value in (("click", views), ("purchase", bought))
    ]
    found = effect_of(PER_VIEW._replace(cap=None, window=200 * SECOND), exposures, outcomes)
    table = pd.DataFrame(rows, columns=["arm", "views", "bought"])
    theirs = tt.Experiment(m=tt.RatioOfMeans("bought", "views", use_t=False), variant="arm").analyze(table)["m"]
    se = (theirs.effect_size_ci_upper - theirs.effect_size_ci_lower) / (2 * 1.959964)
    assert found.champion_mean / 1_000 == pytest.approx(theirs.control)
    assert found.theta / 1_000 == pytest.approx(theirs.effect_size, rel=1e-9)
    assert found.se2**0.5 / 1_000 == pytest.approx(se, rel=0.03)


def test_the_share_of_active_units_differs_as_two_proportions_do() -> None:
    rng = np.random.default_rng(2)
    arm, back = rng.integers(0, 2, 1_200), rng.random(1_200)
    exposures = [seen(1 + i / 1_000, f"u{i}", bool(a)) for i, a in enumerate(arm)]
    returned = back < np.where(arm == 1, 0.35, 0.4)
    exposures += [seen(30 + i / 1_000, f"u{i}", bool(arm[i])) for i in np.flatnonzero(returned)]
    found = effect_of(BACK, exposures, [])
    k, n = [int(returned[arm == a].sum()) for a in (0, 1)], [int((arm == a).sum()) for a in (0, 1)]
    lower, upper = confint_proportions_2indep(k[1], n[1], k[0], n[0], method="wald")
    assert found.theta / 1e6 == pytest.approx(k[1] / n[1] - k[0] / n[0], abs=0.15 * (upper - lower) / 3.92)
    assert found.se2**0.5 / 1e6 == pytest.approx((upper - lower) / 3.92, rel=0.03)


def bought(shown: float, worse: float) -> Units:
    """Views of a unit and what it buys per view, in whole units of money with a long tail, cut at 200."""

    def drawn(rng: np.random.Generator, n: int, challenger: bool, when: float) -> tuple[Column, Column]:
        views = rng.poisson(2 * (shown if challenger else 1.0) * (1 + 0.5 * when), n)
        buys = rng.binomial(views, 0.1 * (1 - 0.4 * when) * (1 - (worse if challenger else 0.0)))
        spent = np.minimum(np.round(1_000 * buys * np.exp(rng.normal(2, 1, n))), 200_000)
        return views.astype(np.int64), spent.astype(np.int64)

    return drawn


@pytest.mark.parametrize("shown", [0.5, 1.0, 2.0])
def test_showing_more_or_less_at_the_same_ratio_is_no_harm(shown: float) -> None:
    found = often(plan_for(FROM_ZERO, mean=1_000.0, tau=100.0, cap=200_000), bought(shown, 0.0), 700, runs=120)
    assert found.harm <= allowed(120)


def test_a_ratio_at_the_margin_is_not_proven_and_a_gross_harm_is_found() -> None:
    plan = plan_for(RATIO, mean=1_000.0, tau=100.0, cap=200_000)
    assert often(plan, bought(1.5, 0.1), 700, runs=120).proof <= allowed(120)
    found = often(plan_for(FROM_ZERO, mean=1_000.0, tau=100.0, cap=200_000), bought(1.5, 0.5), 700, runs=20)
    assert found.harm >= 19
