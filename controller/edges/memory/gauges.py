"""What looks at servers and not at units: samples of gauges, and the latencies that a hard limit is held against."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from controller.core.cells import OVERALL, Block, EpochPlan, GaugeCell, LatencyCell, MetricPlan
from controller.core.fold import Fold, fold
from controller.core.plans import bucket_of
from controller.edges.memory.events import Exposed


class Sample(NamedTuple):
    """One sample of a gauge of an arm's server."""

    attempt: int
    epoch: int
    metric: str
    arm: str
    t: int
    value: int


def sample(event: Mapping[str, Any]) -> Sample:
    """The sample in ``event``; ValueError where it is none."""
    found = Sample(*(event[name] for name in Sample._fields))
    if found.arm not in ("champion", "challenger") or type(found.value) is not int:
        raise ValueError("no sample")
    return found


class Gauging:
    """One metric's open blocks in one attempt, and the fold of the final ones; ``blocks``: every one that was folded.

    Of a ``resource`` an open block has (epoch, value) by (arm, time): what came twice counts once. Of a ``limit`` it
    has (epoch, slowest bucket) by (unit, epoch).
    """

    def __init__(self) -> None:
        self.fold: Fold | None = None
        self.blocks: list[Block] = []
        self._taken = 0
        self._open: dict[int, Open] = {}

    def advance(
        self,
        plan: MetricPlan,
        epochs: Mapping[int, EpochPlan],
        until: int,
        samples: Sequence[Sample],
        exposures: Sequence[Exposed],
    ) -> None:
        """Take what is new of ``samples`` or ``exposures``, and fold what became final at ``until`` (µs)."""
        come: Sequence[Sample] | Sequence[Exposed] = samples if plan.family == "resource" else exposures
        for one in come[self._taken :]:
            held = self._open.setdefault(one.t // plan.block, {})
            if isinstance(one, Exposed):
                _slower(held, one)
            elif one.metric == plan.name:
                epoch, value = held.get((one.arm, one.t), (one.epoch, one.value))
                held[one.arm, one.t] = (min(epoch, one.epoch), min(value, one.value))
        self._taken = len(come)
        if not plan.frozen:
            return
        for number in sorted(n for n in self._open if n < until // plan.block):
            held = self._open.pop(number)
            made = _sampled(held) if plan.family == "resource" else _slowest(held)
            for epoch, arms in sorted(made.items()):
                if epoch in epochs:
                    block = Block(plan.name, OVERALL, epoch, number, arms.get("champion"), arms.get("challenger"))
                    self.fold = fold(plan, epochs[epoch], self.fold, block)
                    self.blocks.append(block)


Open = dict[tuple[str, int], tuple[int, int]]
Arms = dict[str, GaugeCell | LatencyCell]


def _slower(held: Open, e: Exposed) -> None:
    """The challenger's requests, mirrored ones as well."""
    if e.hashed and e.unit is not None and (e.mirror or e.arm == "challenger"):
        _, slowest = held.get((e.unit, e.epoch), (0, 0))
        held[e.unit, e.epoch] = (e.epoch, max(slowest, bucket_of(e.latency)))


def _sampled(held: Open) -> dict[int, Arms]:
    """The cells of a block by epoch and arm."""
    found: dict[int, dict[str, GaugeCell]] = {}
    for (arm, _), (epoch, value) in held.items():
        cells = found.setdefault(epoch, {})
        old = cells.get(arm, GaugeCell())
        cells[arm] = GaugeCell(old.samples + 1, old.total + value)
    return {epoch: {**cells} for epoch, cells in found.items()}


def _slowest(held: Open) -> dict[int, Arms]:
    by_epoch: dict[int, Counter[int]] = {}
    for epoch, bucket in held.values():
        by_epoch.setdefault(epoch, Counter())[bucket] += 1
    return {
        epoch: {"challenger": LatencyCell(buckets.total(), tuple(sorted(buckets.items())))}
        for epoch, buckets in by_epoch.items()
    }
