"""What one labelled row, one outcome or one latency is worth, in integer units: the one place that says so.

The incremental engine and the oracle put the same expressions into different queries. A value is rounded half away
from zero, once per row, and held within ±1e12 units, so that sums do not depend on their order.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any, NamedTuple

import numpy as np

from controller.core.areas import FURTHEST_SCORE
from controller.core.cells import MetricPlan, ScoreCell
from controller.core.covariates import Moments
from controller.kinds import ERRORS, Kind
from controller.status import Adjustment

LARGEST = 1_000_000_000_000  # units that a single value, or a unit's sum of outcomes, may have
LEAST_PROBABILITY = 1e-6
LARGEST_DIFFERENCE = 1e9  # of a score and its label, so that squares stay finite


class Term(NamedTuple):
    """SQL for the weight x (an integer; 0 leaves the row out) and the value y of a labelled row."""

    x: str
    y: str


def _units(value: str, scale: int) -> str:
    return f"CAST(round(least(greatest(({value}) * {scale}, -{LARGEST}), {LARGEST})) AS BIGINT)"


def label_term(plan: MetricPlan, positive: float, threshold: float, usable: str, score: str, value: str) -> Term:
    """The term of a ``label`` kind, given SQL for: the answer was usable, its score (or NULL), the label.

    A missing answer is the opposite of the label with all certainty. Kinds of error that have no worst case take the
    cap for it, and leave the row out where there is none. Raises ValueError for a kind that has no term.
    """
    wrong, truth = f"(NOT {usable} OR {score} IS NULL)", f"({value} = {positive!r})"
    said = f"CASE WHEN {wrong} THEN NOT {truth} ELSE {score} >= {threshold!r} END"
    p = f"CASE WHEN {wrong} THEN 0.0 WHEN {truth} THEN {score} ELSE 1.0 - {score} END"
    both = f"CAST(({said}) AND {truth} AS BIGINT)"
    scale = plan.scale
    if plan.kind is Kind.ACCURACY:
        return Term("1", f"CASE WHEN ({said}) = {truth} THEN {scale} ELSE 0 END")
    if plan.kind is Kind.LOG_LOSS:
        held = f"least(greatest({p}, {LEAST_PROBABILITY!r}), {1 - LEAST_PROBABILITY!r})"
        return Term("1", _units(f"-ln({held})", scale))
    if plan.kind is Kind.BRIER:
        return Term("1", _units(f"pow(1.0 - ({p}), 2)", scale))
    if plan.kind is Kind.PRECISION:
        return Term(f"CAST(({said}) AS BIGINT)", f"{both} * {scale}")
    if plan.kind is Kind.RECALL:
        return Term(f"CAST({truth} AS BIGINT)", f"{both} * {scale}")
    if plan.kind is Kind.F1:
        return Term(f"CAST(({said}) AS BIGINT) + CAST({truth} AS BIGINT)", f"2 * {both} * {scale}")
    if plan.kind in ERRORS:
        cap = LARGEST if plan.cap is None else plan.cap
        away = f"least(abs({score} - {value}), {LARGEST_DIFFERENCE!r})"
        error = _units(away if plan.kind is Kind.ABSOLUTE_ERROR else f"{away} * {away}", scale)
        return Term(
            "1" if plan.cap is not None else f"CASE WHEN {wrong} THEN 0 ELSE 1 END",
            f"CASE WHEN {wrong} THEN {cap if plan.cap is not None else 0} ELSE least({error}, {cap}) END",
        )
    raise ValueError(f"{plan.name}: kind {plan.kind} has no term for a labelled row")


def held_score(usable: str, score: str) -> str:
    """SQL: a score within the edges of the bins; one of them where there is none."""
    return (
        f"CASE WHEN {usable} THEN least(greatest(COALESCE({score}, 0), -{FURTHEST_SCORE}), {FURTHEST_SCORE}) ELSE 0 END"
    )


def differs(plan: MetricPlan, threshold: float) -> str:
    """SQL on a pair: its value where the two answers differ, 0 where not, NULL where that is not known."""
    sides = [f"list_transform({arm}_scores, lambda s: s >= {threshold!r})" for arm in ("champion", "challenger")]
    return f"""CASE WHEN champion_usable AND challenger_usable THEN
        CASE WHEN champion_scores IS NULL OR challenger_scores IS NULL THEN NULL
        WHEN {sides[0]} IS DISTINCT FROM {sides[1]} THEN {plan.scale} ELSE 0 END
    WHEN champion_usable OR challenger_usable THEN {plan.scale} END"""


def outcome_sum(plan: MetricPlan, value: str, capped: bool) -> str:
    """SQL aggregate: what a unit's outcomes are worth to a ``unit`` kind. Raises ValueError for other kinds."""
    if plan.kind is Kind.PROPORTION:
        return f"CAST(max(CASE WHEN {value} <> 0 THEN {plan.scale} ELSE 0 END) AS HUGEINT)"
    if plan.kind in (Kind.MEAN, Kind.RATIO):
        cap = plan.cap if capped and plan.cap is not None else LARGEST
        return f"least(greatest(sum({_units(value, plan.scale)}), -{cap}), {cap})"
    raise ValueError(f"{plan.name}: kind {plan.kind} is no sum of outcomes")


