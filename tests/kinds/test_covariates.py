"""Covariates: read once, before anything was answered; exact in both engines; sharper estimates, no false alarms."""

import math
import random
from typing import Any, NamedTuple

import duckdb
import numpy as np
import pytest

from controller.core import plans
from controller.core.adjustments import opening_adjustments
from controller.core.cells import PPM, BaselineSums, Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.covariates import LEAST_UNITS, Moments, adjustment, explained, misread, moments, taken, units_of
from controller.core.fold import EMPTY, Fold, fold
from controller.core.scores import ScoreFold, score_effect
from controller.core.statistics import cuped
from controller.edges.engine import terms
from controller.kinds import Kind
from controller.metric import Metric
from controller.spec import RolloutSpec
from controller.status import Adjustment, Frozen
from tests.decide.rollouts import rollout
from tests.engine.test_counting import counted, said, seen
from tests.engine.worlds import plan as small
from tests.kinds.rollouts import ALPHA, RAMP, allowed

SPENT = {
    "name": "m", "kind": "Mean", "outcome": "buy", "window": "1m", "role": "Guardrail", "margin": "5%",
    "harmMargin": "0%", "cap": 100, "covariate": {"header": "x-spent-before"},
}  # fmt: skip
CAP = 100_000
CLICKED = small(Kind.PROPORTION, covariate="covariate.1")


def covaried(blocks: list[Block]) -> list[Moments]:
    """The moments of the champion."""
    return [b.champion.covaried for b in blocks if isinstance(b.champion, ScoreCell)]


def test_the_number_of_a_units_first_request_counts_and_what_later_ones_carry_does_not() -> None:
    exposures = [
        seen(1, "a", numbers=(3_000_000,)), seen(2, "a", numbers=(9_000_000,)),
        seen(3, "b"), seen(4, "b", numbers=(9_000_000,)),
        seen(5, "c", numbers=(-2_000_000,)), seen(12, "a", epoch=2, numbers=(7_000_000,)),
    ]  # fmt: skip
    first, second = covaried(counted(CLICKED, exposures, [said(6, "click", 1, "a")]))
    both = Moments(2, 1_000_000, 10**12, 1_000_000, 13 * 10**12, 3 * 10**12)
    assert first == both
    assert second == Moments(1, 0, 0, 3_000_000, 9 * 10**12)


def test_a_number_that_came_in_the_mirror_is_the_units_first() -> None:
    exposures = [seen(1, "a", numbers=(3,)), seen(2, "a", mirror=True), seen(11, "a", epoch=2, numbers=(7,))]
    [found] = covaried(counted(CLICKED, exposures, [], kinds="mw"))
    assert found == Moments(1, 0, 0, 3, 9)


def test_the_two_engines_take_the_same_from_every_number() -> None:
    rng, con = random.Random(1), duckdb.connect()
    for _ in range(300):
        by = Adjustment(
            centre=rng.choice([0, rng.randrange(-(10**15), 10**15)]),
            per=rng.choice([1, 2, 3, rng.randrange(1, 10**15)]),
            slope=rng.choice([-1, 1, rng.randrange(-(10**12), 10**12)]),
            most=rng.randrange(1, 10**12),
        )
        c = rng.choice([None, by.centre, by.centre + 1, 10**15, -(10**15), rng.randrange(-(10**6), 10**6)])
        sql = (
            f"SELECT CAST({terms.taken('c')} AS HUGEINT) FROM (SELECT CAST(? AS HUGEINT) AS c, ? AS centre, ? AS per, "
        )
        [(found,)] = con.execute(f"{sql} ? AS slope, ? AS most)", [c, *terms.quantities(by)]).fetchall()
        assert found == taken(by, c)
        assert abs(found) <= by.most
        if c is not None and abs(found) < by.most:
            assert abs(2 * found * by.per - 2 * by.slope * (c - by.centre)) <= by.per


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("12.5", 12_500_000), ("-1e9", -(10**15)), ("0", 0), ("1e-7", 0), ("1.0000001e9", None), ("nan", None),
        ("inf", None), ("-inf", None), ("true", None), ("", None), ("12,5", None), ("1e999", None), (None, None),
    ],
)  # fmt: skip
def test_what_is_no_finite_number_within_a_milliard_is_none(text: str | None, number: int | None) -> None:
    assert units_of(text) == number
    assert misread({"covariate.1": text, "carrier": text}) == (number is None)


def drawn_moments(y: Any, c: Any) -> Moments:
    total = Moments()
    for one, number in zip(y, c, strict=True):
        total = total.plus(moments(int(one), int(number)))
    return total


