"""Which of many states are open.

An open state holds memory however little is in it: six megabytes or so in DuckDB, less than half a one in SQLite. One
that is put away holds nothing, and is opened again in some tens of milliseconds, or a few; so a process with hundreds
of them needs no more memory than one with some.

Rollouts are read in turn, each once a tick. Were the one that was read longest ago put away, it would be the next to be
read, and with one more than there is room for all would be opened anew at each tick. So those that are open stay, and
the one that comes is put away when it has been read, unless one of them has not been read for long.
"""

import threading
import time
from collections.abc import Callable
from itertools import chain
from typing import NamedTuple, Protocol

ROOM_MB = 216.0  # 36 large states, which is more than are read at the same time by a usual number of threads
FORGOTTEN_S = 300.0  # a usual tick is shorter


class Opening(Protocol):
    """What has a state that it can open again."""

    @property
    def size_mb(self) -> float:
        """What the open state holds of memory, about."""

    def put_away(self) -> bool:
        """Close the state until it is needed; False where it is being read."""


class _Kept(NamedTuple):
    """A state that is open: when it was read, and what it held then."""

    read: float
    mb: float


class Shelf:
    """Keeps states open that hold at most ``room_mb``, those that are being read aside. Its methods may be called by
    several threads."""

    def __init__(
        self, room_mb: float = ROOM_MB, forgotten_s: float = FORGOTTEN_S, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """``forgotten_s``: one that was not read for so long makes room for another."""
        self._room_mb, self._forgotten_s, self._clock = room_mb, forgotten_s, clock
        self._lock = threading.Lock()
        self._open: dict[Opening, _Kept] = {}  # the one that was read longest ago comes first
        self._mb = 0.0  # of all of them

    def used(self, state: Opening) -> None:
        """``state`` was read; who is too many now is put away."""
        with self._lock:
            now = self._clock()
            self._taken(state)
            kept = self._open[state] = _Kept(now, state.size_mb)
            self._mb += kept.mb
            leaving = self._leaving(now)
        for each in leaving:
            # Not under the lock: writing it out takes a while, and others go on.
            if each.put_away():
                self.closed(each)

    def _leaving(self, now: float) -> list[Opening]:
        over = self._mb - self._room_mb
        if over <= 0:
            return []
        forgotten = [each for each, kept in self._open.items() if now - kept.read > self._forgotten_s]
        leaving = []
        for each in chain(forgotten, (each for each in reversed(self._open) if each not in forgotten)):
            if over <= 0:
                break
            leaving.append(each)
            over -= self._open[each].mb
        return leaving

    def closed(self, state: Opening) -> None:
        """``state`` is open no more."""
        with self._lock:
            self._taken(state)

    def _taken(self, state: Opening) -> None:
        if (kept := self._open.pop(state, None)) is not None:
            self._mb -= kept.mb

    def __len__(self) -> int:
        with self._lock:
            return len(self._open)
