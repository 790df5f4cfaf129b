"""Which of many states are open.

An open state holds six megabytes or so, however little is in it. One that is put away holds nothing, and is opened
again in some tens of milliseconds; so a process with hundreds of them needs no more memory than one with a few.

Rollouts are read in turn, each once a tick. Were the one that was read longest ago put away, it would be the next to be
read, and with one more than there is room for all would be opened anew at each tick. So those that are open stay, and
the one that comes is put away when it has been read, unless one of them has not been read for long.
"""

import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import Protocol

OPEN_AT_ONCE = 32  # more than are read at the same time by a usual number of threads
FORGOTTEN_S = 300.0  # a usual tick is shorter


class Opening(Protocol):
    """What has a state that it can open again."""

    def put_away(self) -> bool:
        """Close the state until it is needed; False where it is being read."""


class Shelf:
    """Keeps at most ``most`` states open, those that are being read aside. Its methods may be called by several
    threads."""

    def __init__(
        self, most: int = OPEN_AT_ONCE, forgotten_s: float = FORGOTTEN_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``forgotten_s``: one that was not read for so long makes room for another."""
        self._most, self._forgotten_s, self._clock = most, forgotten_s, clock
        self._lock = threading.Lock()
        self._open: dict[Opening, float] = {}  # when each was read; the one that was read longest ago comes first

    def used(self, state: Opening) -> None:
        """``state`` was read; who is too many now is put away."""
        with self._lock:
            now = self._clock()
            self._open.pop(state, None)
            self._open[state] = now
            forgotten = [each for each, read in self._open.items() if now - read > self._forgotten_s]
            newest = [each for each in reversed(self._open) if each not in forgotten]
            leaving = list(chain(forgotten, newest))[: max(0, len(self._open) - self._most)]
        for each in leaving:
            # Not under the lock: writing it out takes a while, and others go on.
            if each.put_away():
                self.closed(each)

    def closed(self, state: Opening) -> None:
        """``state`` is open no more."""
        with self._lock:
            self._open.pop(state, None)

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)
