"""What a new epoch takes from its units by their covariates, frozen when it opens."""

import math
from collections.abc import Mapping

from controller.core.cells import BaselineSums
from controller.core.covariates import adjustment
from controller.core.fold import Statistics
from controller.core.scores import ScoreFold
from controller.core.statistics import BUCKET_GROWTH
from controller.kinds import KINDS
from controller.spec import RolloutSpec
from controller.status import Adjustment, Frozen


def opening_adjustments(
    spec: RolloutSpec, baselines: Mapping[str, Frozen], statistics: Statistics
) -> dict[str, Adjustment]:
    """By metric, from all that is final of both arms, else from the champion of the baseline."""
    found = {}
    for metric in spec.metrics:
        if metric.covariate is None or metric.name not in baselines:
            continue
        cap, state = baselines[metric.name].cap, statistics.folds.get((metric.name, ""))
        most = KINDS[metric.kind].scale if cap is None else cap
        epochs = state.epochs if isinstance(state, ScoreFold) else ()
        chosen = adjustment([arm.covaried for e in epochs for arm in (e.champion, e.challenger)], most)
        if chosen is None:
            sums = statistics.baselines.get(metric.name, BaselineSums())
            chosen = adjustment([sums.covaried], most, _deviation(sums, cap))
        if chosen is not None:
            found[metric.name] = chosen
    return found


def _deviation(sums: BaselineSums, cap: int | None) -> float | None:
    """The standard deviation of values after the cut, from the histogram; None where nothing is cut."""
    if cap is None or sums.x == 0 or all(BUCKET_GROWTH**bucket <= cap for bucket, _ in sums.buckets):
        return None
    sizes = [(units, min(BUCKET_GROWTH ** (bucket - 0.5), cap)) for bucket, units in sums.buckets if bucket > 0]
    mean = sum(units * size for units, size in sizes) / sums.x
    return math.sqrt(max(0.0, sum(units * size**2 for units, size in sizes) / sums.x - mean**2))
