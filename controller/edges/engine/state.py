"""What the engine remembers beside its tables: counters, and per metric how far it came. Kept as JSON, exactly.

Integers of any size and floats come back as the same values, so that a fold read from disk and one still in memory
go on to the same bytes.
"""

import json
from collections.abc import Mapping
from typing import Any, NamedTuple, get_args, get_origin, get_type_hints

from controller.core.areas import AreaFold
from controller.core.cells import (
    AreaCell,
    BaselineSums,
    Block,
    CountCell,
    EpochPlan,
    GaugeCell,
    LatencyCell,
    Losses,
    MetricPlan,
    PairAreaCell,
    PairCountCell,
    PairScoreCell,
    ScoreCell,
)
from controller.core.counts import CountFold
from controller.core.fold import Fold
from controller.core.limits import LimitFold
from controller.core.pairs import PairFold
from controller.core.resources import ResourceFold
from controller.core.scores import ScoreFold
from controller.edges.engine.terms import quantities

SCALARS = frozenset({int, float, str, bool})  # most of what a state holds
FOLDS: dict[str, type[Any]] = {
    kind.__name__: kind for kind in (AreaFold, ScoreFold, CountFold, PairFold, ResourceFold, LimitFold)
}


def plain(value: Any) -> Any:
    """A NamedTuple of numbers, texts and tuples as JSON would have it: names are kept."""
    if value is None or type(value) in SCALARS:
        return value
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: plain(item) for name, item in zip(value._fields, value, strict=True)}
    if isinstance(value, tuple | list):
        return [plain(item) for item in value]
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    return value


def restored(kind: Any, value: Any) -> Any:
    """The value of type ``kind`` of which ``plain`` made ``value``; a field that it lacks takes its default.

    Raises KeyError or TypeError where it is no such value.
    """
    arguments = get_args(kind)
    if get_origin(kind) is tuple:
        if len(arguments) == 2 and arguments[1] is Ellipsis:
            return tuple(restored(arguments[0], item) for item in value)
        return tuple(restored(k, item) for k, item in zip(arguments, value, strict=True))
    if isinstance(kind, type) and hasattr(kind, "_fields"):
        hints = get_type_hints(kind)
        return kind(**{name: restored(hints[name], item) for name, item in value.items()})
    if kind is float:
        return float(value)
    return value


def dumped(fold: Fold) -> str:
    """A fold as text; equal folds give equal texts."""
    return json.dumps([type(fold).__name__, plain(fold)], separators=(",", ":"))


def loaded(text: str) -> Fold:
    """The fold of which ``dumped`` made ``text``."""
    name, value = json.loads(text)
    fold: Fold = restored(FOLDS[name], value)
    return fold


_CELLS: dict[tuple[str, ...], type[Any]] = {
    kind._fields: kind
    for kind in (AreaCell, ScoreCell, CountCell, LatencyCell, GaugeCell, PairAreaCell, PairScoreCell, PairCountCell)
}


def restored_block(value: dict[str, Any]) -> Block:
    """The block of which ``plain`` made ``value``; the fields of a cell tell its kind."""
    cells = {
        name: None if value[name] is None else restored(_CELLS[tuple(value[name])], value[name])
        for name in ("champion", "challenger", "pair")
    }
    return Block(**{**value, **cells})


class Progress(NamedTuple):
    """How far one metric came: the last block of evidence and of the baseline, and what they rest on.

    ``plan`` is the frozen plan in force (as JSON has it), ``weighted`` whether a weighted epoch was judged by it,
    ``shares`` π, centring mean and adjustment of each epoch with evidence, which must not change any more.
    """

    evidence_to: int = -1
    baseline_to: int = -1
    baseline: BaselineSums = BaselineSums()
    plan: dict[str, Any] | None = None
    weighted: bool = False
    shares: tuple[tuple[int, ...], ...] = ()

    def with_plan(self, plan: MetricPlan) -> "Progress":
        """Judged by ``plan`` from now on.

        Raises ValueError where it differs from the plan by which weighted evidence was judged. Before that it may
        change once more: a baseline found in the first blocks of a mirror gives way to that of the whole mirror.
        """
        new = plain(plan._asdict())
        # A plan kept by an earlier version lacks the fields that were added since.
        old = {**plain(MetricPlan._field_defaults), **self.plan} if self.plan is not None else {}
        if new == old:
            return self
        if self.weighted:
            changed = ", ".join(sorted(name for name in new if new[name] != old.get(name)))
            raise ValueError(f"{plan.name}: {changed} changed within the attempt, after evidence was judged by it")
        return self._replace(plan=new)

    def with_share(self, plan: MetricPlan, epoch: EpochPlan) -> "Progress":
        """Knowing share, mean and adjustment by which ``epoch`` is judged; raises ValueError where they were others."""
        by = epoch.adjustments.get(plan.name)
        now = (epoch.number, epoch.pi_ppm, epoch.means.get(plan.name, 0), *quantities(by))
        old = next((share for share in self.shares if share[0] == epoch.number), None)
        if old is None:
            return self._replace(shares=(*self.shares, now))
        if old != now:
            raise ValueError(
                f"{plan.name}: epoch {epoch.number} was judged with share {old[1]} ppm and mean {old[2]} (adjustment "
                f"{old[3:]}), it cannot go on with {now[1]} ppm and {now[2]} ({now[3:]})"
            )
        return self


class State(NamedTuple):
    """Counters and places of the whole engine. ``settled`` (µs): rows before it are in order for good."""

    rollout: str = ""
    attempt: int = -1
    settled: int = 0
    last_n: int = 0
    pruned: int = 0
    summed: int = 0
    losses: Losses = Losses()
    epochs: tuple[tuple[int, tuple[tuple[str, int], ...]], ...] = ()

    def counted(self, **more: int) -> "State":
        """With additions to the losses."""
        old = self.losses._asdict()
        return self._replace(losses=Losses(**{name: old[name] + more.get(name, 0) for name in old}))

    def with_epochs(self, increments: list[tuple[int, str, int]]) -> "State":
        """With additions to the counts of epochs: (epoch, count name, increment)."""
        counts = {epoch: dict(names) for epoch, names in self.epochs}
        for epoch, name, more in increments:
            names = counts.setdefault(epoch, {})
            names[name] = names.get(name, 0) + int(more)
        return self._replace(epochs=tuple((e, tuple(sorted(names.items()))) for e, names in sorted(counts.items())))