def denominator_sum(value: str) -> str:
    """SQL aggregate: what a unit's outcomes are worth below the line of a Ratio."""
    return f"least(sum(CAST(round(least(greatest({value}, 0), {LARGEST})) AS BIGINT)), {LARGEST})"


def taken(c: str) -> str:
    """SQL: what an adjustment (columns ``centre``, ``per``, ``slope``, ``most``) takes from the value of a unit whose
    covariate is ``c``, as ``covariates.taken`` says. A division of integers drops the fraction."""
    rise = f"CAST(slope AS HUGEINT) * ({c} - centre)"
    rounded = f"(2 * {rise} + sign({rise}) * per) // (2 * CAST(per AS HUGEINT))"
    return f"CASE WHEN {c} IS NULL THEN 0 ELSE least(greatest({rounded}, -most), most) END"


def quantities(by: Adjustment | None) -> tuple[int, int, int, int]:
    """``centre``, ``per``, ``slope``, ``most`` of an adjustment; of one that takes nothing where there is none."""
    return (0, 1, 0, 0) if by is None else (by.centre, by.per, by.slope, by.most)


def score_cell(sums: Sequence[Any]) -> ScoreCell:
    """The cell of its eight sums, and of its ``Moments`` where they follow."""
    return ScoreCell._make((*map(int, sums[:8]), Moments(*map(int, sums[8:]))))


# SQL aggregates: ``Moments`` of a unit's y and c (HUGEINT), but for what was taken.
MOMENTS = """
    count(c), sum(CASE WHEN c IS NULL THEN 0 ELSE y END), sum(CASE WHEN c IS NULL THEN 0 ELSE y * y END),
    COALESCE(sum(c), 0), COALESCE(sum(c * c), 0), COALESCE(sum(c * y), 0)"""


@cache
def bucket_edges() -> tuple[int, ...]:
    """floor(1.02**b) for b = 0, 1, … up to LARGEST, exactly; bucket b holds what is above edge b−1, up to edge b."""
    edges: list[int] = []
    above = below = 1
    while not edges or edges[-1] < LARGEST:
        edges.append(above // below)
        above, below = above * 102, below * 100
    return tuple(edges)


def bucket(value: int) -> int:
    """The log bucket of an integer: the least b with 1.02**b ≥ value."""
    return bisect_left(bucket_edges(), min(value, LARGEST))


def buckets(values: Iterable[int]) -> "np.ndarray[Any, np.dtype[np.int16]]":
    """The log bucket of each of ``values``, as ``bucket`` says."""
    held = np.minimum(np.fromiter(values, dtype=np.int64), LARGEST)
    return np.searchsorted(_edges(), held, side="left").astype(np.int16)


@cache
def _edges() -> "np.ndarray[Any, np.dtype[np.int64]]":
    return np.array(bucket_edges(), dtype=np.int64)
