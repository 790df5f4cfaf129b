"""A rollout on drawn cells: the real fold and ``evolve``, with counts from a seeded generator in place of an engine.

One look is one minute, one block and 20,000 units of total traffic, each of them new. Everything moves: a trend of
20 % over the rollout and a daily cycle (30 looks) of 10 %.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from controller.core import plans
from controller.core.cells import (
    PPM,
    BaselineSums,
    Block,
    EpochCounts,
    EpochPlan,
    Losses,
    MetricPlan,
    ScoreCell,
)
from controller.core.evolve import Transition, evolve
from controller.core.fold import EMPTY, Fold, Statistics, fold
from controller.spec import RolloutSpec
from controller.specfile import parse
from controller.status import Observed, Progress, Reason, RolloutStatus
from tests.evidence.drawn import once

MINUTE = 60_000_000
FIRST_BLOCK = 1000
UNITS_A_LOOK = 20_000
LOOKS = 120
BASE = {"ctr": 0.05, "cvr": 0.03, "errors": 0.001, "slow": 0.01}

PLAN = """
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: drawn}
spec:
  model: {name: drawn}
  unit: {header: x-unit-id}
  steps: [{weight: 1, hold: 10m}, {weight: 5, hold: 10m}, {weight: 25, hold: 10m}, {weight: 50, hold: 10m}]
  metrics:
    - {name: ctr, kind: Proportion, outcome: click, window: 1s, margin: 5%, role: Success}
    - {name: cvr, kind: Proportion, outcome: buy, window: 1s, margin: 7%}
    - {name: errors, kind: ErrorRate, margin: 0.05pp}
    - {name: slow, kind: ErrorRate, margin: 0.25pp}
  decision: {tick: 60s, block: 60s, minUnits: 1000, maxDuration: 2h, grace: 0s, mismatchFor: 10m}
"""
SPEC: RolloutSpec = parse(PLAN).spec


class Truth(NamedTuple):
    """What is true of the challenger: its rates as multiples of the champion's, and the share of its units lost."""

    name: str
    ratios: Mapping[str, float] = {}
    lost: float = 0.0


class Look(NamedTuple):
    """What one look drew, for the rules that are compared: units, and events by metric, of both arms."""

    champion: int
    challenger: int
    events: Mapping[str, tuple[int, int]]


class Ending(NamedTuple):
    """How a rollout ended. ``shown``: the first look at which the mismatch stood; ``advanced``: a step after it."""

    progress: Progress
    reason: Reason
    metric: str | None
    looks: int
    challenger_units: int
    shown: int | None
    advanced: bool
    drawn: tuple[Look, ...]

    @property
    def promoted(self) -> bool:
        return self.progress is Progress.PROMOTING

    @property
    def rolled_back(self) -> bool:
        return self.progress is Progress.ROLLING_BACK


def trend(look: int) -> float:
    """The factor on every rate at a look."""
    return 1 + 0.2 * look / LOOKS + 0.1 * math.sin(2 * math.pi * look / 30)