def test_the_slope_is_that_of_the_reference_case() -> None:
    y, c = [3, 5, 2, 8, 6, 7, 1, 4] * 20, [2, 4, 1, 7, 6, 5, 2, 3] * 20
    by = adjustment([drawn_moments([1000 * v for v in y], [1_000_000 * v for v in c])], 10**9)
    assert by is not None
    theta, _ = cuped(y, c)
    assert by.slope / by.per * 1_000 == pytest.approx(theta, rel=1e-3)
    assert theta == pytest.approx(1.079365079, rel=1e-9)


def test_the_slope_of_groups_with_means_of_their_own_is_that_within_them() -> None:
    rng = np.random.default_rng(3)
    groups, y, c = [], [], []
    for shift in (0, 50_000, -20_000):
        number = rng.normal(shift, 1_000, 400)
        value = 2 * (number - shift) + rng.normal(0, 1_500, 400) - 3 * shift
        groups.append(drawn_moments(np.round(value), np.round(number)))
        y.append(value - value.mean())
        c.append(number - number.mean())
    by = adjustment(groups, 10**9)
    assert by is not None
    theta, left = cuped(np.concatenate(y), np.concatenate(c))
    assert by.slope / by.per == pytest.approx(theta, rel=2e-3)
    assert 1 - explained(groups) == pytest.approx(left / np.var(np.concatenate(y)), rel=2e-3)


@pytest.mark.parametrize(
    "groups",
    [
        [],
        [Moments()],
        [drawn_moments(range(LEAST_UNITS - 1), range(LEAST_UNITS - 1))],
        [drawn_moments(range(500), [7] * 500)],
        [drawn_moments([7] * 500, range(500))],
        [drawn_moments([0] * 500, [0] * 500)],
    ],
)
def test_a_constant_covariate_constant_values_and_too_few_units_adjust_nothing(groups: list[Moments]) -> None:
    assert adjustment(groups, 10**6) is None
    assert 0 <= explained(groups) <= 1


class World(NamedTuple):
    """Units as a rollout meets them: the covariate (None where it is not known), and the value of each."""

    heavy: bool = False
    missing: bool = False
    constant: bool = False
    returning: bool = False
    effect: float = 0.0

    def units(self, rng: np.random.Generator, n: int) -> "tuple[Floats, Floats, Bools]":
        """The covariate, the value to be expected of the unit (plain numbers), and whether the first is known."""
        if self.constant:
            return np.full(n, 3.0), rng.normal(50, 6, n), np.ones(n, dtype=bool)
        tail = np.exp(rng.normal(0, 2, n))
        c = tail if self.heavy else rng.normal(100, 10, n)
        own = np.minimum(20 + 2 * tail, 95) if self.heavy else 50 + 0.6 * (c - 100)
        # Those who spend much are known more often: what is missing need not be missing at random.
        known = rng.random(n) < np.where(own > np.median(own), 0.7, 0.3) if self.missing else np.ones(n, dtype=bool)
        return c, own, known


Floats = np.ndarray[tuple[int], np.dtype[np.float64]]
Integers = np.ndarray[tuple[int], np.dtype[np.int64]]
Bools = np.ndarray[tuple[int], np.dtype[np.bool_]]


def cell(y: Integers, c: Integers, known: Bools, by: Adjustment | None, scores: Floats, old: Floats) -> ScoreCell:
    """The sums of one arm; ``scores`` of its units, after ``old`` ones."""
    g = adjusted(c, known, by)
    z = y - g
    sums = [len(y), len(y), y.sum(), (z.astype(float) ** 2).sum(), z.sum(), len(y), np.count_nonzero(y)]
    clustered = ((old + scores) ** 2 - old**2).sum()
    k, v = c[known].astype(float), y[known].astype(float)
    of_c = Moments(*map(int, [known.sum(), v.sum(), (v * v).sum(), k.sum(), (k * k).sum(), (k * v).sum(), g.sum()]))
    return ScoreCell._make((*map(int, [*sums, clustered]), of_c))


def adjusted(c: Integers, known: Bools, by: Adjustment | None) -> Integers:
    """What is taken from each unit."""
    if by is None:
        return np.zeros(len(c), dtype=np.int64)
    rise = by.slope * (c - by.centre) / by.per
    return np.where(known, np.clip(np.round(rise), -by.most, by.most), 0).astype(np.int64)


class Run(NamedTuple):
    """One rollout at its end."""

    state: ScoreFold
    theta: float
    se: float


