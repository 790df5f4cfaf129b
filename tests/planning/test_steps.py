"""Units, days and detectable harm of one step, against formulas that were derived elsewhere."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq
from scipy.stats import norm
from statsmodels.stats.power import normal_sample_size_one_tail

from controller.planning import steps as planned
from controller.planning.champion import Given
from controller.planning.steps import DAY, Need, allocations, detectable, need
from tests.planning.examples import CTR, ERRORS, GMV, LATENCY, LOSS, one

UNITS = 1e6
RUNS = 300


def _need(metric: str, step: int = 0, units: float | None = UNITS, **more: str) -> Need:
    spec, simulated = one(metric, **more)
    return need(spec, simulated, allocations(spec, units)[step], 1.0, RUNS, np.random.default_rng(0))


def _harm(metric: str, step: int = 0, units: float = UNITS, **more: str) -> float:
    spec, simulated = one(metric, **more)
    allocation = allocations(spec, units)[step]
    length = planned.span(spec, simulated, allocation, step == 0, 0)
    found = detectable(simulated, allocation, length, 1.0, RUNS, np.random.SeedSequence(0))
    assert found is not None
    return found


def _variance_factor(step: int) -> float:
    """Of a difference of means, per challenger unit: 1 + n_B/n_A, with half of the units as the control."""
    return 1 + (0.05, 0.25, 0.5)[step] / 0.5


@pytest.mark.parametrize("step", [0, 1, 2])
def test_the_units_of_a_proof_are_those_of_the_boundary_solved_by_hand(step: int) -> None:
    """An equal challenger has z ~ N(margin/se, 1); it is proven where the mixture reaches log 20."""
    tau = margin = 0.0025
    variance = 0.05 * 0.95 * _variance_factor(step)

    def short(n: float) -> float:
        se = math.sqrt(variance / n)
        k = (tau / se) ** 2

        def log_e(z: float) -> float:
            w = z * math.sqrt(k / (1 + k))
            return math.log(2) - math.log(1 + k) / 2 + w * w / 2 + float(norm.logcdf(w)) - math.log(20)

        return float(norm.cdf(margin / se - brentq(log_e, -20, 60))) - 0.8

    exact = brentq(short, 1000, 1e7)
    found = _need(CTR, step).units
    assert found is not None
    assert found == pytest.approx(exact, rel=0.12)
    # One look at a size fixed beforehand, the best that any test can do.
    fixed = normal_sample_size_one_tail(margin, 0.8, 0.05, std_null=math.sqrt(variance))
    assert found > fixed
    assert found < 3 * fixed


@pytest.mark.parametrize("metric", [CTR, LOSS, GMV])
def test_no_harm_is_found_that_one_look_at_the_end_could_not_find(metric: str) -> None:
    spec, simulated = one(metric.replace("margin:", "role: Success, margin:"), Given(nonzero={}))
    step = allocations(spec, UNITS)[1]
    length = planned.span(spec, simulated, step, False, 0)
    found = detectable(simulated, step, length, 1.0, RUNS, np.random.SeedSequence(0))
    se = simulated.champion.spread * math.sqrt(_variance_factor(1) / (step.challenger * length))
    alpha = math.exp(-simulated.champion.harm_needed)
    least = (norm.ppf(1 - alpha) + norm.ppf(0.8)) * se
    assert found is not None
    assert least < found < 2 * least


def test_the_errors_found_agree_with_an_exact_bound_on_their_number() -> None:
    """Ten times as many requests find a smaller harm, and none is below what the Poisson bound allows."""
    harms = [_harm(ERRORS, 0, units) for units in (1e5, 1e6, 1e7)]
    assert harms == sorted(harms, reverse=True)
    for units, harm in zip((1e5, 1e6, 1e7), harms, strict=True):
        se = math.sqrt(0.001 * _variance_factor(0) / (units * 0.05))
        assert harm > norm.ppf(0.8) * se


@pytest.mark.parametrize(
    ("metric", "wider"),
    [
        (CTR, CTR.replace("0.25pp", "0.5pp")),
        (ERRORS, ERRORS.replace("0.05pp", "0.1pp")),
        (LATENCY.replace("10%", "1%"), LATENCY),
        (GMV, GMV.replace("5%", "10%")),
        (LOSS, LOSS.replace("0.01", "0.02")),
    ],
)
def test_a_wider_margin_needs_fewer_units_and_more_traffic_fewer_days(metric: str, wider: str) -> None:
    narrow, wide, slow, fast = _need(metric, 1), _need(wider, 1), _need(metric, 1, 1e5), _need(metric, 1, 1e7)
    assert narrow.units is not None
    assert wide.units is not None
    assert wide.units < 0.6 * narrow.units
    assert slow.days is not None
    assert fast.days is not None
    assert slow.days > 5 * fast.days


@pytest.mark.parametrize("metric", [CTR, GMV, LOSS])
def test_more_traffic_finds_smaller_harm(metric: str) -> None:
    strict = metric.replace("margin:", "harmMargin: 0, margin:")
    assert _harm(strict, 1, 2e7) < 0.5 * _harm(strict, 1, 2e6)
    # With a harm margin, what is found is worse than that margin, whatever the traffic.
    simulated = one(metric)[1]
    assert simulated.margin() < _harm(metric, 1, 2e7) < _harm(metric, 1, 2e6)


def test_the_harm_test_of_rates_finds_no_ratio_below_its_smallest_alternative_however_much_traffic() -> None:
    """Against a rate 1.5 times the champion's, a true ratio below .5/ln 1.5 = 1.23 speaks for equality."""
    for units in (1e7, 1e9, 1e11):
        assert _harm(ERRORS, 1, units) / 0.001 > 0.5 / math.log(1.5) - 1 - 0.01


