"""Deadlines for many at the cost of a dict entry each: all who wait in one queue wait equally long."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Deadlines(Generic[T]):
    """Calls ``expired`` for each item that was not removed within ``seconds`` of being added.

    Items expire in the order in which they were added, so one timer, set for the oldest, is enough. Adding an
    item again starts its time anew.
    """

    __slots__ = ("_expired", "_loop", "_timer", "_waiting", "seconds")

    def __init__(self, loop: asyncio.AbstractEventLoop, seconds: float, expired: Callable[[T], None]) -> None:
        self._loop = loop
        self._expired = expired
        self._waiting: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None
        self.seconds = seconds

    def __len__(self) -> int:
        return len(self._waiting)

    def __iter__(self) -> Iterator[T]:
        return iter(list(self._waiting))

    def add(self, item: T, now: float) -> None:
        """Start the item's time at ``now`` (loop time)."""
        waiting = self._waiting
        if item in waiting:
            # To its end, where those are that were added last.
            del waiting[item]
        waiting[item] = due = now + self.seconds
        if self._timer is None:
            self._timer = self._loop.call_at(due, self._fire)

    def remove(self, item: T) -> None:
        """The item came in time; nothing happens where it is not there."""
        self._waiting.pop(item, None)

    def _fire(self) -> None:
        self._timer = None
        now = self._loop.time()
        late = []
        for item, due in self._waiting.items():
            if due > now:
                self._timer = self._loop.call_at(due, self._fire)
                break
            late.append(item)
        for item in late:
            # One that expires may have removed another.
            if self._waiting.pop(item, None) is not None:
                self._expired(item)
        if self._waiting and self._timer is None:
            self._timer = self._loop.call_at(next(iter(self._waiting.values())), self._fire)
