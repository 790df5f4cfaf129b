"""Hard limits: a rule over windows of time, not a test. It has no error rate and needs none: a limit is a promise.

A window's value is the mean of its samples (Resource), or the quantile of the slowest requests by unit and block
(Latency). A limit is breached when the challenger was above it in ``BREACHES`` of its last ``WINDOWS`` windows, in
whatever epoch: a single spike rolls nothing back. It is met when it is not breached and the epoch in force has
``WINDOWS`` windows of its own, because a server says little of a load that it does not carry yet.
"""

from typing import NamedTuple

from controller import gauge
from controller.core.cells import Block, LatencyCell, MetricPlan
from controller.core.statistics import BUCKET_GROWTH, quantile_from_buckets
from controller.quantities import format_size

BREACHES, WINDOWS = 3, 5
FRESH_WINDOWS = 3  # a limit of which nothing was heard for longer is not met


class Window(NamedTuple):
    """The challenger's value in one window, in the metric's integer unit (Latency: a log bucket)."""

    epoch: int
    value: int


class LimitFold(NamedTuple):
    """A latency's windows: the last closed ones, and what the open one holds since ``first_block``.

    A window is closed when it has lasted long enough and has so many units that the quantile is not just the largest
    value; one that its epoch leaves open is dropped.
    """

    recent: tuple[Window, ...] = ()
    first_block: int = -1
    units: int = 0
    buckets: tuple[tuple[int, int], ...] = ()
    last_block: int = -1
    last_epoch: int = -1


class Limited(NamedTuple):
    """The challenger against a hard limit, both in the metric's own unit.

    ``value``: of the newest window. ``breaches`` of the last ``windows``. ``here``: of those, how many are of the
    epoch in force; 0 as well where nothing came lately. ``above``: the newest window is above the limit. ``due``:
    there has been time for a window.
    """

    value: float
    limit: float
    unit: str
    breaches: int
    windows: int
    here: int
    above: bool
    due: bool

    @property
    def breached(self) -> bool:
        return self.breaches >= BREACHES

    @property
    def met(self) -> bool:
        return self.here >= WINDOWS and not self.breached

    def __str__(self) -> str:
        limit = _shown(self.limit, self.unit)
        if not self.windows:
            return f"no window yet, limit {limit}"
        text = f"{_shown(self.value, self.unit)} of {limit}, breached in {self.breaches} of {self.windows} windows"
        return text if self.here == self.windows else f"{text}, {self.here} of them here and now"


def with_window(recent: tuple[Window, ...], epoch: int, value: int) -> tuple[Window, ...]:
    """The last windows after one more."""
    return (*recent, Window(epoch, value))[-WINDOWS:]


def fold_limit(plan: MetricPlan, state: LimitFold, block: Block) -> LimitFold:
    """``state`` after the challenger's latencies of one service block."""
    cell = block.challenger if isinstance(block.challenger, LatencyCell) else LatencyCell()
    if block.epoch != state.last_epoch or state.first_block < 0:
        state = state._replace(first_block=block.block, units=0, buckets=())
    held = dict(state.buckets)
    for bucket, units in cell.buckets:
        held[bucket] = held.get(bucket, 0) + units
    state = state._replace(
        units=state.units + cell.units,
        buckets=tuple(sorted(held.items())),
        last_block=block.block,
        last_epoch=block.epoch,
    )
    long = (block.block + 1 - state.first_block) * plan.block >= plan.span
    if not long or state.units * (1 - plan.quantile) < 1 - 1e-9:
        return state
    value = quantile_from_buckets(state.buckets, plan.quantile)
    recent = with_window(state.recent, block.epoch, value)
    return state._replace(recent=recent, first_block=-1, units=0, buckets=())


def limited(
    plan: MetricPlan,
    limit: float,
    recent: tuple[Window, ...],
    last_block: int,
    epoch: int,
    opened_at: int,
    now: int,
) -> Limited:
    """How the challenger stands to ``limit`` in ``epoch``, opened at ``opened_at``; ``last_block``: its last data."""
    values = [_value(plan, window.value) for window in recent]
    stale = now - (last_block + 1) * plan.block > FRESH_WINDOWS * plan.span
    due = now - opened_at >= 2 * plan.span + plan.block
    return Limited(
        value=values[-1] if values else 0.0,
        limit=limit,
        unit="ms" if plan.family == "limit" else gauge.BUILT_IN.get(plan.query or "", ""),
        breaches=sum(value > limit for value in values),
        windows=len(values),
        here=0 if stale else sum(window.epoch == epoch for window in recent),
        above=bool(values) and values[-1] > limit,
        due=due,
    )


def _value(plan: MetricPlan, value: int) -> float:
    # The middle of a bucket, which is wrong by a percent at most.
    return BUCKET_GROWTH ** (value - 0.5) / 1000 if plan.family == "limit" else value / plan.scale


def _shown(value: float, unit: str) -> str:
    if unit == "bytes":
        return format_size(value)
    return f"{value:.4g} {unit}".rstrip()
