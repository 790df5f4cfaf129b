"""Units drawn one by one, and the cells an engine makes of them: the raw material of independent derivations."""

from typing import NamedTuple

import numpy as np

from controller.core.cells import PPM, Block, CountCell, EpochPlan, MetricPlan, ScoreCell
from controller.core.fold import fold
from controller.core.plans import metric_plan
from controller.core.scores import ScoreFold
from controller.metric import Metric
from controller.spec import RolloutSpec
from controller.status import Frozen
from tests.decide.rollouts import rollout

CTR = {"name": "ctr", "kind": "Proportion", "outcome": "click", "window": "1m", "margin": "5%", "role": "Success"}


class Row(NamedTuple):
    """What one unit showed in one block of one epoch: x requests (or 1) with a value y in integer units."""

    epoch: int
    block: int
    unit: int
    challenger: bool
    x: int
    y: int


def plan_for(metric: dict[str, object], **frozen: object) -> MetricPlan:
    """The plan of one metric with a frozen baseline."""
    spec: RolloutSpec = rollout(metrics=[metric]).spec
    base = Frozen(source="Declared").model_copy(update=frozen)
    return metric_plan(spec, Metric.model_validate(metric), base)


def once(pi_ppm: int, *arms: tuple[int, int]) -> tuple[CountCell | None, ...]:
    """Cells of failures, of (units, failures) of champion and challenger, all seen for the only time."""
    sides = (-pi_ppm, PPM - pi_ppm)
    return tuple(CountCell(n, k, n, k, k * s * s) if n else None for (n, k), s in zip(arms, sides, strict=True))


def cell(rows: list[Row], pi_ppm: int, mean: int, scores: dict[int, int]) -> ScoreCell:
    """The sums of one arm in one block; ``scores`` (unit → score so far) is added to."""
    clustered = 0
    for r in rows:
        s = ((PPM if r.challenger else 0) - pi_ppm) * (r.y - mean * r.x)
        old = scores.get(r.unit, 0)
        clustered += (old + s) ** 2 - old**2
        scores[r.unit] = old + s
    return ScoreCell(
        len(rows),
        sum(r.x for r in rows),
        sum(r.y for r in rows),
        sum(r.y**2 for r in rows),
        sum(r.x * r.y for r in rows),
        sum(r.x**2 for r in rows),
        sum(r.y != 0 for r in rows),
        clustered,
    )


def fold_rows(plan: MetricPlan, epochs: list[EpochPlan], rows: list[Row]) -> ScoreFold:
    """All rows folded block by block, in the order (block, epoch); one row per unit and block."""
    scores: dict[int, int] = {}
    state = None
    for block, number in sorted({(r.block, r.epoch) for r in rows}):
        epoch = next(e for e in epochs if e.number == number)
        here = [r for r in rows if (r.block, r.epoch) == (block, number)]
        arms = [
            cell([r for r in here if r.challenger is arm], epoch.pi_ppm, epoch.means[plan.name], scores)
            for arm in (False, True)
        ]
        state = fold(plan, epoch, state, Block(plan.name, "", number, block, *arms))
    assert isinstance(state, ScoreFold)
    return state


class Draw:
    """Units that return in every epoch with correlated values, under shares that change, with a trend."""

    def __init__(self, seed: int, pi: float, epochs: int, units: int, effect: float = 0.0) -> None:
        rng = np.random.default_rng(seed)
        self.plan = plan_for(CTR, mean=50_000, tau=2500.0)
        shares = [min(0.95, pi * (1 + e)) for e in range(epochs)]
        self.epochs = [
            EpochPlan(e + 1, "weight", round(PPM * share), {"ctr": 50_000 + 1000 * e}) for e, share in enumerate(shares)
        ]
        place = rng.random(units)
        own = rng.normal(0, 30_000, units)
        self.rows = []
        for e, share in enumerate(shares):
            for unit in range(units):
                challenger = bool(place[unit] < share)
                y = round(50_000 * (1 + 0.1 * e) + own[unit] + rng.normal(0, 10_000) + effect * challenger)
                self.rows.append(Row(e + 1, 10 * e + unit % 5, unit, challenger, 1, y))

    def folded(self) -> ScoreFold:
        """The state after all blocks."""
        return fold_rows(self.plan, self.epochs, self.rows)

    def champion_total(self) -> int:
        return sum(r.y for r in self.rows if not r.challenger)

    def champion_count(self) -> int:
        return sum(not r.challenger for r in self.rows)
