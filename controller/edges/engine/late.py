"""Statistics that are opened when they are first asked for."""

from collections.abc import Callable
from typing import Protocol

from controller.core.cells import StatisticsQuery
from controller.core.fold import Statistics


class Source(Protocol):
    """A ``StatisticsSource`` that has something to let go of."""

    def read(self, query: StatisticsQuery, now: int) -> Statistics: ...

    def close(self) -> None: ...


class LateSource:
    """``StatisticsSource`` that opens another at its first use: a rollout that is over never asks."""

    def __init__(self, opened: Callable[[], Source]) -> None:
        self._opened = opened
        self._source: Source | None = None

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        if self._source is None:
            self._source = self._opened()
        return self._source.read(query, now)

    def close(self) -> None:
        """Let go of what was opened."""
        if self._source is not None:
            self._source.close()
            self._source = None
