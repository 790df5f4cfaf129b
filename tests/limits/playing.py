"""A rollout whose servers' gauges are told sample by sample, ticked on a clock of its own."""

from typing import Any

from controller.core import plans
from controller.core.evolve import Transition, evolve
from controller.core.fold import EMPTY, Statistics
from controller.edges.memory import MemorySource
from controller.status import RolloutStatus
from tests.decide.rollouts import fresh, rollout

MINUTE = 60_000_000
START = 1_760_000_040_000_000  # on a full minute
MEMORY = {"name": "memory", "kind": "Resource", "query": "memory", "limit": "2Gi"}
ERRORS = {"name": "errors", "kind": "ErrorRate", "margin": "0.5pp"}
GIB = 2**30 * 1_000


class Play:
    """One tick a minute; ``tick(challenger=…)`` brings what was measured in the minute before."""

    def __init__(self, *metrics: dict[str, Any], **spec: Any) -> None:
        self.spec = rollout(metrics=[ERRORS, *metrics], **spec).spec
        self.status: RolloutStatus = fresh()
        self.source, self.now, self.last = MemorySource(), START, EMPTY
        self.moved: Transition | None = None
        self._step()

    def tick(self, **arms: float | None) -> RolloutStatus:
        """Samples of ``memory`` in GiB by arm, None or nothing: none came."""
        for part in (1, 2, 3, 4):
            for arm, value in arms.items():
                if value is not None:
                    self.said(
                        type="sample", t=self.now + part * MINUTE // 5, attempt=1, epoch=self.status.epoch,
                        metric="memory", arm=arm, value=round(value * GIB),
                    )  # fmt: skip
        self.now += MINUTE
        self._step()
        return self.status

    def said(self, **event: Any) -> None:
        """One line of the journal."""
        self.source.ingest("rows", event)

    def _step(self) -> None:
        self.said(type="mark", t=self.now)
        if self.status.epochs:
            self.last = self.source.read(plans.query("late", self.spec, self.status), self.now)
        self.moved = evolve(self.spec, self.status, self._statistics(), self.now)
        self.status = self.moved.status

    def _statistics(self) -> Statistics:
        return self.last
