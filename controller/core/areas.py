"""The area under the ROC curve: histograms of scores by label, DeLong's variance, the score mixture on top.

Scores lie in bins whose odds are 5 % apart, so that no scale is lost near 0 or 1; rows of one bin count as ties. An
area is found in *strata*, an epoch and as many of its days as it takes until both arms have enough rows of both
labels, and strata are averaged with weights that only counts decide: the inverse of 1/n⁺ + 1/n⁻ over both arms, which
an area's variance is proportional to. Weights of the variances that were found would favour the strata that happen to
look well separated.

Rows of one unit are not independent. Without the placements of every unit's rows the variance is multiplied by what
it is at most: Σ n² / Σ n over the units of an arm, n a unit's rows (Cauchy and Schwarz). Where each unit has one row
that is 1, where each has ten it is ten.
"""

import math
from bisect import bisect_right
from typing import NamedTuple

import numpy as np

from controller.core.cells import AreaCell, Block, EpochPlan, Histogram, JointHistogram, MetricPlan, PairAreaCell
from controller.core.scores import NO_SPREAD, ONE_ARM, TOO_FEW, Effect, log_e_harm
from controller.core.statistics import PairedAuc, delong_from_histogram, delong_paired_from_histogram

DAY = 86_400_000_000
LEAST_ROWS = 10  # of each label and arm in a stratum that is closed
EXPECTED_ROWS = 50  # of each label in the challenger, by the champion's share of positives
FURTHEST_SCORE = 1e9
MOST_ROWS = 5_000  # of one label that wait in a mirror for rows of the other; more would hardly sharpen an area


def _edges() -> tuple[float, ...]:
    odds = [1.05**k for k in range(-284, 285)]
    beyond = [1.05**k for k in range(426)]
    inside = sorted({o / (1 + o) for o in odds} | {0.0, 1.0})
    below = [-x for x in reversed([1.05**k for k in range(-284, 426)])]
    return (-FURTHEST_SCORE, *(e for e in below if e > -FURTHEST_SCORE), *inside, *beyond[1:])


# Bin i (from 1) holds the scores from edge i−1 up to edge i. Bin 0 is below every score, and LAST above.
SCORE_EDGES = _edges()
LAST = len(SCORE_EDGES) + 1


def score_bin(score: float | None, positive: bool) -> int:
    """The bin of a score; a missing answer (None) is the worst that its label can have."""
    if score is None:
        return 0 if positive else LAST
    return bisect_right(SCORE_EDGES, min(max(score, -FURTHEST_SCORE), FURTHEST_SCORE))


class Scored(NamedTuple):
    """One arm's rows by bin, of each label."""

    positives: Histogram = ()
    negatives: Histogram = ()

    def plus(self, cell: AreaCell) -> "Scored":
        """With the rows of a cell."""
        return Scored(_merged(self.positives, cell.positives), _merged(self.negatives, cell.negatives))

    @property
    def rows(self) -> tuple[int, int]:
        """Positives and negatives."""
        return sum(n for _, n in self.positives), sum(n for _, n in self.negatives)


class EpochArea(NamedTuple):
    """One epoch. ``day``, ``champion``, ``challenger``: the stratum that is open. Sums over the closed ones: of the
    weights w, w·θ, w·area of the champion, and w²·variance of each arm's area."""

    epoch: int
    day: int = -1
    champion: Scored = Scored()
    challenger: Scored = Scored()
    weight: float = 0.0
    gain: float = 0.0
    area: float = 0.0
    variance_champion: float = 0.0
    variance_challenger: float = 0.0


class ArmRows(NamedTuple):
    """One arm over all epochs: units of cells, rows, positives, and Σ over units of their rows squared."""

    units: int = 0
    rows: int = 0
    positives: int = 0
    squares: int = 0

    def plus(self, cell: AreaCell) -> "ArmRows":
        """With a cell."""
        positives = sum(n for _, n in cell.positives)
        rows = positives + sum(n for _, n in cell.negatives)
        return ArmRows(
            self.units + cell.units, self.rows + rows, self.positives + positives, self.squares + cell.clustered
        )


class AreaFold(NamedTuple):
    """``auc`` over weighted epochs. ``theta``, ``se2``, ``champion_area``: the effect as of the last block, between 0
    and 1; ``se2`` None where there is none yet."""

    areas: tuple[EpochArea, ...] = ()
    champion: ArmRows = ArmRows()
    challenger: ArmRows = ArmRows()
    theta: float = 0.0
    se2: float | None = None
    champion_area: float = 0.0
    blocks: int = 0
    ever_harm: float = 0.0
    harm_block: int = -1
    last_block: int = -1
    last_epoch: int = -1


def fold_area(plan: MetricPlan, epoch: EpochPlan, state: AreaFold, block: Block) -> AreaFold:
    """``state`` after one block of a weighted epoch, with its ever-harm."""
    champion = block.champion if isinstance(block.champion, AreaCell) else AreaCell()
    challenger = block.challenger if isinstance(block.challenger, AreaCell) else AreaCell()
    old = next((a for a in state.areas if a.epoch == epoch.number), None)
    now, day = old or EpochArea(epoch.number), block.block * plan.block // DAY
    if now.day != day and min(*now.champion.rows, *now.challenger.rows) >= LEAST_ROWS:
        now = _with_stratum(now)._replace(champion=Scored(), challenger=Scored())
    now = now._replace(day=day, champion=now.champion.plus(champion), challenger=now.challenger.plus(challenger))
    state = state._replace(
        areas=tuple(now if a is old else a for a in state.areas) if old else (*state.areas, now),
        champion=state.champion.plus(champion),
        challenger=state.challenger.plus(challenger),
        blocks=state.blocks + 1,
        last_block=block.block,
        last_epoch=block.epoch,
    )
    state = _estimated(state)
    harm = log_e_harm(plan, area_effect(plan, state))
    return state._replace(ever_harm=harm, harm_block=block.block) if harm > state.ever_harm else state


