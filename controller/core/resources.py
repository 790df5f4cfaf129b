"""Gauges of the two arms' servers (memory, CPU, anything Prometheus knows): the limit, and the comparison by hours.

Samples of a gauge are not independent observations: memory that is high now is high a minute from now. Compared point
by point, a test at .01 is wrong in up to all of the cases. So the arms are compared by *batch means*: D is the
difference of their means over an hour, and an hour counts once. Squares are taken about the boundary that is tested
(de la Peña, Klass and Lai, Annals of Probability 2004), so that n hours never give a log e above n/2, and below
``LEAST_BATCHES`` of them nothing is tested. Nothing is randomised here: what differs between the machines of the two
servers, or in the traffic that they get, counts as a difference of the models.
"""

import math
from typing import NamedTuple

from controller.core import sequential
from controller.core.cells import Block, GaugeCell, MetricPlan
from controller.core.limits import Window, with_window
from controller.core.scores import NO_SPREAD, TAU_FACTORS, TOO_FEW, Effect

BATCH = 3_600_000_000  # µs
LEAST_BATCHES = 6


class ResourceFold(NamedTuple):
    """A Resource over all epochs: the challenger's last ``recent`` windows, and the complete batches of weighted ones.

    ``d``, ``dd``: sum and squares of challenger − champion over batches (integer units), ``champion``: sum of the
    champion's means. The open batch has the windows and sums of each arm since ``first_block``.
    """

    recent: tuple[Window, ...] = ()
    batches: int = 0
    d: int = 0
    dd: int = 0
    champion: int = 0
    first_block: int = -1
    number: int = 0
    open_champion: tuple[int, int] = (0, 0)
    open_challenger: tuple[int, int] = (0, 0)
    last_d: tuple[int, int] = (-1, 0)
    ever_harm: float = 0.0
    harm_block: int = -1
    last_block: int = -1
    last_epoch: int = -1


def fold_resource(plan: MetricPlan, weighted: bool, state: ResourceFold, block: Block) -> ResourceFold:
    """``state`` after one window; outside ``weighted`` epochs the arms are not compared."""
    a, b = (c if isinstance(c, GaugeCell) else GaugeCell() for c in (block.champion, block.challenger))
    if b.samples:
        state = state._replace(recent=with_window(state.recent, block.epoch, b.mean))
    if weighted:
        state = _batched(plan, state, block, a, b)
    return state._replace(last_block=block.block, last_epoch=block.epoch)


def _batched(plan: MetricPlan, state: ResourceFold, block: Block, a: GaugeCell, b: GaugeCell) -> ResourceFold:
    length = max(BATCH, plan.block)
    if block.epoch != state.last_epoch or state.first_block < 0:
        state = state._replace(first_block=block.block, number=0, open_champion=(0, 0), open_challenger=(0, 0))
    number = (block.block - state.first_block) * plan.block // length
    if number > state.number:
        state = _closed(plan, state, length)._replace(number=number, open_champion=(0, 0), open_challenger=(0, 0))
    arms = [
        (windows + 1, total + cell.mean) if cell.samples else (windows, total)
        for (windows, total), cell in ((state.open_champion, a), (state.open_challenger, b))
    ]
    return state._replace(open_champion=arms[0], open_challenger=arms[1])


def _closed(plan: MetricPlan, state: ResourceFold, length: int) -> ResourceFold:
    """With the open batch as one more, if both arms had at least half of its windows."""
    (n_a, sum_a), (n_b, sum_b) = state.open_champion, state.open_challenger
    if 2 * min(n_a, n_b) * plan.block < length:
        return state
    champion, d = sum_a // n_a, sum_b // n_b - sum_a // n_a
    state = state._replace(
        batches=state.batches + 1,
        d=state.d + d,
        dd=state.dd + d * d,
        champion=state.champion + champion,
        last_d=(state.last_epoch, d),
    )
    harm = resource_harm(plan, state)
    return state._replace(ever_harm=harm, harm_block=state.last_block) if harm > state.ever_harm else state


def resource_effect(plan: MetricPlan, state: ResourceFold) -> Effect:
    """The mean difference over batches with its standard error for reading; tests have squares of their own."""
    n = state.batches
    if n == 0:
        return Effect(note="no complete hour of both arms yet")
    champion, theta = state.champion / n, state.d / n
    margin, beyond = plan.margins_at(champion)
    squares = state.dd - n * theta * theta
    if n < LEAST_BATCHES or squares <= 0:
        note = NO_SPREAD if n >= LEAST_BATCHES else f"{TOO_FEW}: {n} of {LEAST_BATCHES} hours"
        return Effect(theta, math.inf, champion, margin, beyond, False, note)
    return Effect(theta, squares / (n - 1) / n, champion, margin, beyond, True, f"{n} hours")


def _about(state: ResourceFold, centre: float) -> float:
    """The squared error of θ from squares about ``centre``."""
    n = state.batches
    return max(state.dd - 2 * centre * state.d + n * centre * centre, 0.0) / n**2


def resource_harm(plan: MetricPlan, state: ResourceFold) -> float:
    """Log e-value that the challenger uses more than the champion and the harm margin; 0 while untested."""
    effect = resource_effect(plan, state)
    squares = _about(state, effect.harm_margin) if effect.guarded else 0.0
    if squares <= 0 or effect.margin <= 0:
        return 0.0
    taus = [f * effect.margin for f in TAU_FACTORS]
    return sequential.log_e_one_sided_mixture(effect.theta - effect.harm_margin, squares, taus)


def resource_non_inferior(state: ResourceFold, effect: Effect) -> float:
    """Log e-value that it does not use more by the margin; 0 while untested."""
    squares = _about(state, effect.margin) if effect.guarded else 0.0
    if squares <= 0 or effect.margin <= 0:
        return 0.0
    return float(sequential.log_e_one_sided(effect.margin - effect.theta, squares, effect.margin))
