"""Which rollout is due when. A key stands here once, and is never in two hands at the same time."""

import heapq
import threading
import time
from collections.abc import Callable
from typing import NamedTuple


class Taken(NamedTuple):
    """A key to work on, which has to be given back; it was due at ``due`` (seconds, monotonic)."""

    key: str
    due: float


class Queue:
    """Keys with their times, for several threads. Bounded by ``limit`` keys; ``dropped`` counts those refused."""

    def __init__(self, limit: int = 100_000, clock: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._clock = clock
        self._condition = threading.Condition()
        self._due: dict[str, float] = {}  # of those that wait
        self._heap: list[tuple[float, str]] = []
        self._taken: dict[str, float | None] = {}  # and when each is wanted again, if it was added meanwhile
        self._closed = False
        self.dropped = 0

    def add(self, key: str, due: float | None = None) -> bool:
        """``key`` is due at ``due`` (now, if None), or earlier where it is due earlier. False where it is refused."""
        due = self._clock() if due is None else due
        with self._condition:
            if key in self._taken:
                again = self._taken[key]
                self._taken[key] = due if again is None else min(due, again)
                return True
            held = self._due.get(key)
            if held is None and len(self._due) + len(self._taken) >= self._limit:
                self.dropped += 1
                return False
            if held is None or due < held:
                self._put(key, due)
            return True

    def take(self, timeout: float) -> Taken | None:
        """The key that has been due for longest; None if none is within ``timeout`` seconds, or after ``close``."""
        end = self._clock() + timeout
        with self._condition:
            while not self._closed:
                now = self._clock()
                found = self._first(now)
                if found is not None:
                    return found
                soonest = self._heap[0][0] if self._heap else end
                if now >= end:
                    return None
                self._condition.wait(min(soonest, end) - now)
        return None

    def give_back(self, key: str, due: float | None) -> None:
        """Work on ``key`` is over; next at ``due``, or when it was added meanwhile. None: not before it is added."""
        with self._condition:
            again = self._taken.pop(key)
            wanted = [t for t in (again, due) if t is not None]
            if wanted:
                self._put(key, min(wanted))

    def clear(self) -> None:
        """Nothing waits any more."""
        with self._condition:
            self._due.clear()
            self._heap.clear()
            self._taken = dict.fromkeys(self._taken)

    def close(self) -> None:
        """Nothing is taken any more."""
        with self._condition:
            self._closed = True
            self._condition.notify_all()

    def idle(self, timeout: float) -> bool:
        """Wait until nothing is in anybody's hands; False after ``timeout`` seconds."""
        with self._condition:
            return self._condition.wait_for(lambda: not self._taken, timeout)

    def __len__(self) -> int:
        with self._condition:
            return len(self._due) + len(self._taken)

    def _first(self, now: float) -> Taken | None:
        while self._heap and self._heap[0][0] <= now:
            due, key = heapq.heappop(self._heap)
            if self._due.get(key) == due:
                del self._due[key]
                self._taken[key] = None
                return Taken(key, due)
        return None

    def _put(self, key: str, due: float) -> None:
        self._due[key] = due
        heapq.heappush(self._heap, (due, key))
        if len(self._heap) > 2 * len(self._due) + 64:  # mostly times that hold no longer
            self._heap = [(t, k) for k, t in self._due.items()]
            heapq.heapify(self._heap)
        self._condition.notify()
