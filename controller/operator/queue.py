"""Which rollout is due when. A key stands here once, and is never in two hands at the same time."""

import heapq
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

TURN = 8  # of so many keys that are taken one is of those that wait, if one is due


class Taken(NamedTuple):
    """A key to work on, which has to be given back; it was due at ``due`` (seconds, monotonic)."""

    key: str
    due: float


class Queue:
    """Keys with their times, for several threads. Bounded by ``limit`` keys; ``dropped`` counts those refused.

    Keys that can do nothing but wait, as ``waits`` says, come after all others that are due, and at most ``aside`` of
    them are in anybody's hands: a crowd of them delays nobody who is at work.
    """

    def __init__(
        self,
        limit: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
        waits: Callable[[str], bool] = lambda _: False,
        aside: int = 1_000,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._condition = threading.Condition()
        self._waits, self._most = waits, aside
        self._due: dict[str, tuple[bool, float]] = {}  # whether it waits, and its time; of those in nobody's hands
        self._heaps: dict[bool, list[tuple[float, str]]] = {False: [], True: []}
        self._aside: set[str] = set()  # of those that are taken, the ones that wait
        self._turn = 0
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
            if held is None:
                self._put(key, due)
            elif due < held[1] or (held[0] and not self._waits(key)):
                self._put(key, min(due, held[1]))
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
                soonest = min((heap[0][0] for heap in self._open() if heap), default=end)
                if now >= end:
                    return None
                self._condition.wait(min(soonest, end) - now)
        return None

    def give_back(self, key: str, due: float | None) -> None:
        """Work on ``key`` is over; next at ``due``, or when it was added meanwhile. None: not before it is added."""
        with self._condition:
            again = self._taken.pop(key)
            if key in self._aside:
                self._aside.discard(key)
                self._condition.notify()  # there is room for another one that waits
            wanted = [t for t in (again, due) if t is not None]
            if wanted:
                self._put(key, min(wanted))

    def clear(self) -> None:
        """Nothing waits any more."""
        with self._condition:
            self._due.clear()
            for heap in self._heaps.values():
                heap.clear()
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

    def _open(self) -> list[list[tuple[float, str]]]:
        """The heaps that may be taken from, in their order."""
        if len(self._aside) >= self._most:
            return [self._heaps[False]]
        return [self._heaps[self._turn == TURN - 1], self._heaps[self._turn != TURN - 1]]

    def _first(self, now: float) -> Taken | None:
        for heap in self._open():
            waits = heap is self._heaps[True]
            while heap and heap[0][0] <= now:
                due, key = heapq.heappop(heap)
                if self._due.get(key) == (waits, due):
                    del self._due[key]
                    self._taken[key] = None
                    self._turn = (self._turn + 1) % TURN
                    if waits:
                        self._aside.add(key)
                    return Taken(key, due)
        return None

    def _put(self, key: str, due: float) -> None:
        waits = self._waits(key)
        self._due[key] = waits, due
        heapq.heappush(self._heaps[waits], (due, key))
        if sum(map(len, self._heaps.values())) > 2 * len(self._due) + 64:  # mostly times that hold no longer
            for each, heap in self._heaps.items():
                heap[:] = [(t, k) for k, (w, t) in self._due.items() if w is each]
                heapq.heapify(heap)
        self._condition.notify()
