"""What one step can show by itself: units and days to prove a metric not worse, and the least harm it finds.

Each step is taken alone, with its own allocation and fresh evidence; what earlier steps gathered only helps.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from controller.core import plans
from controller.core.arrays import FloatArray, as_array
from controller.core.batches import LEAST_BLOCKS
from controller.core.cells import BaselineSums
from controller.core.evidence import until_final
from controller.planning.boundary import Simulated, State, Traffic
from controller.spec import RolloutSpec
from router.assignment import POINTS, challenger_share_ppm

DAY = 86_400 * 1_000_000  # microseconds
POWER = 0.8
LOOKS = 32
_OCTAVES = 12
_LOOKS_AN_OCTAVE = 5
_HALVINGS = 9


class Allocation(NamedTuple):
    """One weighted step. ``number`` counts from 1, mirrors included; ``hold`` in µs; ``share`` is π.

    ``lasts`` (µs): the hold, or longer where ``minUnits`` takes longer. ``epoch``: steps of one weight that follow
    each other share it. ``champion`` and ``challenger`` are the expected units of evidence per µs (0 while the traffic
    is unknown); units between the arms are not counted.
    """

    number: int
    weight: float
    hold: int
    lasts: int
    epoch: int
    share: float
    champion: float
    challenger: float


class Need(NamedTuple):
    """Challenger units and days of a step until an equal challenger is proven not worse with probability .8.

    ``days`` is None where the traffic is unknown; both are None where no amount in reach suffices.
    """

    units: int | None
    days: float | None


def allocations(spec: RolloutSpec, units_per_day: float | None) -> list[Allocation]:
    """The weighted steps with what they expect of the traffic."""
    said = list[Allocation]()
    rate = (units_per_day or 0.0) / DAY
    for number, step in enumerate(spec.steps, start=1):
        if step.weight is None:
            continue
        same = bool(said) and said[-1].weight == step.weight
        epoch = said[-1].epoch + (not same) if said else 0
        top = spec.control_bp(step.bp)
        share = challenger_share_ppm(step.bp, top) / 1e6
        arms = rate * (POINTS - top) / POINTS, rate * step.bp / POINTS
        lasts = max(step.hold, math.ceil(spec.decision.min_units / arms[1])) if rate else step.hold
        said.append(Allocation(number, step.weight, step.hold, lasts, epoch, share, *arms))
    return said


def mirror_steps(spec: RolloutSpec, units_per_day: float | None, per_unit: float) -> list[Allocation]:
    """The mirror steps, in which both arms answer the same requests: units are requests here."""
    rate, said = (units_per_day or 0.0) * per_unit / DAY, list[Allocation]()
    for number, step in enumerate(spec.steps, start=1):
        if step.mirror is not None:
            each = rate * step.mirror / 100
            said.append(Allocation(number, step.mirror, step.hold, step.hold, 0, 0.5, each, each))
    return said


def until_evidence(spec: RolloutSpec, metric: Simulated) -> int:
    """Microseconds from the end of a block until the block is evidence."""
    return until_final(spec, metric.champion.plan)


def baseline_lead(spec: RolloutSpec, metric: Simulated, steps: Sequence[Allocation], per_unit: float) -> int:
    """Microseconds of the weighted steps that go into the baseline, for want of a declared one or a mirror.

    All of the traffic is the champion's in a mirror, whatever part of it is mirrored. Blocks alone count where the
    traffic is unknown. It ends with a block; the control is of one size in all steps.
    """
    champion = metric.champion
    if champion.metric.covariate is None and plans.declared(champion.metric) is not None:
        return 0
    block, worth = champion.plan.block, per_unit if champion.service else min(1.0, champion.rows)
    mirrors = sum(s.hold for s in spec.steps if s.weight is None)
    rate = steps[0].champion * worth
    everybody = rate * POINTS / (POINTS - spec.control_bp(round(steps[0].weight * 100)))
    left = [0.0]
    for _, need, what in plans.requirements(champion.metric, BaselineSums()):
        if what == plans.BLOCKS:
            left.append((need - mirrors // block) * block)
        elif rate:
            units = need / champion.nonzero if what == plans.NONZERO else need
            left.append((units - everybody * mirrors) / rate)
    return math.ceil(round(max(left) / block, 6)) * block


def need(
    spec: RolloutSpec, metric: Simulated, step: Allocation, per_unit: float, runs: int, rng: np.random.Generator
) -> Need:
    """Units and days to the proof of an equal challenger, at the allocation of ``step``.

    ``per_unit``: requests of a unit, each of which service kinds count.
    """
    guess = metric.first_guess(step.share) / _telling_share(metric, step, per_unit)
    grid = guess / 8 * np.exp2(np.arange(_OCTAVES * _LOOKS_AN_OCTAVE) / _LOOKS_AN_OCTAVE)
    more = np.diff(grid, prepend=0.0)
    rate = step.challenger * (per_unit if metric.champion.service else 1.0)
    unknown = LEAST_BLOCKS if metric.champion.plan.family == "pair" else 1  # as many as its tests ask for
    blocks = more / rate / metric.champion.plan.block if rate else np.full_like(more, unknown)
    traffic = _constant(step, more * (1 - step.share) / step.share, more, np.maximum(blocks, 1e-9))
    _, found = metric.fold(rng, State(), np.zeros(runs), traffic, "proof")
    proven = np.mean(found.proof >= metric.champion.proof_needed, axis=0)
    at = _reached(grid, proven)
    if at is None:
        return Need(None, None)
    units = at / (per_unit if metric.champion.service else 1.0)
    wait = (until_evidence(spec, metric) + metric.champion.plan.block) / DAY
    return Need(math.ceil(units), units / step.challenger / DAY + wait if step.challenger else None)


def _reached(grid: FloatArray, share: FloatArray) -> float | None:
    """Where ``share`` reaches the power for good, between two looks on a logarithmic scale."""
    below = np.flatnonzero(share < POWER)
    first = int(below[-1]) + 1 if below.size else 0
    if first >= grid.size:
        return None
    if first == 0:
        return float(grid[0])
    before, after = share[first - 1], share[first]
    part = (POWER - before) / (after - before)
    return float(grid[first - 1] * (grid[first] / grid[first - 1]) ** part)


def _constant(step: Allocation, champion: FloatArray, challenger: FloatArray, blocks: FloatArray) -> Traffic:
    row = (champion[None], challenger[None], blocks[None])
    return Traffic(*row, as_array([[step.share]]), np.zeros(1))


def informative_share(step: Allocation, block: int, per_unit: float) -> float:
    """What counting tests keep of the information, because a block without units of both arms says nothing.

    1/n_A + 1/n_B of all units over the same of the units that fall into blocks with both arms.
    """
    a, b = step.champion * per_unit * block, step.challenger * per_unit * block
    if not a or not b:
        return 1.0
    kept = 1 / (-a * math.expm1(-b)) + 1 / (-b * math.expm1(-a))
    return (1 / a + 1 / b) / kept


def _telling_share(metric: Simulated, step: Allocation, per_unit: float) -> float:
    return informative_share(step, metric.champion.plan.block, per_unit) if metric.champion.service else 1.0


def span(spec: RolloutSpec, metric: Simulated, step: Allocation, first: bool, lead: int) -> int:
    """Microseconds of the step whose blocks are evidence before the step can end."""
    return step.lasts - until_evidence(spec, metric) - (lead if first else 0)


def detectable(
    metric: Simulated, step: Allocation, length: int, per_unit: float, runs: int, seed: np.random.SeedSequence
) -> float | None:
    """The smallest harm found with probability .8 from ``length`` µs of the step; None: not even the worst."""
    looks = look_ends(length, metric.champion.plan.block)
    if not looks.size or not step.challenger:
        return None
    spans = np.diff(looks, prepend=0.0) * (per_unit if metric.champion.service else 1.0)
    blocks = np.diff(looks, prepend=0.0) / metric.champion.plan.block
    traffic = _constant(step, spans * step.champion, spans * step.challenger, blocks)

    def found(harm: float) -> bool:
        rng = np.random.default_rng(seed)  # the same draws for each harm, so that the search does not jump
        _, said = metric.fold(rng, State(), np.full(runs, harm), traffic, "harm")
        return bool(np.mean(said.harm.max(axis=1) >= metric.champion.harm_needed) >= POWER)

    high = metric.worst()
    if not found(high):
        return None
    low = high * 1e-4
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if found(middle) else (middle, high)
    return high


def look_ends(length: int, block: int) -> FloatArray:
    """At most ``LOOKS`` ends of whole blocks in ``length`` µs, denser at the beginning."""
    whole = length // block
    if whole <= 0:
        return np.zeros(0)
    ends = np.unique(np.maximum(1, np.rint(whole * np.square(np.arange(1, LOOKS + 1) / LOOKS))))
    return as_array(ends * block)
