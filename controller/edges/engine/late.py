"""Statistics that are opened when they are first asked for."""

from collections.abc import Callable

from controller.core.cells import StatisticsQuery
from controller.core.fold import Statistics
from controller.edges.engine.source import JournalSource


class LateSource:
    """``StatisticsSource`` that opens another at its first use: a rollout that is over never asks."""

    def __init__(self, opened: Callable[[], JournalSource]) -> None:
        self._opened = opened
        self._source: JournalSource | None = None

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        if self._source is None:
            self._source = self._opened()
        return self._source.read(query, now)

    def close(self) -> None:
        """Let go of what was opened."""
        if self._source is not None:
            self._source.close()
            self._source = None
