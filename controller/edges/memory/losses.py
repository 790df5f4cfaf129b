"""What one prediction costs against its label, and what one outcome is worth, in the metric's integer unit."""

import json
import math
from typing import Any

from controller.core.cells import StatisticsQuery
from controller.kinds import Kind

LARGEST = 10**12  # units that a single value, or a unit's sum of outcomes, may have
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


def loss(query: StatisticsQuery, kind: Kind, scale: int, score: float | None, label: float) -> int:
    """What ``score`` (None: no usable answer, hence wrong) costs against ``label``; for Accuracy what it earns."""
    positive = label == query.positive
    if kind is Kind.ACCURACY:
        return scale if score is not None and (score >= query.threshold) == positive else 0
    chance = 0.0 if score is None else score if positive else 1.0 - score  # given to what came true
    if kind is Kind.BRIER:
        return in_units((1.0 - chance) ** 2, scale)
    if kind is Kind.LOG_LOSS:
        return in_units(-math.log(min(max(chance, LEAST_PROBABILITY), 1 - LEAST_PROBABILITY)), scale)
    raise ValueError(f"{kind}: no loss of a single prediction")