def run(world: World, seed: int, plan: MetricPlan, spec: RolloutSpec, looks: int = 6, n: int = 1_000) -> Run:
    """A baseline, then ``looks`` looks of ``n`` units at each weight, adjusted as a rollout would do it."""
    rng = np.random.default_rng(seed)
    state: Fold | None = None
    frozen = Frozen(source="Declared", mean=50_000, tau=plan.tau, cap=CAP)
    c, own, known = world.units(rng, 1_000)
    y = values(rng, own)
    first = drawn_moments(y[known], scaled(c)[known])
    baselines = {"m": BaselineSums(10, 9, 1, len(y), len(y), int(y.sum()), covaried=first)}
    people = [(world.units(rng, n), rng.random(n), np.zeros(n)) for _ in range(looks)]
    block = 0
    for number, weight in enumerate(RAMP, 1):
        now = EMPTY._replace(baselines=baselines, folds={} if state is None else {("m", ""): state})
        means = plans.opening_means(spec, {"m": frozen}, now)
        adjustments = opening_adjustments(spec, {"m": frozen}, now)
        pi = round(PPM * weight / (weight + 1 - RAMP[-1]))
        epoch = EpochPlan(number, "weight", pi, means, adjustments)
        for look in range(looks):
            if not world.returning:
                people[look] = (world.units(rng, n), rng.random(n), np.zeros(n))
            (c, own, known), place, scores = people[look]
            y = values(rng, own) + np.round(1_000 * world.effect * (place < weight)).astype(np.int64)
            z = y - adjusted(scaled(c), known, adjustments.get("m"))
            arms = []
            for chosen, share in ((place >= RAMP[-1], -pi), (place < weight, PPM - pi)):
                gained, old = share * (z[chosen] - means["m"]).astype(float), scores[chosen]
                arms.append(cell(y[chosen], scaled(c)[chosen], known[chosen], adjustments.get("m"), gained, old))
                scores[chosen] += gained
            block += 1
            state = fold(plan, epoch, state, Block("m", "", number, block, arms[0], arms[1]))
            assert isinstance(state, ScoreFold)
    assert isinstance(state, ScoreFold)
    effect = score_effect(plan, state)
    return Run(state, effect.theta, math.sqrt(effect.se2))


def values(rng: np.random.Generator, own: Floats) -> Integers:
    """Values about what is expected of each unit, in integer units, cut at the cap."""
    return np.clip(np.round(1_000 * (own + rng.normal(0, 8, len(own)))), -CAP, CAP).astype(np.int64)


def scaled(c: Floats) -> Integers:
    return np.round(np.clip(c, -1e9, 1e9) * 1e6).astype(np.int64)


def plan_and_spec(**fields: Any) -> tuple[MetricPlan, RolloutSpec]:
    metric = {**SPENT, **fields}
    spec = rollout(metrics=[metric]).spec
    frozen = Frozen(source="Declared", mean=50_000, tau=2_500.0, cap=CAP)
    return plans.metric_plan(spec, Metric.model_validate(metric), frozen), spec


def without() -> tuple[MetricPlan, RolloutSpec]:
    return plan_and_spec(covariate=None)


def test_at_a_correlation_of_six_tenths_the_standard_error_is_eight_tenths() -> None:
    ratios, thetas = [], []
    for seed in range(12):
        sharp, plain = run(World(effect=0.5), seed, *plan_and_spec()), run(World(effect=0.5), seed, *without())
        groups = [a.covaried for e in sharp.state.epochs for a in (e.champion, e.challenger)]
        assert explained(groups) == pytest.approx(0.36, abs=0.03)
        ratios.append(sharp.se / plain.se)
        thetas.append((sharp.theta - 500) / sharp.se)
    assert np.mean(ratios) == pytest.approx(math.sqrt(1 - 0.6**2), abs=0.01)
    assert abs(np.mean(thetas)) < 3 / math.sqrt(12)
    assert np.std(thetas) < 2


@pytest.mark.parametrize(
    "world",
    [
        World(), World(heavy=True), World(missing=True), World(heavy=True, missing=True), World(returning=True),
        World(returning=True, missing=True),
    ],
)  # fmt: skip
def test_equal_arms_raise_no_more_false_alarms_than_the_level_allows(world: World) -> None:
    runs = 100
    plan, spec = plan_and_spec()
    harmed = sum(run(world, seed, plan, spec).state.ever_harm >= -math.log(ALPHA) for seed in range(runs))
    assert harmed <= allowed(runs)


def test_a_covariate_that_half_of_the_units_have_still_helps_and_a_constant_one_changes_nothing() -> None:
    half = run(World(missing=True), 1, *plan_and_spec()).se / run(World(missing=True), 1, *without()).se
    assert 0.85 < half < 0.97
    sharp, plain = run(World(constant=True), 1, *plan_and_spec()), run(World(constant=True), 1, *without())
    assert (sharp.theta, sharp.se) == (plain.theta, plain.se)
