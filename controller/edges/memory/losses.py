"""What one prediction costs against its label, and what one outcome is worth, in the metric's integer unit."""

import json
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

from controller.core.areas import LAST, score_bin
from controller.core.cells import MetricPlan, StatisticsQuery
from controller.kinds import DECIDED, ERRORS, Kind

LARGEST = 10**12  # units that a single value, or a unit's sum of outcomes, may have
LARGEST_DIFFERENCE = 1e9  # of a score and its label
LEAST_PROBABILITY = 1e-6  # log loss: a surer prediction is taken as this sure, so that one row costs at most 13.8

Values = tuple[int, ...]


class Answered(NamedTuple):
    """Whether an answer was usable, and the score of each of its rows: None in it where there is no number, None
    altogether where it was not kept whole, or was not usable."""

    usable: bool
    scores: Sequence[float | None] | None


def in_units(value: float, scale: int) -> int:
    """``value * scale`` rounded half away from zero, within ±LARGEST."""
    large = abs(value) * scale
    if large >= LARGEST:
        whole = LARGEST
    else:
        whole = math.floor(large)
        whole += large - whole >= 0.5
    return int(math.copysign(whole, value))


def scores_in(answer: str | None, pointer: str, cut: bool) -> list[float | None] | None:
    """The score of every row of the answer; the first ``0`` in the pointer that stands for a place is the row.

    None in the list where the answer holds no number there; None altogether where the answer was not kept whole.
    """
    steps = [token.replace("~1", "/").replace("~0", "~") for token in pointer.split("/")[1:]]
    at = steps.index("0") if "0" in steps else len(steps)
    before, after, by_row = steps[:at], steps[at + 1 :], at < len(steps)
    try:
        found = _walk(json.loads(answer or ""), before)
    except (ValueError, TypeError, LookupError):
        return None if cut else [None]
    if by_row and isinstance(found, list):
        return [_number(row, after) for row in found]
    return [_number(found, ["0", *after] if by_row else [])]


def _walk(value: Any, steps: list[str]) -> Any:
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _number(value: Any, steps: list[str]) -> float | None:
    try:
        value = _walk(value, steps)
    except (ValueError, TypeError, LookupError):
        return None
    return float(value) if isinstance(value, int | float) else None


