"""The running state of every test: a fold over final blocks, in the order (block, epoch).

A fold is a pure function of the blocks it has seen: refolding gives the same bytes. Sums are integers; the e-values
of the counting tests are running logarithms. The harm side is evaluated at every completed block and its maximum is
kept (*ever-harm*): by Ville's inequality its level holds at any time. Non-inferiority and superiority are read at
the last block only. Sums of different epochs stay apart: each carries its own share and centring mean, and nothing
here adds across them.
"""

from collections.abc import Mapping
from typing import NamedTuple

from controller.core.areas import AreaFold, fold_area
from controller.core.cells import BaselineSums, Block, EpochCounts, EpochPlan, Losses, MetricPlan
from controller.core.counts import CountFold, fold_counts
from controller.core.limits import LimitFold, fold_limit
from controller.core.pairs import PairFold, fold_pair
from controller.core.resources import ResourceFold, fold_resource
from controller.core.scores import ScoreFold, fold_score

Fold = AreaFold | ScoreFold | CountFold | PairFold | ResourceFold | LimitFold


class Statistics(NamedTuple):
    """Everything a decision may look at.

    ``folds`` by (metric, segment): weighted epochs; ``pairs`` the same for the mirror. A Resource and a hard limit on
    a Latency (``limit_name``) have one fold for both. ``counts`` by epoch. ``watermark`` (µs): all journals are read
    up to here; 0 without any journal. ``troubles``: by metric, why no samples come. ``awaited``: whose journals keep
    the watermark back, and why they cannot be read.
    """

    folds: Mapping[tuple[str, str], Fold]
    pairs: Mapping[tuple[str, str], PairFold]
    baselines: Mapping[str, BaselineSums]
    counts: Mapping[int, EpochCounts]
    losses: Losses
    watermark: int
    troubles: Mapping[str, str] = {}
    awaited: tuple[str, ...] = ()


EMPTY = Statistics({}, {}, {}, {}, Losses(), 0)


def fold(plan: MetricPlan, epoch: EpochPlan, state: Fold | None, block: Block) -> Fold:
    """``state`` after ``block``. ValueError where the block is not later than the last one folded."""
    if state is not None and (block.block, block.epoch) <= (state.last_block, state.last_epoch):
        seen = f"{state.last_block}/{state.last_epoch}"
        raise ValueError(f"{plan.name}: block {block.block}/{block.epoch} comes after {seen} was folded")
    if block.pair is not None:
        return fold_pair(plan, epoch, state if isinstance(state, PairFold) else PairFold(), block)
    if plan.family == "auc":
        return fold_area(plan, epoch, state if isinstance(state, AreaFold) else AreaFold(), block)
    if plan.family == "resource":
        held = state if isinstance(state, ResourceFold) else ResourceFold()
        return fold_resource(plan, epoch.kind != "mirror", held, block)
    if plan.family == "limit":
        return fold_limit(plan, state if isinstance(state, LimitFold) else LimitFold(), block)
    if plan.family in ("unit", "label", "throughput"):
        return fold_score(plan, epoch, state if isinstance(state, ScoreFold) else ScoreFold(), block)
    return fold_counts(plan, epoch, state if isinstance(state, CountFold) else CountFold(), block)
