"""The counting tests: failures and slow answers, one unit once a block, until its first.

Harm: the 2×2 block e-test (Turner, Ly and Grünwald) with a mixture over risk ratios, for latency averaged over the
edges of the champion's frozen quantiles. Non-inferiority: betting on counts, exact, without any guard: two arms
without a single failure can be proven equal. Both are finite-sample valid given the randomisation.
"""

import math
from typing import NamedTuple

import numpy as np

from controller.core import sequential
from controller.core.cells import Block, CountCell, EpochPlan, LatencyCell, MetricPlan
from controller.core.repeats import repeated
from controller.core.statistics import BUCKET_GROWTH

PRIOR_WEIGHT = 2000.0
LARGEST_MARGIN = 0.999  # of a rate: nothing is worse by more than all
NO_BETS = (0.0,) * len(sequential.BET_FRACTIONS)
EDGE_QUANTILES = (0.5, 0.9, 0.95, 0.99, 0.999)
SLOW_SHARE = 0.1


class EpochCountSums(NamedTuple):
    """Failures, or latencies above the champion's quantile q, of one epoch.

    Of a latency also: ``slower``, the challenger above q + margin, as it is judged, and ``within``, the champion above
    q − margin: about what would lie above q if all of its answers took a margin longer.
    """

    epoch: int
    pi_ppm: int
    champion: CountCell = CountCell()
    challenger: CountCell = CountCell()
    slower: CountCell = CountCell()
    within: CountCell = CountCell()
    champion_buckets: tuple[tuple[int, int], ...] = ()
    challenger_buckets: tuple[tuple[int, int], ...] = ()

    def worse_by(self) -> float:
        """Of failures: how much larger the challenger's share is, of first ones or of all, whichever is more; with
        units of both arms."""
        a, b = self.champion, self.challenger
        first = b.events / b.units - a.events / a.units
        return max(first, b.failing / b.active - a.failing / a.active) if a.active and b.active else first


class CountFold(NamedTuple):
    """``failures`` and ``latency`` kinds over weighted epochs.

    ``harm`` holds running log e by edge (one edge for failures) and risk ratio, ``prior`` the champion's (n, events)
    by edge before the next block, ``bets`` the running log e of the non-inferiority bets by fraction, ``against``
    the same for harm beyond a harm margin.
    """

    epochs: tuple[EpochCountSums, ...] = ()
    harm: tuple[tuple[float, ...], ...] = ()
    prior: tuple[tuple[int, int], ...] = ()
    bets: tuple[float, ...] = NO_BETS
    against: tuple[float, ...] = NO_BETS
    blocks: int = 0
    ever_harm: float = 0.0
    harm_block: int = -1
    last_block: int = -1
    last_epoch: int = -1


def count_tables(plan: MetricPlan, block: Block) -> list[tuple[CountCell, CountCell]]:
    """(champion, challenger) counts of a block, one per edge; failures have one edge.

    A harm margin of a latency puts the challenger's edge that much above the champion's.
    """
    if plan.family == "failures":
        a = block.champion if isinstance(block.champion, CountCell) else CountCell()
        b = block.challenger if isinstance(block.challenger, CountCell) else CountCell()
        return [(a, b)]
    la = block.champion if isinstance(block.champion, LatencyCell) else LatencyCell()
    lb = block.challenger if isinstance(block.challenger, LatencyCell) else LatencyCell()
    pairs = [(edge, slower_bucket(edge, plan.harm_margin, plan.harm_relative)) for edge in plan.edges]
    return [(la.at(a), lb.at(b)) for a, b in pairs]


def slower_bucket(bucket: int, margin: float, relative: bool) -> int:
    """The bucket whose upper bound lies a margin (milliseconds, or relative) above that of ``bucket``."""
    usual = BUCKET_GROWTH**bucket
    slower = usual * (1 + margin) if relative else usual + 1000 * margin
    return round(math.log(slower) / math.log(BUCKET_GROWTH))


def faster_bucket(bucket: int, margin: float, relative: bool) -> int:
    """The bucket of which ``bucket`` lies a margin above; 0 where nothing is so fast."""
    usual = BUCKET_GROWTH**bucket
    faster = usual / (1 + margin) if relative else usual - 1000 * margin
    return max(0, round(math.log(max(faster, 1.0)) / math.log(BUCKET_GROWTH)))


def _judged(plan: MetricPlan, block: Block) -> tuple[CountCell, CountCell, float]:
    """The two arms' counts for the non-inferiority bet, and its absolute margin.

    Failures: as they are. Latency: champion above its quantile q against challenger above q + margin, margin a tenth
    of the share beyond q.
    """
    if plan.family == "failures":
        a, b = count_tables(plan, block)[0]
        return a, b, absolute(plan, plan.margin, plan.margin_relative)
    la = block.champion if isinstance(block.champion, LatencyCell) else LatencyCell()
    lb = block.challenger if isinstance(block.challenger, LatencyCell) else LatencyCell()
    usual, slower = plan.judged
    return la.at(usual), lb.at(slower), SLOW_SHARE * (1 - plan.quantile)


def absolute(plan: MetricPlan, margin: float, relative: bool) -> float:
    """A margin of a rate in absolute terms, below 1; relative ones refer to the frozen rate of the champion."""
    return min(margin * max(plan.p_hist, sequential.LEAST_RATE) if relative else margin, LARGEST_MARGIN)