def worth(query: StatisticsQuery, plan: MetricPlan, score: float | None, label: float) -> tuple[int, int]:
    """(x, y) of one labelled row: how much it weighs (0: it does not count) and what it costs, or earns.

    ``score`` None: no usable answer, hence wrong with all certainty; of an error, the cap, without one nothing.
    """
    kind, scale, positive = plan.kind, plan.scale, label == query.positive
    said = not positive if score is None else score >= query.threshold
    if kind is Kind.ACCURACY:
        return 1, scale if said == positive else 0
    if kind is Kind.PRECISION:
        return int(said), scale if said and positive else 0
    if kind is Kind.RECALL:
        return int(positive), scale if said and positive else 0
    if kind is Kind.F1:
        return said + positive, 2 * scale if said and positive else 0
    if kind in ERRORS:
        return _error(plan, score, label)
    chance = 0.0 if score is None else score if positive else 1.0 - score  # given to what came true
    if kind is Kind.BRIER:
        return 1, in_units(min(abs(1.0 - chance), LARGEST_DIFFERENCE) ** 2, scale)
    if kind is Kind.LOG_LOSS:
        return 1, in_units(-math.log(min(max(chance, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)), scale)
    raise ValueError(f"{kind}: no worth of a single prediction")


def costs(
    query: StatisticsQuery, plan: MetricPlan, answer: Answered, labels: Mapping[int, float]
) -> dict[int, tuple[int, int]]:
    """(x, y) of each labelled row; both are 0 where it does not count. One whose answer was not kept whole is left
    out."""
    usable, scores = answer
    found: dict[int, tuple[int, int]] = {}
    for row, label in labels.items():
        if not usable:
            found[row] = worth(query, plan, None, label)
        elif scores is not None and row < len(scores):
            found[row] = worth(query, plan, scores[row], label)
    return found


def of_labels(query: StatisticsQuery, plan: MetricPlan, answer: Answered, labels: Mapping[int, float]) -> Values | None:
    """What a labelled request contributes to a ``label`` kind or an ``auc``; None where no row of it counts."""
    return _ranks(query, answer, labels) if plan.family == "auc" else _label_sums(query, plan, answer, labels)


def of_pair(
    query: StatisticsQuery, plan: MetricPlan, answers: Sequence[Answered], labels: Mapping[int, float]
) -> Values | None:
    """The same of the two answers to a mirrored request, champion's first."""
    return _paired_ranks(query, answers, labels) if plan.family == "auc" else _paired_sums(query, plan, answers, labels)


def _label_sums(
    query: StatisticsQuery, plan: MetricPlan, answer: Answered, labels: Mapping[int, float]
) -> Values | None:
    """(x, y) of all labelled rows, of an error twice: uncut, and cut at the cap; None where none counts."""
    sums = _summed(costs(query, plan, answer, labels).values())
    if plan.kind in ERRORS:
        sums = (*_summed(costs(query, plan._replace(cap=None), answer, labels).values()), *sums)
    return sums if any(sums[::2]) else None


def _summed(each: Collection[tuple[int, int]]) -> Values:
    return sum(x for x, _ in each), sum(y for _, y in each)


def _paired_sums(
    query: StatisticsQuery, plan: MetricPlan, answers: Sequence[Answered], labels: Mapping[int, float]
) -> Values | None:
    """(x, y) of the champion and of the challenger, of the rows that count for both; None where none does."""
    one, other = (costs(query, plan, answer, labels) for answer in answers)
    counts = any if plan.kind in DECIDED else all
    rows = [r for r in one if r in other and counts((one[r][0], other[r][0]))]
    return (*_summed([one[r] for r in rows]), *_summed([other[r] for r in rows])) if rows else None


def _places(query: StatisticsQuery, answer: Answered, labels: Mapping[int, float]) -> dict[int, int]:
    """The bin of the score of each labelled row that counts."""
    usable, scores = answer
    found = {}
    for row, label in labels.items():
        positive = label == query.positive
        if not usable:
            found[row] = score_bin(None, positive)
        elif scores is not None and row < len(scores):
            found[row] = score_bin(scores[row], positive)
    return found


def _ranks(query: StatisticsQuery, answer: Answered, labels: Mapping[int, float]) -> Values | None:
    """Of each labelled row twice the bin of its score, one more for a positive; None where none counts."""
    found = _places(query, answer, labels)
    return tuple(2 * place + (labels[row] == query.positive) for row, place in found.items()) or None


def _paired_ranks(query: StatisticsQuery, answers: Sequence[Answered], labels: Mapping[int, float]) -> Values | None:
    """Of each labelled row twice the place of both bins, one more for a positive; None where none counts."""
    one, other = (_places(query, answer, labels) for answer in answers)
    codes = [(one[r] * (LAST + 1) + other[r]) * 2 + (labels[r] == query.positive) for r in one if r in other]
    return tuple(codes) or None


def difference(query: StatisticsQuery, plan: MetricPlan, answers: Sequence[Answered]) -> Values | None:
    """(1, 0, 1, value where the answers differ); None where that is not known."""
    one, other = answers
    if not one.usable and not other.usable:
        return None
    sides = [_sides(query, answer) if answer.usable else [] for answer in answers]
    if None in sides:
        return None if one.usable and other.usable else (1, 0, 1, plan.scale)
    return (1, 0, 1, 0 if one.usable and other.usable and sides[0] == sides[1] else plan.scale)


def _sides(query: StatisticsQuery, answer: Answered) -> list[bool | None] | None:
    return None if answer.scores is None else [None if s is None else s >= query.threshold for s in answer.scores]


def _error(plan: MetricPlan, score: float | None, label: float) -> tuple[int, int]:
    if score is None:
        return (0, 0) if plan.cap is None else (1, plan.cap)
    away = min(abs(score - label), LARGEST_DIFFERENCE)
    error = in_units(away if plan.kind is Kind.ABSOLUTE_ERROR else away * away, plan.scale)
    return 1, error if plan.cap is None else min(error, plan.cap)
