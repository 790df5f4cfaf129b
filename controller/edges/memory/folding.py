"""From closed groups to cells, and from cells to the state of every test.

The result depends on the groups and the plan alone: where a baseline was frozen or a mean changed, everything is
made again from the first group on.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from controller.core.areas import LAST
from controller.core.cells import (
    OVERALL,
    PPM,
    AreaCell,
    ArmCell,
    BaselineSums,
    Block,
    CountCell,
    EpochPlan,
    LatencyCell,
    MetricPlan,
    PairAreaCell,
    PairCell,
    PairCountCell,
    PairScoreCell,
    ScoreCell,
)
from controller.core.covariates import Moments, moments, taken
from controller.core.fold import Fold, fold
from controller.core.pairs import PairFold
from controller.edges.memory.events import ArmKey
from controller.edges.memory.losses import Values
from controller.edges.memory.tally import Group, value_bucket
from controller.kinds import DECIDED, ERRORS, UNMEASURED, Kind
from router.assignment import Arm

Sums = Mapping[ArmKey, Values]
# What a unit brings along from all earlier blocks: its summed score, or the largest level it has reached, which is its
# slowest bucket, or 1 where it failed (of a pair: where one arm alone did).
Scores = dict[str, int]


class Folding:
    """One metric's folds by segment, its pairs, and its baseline; ``blocks``: every cell that was folded."""

    def __init__(self, keep_blocks: bool = False) -> None:
        self._keep = keep_blocks
        self._plan: MetricPlan | None = None
        self._reset()

    def _reset(self) -> None:
        self.folds: dict[str, Fold] = {}
        self.pairs: dict[str, PairFold] = {}
        self.baseline = BaselineSums()
        self.blocks: list[Block] = []
        self._used: dict[int, EpochPlan] = {}
        self._scores: dict[tuple[str, bool], Scores] = {}
        self._failed: dict[str, Scores] = {}
        self._done = 0

    def advance(self, plan: MetricPlan, epochs: Mapping[int, EpochPlan], groups: Sequence[Group]) -> None:
        """Fold the groups that are new, or all where the plan or an epoch they were folded with has changed."""
        if plan != self._plan or any(epochs.get(n) != e for n, e in self._used.items()):
            self._reset()
        self._plan = plan
        for group in groups[self._done :]:
            epoch = epochs.get(group.epoch)
            if epoch is None:
                break
            self._used[group.epoch] = epoch
            self._fold(plan, epoch, group)
            self._done += 1

    def _fold(self, plan: MetricPlan, epoch: EpochPlan, group: Group) -> None:
        mirror = epoch.kind == "mirror"
        if (mirror or not plan.frozen) and plan.family not in UNMEASURED:
            self.baseline = added_to(plan, self.baseline, group)
        if not plan.frozen or (group.block, group.epoch) <= (plan.from_block, plan.from_epoch):
            return
        for segment, sums in sorted(group.sums.items()):
            scores = self._scores.setdefault((segment, mirror), {})
            if mirror and plan.family == "throughput":
                continue
            if mirror:
                block = paired(plan, epoch, group, segment, sums, scores)
            else:
                failed = self._failed.setdefault(segment, {})
                block = weighted(plan, epoch, group, segment, sums, scores, failed)
            if block is None:
                continue
            if self._keep:
                self.blocks.append(block)
            old = self.pairs.get(segment) if mirror else self.folds.get(segment)
            new = fold(plan, epoch, old, block)
            if isinstance(new, PairFold):
                self.pairs[segment] = new
            else:
                self.folds[segment] = new


def _of(sums: Sums, arm: str) -> dict[str, Values]:
    return {unit: values for (whose, unit), values in sums.items() if whose == arm}


