"""Which rollout is due when. A key stands here once, and is never in two hands at the same time."""

import heapq
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

TURN = 32  # of so many keys that are taken one is of those that wait, if one is due
Timed = tuple[float, str]


class Taken(NamedTuple):
    """A key to work on, which has to be given back; it was due at ``due`` (seconds, monotonic)."""

    key: str
    due: float


class Turns:
    """Keys by the time that they are due. Of those that are, each namespace gives one in turn, its oldest first: who
    has thousands of them delays the others by one at a time. What a key's time was before is in here, too, until it is
    come upon or ``keep`` is called. ``size``: of all that.
    """

    def __init__(self) -> None:
        self._later: list[Timed] = []
        self._ready: OrderedDict[str, list[Timed]] = OrderedDict()  # by namespace; the next in turn first
        self.size = 0

    def put(self, due: float, key: str) -> None:
        self.size += 1
        heapq.heappush(self._later, (due, key))

    def next(self, now: float) -> Timed | None:
        """The one whose turn it is at ``now``, which is in here no more."""
        while self._later and self._later[0][0] <= now:
            each = heapq.heappop(self._later)
            heapq.heappush(self._ready.setdefault(each[1].partition("/")[0], []), each)
        if not self._ready:
            return None
        namespace, heap = self._ready.popitem(last=False)
        found = heapq.heappop(heap)
        self.size -= 1
        if heap:
            self._ready[namespace] = heap
        return found

    def again(self, key: str) -> None:
        """What was next is nobody's any more: its namespace has not had its turn."""
        namespace = key.partition("/")[0]
        if namespace in self._ready:
            self._ready.move_to_end(namespace, last=False)

    def soonest(self) -> float | None:
        """When the first of those that are not due yet is; None without one."""
        return self._later[0][0] if self._later else None

    def keep(self, holds: Callable[[Timed], bool]) -> None:
        """Forget all for which ``holds`` does not."""
        self._later = list(filter(holds, self._later))
        heapq.heapify(self._later)
        for namespace, heap in list(self._ready.items()):
            heap[:] = filter(holds, heap)
            heapq.heapify(heap)
            if not heap:
                del self._ready[namespace]
        self.size = len(self._later) + sum(map(len, self._ready.values()))


class Queue:
    """Keys with their times, for several threads. Bounded by ``limit`` keys; ``dropped`` counts those refused.

    Of the keys that are due namespaces take turns, so that a crowd of one delays no other one.
    Keys that are at nothing, as ``waits`` says, come after all others that are due, and at most ``aside`` of them are
    in anybody's hands: a crowd of them delays nobody who is at work.
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
        self._turns = {False: Turns(), True: Turns()}
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
        """Of the namespace whose turn it is the key that has been due for longest; None if none is within ``timeout``
        seconds, or after ``close``."""
        end = self._clock() + timeout
        with self._condition:
            while not self._closed:
                now = self._clock()
                found = self._first(now)
                if found is not None:
                    return found
                if now >= end:
                    return None
                soonest = (turns.soonest() for turns in self._open())
                self._condition.wait(min([end, *(due for due in soonest if due is not None)]) - now)
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
            self._turns = {False: Turns(), True: Turns()}
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

    def _open(self) -> list[Turns]:
        """Those that may be taken from, in their order."""
        if len(self._aside) >= self._most:
            return [self._turns[False]]
        return [self._turns[self._turn == TURN - 1], self._turns[self._turn != TURN - 1]]

    def _first(self, now: float) -> Taken | None:
        for turns in self._open():
            waits = turns is self._turns[True]
            while (found := turns.next(now)) is not None:
                due, key = found
                if self._due.get(key) != (waits, due):
                    turns.again(key)
                    continue
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
        self._turns[waits].put(due, key)
        if sum(turns.size for turns in self._turns.values()) > 2 * len(self._due) + 64:
            # Most of it are times that hold no longer.
            for each, turns in self._turns.items():
                turns.keep(lambda timed, each=each: self._due.get(timed[1]) == (each, timed[0]))  # type: ignore[misc]
        self._condition.notify()
