"""Two rates side by side, and what people are told of slowness and of failures that come again."""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from controller.core import sequential
from controller.core.cells import CountCell, MetricPlan
from controller.core.counts import EDGE_QUANTILES, CountFold
from controller.core.plans import GAMMA, quantile_bucket
from controller.core.repeats import Repeated

CLEARLY = 1.0  # log e from which on people are told at which quantile


class Rates(NamedTuple):
    """Two rates, stratified by epoch: their difference and its standard error, the champion's rate, and for the
    interval the factors of p(1−p) in the variance, the units of each arm and the events of both."""

    theta: float = 0.0
    se: float = math.inf
    rate: float = 0.0
    spread: tuple[float, float] = (0.0, 0.0)
    units: tuple[int, int] = (1, 1)
    events: int = 0


def stratified(epochs: Iterable[tuple[CountCell, CountCell]]) -> Rates:
    """Difference of the two rates stratified by epoch, with n_a·n_b/(n_a + n_b) as weights.

    The standard error adds half an event to each arm, so that an arm without events is not taken for certain.
    """
    weight = theta = variance = rate = spread_a = spread_b = 0.0
    units_a = units_b = events = 0
    for (n_a, y_a, *_), (n_b, y_b, *_) in epochs:
        if not n_a or not n_b:
            continue
        w = n_a * n_b / (n_a + n_b)
        p_a, p_b = (y_a + 0.5) / (n_a + 1), (y_b + 0.5) / (n_b + 1)
        weight += w
        theta += w * (y_b / n_b - y_a / n_a)
        rate += w * y_a / n_a
        variance += w * w * (p_a * (1 - p_a) / n_a + p_b * (1 - p_b) / n_b)
        spread_a, spread_b = spread_a + w * w / n_a, spread_b + w * w / n_b
        units_a, units_b, events = units_a + n_a, units_b + n_b, events + y_a + y_b
    if weight == 0:
        return Rates()
    spread = (spread_a / weight**2, spread_b / weight**2)
    return Rates(theta / weight, math.sqrt(variance) / weight, rate / weight, spread, (units_a, units_b), events)


def slowness(plan: MetricPlan, state: CountFold) -> str:
    """For people: the quantile of both arms in the last epoch, and the quantile at which slowness is clearest."""
    last = state.epochs[-1]
    arms = last.champion_buckets, last.challenger_buckets
    a, b = (GAMMA ** quantile_bucket(buckets, plan.quantile) / 1000 for buckets in arms)
    text = f"p{plan.quantile * 100:g} {a:.1f} ms and {b:.1f} ms"
    if not state.harm or max(map(max, state.harm)) < CLEARLY:  # no mean is above its largest
        return text
    harm = np.asarray(sequential.log_mean_exp(state.harm))
    worst = int(np.argmax(harm))
    if harm[worst] < CLEARLY:
        return text
    edge = plan.edges[worst]
    shares = (sum(n for k, n in x if k > edge) / max(sum(n for _, n in x), 1) for x in arms)
    above = " and ".join(f"{100 * share:.1f} %" for share in shares)
    return f"{text}, above the usual p{100 * EDGE_QUANTILES[worst]:g} of {GAMMA**edge / 1000:.1f} ms {above}"


def again(every: Repeated) -> str:
    """For people: what ``repeats`` adds, where units fail in more than one block."""
    if every.blocks <= 1:
        return ""
    return (
        f"units that fail do so in {every.blocks:.1f} blocks: counted every time, "
        f"{_percent(every.champion)} and {_percent(every.challenger)}"
    )


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"
