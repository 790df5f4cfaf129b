"""What one prediction costs against its label, and what one outcome is worth, in the metric's integer unit."""

import json
import math
from typing import Any

from controller.core.cells import MetricPlan, StatisticsQuery
from controller.kinds import ERRORS, Kind

LARGEST = 10**12  # units that a single value, or a unit's sum of outcomes, may have
LARGEST_DIFFERENCE = 1e9  # of a score and its label
LEAST_PROBABILITY = 1e-6  # log loss: a surer prediction is taken as this sure, so that one row costs at most 13.8


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
        return 1, in_units((1.0 - chance) ** 2, scale)
    if kind is Kind.LOG_LOSS:
        return 1, in_units(-math.log(min(max(chance, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)), scale)
    raise ValueError(f"{kind}: no worth of a single prediction")


def _error(plan: MetricPlan, score: float | None, label: float) -> tuple[int, int]:
    if score is None:
        return (0, 0) if plan.cap is None else (1, plan.cap)
    away = min(abs(score - label), LARGEST_DIFFERENCE)
    error = in_units(away if plan.kind is Kind.ABSOLUTE_ERROR else away * away, plan.scale)
    return 1, error if plan.cap is None else min(error, plan.cap)
