"""Ratios whose denominators the challenger's own answers decide: right by independent oracles, and seldom wrong."""

import math

import numpy as np
import pytest
from sklearn.metrics import f1_score, precision_score, recall_score

from controller.core.cells import EpochPlan
from controller.core.scores import Effect, score_effect
from controller.core.statistics import f1
from controller.kinds import Kind
from tests.engine.worlds import plan as counted
from tests.evidence.drawn import Row, fold_rows, plan_for
from tests.kinds.labelled import Answers, effect_of
from tests.kinds.rollouts import Column, Units, allowed, often

ONE = 1_000_000
PRECISION = {"name": "m", "kind": "Precision", "outcome": "late", "window": "1m", "role": "Guardrail", "margin": "3pp"}
FROM_ZERO = {**PRECISION, "harmMargin": "0pp"}


@pytest.mark.parametrize(
    ("kind", "score"), [(Kind.PRECISION, precision_score), (Kind.RECALL, recall_score), (Kind.F1, f1_score)]
)
def test_the_effect_is_the_difference_that_scikit_learn_finds(kind: Kind, score: object) -> None:
    answers = Answers(1, 600)
    ours = effect_of(counted(kind), answers)
    theirs = [score(answers.label[arm], answers.said(arm)) for arm in (0, 1)]  # type: ignore[operator]
    assert ours.champion_mean / ONE == pytest.approx(theirs[0], abs=1e-12)
    assert ours.theta / ONE == pytest.approx(theirs[1] - theirs[0], abs=1e-12)


def test_the_error_of_an_f1_difference_is_that_of_its_multinomial_counts() -> None:
    answers = Answers(2, 3_000)
    variance = 0.0
    for arm in (0, 1):
        said, truth = answers.said(arm), answers.label[arm] == 1
        variance += f1(float((said & truth).sum()), float((said & ~truth).sum()), float((~said & truth).sum()))[1]
    usual = float(f1_score(answers.label[0], answers.said(0)))
    found = effect_of(counted(Kind.F1), answers, usual)
    assert math.sqrt(found.se2) / ONE == pytest.approx(math.sqrt(variance), rel=0.02)
    assert effect_of(counted(Kind.F1), answers, usual - 0.2).se2 > found.se2


@pytest.mark.parametrize("often_said", [0.3, 1.0, 3.0])
def test_the_error_of_a_ratio_is_that_of_the_delta_method_with_unequal_denominators(often_said: float) -> None:
    import pandas as pd
    import tea_tasting as tt

    rng = np.random.default_rng(3)
    rows = []
    for unit in range(4_000):
        arm = bool(rng.random() < 0.5)
        x = int(rng.poisson(2 * (often_said if arm else 1)))
        rows.append(Row(1, 1, unit, arm, x, ONE * int(rng.binomial(x, 0.7))))

    def effect(mean: int) -> Effect:
        plan = plan_for(PRECISION, mean=mean, tau=0.03 * ONE)
        return score_effect(plan, fold_rows(plan, [EpochPlan(1, "weight", ONE // 2, {"m": mean})], rows))

    found, moved = effect(7 * ONE // 10), effect(ONE // 2)
    table = pd.DataFrame({"arm": [int(r.challenger) for r in rows], "x": [r.x for r in rows], "y": [r.y for r in rows]})
    theirs = tt.Experiment(m=tt.RatioOfMeans("y", "x", use_t=False), variant="arm").analyze(table)["m"]
    se = (theirs.effect_size_ci_upper - theirs.effect_size_ci_lower) / (2 * 1.959964)
    assert found.theta == pytest.approx(theirs.effect_size, abs=1e-6 * se)
    # The predictable variance takes the arms to vary alike; it is never smaller than theirs.
    assert se <= 1.01 * math.sqrt(found.se2) < 1.08 * se
    # Where the level has moved since the epoch opened, from .5 to .7, the error is larger, and not by much.
    assert moved.theta == pytest.approx(found.theta, abs=1e-6 * se)
    assert found.se2 < moved.se2 < 2 * found.se2


def precision(said: float, gap: float) -> Units:
    """One answer a unit, of which a share is a yes; precision falls from .75 to .65 in both arms as time goes on."""

    def drawn(rng: np.random.Generator, n: int, challenger: bool, when: float) -> tuple[Column, Column]:
        x = np.ones(int(rng.binomial(n, said if challenger else 0.2)), dtype=np.int64)
        right = 0.75 - 0.1 * when - (gap if challenger else 0.0)
        return x, ONE * rng.binomial(1, right, len(x)).astype(np.int64)

    return drawn


@pytest.mark.parametrize("said", [0.02, 0.1, 0.4])
def test_saying_yes_more_or_less_often_with_the_same_precision_is_no_harm(said: float) -> None:
    plan = plan_for(FROM_ZERO, mean=0.7 * ONE, tau=0.03 * ONE)
    found = often(plan, precision(said, 0.0), 600_000)  # centred on what it never was
    assert found.harm <= allowed()
    assert abs(found.theta) < 6_000


@pytest.mark.parametrize("said", [0.1, 0.4])
def test_a_precision_at_the_margin_is_not_proven_however_often_yes_is_said(said: float) -> None:
    plan = plan_for(PRECISION, mean=0.7 * ONE, tau=0.03 * ONE)
    found = often(plan, precision(said, 0.03), 600_000)
    assert found.proof <= allowed()
    assert found.theta == pytest.approx(-30_000, abs=3_000)  # neither diluted nor inflated


def test_the_tests_of_a_precision_have_power() -> None:
    found = often(plan_for(FROM_ZERO, mean=0.7 * ONE, tau=0.03 * ONE), precision(0.4, 0.06), 700_000, runs=40)
    assert found.harm >= 38
    equal = often(plan_for(PRECISION, mean=0.7 * ONE, tau=0.03 * ONE), precision(0.4, 0.0), 700_000, runs=40)
    assert equal.proof >= 25


def test_units_that_come_back_count_as_units() -> None:
    plan, alone, told = plan_for(PRECISION, mean=0.7 * ONE, tau=0.03 * ONE), [], []
    epochs = [EpochPlan(e, "weight", 100_000 * e, {"m": 700_000}) for e in range(1, 6)]
    for seed in range(60):
        rng = np.random.default_rng(seed)
        place, own = rng.random(150), rng.beta(1.4, 0.6, 150)
        rows = [
            Row(e, 10 * e + k, unit, bool(place[unit] < 0.1 * e), 1, ONE * int(rng.random() < own[unit]))
            for e in range(1, 6)
            for k in range(3)
            for unit in range(150)
        ]
        state = fold_rows(plan, epochs, rows)
        found = score_effect(plan, state)
        told.append(found.theta / math.sqrt(found.se2))
        bare = score_effect(plan, state._replace(clustered=0, clustered_challenger=0))
        alone.append(found.theta / math.sqrt(bare.se2))
    assert np.mean(np.square(told)) < 1.6
    assert np.mean(np.square(alone)) > 2.5  # what rows as units would have claimed


def test_a_challenger_that_never_says_yes_has_no_precision() -> None:
    plan = plan_for(PRECISION, mean=0.7 * ONE, tau=0.03 * ONE)
    found = often(plan, precision(0.0, 0.0), 700_000, runs=3)
    assert (found.harm, found.proof, found.theta) == (0, 0, 0.0)