def test_days_are_units_over_traffic_and_the_wait_for_outcomes() -> None:
    spec, simulated = one(CTR)
    found = _need(CTR, 2)
    assert found.units is not None
    wait = (30 * 60 + 30 + 600) / 86_400
    assert found.days == pytest.approx(found.units / (0.5 * UNITS) + wait, rel=1e-3)
    assert planned.until_evidence(spec, simulated) == (30 * 60 + 30) * 1_000_000


def test_requests_of_one_unit_count_for_service_metrics_only() -> None:
    for metric, factor in ((ERRORS, 4.0), (CTR, 1.0)):
        spec, simulated = one(metric)
        step = allocations(spec, UNITS)[1]
        few, many = (need(spec, simulated, step, r, RUNS, np.random.default_rng(0)).units for r in (1.0, 4.0))
        assert few is not None
        assert many is not None
        assert few / many == pytest.approx(factor, rel=0.1)


def test_the_allocations_are_the_plan_with_its_reserved_control() -> None:
    spec, _ = one(
        CTR,
        steps="[{mirror: 100, hold: 1h}, {weight: 1, hold: 1h}, {weight: 20, hold: 1d}, {weight: 20, hold: 1d}]",
        decision="{minUnits: 5000, maxDuration: 14d}",
    )
    said = allocations(spec, 100_000)
    assert [(s.number, s.epoch) for s in said] == [(2, 0), (3, 1), (4, 1)]
    assert said[0].share == pytest.approx(1 / 81, abs=1e-6)
    assert said[0].champion * DAY == pytest.approx(80_000)
    assert said[0].challenger * DAY == pytest.approx(1000)
    assert said[0].lasts == pytest.approx(5 * DAY)  # 5,000 units at 1,000 a day
    assert said[1].lasts == said[1].hold


def _lead(metric: str, units: float | None, per_unit: float = 1.0, **more: str) -> int:
    name = metric.partition("name: ")[2].partition(",")[0]
    spec, simulated = one(metric, Given(base={name: 0.05}), **more)
    return planned.baseline_lead(spec, simulated, allocations(spec, units), per_unit)


def test_an_undeclared_baseline_takes_the_first_blocks_unless_the_mirror_had_them() -> None:
    bare, block = CTR.replace(", baseline: {mean: 0.05}", ""), 600 * 1_000_000
    assert _lead(bare, None) == 10 * block
    assert _lead(bare, None, steps="[{mirror: 100, hold: 1h}, {weight: 5, hold: 1d}]") == 4 * block
    assert _lead(CTR, None) == 0


def test_a_baseline_takes_as_long_as_the_champions_control_needs_for_its_values() -> None:
    """Half of 24,000 units a day are control: 500 an hour."""
    bare, hour = "{name: latency, kind: Latency, margin: 10%}", 3600 * 1_000_000
    assert _lead(bare, 24_000) == 2 * hour
    assert _lead(bare, 24_000, 4.0) == hour // 2
    assert _lead(bare.replace("10%", "10%, quantile: 0.999"), 24_000) == 20 * hour
    # Half an hour of mirror shows 500 of the 1,000.
    mirrored = "[{mirror: 10, hold: 30m}, {weight: 5, hold: 1d}, {weight: 50, hold: 1d}]"
    assert _lead(bare, 24_000, steps=mirrored) == hour
    # 1,000 values take 2 h; three units in a hundred buy, and 30 that do are 1,000 as well.
    bought = GMV.replace("cap: '500', baseline: {mean: 2}", "cap: p99.9")
    assert _lead(bought, 24_000) == 2 * hour
    assert _lead(bought.replace("p99.9", "p90"), 24_000) == 2 * hour
    assert _lead(bought.replace("p99.9", "'500'"), 24_000) == 10 * 600 * 1_000_000
