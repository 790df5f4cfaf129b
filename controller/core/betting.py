"""Tests on counts: units and, among them, units with the event. Public through `controller.core.sequential`.

Exact at every sample size; each docstring says what it assumes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple, overload

import numpy as np
import numpy.typing as npt

from controller.core.arrays import FloatArray, as_array, log_mean_exp, plain, require

RISK_RATIOS = (1.5, 2.0, 3.0, 5.0, 10.0, 30.0)
BET_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.8)
LEAST_RATE = 1e-4


class _Table(NamedTuple):
    """Units and units with the event, champion (a) and challenger (b)."""

    n_a: FloatArray
    y_a: FloatArray
    n_b: FloatArray
    y_b: FloatArray

    def with_axis(self) -> _Table:
        """One more axis at the end, for alternatives or bets."""
        return _Table(self.n_a[..., None], self.y_a[..., None], self.n_b[..., None], self.y_b[..., None])


def _table(
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
) -> _Table:
    table = _Table(*map(as_array, (champion_n, champion_events, challenger_n, challenger_events)))
    for arm, n, events in (("champion", table.n_a, table.y_a), ("challenger", table.n_b, table.y_b)):
        good = np.isfinite(n) & (events >= 0) & (events <= n)
        require(f"{arm}_n and {arm}_events", "finite with 0 <= events <= n", good)
    return table


def _blocks(table: _Table) -> _Table:
    same = _Table(*np.broadcast_arrays(*table))
    require("counts", "arrays with the blocks along the last axis", same.n_a.ndim >= 1)
    return same


def _carry(start: FloatArray, steps: FloatArray) -> FloatArray:
    """Running sums over the blocks (axis -2) with `start` as row 0; strictly in order, so pieces give the same bits."""
    first = np.broadcast_to(start, (*steps.shape[:-2], steps.shape[-1]))[..., None, :]
    return np.cumsum(np.concatenate([first, steps], axis=-2), axis=-2)


@overload
def log_e_two_by_two(
    champion_n: float,
    champion_events: float,
    challenger_n: float,
    challenger_events: float,
    p_champion: float,
    risk_ratio: float,
) -> float: ...
@overload
def log_e_two_by_two(
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
    p_champion: npt.ArrayLike,
    risk_ratio: npt.ArrayLike,
) -> FloatArray: ...
def log_e_two_by_two(
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
    p_champion: npt.ArrayLike,
    risk_ratio: npt.ArrayLike,
) -> float | FloatArray:
    """Log e-value of one block against H0: the challenger has the event at most as often as the champion.

    The 2x2 block e-variable of Turner, Ly and Gruenwald: the likelihood of t_A = p_champion and
    t_B = p_champion * risk_ratio over that of both arms at the pooled t0 = (n_A t_A + n_B t_B)/(n_A + n_B). Given the
    counts of units its mean is at most 1 for all rates p_B <= p_A (each arm's factor is monotone in its rate), if
    p_champion was fixed before the block; so any allocation will do. Log e-values of blocks add.

    0 < p_champion < 1. t_B stays below 1: it leaves at least a thousandth of the champion's event-free share. A block
    with an empty arm says nothing: 0. A risk ratio below 1 tests the other direction.
    """
    table = _table(champion_n, champion_events, challenger_n, challenger_events)
    rate, ratio = as_array(p_champion), as_array(risk_ratio)
    require("p_champion", "between 0 and 1", (rate > 0) & (rate < 1))
    require("risk_ratio", "positive and finite", (ratio > 0) & np.isfinite(ratio))
    result: float | FloatArray = plain(_two_by_two(table, rate, ratio))
    return result


def _two_by_two(table: _Table, rate: FloatArray, ratio: FloatArray) -> FloatArray:
    n_a, y_a, n_b, y_b = table
    gap = np.minimum(rate * ratio, 1.0 - (1.0 - rate) * 1e-3) - rate
    total = n_a + n_b
    share = n_b / np.where(total > 0, total, 1.0)
    pooled = rate + gap * share
    below, above = -gap * share, gap * (1.0 - share)  # t_A - t0 and t_B - t0, without cancellation
    # With an empty arm its own terms have no units, and the other's logarithms are 0.
    log_e: FloatArray = (
        y_a * np.log1p(below / pooled)
        + (n_a - y_a) * np.log1p(-below / (1.0 - pooled))
        + y_b * np.log1p(above / pooled)
        + (n_b - y_b) * np.log1p(-above / (1.0 - pooled))
    )
    return log_e


class HarmFold(NamedTuple):
    """What `fold_harm_counts` has to remember: the champion's totals (...,) and one log e per risk ratio (..., R)."""

    champion_n: FloatArray
    champion_events: FloatArray
    log_e: FloatArray


def fold_harm_counts(
    start: HarmFold | None,
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
    p_hist: npt.ArrayLike,
    prior_weight: float = 2000.0,
    risk_ratios: Sequence[float] = RISK_RATIOS,
) -> tuple[HarmFold, FloatArray]:
    """`log_e_harm_counts` in pieces: blocks folded in several calls give the same bits as in one."""
    table = _blocks(_table(champion_n, champion_events, challenger_n, challenger_events))
    history, ratios = as_array(p_hist), as_array(risk_ratios)
    require("p_hist", "between 0 and 1", (history >= 0) & (history <= 1))
    require("prior_weight", "positive and finite", 0 < prior_weight < math.inf)
    require("risk_ratios", "a list of positive finite numbers", ratios.ndim == 1 and np.all(ratios > 0))
    require("risk_ratios", "a list of positive finite numbers", ratios.size > 0 and np.all(np.isfinite(ratios)))
    if start is None:
        zero = np.zeros(table.n_a.shape[:-1])
        start = HarmFold(zero, zero, np.zeros((*zero.shape, ratios.size)))

    prior = prior_weight * np.clip(history, LEAST_RATE, 1.0 - LEAST_RATE)[..., None]
    n = start.champion_n[..., None] + np.cumsum(table.n_a, axis=-1)
    events = start.champion_events[..., None] + np.cumsum(table.y_a, axis=-1)
    # Only what the blocks before this one showed, so that the alternative is predictable.
    rate = (prior + (events - table.y_a)) / (prior_weight + (n - table.n_a))
    logs = _carry(start.log_e, _two_by_two(table.with_axis(), rate[..., None], ratios))
    totals = start.champion_n + table.n_a.sum(axis=-1), start.champion_events + table.y_a.sum(axis=-1)
    return HarmFold(*totals, logs[..., -1, :]), as_array(log_mean_exp(logs[..., 1:, :]))


def log_e_harm_counts(
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
    p_hist: npt.ArrayLike,
    prior_weight: float = 2000.0,
    risk_ratios: Sequence[float] = RISK_RATIOS,
) -> FloatArray:
    """Running log e-value against H0: the challenger has the event at most as often as the champion.

    Counts are (..., blocks), the last axis in time order; `p_hist` (...,) is the champion's rate known beforehand,
    taken as at least 1e-4; the result is (..., blocks). Per block `log_e_two_by_two` with p_champion the mean of a
    Beta whose prior is `prior_weight` units at p_hist and whose data are the champion's earlier blocks; the e-values
    of the risk ratios are averaged after multiplying over the blocks. Exact where the events of different units are
    independent. Whether harm was ever proven is the maximum of the result.
    """
    counts = champion_n, champion_events, challenger_n, challenger_events
    return fold_harm_counts(None, *counts, p_hist, prior_weight, risk_ratios)[1]


@overload
def log_e_bet(
    champion_n: float,
    champion_events: float,
    challenger_n: float,
    challenger_events: float,
    pi: float | None,
    margin: float,
    fraction: float,
) -> float: ...
@overload
def log_e_bet(
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
    pi: npt.ArrayLike | None,
    margin: npt.ArrayLike,
    fraction: npt.ArrayLike,
) -> FloatArray: ...
def log_e_bet(
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
    pi: npt.ArrayLike | None,
    margin: npt.ArrayLike,
    fraction: npt.ArrayLike,
) -> float | FloatArray:
    """Log e-value of one block against H0: p_B - p_A >= margin, for one betting fraction between 0 and 1.

    For a unit in arm A (1 = challenger) with event X, D = A X/pi - (1-A) X/(1-pi) has mean p_B - p_A. The capital is
    multiplied by 1 + lambda (margin - D) with lambda = fraction/(1/pi - margin): at least 1 - fraction, and of mean
    at most 1 under H0. `margin` is a difference of rates, above -1 and below 1.

    `pi` is P(challenger) among the counted units, fixed before the block: exact if each counted unit was drawn anew
    with it. With None it is the challenger's share among the units of the block: exact given the counts of units, for
    independent events, because the logs of the units' means then sum to at most lambda n (margin - p_B + p_A) by
    log(1+x) <= x. That holds also for units that come back in the arm they had, and for an arm that loses units; a
    block with an empty arm says nothing.

    To test H0: p_B - p_A <= margin instead, exchange the arms, and pass 1 - pi and -margin.
    """
    table = _table(champion_n, champion_events, challenger_n, challenger_events)
    delta, bets = as_array(margin), as_array(fraction)
    require("margin", "above -1 and below 1 (a difference of rates)", np.abs(delta) < 1)
    require("fraction", "between 0 and 1", (bets > 0) & (bets < 1))
    share = None if pi is None else as_array(pi)
    if share is not None:
        require("pi", "between 0 and 1", (share > 0) & (share < 1))
    result: float | FloatArray = plain(_bet(table, share, delta, bets))
    return result


def _bet(table: _Table, pi: FloatArray | None, margin: FloatArray, fraction: FloatArray) -> FloatArray:
    n_a, y_a, n_b, y_b = table
    total = n_a + n_b
    telling: npt.NDArray[np.bool_] | np.bool_ = (n_a > 0) & (n_b > 0) if pi is None else np.bool_(True)
    share = np.where(telling, n_b, 1.0) / np.where(telling, total, 2.0) if pi is None else pi
    stake = fraction * share / (1.0 - share * margin)  # lambda
    log_e: FloatArray = (
        (total - y_a - y_b) * np.log1p(stake * margin)
        + y_b * np.log1p(-fraction)  # lambda (margin - 1/pi)
        + y_a * np.log1p(stake * (margin + 1.0 / (1.0 - share)))
    )
    return np.asarray(np.where(telling, log_e, 0.0))


def fold_count_non_inferior(
    start: FloatArray | None,
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
    pi: npt.ArrayLike | None,
    margin: npt.ArrayLike,
) -> tuple[FloatArray, FloatArray]:
    """`log_e_count_non_inferior` in pieces; `start` and the first result are one log e per fraction, (..., 5)."""
    table = _blocks(_table(champion_n, champion_events, challenger_n, challenger_events)).with_axis()
    share = None if pi is None else as_array(pi)[..., None]
    steps = as_array(log_e_bet(*table, share, as_array(margin)[..., None, None], BET_FRACTIONS))
    logs = _carry(np.zeros(len(BET_FRACTIONS)) if start is None else start, steps)
    return logs[..., -1, :], as_array(log_mean_exp(logs[..., 1:, :]))


def log_e_count_non_inferior(
    champion_n: npt.ArrayLike,
    champion_events: npt.ArrayLike,
    challenger_n: npt.ArrayLike,
    challenger_events: npt.ArrayLike,
    pi: npt.ArrayLike | None,
    margin: npt.ArrayLike,
) -> FloatArray:
    """Running log e-value against H0: p_B - p_A >= margin; the mean over `BET_FRACTIONS` of products of `log_e_bet`.

    Counts are (..., blocks) in time order, `margin` (...,) is a difference of rates fixed beforehand, the result is
    (..., blocks). `pi` is a number, an array that broadcasts against the blocks (it may change from one block to
    the next, by choices made before it), or None for the share found in each block; `log_e_bet` says when which is
    exact. No guard is needed: two arms without a single event can be proven equal.
    """
    counts = champion_n, champion_events, challenger_n, challenger_events
    return fold_count_non_inferior(None, *counts, pi, margin)[1]