class Drawn:
    """The statistics of one rollout, filled look by look."""

    def __init__(self, spec: RolloutSpec, seed: int, truth: Truth) -> None:
        self.spec, self.truth = spec, truth
        self.rng = np.random.default_rng(seed)
        self.folds: dict[tuple[str, str], Fold] = {}
        self.baselines: dict[str, BaselineSums] = {}
        self.counts: dict[int, EpochCounts] = {}

    def look(self, status: RolloutStatus, number: int) -> Look:
        """Draw one look's traffic under the allocation in force and fold it."""
        epoch = status.current_epoch
        assert epoch is not None
        weight, control = epoch.weight_bp / 10_000, 1 - epoch.control_from_bp / 10_000
        b = int(self.rng.binomial(UNITS_A_LOOK, weight))
        a = int(self.rng.binomial(UNITS_A_LOOK - b, control / (1 - weight)))
        b -= int(self.rng.binomial(b, self.truth.lost))
        asked = plans.query("drawn", self.spec, status)
        plan_of_epoch = next(e for e in asked.epochs if e.number == epoch.number)
        events = {}
        for plan in asked.metrics:
            rate = BASE[plan.name] * trend(number)
            hit_a = int(self.rng.binomial(a, rate))
            hit_b = int(self.rng.binomial(b, min(1.0, rate * self.truth.ratios.get(plan.name, 1.0))))
            events[plan.name] = (hit_a, hit_b)
            self._fold(plan, plan_of_epoch, FIRST_BLOCK + number, (a, hit_a), (b, hit_b))
        old = self.counts.get(epoch.number, EpochCounts(epoch.number))
        self.counts[epoch.number] = EpochCounts(
            epoch.number, old.champion_units + a, old.challenger_units + b, old.champion_requests + a,
            old.challenger_requests + b, 0, old.first_champion + a, old.first_challenger + b,
        )  # fmt: skip
        return Look(a, b, events)

    def _fold(self, plan: MetricPlan, epoch: EpochPlan, block: int, a: tuple[int, int], b: tuple[int, int]) -> None:
        if not plan.frozen:
            old = self.baselines.get(plan.name, BaselineSums())
            y = a[1] * plan.scale
            self.baselines[plan.name] = BaselineSums(
                old.blocks + 1, block, epoch.number, old.units + a[0], old.x + a[0], old.y + y, old.nonzero + a[1]
            )
            return
        if plan.family == "failures":
            cells = Block(plan.name, "", epoch.number, block, *once(epoch.pi_ppm, a, b))
        else:
            mean = epoch.means[plan.name]
            cells = Block(
                plan.name, "", epoch.number, block,
                hits(plan, mean, -epoch.pi_ppm, *a), hits(plan, mean, PPM - epoch.pi_ppm, *b),
            )  # fmt: skip
        key = (plan.name, "")
        self.folds[key] = fold(plan, epoch, self.folds.get(key), cells)

    def statistics(self, now: int) -> Statistics:
        """All that is known now."""
        return Statistics(self.folds, {}, self.baselines, self.counts, Losses(received=1_000_000), now)


def hits(plan: MetricPlan, mean: int, share: int, n: int, k: int) -> ScoreCell:
    """``n`` units seen once, ``k`` of them with the outcome; ``share`` is A − π in ppm."""
    y = plan.scale
    clustered = k * (share * (y - mean)) ** 2 + (n - k) * (share * mean) ** 2
    return ScoreCell(n, n, k * y, k * y * y, k * y, n, k, clustered)


def begin(spec: RolloutSpec) -> tuple[RolloutStatus, int]:
    """A rollout in its first step, in a world in which everything is there, and the time."""
    observed = Observed(
        champion_alias="1", challenger_alias="2", champion_upstreams=("a:1",), challenger_upstreams=("b:1",),
        challenger_ready=True, champion_ready=True, confirmed=10**9,
    )  # fmt: skip
    now = FIRST_BLOCK * MINUTE
    return evolve(spec, RolloutStatus(uid="u", rollout="drawn", observed=observed), EMPTY, now).status, now


def play(seed: int, truth: Truth, spec: RolloutSpec = SPEC) -> Ending:
    """One rollout, to its decision or the last look."""
    drawn = Drawn(spec, seed, truth)
    status, now = begin(spec)
    looks: list[Look] = []
    shown: int | None = None
    advanced = False
    for number in range(LOOKS + 1):
        looks.append(drawn.look(status, number))
        now += MINUTE
        before = status
        moved: Transition = evolve(spec, status, drawn.statistics(now), now)
        status = moved.status
        if shown is None and status.mismatch_since is not None:
            shown = number
        advanced = advanced or (shown is not None and status.step > before.step)
        if status.progress is not Progress.RUNNING:
            break
    units = sum(look.challenger for look in looks)
    return Ending(status.progress, status.reason, status.metric, len(looks), units, shown, advanced, tuple(looks))
