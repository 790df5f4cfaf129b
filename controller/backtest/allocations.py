"""Which allocation was in force when: epochs and the step of the plan, from logged weights or a recorded status."""

from collections.abc import Sequence
from typing import NamedTuple

from controller.errors import SpecError
from controller.spec import RolloutSpec
from controller.status import Epoch, RolloutStatus
from router.assignment import POINTS, challenger_share_ppm

NO_EPOCH = 0  # the number of rows under no allocation that could be evidence
MOST_CHANGES = 10_000


class Change(NamedTuple):
    """From ``t`` (µs) on this epoch is in force, or none (0), and this step of the plan."""

    t: int
    epoch: int
    step: int


class Allocations(NamedTuple):
    """All epochs with their changes, ascending. ``last`` (µs): the latest exposure that belongs to one of them.

    The means of an epoch are empty where they are still to be found, by the traffic before it opened.
    """

    epochs: tuple[Epoch, ...]
    changes: tuple[Change, ...]
    last: int

    @property
    def begin(self) -> int:
        """When the first epoch opens."""
        return self.changes[0].t


def is_allocation(weight_bp: int) -> bool:
    """Whether both arms get traffic, so that there is something to compare."""
    return 0 < weight_bp < POINTS


def logged(spec: RolloutSpec, weights: Sequence[tuple[int, int]], last: int, reserved: bool) -> Allocations:
    """The allocations of a log from its changes of weight: (t, basis points), ascending.

    One weight is one epoch, also where it returns. ``reserved``: only marked champion units are control, so that it
    begins at the plan's largest weight; else every champion unit is. The step in force is the first with at least
    the logged weight. SpecError where the log cannot be one of this plan.
    """
    begin = next((t for t, weight in weights if is_allocation(weight)), None)
    if begin is None:
        raise SpecError("exposures: no row has a weight between 0 and 100, so there is nothing to compare")
    changes = [change for change in weights if change[0] >= begin]
    if len(changes) > MOST_CHANGES:
        raise SpecError(f"exposures: the weight changes {len(changes)} times; is this the log of several rollouts?")
    numbers: dict[int, int] = {}
    epochs: list[Epoch] = []
    said = []
    for t, weight in changes:
        if is_allocation(weight) and weight not in numbers:
            numbers[weight] = len(numbers) + 1
            epochs.append(_epoch(spec, numbers[weight], weight, t, reserved))
        said.append(Change(t, numbers.get(weight, NO_EPOCH), step_of(spec, weight)))
    return Allocations(tuple(epochs), tuple(said), last)


def _epoch(spec: RolloutSpec, number: int, weight: int, t: int, reserved: bool) -> Epoch:
    control = spec.largest_bp if reserved else weight
    if weight > control:
        raise SpecError(
            f"exposures: weight {weight / 100:g} is above the plan's largest, {control / 100:g}, where the reserved "
            "control of the column control begins; no unit can be both"
        )
    return Epoch(
        number=number,
        kind="weight",
        step=step_of(spec, weight),
        weight_bp=weight,
        control_from_bp=control,
        pi_ppm=challenger_share_ppm(weight, control),
        opened_at=t,
    )


def step_of(spec: RolloutSpec, weight: int) -> int:
    """The first step of at least ``weight`` (basis points), else the last; mirrors are none."""
    steps = [i for i, s in enumerate(spec.steps) if s.weight is not None]
    return next((i for i in steps if spec.steps[i].bp >= weight), steps[-1])


def recorded(spec: RolloutSpec, status: RolloutStatus, last: int) -> Allocations:
    """The allocations that a run went through, as its status remembers them.

    Steps of one allocation share an epoch, and status does not say when one followed another: the last of them is
    taken to be in force.
    """
    if not status.epochs:
        raise SpecError(f"{status.rollout or 'the rollout'}: no epoch was opened, so nothing was compared")
    changes = []
    for epoch in sorted(status.epochs, key=lambda e: e.opened_at):
        step = epoch.step
        while step + 1 < len(spec.steps) and _same(spec, step, step + 1):
            step += 1
        changes.append(Change(epoch.opened_at, epoch.number, step))
    return Allocations(status.epochs, tuple(changes), max(last, changes[-1].t))


def _same(spec: RolloutSpec, one: int, other: int) -> bool:
    a, b = spec.steps[one], spec.steps[other]
    return a.bp == b.bp and (a.mirror is None) == (b.mirror is None)
