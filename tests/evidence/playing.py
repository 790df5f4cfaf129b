"""A whole rollout on values that a test chooses: ``evolve`` at every look, with the cells an engine would count."""

from collections.abc import Callable, Mapping
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
from controller.core.evidence import Evidence
from controller.core.evolve import Transition, evolve
from controller.core.fold import EMPTY, Fold, Statistics, fold
from controller.core.plans import bucket_of
from controller.spec import RolloutSpec
from controller.status import Progress, RolloutStatus
from tests.decide.rollouts import fresh
from tests.evidence.drawn import once

MINUTE = 60_000_000
FIRST = 1000

# The values of n units of an arm in one look, in integer units (failures: 1 where one failed).
Values = Callable[[np.random.Generator, int, bool], "np.ndarray[tuple[int], np.dtype[np.int64]]"]
Units = Callable[[int, int], tuple[int, int]]  # champion and challenger units of a look that are due → that came


class Played(NamedTuple):
    """Every transition of a rollout, up to its decision or the last look."""

    moves: list[Transition]

    @property
    def status(self) -> RolloutStatus:
        return self.moves[-1].status

    @property
    def evidence(self) -> list[Evidence]:
        return [e for move in self.moves for e in move.evidence]

    @property
    def ended(self) -> tuple[Progress, str, str | None]:
        """Where it stands, why, and by which metric."""
        return self.status.progress, self.status.reason.value, self.status.metric


def play(
    spec: RolloutSpec,
    values: Mapping[str, Values],
    looks: int = 60,
    traffic: int = 20_000,
    seed: int = 0,
    fallbacks: float = 0.0,
    came: Units = lambda a, b: (a, b),
) -> Played:
    """One look is a minute, a block and ``traffic`` units, each of them new. ``fallbacks``: share of the challenger's
    requests that the champion answered."""
    rng = np.random.default_rng(seed)
    folds: dict[tuple[str, str], Fold] = {}
    baselines: dict[str, BaselineSums] = {}
    counts: dict[int, EpochCounts] = {}
    now = FIRST * MINUTE
    moves = [evolve(spec, fresh(), EMPTY, now)]
    for look in range(looks):
        status = moves[-1].status
        epoch = status.current_epoch
        if status.progress is not Progress.RUNNING or epoch is None:
            break
        b = round(traffic * epoch.weight_bp / 10_000)
        a, b = came(round(traffic * (1 - epoch.control_from_bp / 10_000)), b)
        asked = plans.query("late", spec, status)
        for plan in asked.metrics:
            arms = values[plan.name](rng, a, False), values[plan.name](rng, b, True)
            _count(plan, asked.epochs[epoch.number - 1], FIRST + look, arms, folds, baselines)
        old = counts.get(epoch.number, EpochCounts(epoch.number))
        more = EpochCounts(0, a, b, a, b, round(fallbacks * b), a, b)
        counts[epoch.number] = EpochCounts(epoch.number, *(x + y for x, y in zip(old[1:], more[1:], strict=True)))
        now += MINUTE
        statistics = Statistics(folds, {}, baselines, counts, Losses(10**6), now)
        moves.append(evolve(spec, status, statistics, now))
    return Played(moves)


def _count(
    plan: MetricPlan,
    epoch: EpochPlan,
    number: int,
    arms: "tuple[np.ndarray[tuple[int], np.dtype[np.int64]], np.ndarray[tuple[int], np.dtype[np.int64]]]",
    folds: dict[tuple[str, str], Fold],
    baselines: dict[str, BaselineSums],
) -> None:
    a, b = arms
    if not len(a) and not len(b):
        return
    if not plan.frozen:
        if len(a):
            baselines[plan.name] = _baseline(baselines.get(plan.name, BaselineSums()), a, number, epoch.number)
        return
    if plan.family == "failures":
        cells = list(once(epoch.pi_ppm, *((len(v), int(v.sum())) for v in arms)))
    else:
        shares = (-epoch.pi_ppm, PPM - epoch.pi_ppm)
        cells = [_score(v, s, epoch.means[plan.name], plan.cap) for v, s in zip(arms, shares, strict=True)]  # type: ignore[misc]
    key = (plan.name, "")
    folds[key] = fold(plan, epoch, folds.get(key), Block(plan.name, "", epoch.number, number, *cells))


def _score(
    values: "np.ndarray[tuple[int], np.dtype[np.int64]]", share: int, mean: int, cap: int | None
) -> ScoreCell | None:
    n = len(values)
    if n == 0:
        return None
    y = [int(v) for v in (values if cap is None else np.minimum(values, cap))]
    clustered = share * share * sum((v - mean) ** 2 for v in y)
    return ScoreCell(n, n, sum(y), sum(v * v for v in y), sum(y), n, sum(v != 0 for v in y), clustered)


def _baseline(
    old: BaselineSums, values: "np.ndarray[tuple[int], np.dtype[np.int64]]", number: int, epoch: int
) -> BaselineSums:
    buckets = dict(old.buckets)
    sizes, counts = np.unique(values, return_counts=True)
    for size, units in zip(sizes.tolist(), counts.tolist(), strict=True):
        place = max(bucket_of(abs(size)), 1) if size else 0
        buckets[place] = buckets.get(place, 0) + units
    n, nonzero = len(values), int((values != 0).sum())
    return BaselineSums(
        old.blocks + 1, number, epoch, old.units + n, old.x + n, old.y + int(values.sum()), old.nonzero + nonzero,
        tuple(sorted(buckets.items())),
    )  # fmt: skip


def often(champion: float, challenger: float | None = None, value: int = 1_000_000) -> Values:
    """Values that are ``value`` at a rate, and 0 else."""

    def drawn(rng: np.random.Generator, n: int, b: bool) -> "np.ndarray[tuple[int], np.dtype[np.int64]]":
        rate = champion if challenger is None or not b else challenger
        return value * rng.binomial(1, rate, n).astype(np.int64)

    return drawn


def exactly(champion: int, challenger: int | None = None) -> Values:
    """The same value for every unit of an arm."""
    return lambda rng, n, b: np.full(n, challenger if b and challenger is not None else champion, dtype=np.int64)
