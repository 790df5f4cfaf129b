"""The forecast of a plan: every judging metric, step by step and over the whole ramp."""

import zlib
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from controller.errors import SpecError
from controller.planning import cautions
from controller.planning.boundary import Simulated
from controller.planning.cautions import Caution
from controller.planning.champion import Champion, Given, champions, judging
from controller.planning.laws import simulated
from controller.planning.ramp import Course, courses, weighted_time
from controller.planning.steps import (
    DAY,
    Allocation,
    Need,
    allocations,
    baseline_lead,
    detectable,
    mirror_steps,
    need,
    span,
)
from controller.spec import RolloutSpec

Progress = Callable[[int, int, str], None]


class StepForecast(NamedTuple):
    """One metric in one step: what a proof needs, and the smallest harm found before it can end (None: none is)."""

    at: Allocation
    proof: Need
    detectable: float | None


class MetricForecast(NamedTuple):
    """``lead``: µs of the weighted steps that go into the baseline. ``equal``, ``two_margins``, ``gross``: the whole
    ramp with such a challenger; None without known traffic, and for what is only seen in a mirror, whose steps are
    those."""

    champion: Champion
    margin: float
    lead: int
    steps: tuple[StepForecast, ...]
    equal: Course | None
    two_margins: Course | None
    gross: Course | None


class Forecast(NamedTuple):
    """``most_exposed``: challenger units by ``maxDuration`` if nothing is ever found and every step is as short as it
    may be. ``days``: the steps, or the slowest proof of an equal challenger if that is later; None where some metric
    is not proven or not known."""

    units_per_day: float | None
    requests_per_unit: float
    runs: int
    seed: int
    steps: tuple[Allocation, ...]
    metrics: tuple[MetricForecast, ...]
    most_exposed: float | None
    days: float | None
    cautions: tuple[Caution, ...]


def forecast(
    spec: RolloutSpec,
    given: Given,
    units_per_day: float | None = None,
    requests_per_unit: float = 1.0,
    runs: int = 300,
    seed: int = 0,
    progress: Progress = lambda done, total, what: None,
) -> Forecast:
    """Simulate the boundary of every judging metric. SpecError names options that cannot be, and missing bases.

    ``units_per_day``: units that enter a day, each counted once a step. Seeded: the same arguments, the same forecast.
    """
    _check(units_per_day, requests_per_unit, runs)
    known, missing = champions(spec, given)
    steps, shadows = allocations(spec, units_per_day), mirror_steps(spec, units_per_day, requests_per_unit)
    said = list(cautions.of_plan(spec, steps, missing, units_per_day is not None))
    total, found = len(known) * (len(steps) + 1), list[MetricForecast]()
    for i, champion in enumerate(known):

        def report(k: int, i: int = i, name: str = champion.metric.name) -> None:
            what = f"{name}: step {steps[k].number}" if k < len(steps) else f"{name}: the whole ramp"
            progress(i * (len(steps) + 1) + k, total, what)

        metric = simulated(champion)
        said += cautions.of_champion(champion)
        if champion.plan.family == "pair":
            found.append(_mirrored(spec, metric, shadows, runs, seed, report))
            continue
        one = _metric(spec, metric, steps, requests_per_unit, runs, seed, report)
        found.append(one)
        said += cautions.of_metric(spec, metric, steps, one.lead, requests_per_unit, units_per_day is not None)
        if one.equal is not None:
            said += cautions.of_course(spec, metric, one.equal)
    progress(total, total, "done")
    return Forecast(
        units_per_day,
        requests_per_unit,
        runs,
        seed,
        tuple(steps),
        tuple(found),
        _most_exposed(spec, steps) if units_per_day else None,
        _days(spec, steps, found, missing=len(known) < sum(m.compared for m in judging(spec))),
        tuple(said),
    )


def _check(units_per_day: float | None, requests_per_unit: float, runs: int) -> None:
    if units_per_day is not None and not 0 < units_per_day <= 1e12:
        raise SpecError(f"--units-per-day: allowed is a number above 0 and up to 1e12, got {units_per_day:g}")
    if not 0 < requests_per_unit <= 1e6:
        raise SpecError(f"--requests-per-unit: allowed is a number above 0 and up to 1e6, got {requests_per_unit:g}")
    if not 20 <= runs <= 10_000:
        raise SpecError(f"--runs: allowed is 20 to 10000, got {runs}")


def _metric(
    spec: RolloutSpec,
    metric: Simulated,
    steps: list[Allocation],
    per_unit: float,
    runs: int,
    seed: int,
    report: Callable[[int], None],
) -> MetricForecast:
    lead = baseline_lead(spec, metric, steps, per_unit)
    seeds = _seeds(metric, seed, steps)
    rows = _steps(spec, metric, steps, lead, per_unit, runs, seeds, report)
    report(len(steps))
    if not steps[0].challenger:
        return MetricForecast(metric.champion, metric.margin(), lead, rows, None, None, None)
    harms = [0.0, min(2 * metric.margin(), metric.worst()), metric.gross()]
    three = courses(spec, metric, steps, harms, per_unit, lead, runs, np.random.default_rng(seeds[-1]))
    return MetricForecast(metric.champion, metric.margin(), lead, rows, *three)


def _mirrored(
    spec: RolloutSpec, metric: Simulated, shadows: list[Allocation], runs: int, seed: int, report: Callable[[int], None]
) -> MetricForecast:
    """What the mirror steps show of answers that differ; their units are requests."""
    report(0)
    rows = _steps(spec, metric, shadows, 0, 1.0, runs, _seeds(metric, seed, shadows), lambda k: None)
    return MetricForecast(metric.champion, metric.margin(), 0, rows, None, None, None)


def _seeds(metric: Simulated, seed: int, steps: list[Allocation]) -> list[np.random.SeedSequence]:
    root = np.random.SeedSequence([seed, zlib.crc32(metric.champion.metric.name.encode())])
    return root.spawn(2 * len(steps) + 1)


def _steps(
    spec: RolloutSpec,
    metric: Simulated,
    steps: list[Allocation],
    lead: int,
    per_unit: float,
    runs: int,
    seeds: list[np.random.SeedSequence],
    report: Callable[[int], None],
) -> tuple[StepForecast, ...]:
    rows = []
    for k, step in enumerate(steps):
        report(k)
        proof = need(spec, metric, step, per_unit, runs, np.random.default_rng(seeds[2 * k]))
        length = span(spec, metric, step, k == 0, lead)
        least = detectable(metric, step, length, per_unit, runs, seeds[2 * k + 1])
        rows.append(StepForecast(step, proof, least))
    return tuple(rows)


def _most_exposed(spec: RolloutSpec, steps: list[Allocation]) -> float:
    left, units = float(max(0, weighted_time(spec))), 0.0
    for k, step in enumerate(steps):
        last = k == len(steps) - 1
        spent = left if last else min(left, step.lasts)
        units += spent * step.challenger
        left -= spent
    return units


def _days(spec: RolloutSpec, steps: list[Allocation], found: list[MetricForecast], missing: bool) -> float | None:
    weighted = [m for m in found if m.champion.plan.family != "pair"]
    if missing or not weighted or any(m.equal is None or m.equal.proven_days is None for m in weighted):
        return None
    shadows = sum(s.hold for s in spec.steps if s.weight is None) / DAY
    weights = max(m.equal.proven_days for m in weighted if m.equal and m.equal.proven_days is not None)
    return max(shadows + sum(s.lasts for s in steps) / DAY, shadows + weights, spec.decision.min_age / DAY)
