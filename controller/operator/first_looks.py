"""When rollouts are looked at for the first time since this replica leads, and which that are over are not to wait.

Those at work at once. Thousands that are over would keep these waiting, and nothing is urgent about most of them, so
they come one after another. One of whose pods or endpoints changed may have routers that send to where nobody is: it
comes before the others, also where a replica heard of the change that did not lead yet, for the leader may have gone
with the pods. One whose model has a new challenger, for which somebody may wait, comes with those at work.
"""

import threading
import time
from collections.abc import Callable
from typing import NamedTuple

RESTING_S = 0.08  # from one look at a rollout that is over to the next at another: so many cost no more
NEWS_S = 300.0  # for so long it counts that something changed: longer than a cluster may be without a leader
NEWS = 10_000  # rollouts of which that is known
MOVED = 100  # more new challengers at once than people register; those of a script wait with the others


class Word(NamedTuple):
    """Whether something that was heard is to be acted on, and when (seconds, monotonic); None: now."""

    counts: bool
    due: float | None = None


class FirstLooks:
    """For several threads. ``ended``: whether the rollout of a key is over; ``clock`` gives seconds."""

    def __init__(self, ended: Callable[[str], bool], clock: Callable[[], float] = time.monotonic) -> None:
        self._ended, self._clock = ended, clock
        self._lock = threading.Lock()
        self._met: set[str] = set()  # since leading began
        self._late: dict[str, bool] = {}  # of them, those that wait for their look; whether they come before others
        self._news: dict[str, float] = {}  # by key: when something of it changed, the oldest first
        self._moved: set[str] = set()  # whose models have other aliases than they had
        self._next = {False: 0.0, True: 0.0}

    def begin(self) -> None:
        """Leading begins or ends: nothing was looked at."""
        with self._lock:
            self._met, self._late, self._moved = set(), {}, set()
            self._next = {False: self._clock() + RESTING_S, True: self._clock()}

    def due(self, key: str) -> float | None:
        """When ``key``, of which something was heard, is due (seconds, monotonic); None: now."""
        with self._lock:
            if key in self._met:
                return None
            self._met.add(key)
            if not self._ended(key):
                return None
            soon = self._clock() - self._news.get(key, -NEWS_S) < NEWS_S
            return self._queued(key, soon)

    def changed(self, key: str, new: bool) -> Word:
        """A pod or endpoint of ``key`` changed, or, unless it is ``new``, was there when we began to watch."""
        with self._lock:
            if new:
                self._noted(key)
            if key not in self._late:
                return Word(True)
            if not new or self._late[key]:
                return Word(False)
            return Word(True, self._queued(key, True))

    def moved(self, key: str) -> None:
        """Its model has other aliases: somebody may wait for a new challenger to be met."""
        with self._lock:
            if len(self._moved) < MOVED:
                self._moved.add(key)

    def urgent(self, key: str) -> bool:
        """Whether it is not to wait for those at work, though it may be over."""
        with self._lock:
            return key in self._moved

    def looked(self, key: str) -> None:
        """It is looked at now."""
        with self._lock:
            self._moved.discard(key)
            self._late.pop(key, None)
            self._news.pop(key, None)

    def gone(self, key: str) -> None:
        with self._lock:
            self._met.discard(key)
            self._moved.discard(key)

    def _queued(self, key: str, soon: bool) -> float:
        self._late[key] = soon
        due = max(self._next[soon], self._clock())
        self._next[soon] = due + RESTING_S
        return due

    def _noted(self, key: str) -> None:
        now = self._clock()
        self._news.pop(key, None)
        self._news[key] = now
        while len(self._news) > NEWS or now - next(iter(self._news.values())) >= NEWS_S:
            del self._news[next(iter(self._news))]