def added_to(plan: MetricPlan, old: BaselineSums, group: Group) -> BaselineSums:
    """``old`` with the champion's of ``group``."""
    units = _of(group.sums.get(OVERALL, {}), "champion")
    if not units:
        return old
    # Uncut; a unit whose rows all lack an answer has no error that is known.
    values = [v for v in units.values() if plan.family != "label" or v[0]]
    if not values:
        return old
    buckets, covaried = Counter(dict(old.buckets)), old.covaried
    for unit in units.keys() & group.numbers.keys():
        covaried = covaried.plus(moments(units[unit][1], group.numbers[unit]))
    x = y = nonzero = 0
    if plan.family == "latency":
        buckets.update(v[0] for v in values)
        x = len(values)
    elif plan.family == "failures":
        x, y = len(values), sum(v[0] for v in values)
        nonzero = y
    else:
        x, y = sum(v[0] for v in values), sum(v[1] for v in values)
        nonzero = sum(v[1] != 0 for v in values)
        if plan.kind in (Kind.MEAN, Kind.RATIO):
            buckets.update(value_bucket(v[1]) for v in values)
        buckets.update(group.errors)
    return BaselineSums(
        blocks=old.blocks + 1,
        last_block=group.block,
        last_epoch=group.epoch,
        units=old.units + len(values),
        x=old.x + x,
        y=old.y + y,
        nonzero=old.nonzero + nonzero,
        buckets=tuple(sorted(buckets.items())),
        covaried=covaried,
    )


def weighted(
    plan: MetricPlan, epoch: EpochPlan, group: Group, segment: str, sums: Sums, scores: Scores, failed: Scores
) -> Block | None:
    """The block of both arms; None where neither has evidence. ``scores`` and ``failed`` go on to what comes after."""
    if plan.family in ("failures", "latency"):
        champion, challenger = (
            _service_cell(plan, _of(sums, arm), scores, failed, side)
            for arm, side in (("champion", -epoch.pi_ppm), ("challenger", PPM - epoch.pi_ppm))
        )
        for (_, unit), (level,) in sums.items():
            scores[unit] = max(level, scores.get(unit, level))
        if champion is None and challenger is None:
            return None
        return Block(plan.name, segment, group.epoch, group.block, champion, challenger)
    arms: dict[Arm, ArmCell | None] = {}
    both: tuple[Arm, Arm] = ("champion", "challenger")
    for arm in both:
        units = _of(sums, arm)
        if not units:
            arms[arm] = None
        elif plan.family == "auc":
            arms[arm] = _area_cell(units, scores)
        else:
            arms[arm] = _score_cell(plan, epoch, arm, units, group.numbers, scores)
    if arms["champion"] is None and arms["challenger"] is None:
        return None
    return Block(plan.name, segment, group.epoch, group.block, arms["champion"], arms["challenger"])


