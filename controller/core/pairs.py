"""What a mirror shows: both arms answered the same request, so their answers are compared one by one.

Label kinds with the same rows in both arms have a difference d of each row, and θ = Σd/Σx. A ratio whose denominator
the answers decide (precision, F1) has none; its difference is linearised. With R = Y_A/X_A the champion's ratio, δ the
difference that is tried and ρ = X_A/X_B,

    D(δ) = ρ (y_B − (R + δ) x_B) − (y_A − R x_A),    ΣD(δ) = (θ − δ) X_A,    θ = Y_B/X_B − R,

which is the delta method with both arms in one residual: what moves both answers alike cancels, and the variance
shrinks by twice their covariance. Where the rows are the same (ρ = 1, x_A = x_B) D(δ) is d − δ x, so one formula serves
all. R and ρ are not known before, so sums of products of d, x_B − x_A, y_A and x_A are kept (``batches``).

Areas under the ROC curve are found in strata, consecutive blocks until there are enough rows of both labels; a stratum
has a weight that only counts decide in place of x, the weighted difference as d, and DeLong's variance of the
difference of two areas on the same rows (``statistics``).

Nothing is drawn in a mirror, so nothing but time tells whether what the pairs show will be so tomorrow: the variance is
the largest of that between units and that between blocks, or strata, for ratios and areas as for differences.
"""

import math
from typing import NamedTuple

from controller.core import sequential
from controller.core.areas import EXPECTED_ROWS, LEAST_ROWS, Joint
from controller.core.batches import (
    LEAST_BLOCKS,
    Batches,
    Weights,
    blocks_of,
    form,
    scatter,
    spread,
    squared,
    with_block,
)
from controller.core.cells import PPM, Block, EpochPlan, MetricPlan, PairAreaCell, PairCountCell, PairScoreCell
from controller.core.counts import absolute
from controller.core.scores import LEAST_UNITS, NO_SPREAD, ONE_ARM, TOO_FEW, Effect, expected_hits, log_e_harm
from controller.kinds import DECIDED

SAME_ANSWERS = "no answer differed"
TOO_FEW_BLOCKS = "too few blocks of the mirror yet"
NO_DENOMINATOR = "one arm's answers leave nothing to take the ratio of yet"


class Ranked(NamedTuple):
    """An Auc's rows: the open stratum; of all, their number, the positives, and Σ over units of their rows squared."""

    open: Joint = Joint()
    rows: int = 0
    positives: int = 0
    squares: int = 0


class PairFold(NamedTuple):
    """Mirror epochs, never added to weighted epochs.

    Failures: ``units``, and the discordant among them. Label kinds: sums as in the cells; ``alone`` is what
    ``clustered`` would be if no unit came twice. Auc: over closed strata x = Σ w in millionths, d = Σ w·θ, champion_y =
    Σ w·area, ``dd`` and ``alone`` = Σ w²·variance, ``clustered`` the same where all rows of a unit are alike.
    """

    epoch: int = -1
    units: int = 0
    x: int = 0
    d: int = 0
    dd: int = 0
    clustered: int = 0
    champion_y: int = 0
    batches: tuple[Batches, ...] = ()
    worse: int = 0
    better: int = 0
    blocks: int = 0
    ever_harm: float = 0.0
    harm_block: int = -1
    last_block: int = -1
    last_epoch: int = -1
    more: int = 0
    squares: tuple[int, ...] = (0,) * 9
    alone: int = 0
    ranked: Ranked = Ranked()


def pair_units(plan: MetricPlan, state: PairFold) -> tuple[int, int]:
    """Units of champion and challenger; none for an arm whose ratio has nothing below its line."""
    if plan.kind not in DECIDED:
        return state.units, state.units
    return state.units if state.x else 0, state.units if state.x + state.more else 0


def pair_effect(plan: MetricPlan, state: PairFold) -> Effect:
    """The mirror's effect per row (V = max(clustered, per block, between blocks)) or, for failures, per unit. The tests
    of what is no failure have a variance of their own (``_tested_variance``)."""
    if plan.family == "failures":
        margin = absolute(plan, plan.margin, plan.margin_relative)
        if state.units == 0:
            return Effect(margin=margin, note=ONE_ARM)
        theta, discordant = (state.worse - state.better) / state.units, state.worse + state.better
        note = "" if discordant else NO_SPREAD
        return Effect(theta, discordant / state.units**2 or math.inf, 0.0, margin, 0.0, discordant > 0, note)
    if not state.units:
        return Effect(note=ONE_ARM)
    if state.x <= 0 or state.x + state.more <= 0:
        return Effect(note=TOO_FEW if plan.family == "auc" else NO_DENOMINATOR)
    mean = state.champion_y / state.x
    theta = (state.d - mean * state.more) / (state.x + state.more)
    margin, beyond = plan.margins_at(mean)
    variance = _unit_variance(state)
    if variance <= 0:
        note = SAME_ANSWERS if plan.family == "pair" else NO_SPREAD
        return Effect(theta, math.inf, mean, margin, beyond, False, note)
    se2 = max(variance, scatter(state.batches, _weights(state, theta))) / state.x**2
    if not _enough(plan, state):
        return Effect(theta, se2, mean, margin, beyond, False, TOO_FEW)
    few = blocks_of(state.batches) < LEAST_BLOCKS
    return Effect(theta, se2, mean, margin, beyond, True, TOO_FEW_BLOCKS if few else "")


