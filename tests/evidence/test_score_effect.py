"""θ, its variance and the log e-values against a derivation from the single units, in doubles, by other formulae."""

import math

import numpy as np
import pytest
from scipy.stats import norm
from statsmodels.stats.weightstats import DescrStatsW

from controller.core.cells import PPM, EpochPlan
from controller.core.scores import TAU_FACTORS, Effect, ScoreFold, log_e_harm, score_effect, score_tests
from tests.evidence.drawn import CTR, Draw, Row, fold_rows, plan_for


def derived(draw: Draw) -> tuple[float, float, float]:
    """θ, se² and the champion's mean from the units' rows: scores as doubles, clustered over the whole rollout."""
    pi = {e.number: e.pi_ppm / PPM for e in draw.epochs}
    mean = {e.number: e.means[draw.plan.name] for e in draw.epochs}
    per_unit: dict[int, float] = {}
    s = h = empirical = predictable = reference = 0.0
    by_epoch = {e.number: [0.0, 0.0, 0.0] for e in draw.epochs}  # champion's x and y, everybody's x
    for r in draw.rows:
        p, centred = pi[r.epoch], r.y - mean[r.epoch] * r.x
        score = (r.challenger - p) * centred
        per_unit[r.unit] = per_unit.get(r.unit, 0.0) + score
        s, h = s + score, h + p * (1 - p) * r.x
        empirical += score**2
        predictable += p * (1 - p) * centred**2
        sums = by_epoch[r.epoch]
        sums[2] += r.x
        if not r.challenger:
            sums[0], sums[1] = sums[0] + r.x, sums[1] + r.y
    for number, (x_a, y_a, x) in by_epoch.items():
        reference += pi[number] * (1 - pi[number]) * x * y_a / x_a
    variance = max(sum(v**2 for v in per_unit.values()), empirical, predictable)
    return s / h, variance / h**2, reference / h


@pytest.mark.parametrize(("seed", "pi", "epochs"), [(1, 0.5, 1), (2, 0.05, 1), (3, 0.2, 3), (4, 0.3, 5)])
def test_the_folded_effect_is_that_of_the_single_units(seed: int, pi: float, epochs: int) -> None:
    draw = Draw(seed, pi, epochs, 300, effect=-3000)
    found = score_effect(draw.plan, draw.folded())
    theta, se2, mean = derived(draw)
    assert found.theta == pytest.approx(theta, rel=1e-9)
    assert found.se2 == pytest.approx(se2, rel=1e-9)
    assert found.champion_mean == pytest.approx(mean, rel=1e-6)
    assert found.margin == pytest.approx(0.05 * mean, rel=1e-6)


def test_units_that_return_are_clustered_over_all_epochs() -> None:
    draw = Draw(5, 0.4, 6, 200)
    state = draw.folded()
    clustered: dict[int, int] = {}
    squared = 0
    for r in draw.rows:
        epoch = draw.epochs[r.epoch - 1]
        score = ((PPM if r.challenger else 0) - epoch.pi_ppm) * (r.y - epoch.means["ctr"])
        clustered[r.unit] = clustered.get(r.unit, 0) + score
        squared += score**2
    assert state.clustered == sum(v**2 for v in clustered.values())
    assert state.clustered > 2 * squared  # what independent values would have had


def test_one_epoch_at_one_half_is_the_difference_of_means_with_its_usual_variance() -> None:
    draw = Draw(6, 0.5, 1, 4000)
    a = np.array([r.y for r in draw.rows if not r.challenger], dtype=float)
    b = np.array([r.y for r in draw.rows if r.challenger], dtype=float)
    found = score_effect(draw.plan, draw.folded())
    usual = DescrStatsW(b).get_compare(DescrStatsW(a))
    assert found.theta == pytest.approx(usual.d1.mean - usual.d2.mean, abs=0.1 * usual.std_meandiff_separatevar)
    assert math.sqrt(found.se2) == pytest.approx(usual.std_meandiff_separatevar, rel=0.03)


