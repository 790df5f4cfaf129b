"""Which of many states are open: those that were read last.

An open state holds ten megabytes or so, however little is in it. One that is put away holds nothing, and is opened
again in some tens of milliseconds; so a process with hundreds of them needs no more memory than one with a few.
"""

import threading
from typing import Protocol

OPEN_AT_ONCE = 24  # more than are read at the same time by a usual number of threads


class Opening(Protocol):
    """What has a state that it can open again."""

    def put_away(self) -> bool:
        """Close the state until it is needed; False where it is being read."""


class Shelf:
    """Keeps at most ``most`` states open, those that are being read aside. Its methods may be called by several
    threads."""

    def __init__(self, most: int = OPEN_AT_ONCE) -> None:
        self._most = most
        self._lock = threading.Lock()
        self._open: dict[Opening, None] = {}  # the one that was read longest ago comes first

    def used(self, state: Opening) -> None:
        """``state`` was read; who is too many now is put away."""
        with self._lock:
            self._open.pop(state, None)
            self._open[state] = None
            oldest = list(self._open)[: max(0, len(self._open) - self._most)]
        for each in oldest:
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
