"""Gauges compared by the hour are seldom wrong, however long a high value stays high; minute points would be."""

import math

import numpy as np
import pytest

from controller.core.cells import Block, GaugeCell, MetricPlan
from controller.core.resources import (
    LEAST_BATCHES,
    ResourceFold,
    fold_resource,
    resource_effect,
    resource_harm,
    resource_non_inferior,
)
from controller.core.sequential import log_e_one_sided, log_mean_exp
from controller.kinds import Kind

ALPHA, RUNS, HOURS = 0.01, 400, 48
Grid = np.ndarray[tuple[int, int], np.dtype[np.float64]]
MINUTE = 60_000_000


def plan(margin: float = 1_000.0, harm: float = 0.0) -> MetricPlan:
    return MetricPlan(
        "m", Kind.RESOURCE, "resource", True, 1_000, None, 0, MINUTE, margin, False, harm, False, True, span=MINUTE
    )


def series(rng: np.random.Generator, phi: float, minutes: int, runs: int = RUNS) -> Grid:
    """Autoregressive minute points of variance 1."""
    made = np.empty((runs, minutes))
    made[:, 0] = rng.normal(size=runs)
    for i in range(1, minutes):
        made[:, i] = phi * made[:, i - 1] + math.sqrt(1 - phi * phi) * rng.normal(size=runs)
    return made


def differences(phi: float, shift: float, length: int = 60) -> Grid:
    rng = np.random.default_rng(round(1_000 * phi))
    a, b = (series(rng, phi, HOURS * 60).reshape(RUNS, -1, length).mean(2) for _ in range(2))
    return np.asarray(b + shift - a)


def judged(d: Grid, margin: float = 1.0) -> tuple[Grid, Grid]:
    """Log e of harm beyond 0 and of not worse by ``margin``, after each batch: the formulas of ``resources``."""
    n = np.arange(1, d.shape[1] + 1)
    total, squares = d.cumsum(1), (d * d).cumsum(1)
    theta = total / n

    def about(centre: float) -> Grid:
        return np.asarray(np.maximum(squares - 2 * centre * total + n * centre * centre, 1e-12) / n**2)

    harm = log_mean_exp(np.stack([log_e_one_sided(theta, about(0.0), f * margin) for f in (1, 4, 16)], -1))
    proof = log_e_one_sided(margin - theta, about(margin), margin)
    return np.asarray(harm)[:, LEAST_BATCHES - 1 :], np.asarray(proof)[:, LEAST_BATCHES - 1 :]


def ever(log_e: Grid, alpha: float = ALPHA) -> float:
    return float((log_e >= -math.log(alpha)).any(1).mean())


@pytest.mark.parametrize("phi", [0.5, 0.8, 0.95])
def test_hours_are_seldom_wrong_where_minutes_mostly_are(phi: float) -> None:
    equal = differences(phi, 0.0)
    at_margin = differences(phi, 1.0)
    assert ever(judged(equal)[0]) <= ALPHA + 3 * math.sqrt(ALPHA / RUNS)
    assert ever(judged(at_margin)[1]) <= ALPHA + 3 * math.sqrt(ALPHA / RUNS)
    assert ever(judged(differences(phi, 0.0, 1))[0]) > 5 * ALPHA


def test_a_difference_of_one_standard_deviation_is_found_within_a_day_or_so() -> None:
    harm, _ = judged(differences(0.8, 1.0))
    assert ever(harm) == 1.0
    assert np.median((harm >= -math.log(ALPHA)).argmax(1)) + LEAST_BATCHES <= 24


def test_the_fold_has_these_figures() -> None:
    """Window by window, for a few series; with batches that want for windows, and an epoch that ends one."""
    rng = np.random.default_rng(5)
    a, b = (np.rint(1e6 + 1e3 * series(rng, 0.8, 12 * 60, 1)[0]).astype(int) for _ in range(2))
    state, kept = ResourceFold(), []
    for i in range(12 * 60):
        if 180 <= i < 215:  # more than half of an hour is missing in one arm
            cells = (GaugeCell(4, 4 * int(a[i])), None)
        else:
            cells = (GaugeCell(4, 4 * int(a[i])), GaugeCell(2, 2 * int(b[i])))
        state = fold_resource(plan(), True, state, Block("m", "", 1, i, *cells))
    for hour in range(11):  # the last is still open
        part = slice(60 * hour, 60 * hour + 60)
        if hour != 3:
            kept.append(int(b[part].sum()) // 60 - int(a[part].sum()) // 60)
    assert (state.batches, state.d, state.dd) == (10, sum(kept), sum(d * d for d in kept))
    harm, proof = judged(np.array([kept]) / 1_000.0)
    assert resource_harm(plan(), state) == pytest.approx(harm[0, -1])
    assert resource_non_inferior(state, resource_effect(plan(), state)) == pytest.approx(proof[0, -1])
    assert state.ever_harm == pytest.approx(max(0.0, harm.max()))


def test_a_new_epoch_begins_a_new_hour_and_a_mirror_compares_nothing() -> None:
    state = ResourceFold()
    for i in range(300):
        epoch = 1 + i // 100
        cells = (GaugeCell(1, 10), GaugeCell(1, 30))
        state = fold_resource(plan(), epoch > 1, state, Block("m", "", epoch, i, *cells))
    # Of each weighted epoch of 100 minutes one hour is complete.
    assert (state.batches, state.d) == (2, 40)


def test_too_few_hours_and_hours_without_spread_prove_nothing() -> None:
    state = ResourceFold(batches=LEAST_BATCHES - 1, d=5_000, dd=6_000_000, champion=10)
    assert resource_harm(plan(), state) == 0.0
    still = ResourceFold(batches=20, d=0, dd=0, champion=10)
    assert resource_non_inferior(still, resource_effect(plan(), still)) == 0.0