def test_a_ratio_per_request_has_the_variance_of_the_delta_method() -> None:
    from tea_tasting.metrics import RatioOfMeans

    rng = np.random.default_rng(7)
    plan = plan_for({**CTR, "kind": "Accuracy", "role": "Guardrail"}, mean=800_000, tau=16_000.0)
    rows = []
    for unit in range(3000):
        x = int(rng.integers(1, 9))
        rows.append(Row(1, 1, unit, bool(rng.random() < 0.5), x, 1_000_000 * int(rng.binomial(x, 0.8))))
    found = score_effect(plan, fold_rows(plan, [EpochPlan(1, "weight", 500_000, {"ctr": 800_000})], rows))
    import pandas as pd

    table = pd.DataFrame({"arm": [int(r.challenger) for r in rows], "x": [r.x for r in rows], "y": [r.y for r in rows]})
    import tea_tasting as tt

    result = tt.Experiment(m=RatioOfMeans("y", "x", use_t=False), variant="arm").analyze(table)["m"]
    theirs = result.effect_size
    se = (result.effect_size_ci_upper - result.effect_size_ci_lower) / (2 * norm.ppf(0.975))
    assert found.theta == pytest.approx(theirs, abs=0.15 * se)
    assert math.sqrt(found.se2) == pytest.approx(se, rel=0.03)


def test_a_trend_with_a_changing_share_does_not_bias_the_effect_of_equal_arms() -> None:
    thetas = []
    for seed in range(25):
        draw = Draw(100 + seed, 0.05, 5, 400)
        found = score_effect(draw.plan, draw.folded())
        thetas.append(found.theta / math.sqrt(found.se2))
    assert abs(np.mean(thetas)) < 4 / math.sqrt(25)
    pooled = []
    for seed in range(25):
        rows = Draw(100 + seed, 0.05, 5, 400).rows
        pooled.append(np.mean([r.y for r in rows if r.challenger]) - np.mean([r.y for r in rows if not r.challenger]))
    assert np.mean(pooled) > 1000  # what adding over epochs would have claimed of them


def log_e(z: float, ratio: float) -> float:
    """Log of the mean of exp(w z r − (w r)²/2) over w ~ |N(0, 1)|: the one-sided mixture, integrated."""
    w = np.linspace(0, 12, 200_001)
    values = np.exp(w * ratio * z - (w * ratio) ** 2 / 2) * 2 * norm.pdf(w)
    return math.log(np.trapezoid(values, w))


def test_the_tests_are_mixtures_over_the_effect_at_the_margin_and_harm_also_at_four_and_sixteen_times() -> None:
    draw = Draw(8, 0.4, 2, 1500, effect=-2000)
    state, plan = draw.folded(), draw.plan
    tests = score_tests(plan, state)
    theta, se2, mean = derived(draw)
    se, margin = math.sqrt(se2), 0.05 * mean
    assert tests.non_inferior == pytest.approx(log_e((theta + margin) / se, plan.tau / se), abs=1e-6)
    assert tests.superior == pytest.approx(log_e(theta / se, plan.tau / se), abs=1e-6)
    harms = [math.exp(log_e(-theta / se, f * plan.tau / se)) for f in TAU_FACTORS]
    assert tests.harm == pytest.approx(math.log(np.mean(harms)), abs=1e-6)


def test_harm_is_beyond_the_harm_margin_and_the_good_direction_is_the_metrics() -> None:
    effect = Effect(theta=3000.0, se2=1e6, champion_mean=50_000, margin=2500, harm_margin=2500, guarded=True)
    rising = plan_for(CTR, tau=2500.0)
    falling = plan_for({**CTR, "goal": "Decrease"}, tau=2500.0)
    assert log_e_harm(rising, effect) < 0
    assert log_e_harm(falling, effect) == pytest.approx(
        math.log(np.mean([math.exp(log_e(0.5, f * 2.5)) for f in TAU_FACTORS])), abs=1e-6
    )


def test_epochs_are_never_added_but_weighted() -> None:
    plan = plan_for(CTR, mean=50_000, tau=2500.0)
    epochs = [EpochPlan(1, "weight", 10_000, {"ctr": 0}), EpochPlan(2, "weight", 500_000, {"ctr": 0})]
    rows = [Row(1, 1, u, u < 10, 1, 100) for u in range(1000)]
    rows += [Row(2, 2, 2000 + u, u < 500, 1, 200 - 40 * (u < 500)) for u in range(1000)]
    state = fold_rows(plan, epochs, rows)
    assert isinstance(state, ScoreFold)
    weights = [0.01 * 0.99 * 1000, 0.5 * 0.5 * 1000]
    assert score_effect(plan, state).theta == pytest.approx((weights[0] * 0 + weights[1] * -40) / sum(weights))
