"""Units that come back block after block and have habits: some always fail, some are always slow, whatever serves them.

The trap of a unit that counts in every block: one that fails in all of them is one unit and not a hundred failures.
The ramp is part of it: the units that meet the challenger at a later step have been served by the champion so far.

As a program: how often a challenger is proven not worse that breaks as many more units as the margin, and equal ones.
"""

import math
import sys
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from controller.core import plans
from controller.core.cells import PPM, Block, CountCell, EpochPlan, LatencyCell, MetricPlan
from controller.core.counts import EDGE_QUANTILES, CountFold, count_tests
from controller.core.fold import fold
from controller.core.plans import GAMMA, bucket_of
from controller.core.sequential import log_mean_exp
from controller.metric import Metric
from controller.status import Frozen
from router.assignment import challenger_share_ppm
from tests.error_rates.world import SPEC

UNITS = 10_000
BLOCKS = 120
RAMP = (1, 5, 25, 50)
ALWAYS = 0.005  # share of the units that fail, or are slow, every time
ALPHA = 0.01
VISITS = 0.25  # of all units, on average, in a block
RATE, TYPICAL_US, SIGMA, SLOWER = 0.0005, 20_000, 0.6, 20

Mask = npt.NDArray[np.bool_]
Levels = npt.NDArray[np.int64]


def errors() -> MetricPlan:
    """An error rate whose baseline has seen the units that always fail."""
    metric = Metric.model_validate({"name": "errors", "kind": "ErrorRate", "margin": "0.05pp"})
    return plans.metric_plan(SPEC, metric, Frozen(source="Declared", p_hist=ALWAYS + RATE))


def latency() -> MetricPlan:
    """A latency with edges at the quantiles of everybody else."""
    metric = Metric.model_validate({"name": "latency", "kind": "Latency", "margin": "10%", "harmMargin": 0})
    usual = (TYPICAL_US * math.exp(SIGMA * z) for z in (0.0, 1.2816, 1.6449, 2.3263, 3.0902))
    edges = tuple(bucket_of(x) for x in usual)
    judged = plans.judged(metric, edges[EDGE_QUANTILES.index(0.99)])
    return plans.metric_plan(SPEC, metric, Frozen(source="Declared", edges=edges, judged=judged))


class Crowd:
    """The same units in every block; each has its place, its habits, and how often it comes.

    ``last``: the units of the last block drawn, and the level of each.
    """

    def __init__(self, plan: MetricPlan, seed: int, units: int = UNITS) -> None:
        self.plan = plan
        self.rng = np.random.default_rng(seed)
        self.place = self.rng.random(units) * 100
        self.always: Mask = self.rng.random(units) < ALWAYS
        self.frail = np.random.default_rng([seed, 1]).random(units)
        self._visits = self.rng.beta(2 * VISITS, 2 - 2 * VISITS, units)
        self._reached = np.full(units, -1)
        self._failed = np.zeros(units, dtype=np.int64)  # in ppm, each time with A − π
        self._last: tuple[Levels, Levels] = (self._reached[:0], self._reached[:0])

    @property
    def last(self) -> dict[int, int]:
        return dict(zip(*(x.tolist() for x in self._last), strict=True))

    def block(
        self, number: int, epoch: int, weight: float, control: float, worse: float = RATE, broken: float = 0.0
    ) -> Block:
        """Who comes, and the cells of it; what they met is kept for the next, also of those between the arms.

        ``worse``: the challenger's rate of failures; ``broken``: the share of units that it fails every time.
        """
        here = np.flatnonzero(self.rng.random(len(self.place)) < self._visits)
        place, before = self.place[here], self._reached[here]
        levels = self._levels(here, place < weight, worse, broken)
        arms, pi = (place >= control, place < weight), challenger_share_ppm(round(weight * 100), round(control * 100))
        cells = [_cell(self.plan, levels[arm], before[arm]) for arm in arms]
        if self.plan.family == "failures":
            sides = (-pi, PPM - pi)
            cells = [self._again(c, here[a & (levels > 0)], s) for c, a, s in zip(cells, arms, sides, strict=True)]
        self._last = here, levels
        self._reached[here] = np.maximum(before, levels)
        return Block(self.plan.name, "", epoch, number, *cells)

    def _again(self, cell: CountCell | LatencyCell | None, failing: Levels, side: int) -> CountCell | None:
        if not isinstance(cell, CountCell):
            return None
        old = self._failed[failing]
        self._failed[failing] += side
        return cell._replace(failing=len(failing), clustered=int(((old + side) ** 2 - old**2).sum()))

    def _levels(self, here: Levels, challenger: Mask, worse: float, broken: float) -> Levels:
        always = self.always[here] | (challenger & (self.frail[here] < broken))
        if self.plan.family == "failures":
            fails = self.rng.random(len(here)) < np.where(challenger, worse, RATE)
            return (always | fails).astype(np.int64)
        log_us = math.log(TYPICAL_US) + self.rng.normal(0, SIGMA, len(here)) + math.log(SLOWER) * always
        return np.ceil(log_us / math.log(GAMMA)).astype(np.int64)