def area_effect(plan: MetricPlan, state: AreaFold) -> Effect:
    """θ = area of the challenger − area of the champion (integer units), averaged over strata."""
    k = plan.scale
    if state.se2 is None:
        return Effect(margin=plan.margin, harm_margin=plan.harm_margin, note=ONE_ARM)
    if state.se2 <= 0:
        mean = state.champion_area * k
        return Effect(state.theta * k, math.inf, mean, plan.margin, plan.harm_margin, False, NO_SPREAD)
    a, b = state.champion, state.challenger
    share = a.positives / a.rows
    guarded = min(b.rows * share, b.rows * (1 - share)) >= EXPECTED_ROWS
    return Effect(
        state.theta * k, state.se2 * k * k, state.champion_area * k, plan.margin, plan.harm_margin, guarded,
        "" if guarded else TOO_FEW,
    )  # fmt: skip


def area_gain(state: AreaFold, epoch: int) -> float | None:
    """θ of one epoch alone, between −1 and 1; None without one."""
    found = next((_with_stratum(a) for a in state.areas if a.epoch == epoch), None)
    return found.gain / found.weight if found is not None and found.weight > 0 else None


def _estimated(state: AreaFold) -> AreaFold:
    weight = gain = area = of_champion = of_challenger = 0.0
    for epoch in state.areas:
        e = _with_stratum(epoch)
        weight, gain, area = weight + e.weight, gain + e.gain, area + e.area
        of_champion, of_challenger = of_champion + e.variance_champion, of_challenger + e.variance_challenger
    if weight == 0:
        return state
    variance = of_champion * _inflation(state.champion) + of_challenger * _inflation(state.challenger)
    return state._replace(theta=gain / weight, se2=variance / (weight * weight), champion_area=area / weight)


def _inflation(arm: ArmRows) -> float:
    return max(1.0, arm.squares / arm.rows) if arm.rows else 1.0


def _with_stratum(e: EpochArea) -> EpochArea:
    """The sums with the open stratum's; it needs two rows of each label in each arm."""
    counts = (*e.champion.rows, *e.challenger.rows)
    if min(counts) < 2:
        return e
    (area, v_a), (other, v_b) = _delong(e.champion), _delong(e.challenger)
    of_champion, of_challenger = 1 / counts[0] + 1 / counts[1], 1 / counts[2] + 1 / counts[3]
    # What the champion's rows would vary by in the challenger's number: few rows can look perfectly separated.
    v_b = max(v_b, v_a * of_challenger / of_champion)
    weight = 1 / (of_champion + of_challenger)
    return e._replace(
        weight=e.weight + weight,
        gain=e.gain + weight * (other - area),
        area=e.area + weight * area,
        variance_champion=e.variance_champion + weight * weight * v_a,
        variance_challenger=e.variance_challenger + weight * weight * v_b,
    )


def _delong(arm: Scored) -> tuple[float, float]:
    bins = sorted({place for place, _ in (*arm.positives, *arm.negatives)})
    positives, negatives = dict(arm.positives), dict(arm.negatives)
    return delong_from_histogram([positives.get(b, 0) for b in bins], [negatives.get(b, 0) for b in bins])


def _merged(a: Histogram, b: Histogram) -> Histogram:
    if not b:
        return a
    total = dict(a)
    for place, n in b:
        total[place] = total.get(place, 0) + n
    return tuple(sorted(total.items()))


class Joint(NamedTuple):
    """A mirror's open stratum: rows of each label by the bins of both scores, (champion's, challenger's, rows)."""

    positives: JointHistogram = ()
    negatives: JointHistogram = ()

    def plus(self, cell: PairAreaCell) -> "Joint":
        """With the rows of a cell, as long as a label has fewer than ``MOST_ROWS``."""
        pairs = zip(self, cell[2:], self.rows, strict=True)
        return Joint(*(_joined(old, new) if rows < MOST_ROWS else old for old, new, rows in pairs))

    @property
    def rows(self) -> tuple[int, int]:
        """Positives and negatives."""
        return sum(n for *_, n in self.positives), sum(n for *_, n in self.negatives)

    def areas(self) -> PairedAuc:
        """Both arms' areas on these rows; it takes one of each label, and two for a variance."""
        both = (*self.positives, *self.negatives)
        places = [{b: i for i, b in enumerate(sorted({row[arm] for row in both}))} for arm in (0, 1)]
        grids = []
        for histogram in self:
            grid = np.zeros((len(places[0]), len(places[1])))
            for a, b, n in histogram:
                grid[places[0][a], places[1][b]] = n
            grids.append(grid)
        return delong_paired_from_histogram(*grids)


def _joined(a: JointHistogram, b: JointHistogram) -> JointHistogram:
    total = {(i, j): n for i, j, n in a}
    for i, j, n in b:
        total[i, j] = total.get((i, j), 0) + n
    return tuple((i, j, n) for (i, j), n in sorted(total.items()))