def _area_cell(units: Mapping[str, Values], rows: Scores) -> AreaCell:
    """Each row by label and bin; ``rows`` are those a unit had before, and these as well then."""
    clustered, labels = 0, (Counter[int](), Counter[int]())
    for unit, codes in units.items():
        old = rows.get(unit, 0)
        clustered += (old + len(codes)) ** 2 - old**2
        rows[unit] = old + len(codes)
        for code in codes:
            labels[code % 2][code // 2] += 1
    return AreaCell(len(units), clustered, tuple(sorted(labels[1].items())), tuple(sorted(labels[0].items())))


def _service_cell(
    plan: MetricPlan, units: Mapping[str, Values], reached: Scores, failed: Scores, side: int
) -> ArmCell | None:
    """The units' cell, by what each had reached in earlier blocks; a failure adds ``side`` to its ``failed``."""
    if not units:
        return None
    before = {unit: reached[unit] for unit in units if unit in reached}
    if plan.family == "failures":
        fresh = [level for unit, (level,) in units.items() if not before.get(unit)]
        clustered, failing = 0, [unit for unit, (level,) in units.items() if level]
        for unit in failing:
            old = failed.get(unit, 0)
            clustered += (old + side) ** 2 - old**2
            failed[unit] = old + side
        return CountCell(len(fresh), sum(fresh), len(units), len(failing), clustered)
    again = [min(units[unit][0], level) for unit, level in before.items()]
    return LatencyCell(len(units), *map(_histogram, ([level for (level,) in units.values()], before.values(), again)))


def _histogram(buckets: Iterable[int]) -> tuple[tuple[int, int], ...]:
    return tuple(sorted(Counter(buckets).items()))


def _score_cell(
    plan: MetricPlan,
    epoch: EpochPlan,
    arm: Arm,
    units: Mapping[str, Values],
    numbers: Mapping[str, int],
    scores: Scores,
) -> ScoreCell:
    """``scores`` are those the units had before, the champion's in this block among them, and these as well then."""
    side = PPM - epoch.pi_ppm if arm == "challenger" else -epoch.pi_ppm
    mean, by = epoch.means.get(plan.name, 0), epoch.adjustments.get(plan.name)
    total, covaried = [0] * 8, Moments()
    for unit, values in units.items():
        x, y = values[-2:]
        if plan.cap is not None and plan.kind not in ERRORS:
            y = max(-plan.cap, min(plan.cap, y))
        g = 0 if by is None else taken(by, numbers.get(unit))
        z = y - g
        score, old = side * (z - mean * x), scores.get(unit, 0)
        scores[unit] = old + score
        for i, term in enumerate((1, x, y, z * z, x * z, x * x, int(y != 0), (old + score) ** 2 - old**2)):
            total[i] += term
        if unit in numbers:
            covaried = covaried.plus(moments(y, numbers[unit], g))
    return ScoreCell._make((*total, covaried))


def paired(plan: MetricPlan, epoch: EpochPlan, group: Group, segment: str, sums: Sums, scores: Scores) -> Block | None:
    """The block of a mirror; None without a pair. ``scores`` go on to what comes after."""
    units = _of(sums, "pair")
    if not units:
        return None
    cell: PairCell
    if plan.family == "failures":
        fresh = {unit: pair for unit, pair in units.items() if unit not in scores}
        worse = sum(b and not a for a, b in fresh.values())
        better = sum(a and not b for a, b in fresh.values())
        scores.update((unit, 1) for unit, (a, b) in fresh.items() if a != b)
        cell = PairCountCell(len(fresh), worse, better)
    elif plan.family == "auc":
        cell = _pair_area_cell(units, scores)
    else:
        cell = _pair_score_cell(plan, epoch.means.get(plan.name, 0), units, scores)
    return Block(plan.name, segment, group.epoch, group.block, pair=cell)


def _pair_score_cell(plan: MetricPlan, mean: int, units: Mapping[str, Values], scores: Scores) -> PairScoreCell:
    clustered, totals = 0, [0] * 4
    squares = Counter[int]()
    for unit, (x_a, y_a, x_b, y_b) in units.items():
        own = (y_b - y_a, x_b - x_a, y_a, x_a)
        score, old = (y_b - mean * x_b) - (y_a - mean * x_a), scores.get(unit, 0)
        clustered += (old + score) ** 2 - old**2
        scores[unit] = old + score
        totals = [a + b for a, b in zip(totals, own, strict=True)]
        squares.update({10 * i + j: own[i] * own[j] for i in range(4) for j in range(i, 4)})
    d, more, y, x = totals
    cell = PairScoreCell(len(units), x, d, squares[0], clustered, y, more)
    if plan.kind in DECIDED:
        cell = cell._replace(squares=tuple(squares[10 * i + j] for i in range(4) for j in range(i, 4))[1:])
    return cell


def _pair_area_cell(units: Mapping[str, Values], rows: Scores) -> PairAreaCell:
    """Each row by label and both bins; ``rows`` are those a unit had before."""
    clustered, labels = 0, (Counter[tuple[int, int]](), Counter[tuple[int, int]]())
    for unit, codes in units.items():
        old = rows.get(unit, 0)
        clustered += (old + len(codes)) ** 2 - old**2
        rows[unit] = old + len(codes)
        for code in codes:
            labels[code % 2][divmod(code // 2, LAST + 1)] += 1
    negatives, positives = (tuple((a, b, n) for (a, b), n in sorted(found.items())) for found in labels)
    return PairAreaCell(len(units), clustered, positives, negatives)