def _cell(plan: MetricPlan, levels: Levels, before: Levels) -> CountCell | LatencyCell | None:
    if not len(levels):
        return None
    if plan.family == "failures":
        fresh = levels[before < 1]
        return CountCell(len(fresh), int(fresh.sum()), len(levels))
    again = before >= 0
    return LatencyCell(
        len(levels), *(_histogram(x) for x in (levels, before[again], np.minimum(levels, before)[again]))
    )


def _histogram(levels: Levels) -> tuple[tuple[int, int], ...]:
    buckets, units = np.unique(levels, return_counts=True)
    return tuple(zip(buckets.tolist(), units.tolist(), strict=True))


def states(crowd: Crowd, ramp: tuple[int, ...] = RAMP, worse: float = RATE, broken: float = 0.0) -> Iterator[CountFold]:
    """The fold after each block of a ramp with equal holds."""
    state: CountFold | None = None
    for number in range(BLOCKS):
        step = number * len(ramp) // BLOCKS
        weight, control = ramp[step], ramp[-1]
        epoch = EpochPlan(step + 1, "weight", challenger_share_ppm(weight * 100, control * 100), {})
        block = crowd.block(number, epoch.number, weight, control, worse, broken)
        folded = fold(crowd.plan, epoch, state, block)
        assert isinstance(folded, CountFold)
        state = folded
        yield state


def false_alarm(plan: MetricPlan, seed: int, ramp: tuple[int, ...] = RAMP) -> bool:
    """Whether equal arms ever show harm."""
    return any(state.ever_harm >= -math.log(ALPHA) for state in states(Crowd(plan, seed), ramp))


def proofs(units: int, always: float, broken: float, runs: int) -> tuple[int, int]:
    """Of so many rollouts at an even split: how many proven not worse, and how many so by first failures alone."""
    plan, found, diluted = errors(), 0, 0
    for seed in range(runs):
        crowd = Crowd(plan, seed, units)
        crowd.always[:] = crowd.frail > 1 - always
        promoted = passed = False
        for state in states(crowd, (50,), broken=broken):
            passed = passed or log_mean_exp(state.bets) >= math.log(20)
            promoted = promoted or (passed and count_tests(plan, state).non_inferior >= math.log(20))
        found, diluted = found + promoted, diluted + passed
    return found, diluted


def main() -> None:
    """Print the table of docs/guarantees.md."""
    runs = int(sys.argv[1])
    for always in (0.0, 0.002, ALWAYS):
        for units in (6_000, 12_000, 24_000, 60_000):
            for broken in (errors().margin, 0.0):
                found, diluted = proofs(units, always, broken, runs)
                what = f"{100 * always:.1f} % always fail, {units} units, {broken * units / 2:g} broken"
                print(f"{what}: proven {found} of {runs}, by first failures {diluted}", flush=True)


if __name__ == "__main__":
    main()