def _weights(state: PairFold, delta: float) -> Weights:
    """Of d, more, y and x of the champion in D(δ)."""
    mean, rho = state.champion_y / state.x, state.x / (state.x + state.more)
    return rho, -(mean + delta) * rho, rho - 1, mean - (mean + delta) * rho


def _unit_variance(state: PairFold) -> float:
    """Variance of ΣD over units, about no difference; more where units come back and stay like themselves."""
    apart = max(1.0, state.clustered / state.alone) if state.alone > 0 else 1.0
    return form((state.dd, *state.squares), squared(_weights(state, 0.0))) * apart


def _enough(plan: MetricPlan, state: PairFold) -> bool:
    if plan.family == "auc":
        return min(state.ranked.positives, state.ranked.rows - state.ranked.positives) >= EXPECTED_ROWS
    if plan.kind in DECIDED and not expected_hits(plan, state.x, state.champion_y, state.x + state.more):
        return False
    return state.units >= LEAST_UNITS


def _tested_variance(plan: MetricPlan, state: PairFold, bad: float) -> float:
    """Squared error of θ for a test whose boundary lies ``bad`` in the bad direction."""
    between = spread(state.batches, _weights(state, bad if plan.decreasing else -bad))
    return max(_unit_variance(state), between) / state.x**2


def _testable(state: PairFold, effect: Effect) -> bool:
    return effect.guarded and blocks_of(state.batches) >= LEAST_BLOCKS


def pair_non_inferior(plan: MetricPlan, state: PairFold, effect: Effect) -> float:
    """Log e-value of "not worse by the margin" of what is no failure; 0 where there is no test yet."""
    if not _testable(state, effect) or plan.tau <= 0:
        return 0.0
    se2 = _tested_variance(plan, state, effect.margin)
    return float(sequential.log_e_one_sided(effect.good(plan) + effect.margin, se2, plan.tau))


def pair_harm(plan: MetricPlan, state: PairFold) -> float:
    """Log e-value of harm: for failures the challenger's share of the discordant units against one half."""
    if plan.family == "failures":
        return float(sequential.log_e_discordant(state.worse, state.better))
    effect = pair_effect(plan, state)
    if not _testable(state, effect):
        return 0.0
    return log_e_harm(plan, effect._replace(se2=_tested_variance(plan, state, effect.harm_margin)))


def fold_pair(plan: MetricPlan, epoch: EpochPlan, state: PairFold, block: Block) -> PairFold:
    """``state`` after one block of a mirror epoch, with its ever-harm."""
    state = state._replace(epoch=block.epoch, blocks=state.blocks + 1, last_block=block.block, last_epoch=block.epoch)
    if isinstance(block.pair, PairScoreCell):
        state = _with_scores(state, block.pair, epoch.means.get(plan.name, 0))
    elif isinstance(block.pair, PairAreaCell):
        state = _with_areas(plan, state, block.pair)
    elif isinstance(block.pair, PairCountCell):
        c = block.pair
        state = state._replace(units=state.units + c.units, worse=state.worse + c.worse, better=state.better + c.better)
    harm = pair_harm(plan, state)
    return state._replace(ever_harm=harm, harm_block=block.block) if harm > state.ever_harm else state


def _with_scores(state: PairFold, c: PairScoreCell, centre: int) -> PairFold:
    """``centre``: the mean about which the engine took the scores that it clusters."""
    return state._replace(
        units=state.units + c.units,
        x=state.x + c.x,
        d=state.d + c.d,
        dd=state.dd + c.dd,
        clustered=state.clustered + c.clustered,
        champion_y=state.champion_y + c.champion_y,
        more=state.more + c.more,
        squares=tuple(a + b for a, b in zip(state.squares, c.squares, strict=True)),
        alone=state.alone + c.dd - 2 * centre * c.squares[0] + centre * centre * c.squares[3],
        batches=with_block(state.batches, (c.d, c.more, c.champion_y, c.x)),
    )


def _with_areas(plan: MetricPlan, state: PairFold, c: PairAreaCell) -> PairFold:
    """With a cell, and with the open stratum among the closed ones once it has enough rows of both labels."""
    positives, negatives = (sum(n for *_, n in rows) for rows in c[2:])
    old = state.ranked
    joint = old.open.plus(c)
    ready = min(joint.rows) >= LEAST_ROWS
    ranked = Ranked(
        Joint() if ready else joint,
        old.rows + positives + negatives,
        old.positives + positives,
        old.squares + c.clustered,
    )
    state = state._replace(units=state.units + c.units, ranked=ranked)
    if ready:
        yes, no = joint.rows
        found, x = joint.areas(), PPM * yes * no // (yes + no)
        d, y = (round(x * plan.scale * area) for area in (found.challenger - found.champion, found.champion))
        alone = state.alone + round(x * x * plan.scale * plan.scale * found.difference_variance)
        state = state._replace(
            x=state.x + x,
            d=state.d + d,
            dd=alone,
            alone=alone,
            champion_y=state.champion_y + y,
            batches=with_block(state.batches, (d, 0, y, x)),
        )
    return state._replace(clustered=max(state.alone, state.alone * ranked.squares // max(ranked.rows, 1)))