def _bet(
    champion: CountCell, challenger: CountCell, delta: float, log_e: tuple[float, ...], worse: bool
) -> tuple[float, ...]:
    """One more block of bets against p_B − p_A ≥ δ, or (``worse``) against p_B − p_A ≤ δ.

    Given the block's counts of units, not the declared share: exact for units that come back in the arm they had.
    """
    (first, second), margin = ((champion, challenger), delta) if not worse else ((challenger, champion), -delta)
    new = sequential.log_e_bet(*first[:2], *second[:2], None, margin, np.asarray(sequential.BET_FRACTIONS))
    return tuple(old + float(more) for old, more in zip(log_e, new, strict=True))


def fold_counts(plan: MetricPlan, epoch: EpochPlan, state: CountFold, block: Block) -> CountFold:
    """``state`` after one service block of a weighted epoch, with its ever-harm."""
    tables = count_tables(plan, block)
    if not tables:
        raise ValueError(f"{plan.name}: no frozen edges")
    if not state.harm:
        state = state._replace(
            harm=((0.0,) * len(sequential.RISK_RATIOS),) * len(tables), prior=((0, 0),) * len(tables)
        )
    grid = np.array([(*a[:2], *b[:2]) for a, b in tables], dtype=float).T[..., None]
    prior = np.array(state.prior, dtype=float)
    history = np.clip(_histories(plan), sequential.LEAST_RATE, 1 - sequential.LEAST_RATE)
    rate = ((PRIOR_WEIGHT * history + prior[:, 1]) / (PRIOR_WEIGHT + prior[:, 0]))[:, None]
    more = sequential.log_e_two_by_two(grid[0], grid[1], grid[2], grid[3], rate, np.array(sequential.RISK_RATIOS))
    harm = np.array(state.harm) + more
    a, b, delta = _judged(plan, block)
    beyond = absolute(plan, plan.harm_margin, plan.harm_relative) if plan.family == "failures" else 0.0
    state = state._replace(
        epochs=_add(plan, state.epochs, epoch, block),
        harm=tuple(tuple(float(x) for x in edge) for edge in harm),
        prior=tuple((n + t[0].units, k + t[0].events) for (n, k), t in zip(state.prior, tables, strict=True)),
        bets=_bet(a, b, delta, state.bets, worse=False),
        against=_bet(*tables[0], beyond, state.against, worse=True) if beyond else state.against,
        blocks=state.blocks + 1,
        last_block=block.block,
        last_epoch=block.epoch,
    )
    log_e = _harm(plan, state)
    return state._replace(ever_harm=log_e, harm_block=block.block) if log_e > state.ever_harm else state


def _histories(plan: MetricPlan) -> tuple[float, ...]:
    if plan.family == "failures":
        return (plan.p_hist,)
    return tuple(1 - q for q in EDGE_QUANTILES[: len(plan.edges)])


class CountTests(NamedTuple):
    """The counting tests read now: log e-values of harm (mean over edges and risk ratios) and of non-inferiority."""

    harm: float
    non_inferior: float


def count_tests(plan: MetricPlan, state: CountFold) -> CountTests:
    """Harm beyond ``harm_margin`` where one is declared for failures, else any harm."""
    if not state.harm:
        return CountTests(0.0, 0.0)
    proof = float(sequential.log_mean_exp(state.bets))
    if plan.family == "failures":
        every = repeated((e.pi_ppm, e.champion, e.challenger) for e in state.epochs)
        margin = absolute(plan, plan.margin, plan.margin_relative)
        again = 0.0 if every is None else sequential.log_e_one_sided(margin - every.theta, every.variance, margin)
        proof = min(proof, again)
    return CountTests(_harm(plan, state), proof)


def _harm(plan: MetricPlan, state: CountFold) -> float:
    if plan.family == "failures" and absolute(plan, plan.harm_margin, plan.harm_relative) > 0:
        return float(sequential.log_mean_exp(state.against))
    return float(sequential.log_mean_exp([x for edge in state.harm for x in edge]))


def _add(
    plan: MetricPlan, epochs: tuple[EpochCountSums, ...], epoch: EpochPlan, block: Block
) -> tuple[EpochCountSums, ...]:
    old = next((e for e in epochs if e.epoch == epoch.number), None)
    now = old or EpochCountSums(epoch.number, epoch.pi_ppm)
    a, b, _ = _judged(plan, block)
    if plan.family == "latency":
        now = now._replace(slower=now.slower.plus(b))
        usual, within = plan.judged[0], faster_bucket(plan.judged[0], plan.margin, plan.margin_relative)
        if isinstance(block.champion, LatencyCell):
            buckets = _merge(now.champion_buckets, block.champion.buckets)
            now = now._replace(champion_buckets=buckets, within=now.within.plus(block.champion.at(within)))
        if isinstance(block.challenger, LatencyCell):
            b = block.challenger.at(usual)
            now = now._replace(challenger_buckets=_merge(now.challenger_buckets, block.challenger.buckets))
    now = now._replace(champion=now.champion.plus(a), challenger=now.challenger.plus(b))
    return tuple(now if e is old else e for e in epochs) if old else (*epochs, now)


def _merge(a: tuple[tuple[int, int], ...], b: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    total = dict(a)
    for bucket, count in b:
        total[bucket] = total.get(bucket, 0) + count
    return tuple(sorted(total.items()))
