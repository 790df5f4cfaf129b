"""Which rollout is due when. A key stands here once, and is never in two hands at the same time."""

import heapq
import math
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from enum import IntEnum
from typing import NamedTuple

TURN = 32  # of so many keys that are taken one is of those that wait, if one is due
SLOW_TURN = 2  # and one of those that are slow; hands are what they have less of
SLOW_S = 3.0  # work on a key that took so long was held up by somebody who does not answer
SLOW_FOR_S = 300.0  # for so long it is expected again: who does not answer every other time gains nothing by that
Timed = tuple[float, str]


class Taken(NamedTuple):
    """A key to work on, which has to be given back; it was due at ``due`` (seconds, monotonic)."""

    key: str
    due: float


class Kind(IntEnum):
    """Of keys, in their order; one that was not worked on yet is taken for a slow one."""

    PROMPT = 0
    SLOW = 1
    WAITING = 2


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


class InHand(NamedTuple):
    """A key that was taken at ``since``; ``again``: when it is wanted next, if it was added meanwhile."""

    kind: Kind
    since: float
    again: float | None = None


class Queue:
    """Keys with their times, for several threads. Bounded by ``limit`` keys; ``dropped`` counts those refused.

    Of the keys that are due namespaces take turns, so that a crowd of one delays no other one.
    Keys that are at nothing, as ``waits`` says, come after all others that are due, and at most ``aside`` of them are
    in anybody's hands: a crowd of them delays nobody who is at work. Of those that took long a while ago, or were not
    worked on yet, at most ``slow`` are: who lets us wait, by however many keys, leaves hands for the rest.
    """

    def __init__(
        self,
        limit: int = 100_000,
        clock: Callable[[], float] = time.monotonic,
        waits: Callable[[str], bool] = lambda _: False,
        aside: int = 1_000,
        slow: int = 1_000,
    ) -> None:
        self._limit = limit
        self._clock = clock
        self._condition = threading.Condition()
        self._waits = waits
        self._most = {Kind.PROMPT: limit, Kind.SLOW: slow, Kind.WAITING: aside}
        self._due: dict[str, tuple[Kind, float]] = {}  # of those in nobody's hands
        self._turns = {kind: Turns() for kind in Kind}
        self._hands = dict.fromkeys(Kind, 0)
        self._turn = 0
        self._taken: dict[str, InHand] = {}
        self._slow: dict[str, float] = {}  # until when they are expected to take long; of those that were taken
        self._closed = False
        self.dropped = 0

    def add(self, key: str, due: float | None = None) -> bool:
        """``key`` is due at ``due`` (now, if None), or earlier where it is due earlier. False where it is refused."""
        due = self._clock() if due is None else due
        with self._condition:
            if key in self._taken:
                taken = self._taken[key]
                self._taken[key] = taken._replace(again=due if taken.again is None else min(due, taken.again))
                return True
            held = self._due.get(key)
            if held is None and len(self._due) + len(self._taken) >= self._limit:
                self.dropped += 1
                return False
            if held is None:
                self._put(key, due)
            elif due < held[1] or (held[0] is Kind.WAITING and not self._waits(key)):
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
                soonest = (self._turns[kind].soonest() for kind in self._open())
                self._condition.wait(min([end, *(due for due in soonest if due is not None)]) - now)
        return None

    def give_back(self, key: str, due: float | None) -> None:
        """Work on ``key`` is over; next at ``due``, or when it was added meanwhile. None: not before it is added."""
        with self._condition:
            taken, now = self._taken.pop(key), self._clock()
            self._hands[taken.kind] -= 1
            if taken.kind is not Kind.PROMPT:
                self._condition.notify()  # there is room for another one of its kind
            if now - taken.since >= SLOW_S:
                self._slow[key] = now + SLOW_FOR_S
            elif self._slow.get(key, now) <= now:
                self._slow[key] = 0.0
            wanted = [t for t in (taken.again, due) if t is not None]
            if wanted:
                self._put(key, min(wanted))
            else:
                self._slow.pop(key, None)

    def clear(self) -> None:
        """Nothing waits any more."""
        with self._condition:
            self._due.clear()
            self._turns = {kind: Turns() for kind in Kind}
            self._slow.clear()
            self._taken = {key: taken._replace(again=None) for key, taken in self._taken.items()}

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

    def _open(self) -> list[Kind]:
        """Those that may be taken, the first in turn first."""
        due = Kind.PROMPT
        if self._turn == TURN - 1:
            due = Kind.WAITING
        elif self._turn % SLOW_TURN == SLOW_TURN - 1:
            due = Kind.SLOW
        return [kind for kind in sorted(Kind, key=lambda kind: kind is not due) if self._hands[kind] < self._most[kind]]

    def _first(self, now: float) -> Taken | None:
        for kind in self._open():
            turns = self._turns[kind]
            while (found := turns.next(now)) is not None:
                due, key = found
                if self._due.get(key) != (kind, due):
                    turns.again(key)
                    continue
                del self._due[key]
                self._taken[key] = InHand(kind, now)
                self._hands[kind] += 1
                self._turn = (self._turn + 1) % TURN
                return Taken(key, due)
        return None

    def _put(self, key: str, due: float) -> None:
        kind = self._kind(key)
        self._due[key] = kind, due
        self._turns[kind].put(due, key)
        if sum(turns.size for turns in self._turns.values()) > 2 * len(self._due) + 64:
            # Most of it are times that hold no longer.
            for each, turns in self._turns.items():
                turns.keep(lambda timed, each=each: self._due.get(timed[1]) == (each, timed[0]))  # type: ignore[misc]
        self._condition.notify()

    def _kind(self, key: str) -> Kind:
        if self._waits(key):
            return Kind.WAITING
        return Kind.PROMPT if self._slow.get(key, math.inf) <= self._clock() else Kind.SLOW
