"""The whole ramp with one metric bad and the others quiet: how long until it is found, and who meets it until then.

The clock of the rule: a step lasts its hold and until ``minUnits`` and until the gate opens; evidence comes when its
window is over; harm is looked for at every completed block. Nothing is promoted here: what is not found goes on to
``maxDuration``.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controller.core.arrays import FloatArray, as_array
from controller.core.evidence import until_data
from controller.planning.boundary import Simulated, State, Traffic
from controller.planning.steps import DAY, POWER, Allocation, look_ends, until_evidence
from controller.spec import RolloutSpec

_AFTERWARDS = 32


class Course(NamedTuple):
    """One metric over the whole plan, from the first weighted step on.

    ``harm``: how much worse the challenger is. ``found``: the share of rollouts rolled back by this metric before
    ``maxDuration``. ``mean`` and ``worst_5``: challenger units exposed until then (those never rolled back count to
    ``maxDuration``), on average and in the worst twentieth. ``median_days``: of those found. ``proven_days``: after
    which the metric is proven not worse in 80 of 100 rollouts (None: fewer, at ``maxDuration``); ``proven``: the share
    at ``maxDuration``.
    """

    harm: float
    found: float
    mean: float
    worst_5: float
    median_days: float | None
    proven_days: float | None
    proven: float


class _Rows:
    """The rollouts under way: step, time and units in it, what was exposed, what was found."""

    def __init__(self, count: int, gate: bool) -> None:
        self.step = np.zeros(count, dtype=int)
        self.elapsed = np.zeros(count)
        self.units = np.zeros(count)
        self.exposed = np.zeros(count)
        self.found_at = np.full(count, np.inf)
        self.gate = np.full(count, gate)
        self.proof = np.zeros(count)

    def live(self, moment: float, length: float, rate: FloatArray) -> None:
        """One slot of time goes by for everybody who is not rolled back."""
        here = np.isinf(self.found_at)
        self.exposed += here * rate[self.step] * length
        self.units += rate[self.step] * length
        self.elapsed += length

    def move(self, steps: Sequence[Allocation], least: int) -> None:
        """To the next step, who may."""
        hold = as_array([s.hold for s in steps])[self.step]
        go = (self.elapsed >= hold) & (self.units >= least) & self.gate & (self.step < len(steps) - 1)
        self.step[go] += 1
        self.elapsed[go] = 0.0
        self.units[go] = 0.0


def courses(
    spec: RolloutSpec,
    metric: Simulated,
    steps: Sequence[Allocation],
    harms: Sequence[float],
    per_unit: float,
    lead: int,
    runs: int,
    rng: np.random.Generator,
) -> list[Course]:
    """One ``Course`` per harm, ``runs`` rollouts each, all side by side."""
    harm = np.repeat(as_array(harms), runs)
    # A metric that is due and has no baseline yet holds its step.
    waits = lead > 0 and until_data(spec, metric.champion.plan) <= steps[0].hold
    rows, state = _Rows(harm.size, not waits), State()
    service = metric.champion.service
    wait = until_evidence(spec, metric)
    times = clock(spec, steps, metric.champion.plan.block, wait)
    rate = as_array([s.challenger for s in steps])
    history = list[np.ndarray]()
    shown, proven = 0, np.zeros((times.size, harm.size), dtype=bool)
    for k, now in enumerate(times):
        start = times[k - 1] if k else 0.0
        history.append(rows.step.copy())
        rows.live(now, now - start, rate)
        while shown <= k and times[shown] + wait <= now:
            begin = max(times[shown - 1] if shown else 0.0, float(lead))
            length = times[shown] - begin
            if length > 0:
                worth = per_unit if service else 1.0
                traffic = _slot(steps, history[shown], length, worth, metric.champion.plan.block)
                state, said = metric.fold(rng, state, harm, traffic)
                rows.gate, rows.proof = said.gate, said.proof[:, -1]
                hit = (said.harm[:, -1] >= metric.champion.harm_needed) & np.isinf(rows.found_at)
                rows.found_at[hit] = now
            shown += 1
        proven[k] = rows.proof >= metric.champion.proof_needed
        rows.move(steps, spec.decision.min_units)
    return [_course(h, rows, times, proven, slice(i * runs, (i + 1) * runs)) for i, h in enumerate(harms)]


def _slot(steps: Sequence[Allocation], where: np.ndarray, length: float, worth: float, block: int) -> Traffic:
    units = length * worth
    return Traffic(
        as_array([s.champion for s in steps])[where][:, None] * units,
        as_array([s.challenger for s in steps])[where][:, None] * units,
        np.full((1, 1), length / block),
        as_array([s.share for s in steps])[where][:, None],
        np.array([s.epoch for s in steps])[where],
    )


def _course(harm: float, rows: _Rows, times: FloatArray, proven: np.ndarray, mine: slice) -> Course:
    exposed, found_at = rows.exposed[mine], rows.found_at[mine]
    found = np.isfinite(found_at)
    share = proven[:, mine].mean(axis=1)
    below = np.flatnonzero(share < POWER)
    first = int(below[-1]) + 1 if below.size else 0
    return Course(
        harm=float(harm),
        found=float(found.mean()),
        mean=float(exposed.mean()),
        worst_5=float(np.quantile(exposed, 0.95)),
        median_days=float(np.median(found_at[found]) / DAY) if found.any() else None,
        proven_days=float(times[first] / DAY) if first < times.size else None,
        proven=float(share[-1]),
    )


def weighted_time(spec: RolloutSpec) -> int:
    """Microseconds of ``maxDuration`` that are left to the weighted steps."""
    return spec.decision.max_duration - sum(s.hold for s in spec.steps if s.weight is None)


def clock(spec: RolloutSpec, steps: Sequence[Allocation], block: int, wait: int) -> FloatArray:
    """The moments looked at: dense at the beginning of each planned step, and where evidence of those moments comes."""
    ends, start = list[FloatArray](), 0
    for step in steps:
        ends.append(start + look_ends(step.lasts, block))
        start += step.lasts
    horizon = max(weighted_time(spec), block)
    if horizon > start:
        ends.append(np.linspace(start, horizon, _AFTERWARDS + 1)[1:])
    planned = np.concatenate(ends)
    every = np.concatenate([planned, planned + wait, as_array([horizon])])
    return as_array(np.unique(every[every <= horizon]))
