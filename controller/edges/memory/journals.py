"""How far each journal was read, and what of it is missing."""

from collections.abc import Mapping
from typing import Any


class JournalReading:
    """One journal: the time up to which it is known, and which of its lines came.

    ``watermark``: the last ``t`` of the journal's own clock. Lines may come twice and in any order; the gaps that
    are left are lost.
    """

    def __init__(self) -> None:
        self.watermark = 0
        self.closed = False
        self._first = 1  # every line before was seen or is of a file from before our time
        self._beyond: set[int] = set()
        self._last = 0
        self._counters: dict[int, tuple[int, int]] = {}

    def begin(self, seq: int) -> None:
        """The file that is read first begins after line ``seq``."""
        if self._last == 0:
            self._first, self._last = seq + 1, seq

    def new(self, seq: int) -> bool:
        """Whether line ``seq`` is seen for the first time. 0 (backtests have no lines) always is."""
        if seq == 0:
            return True
        if seq < self._first or seq in self._beyond:
            return False
        self._last = max(self._last, seq)
        self._beyond.add(seq)
        while self._first in self._beyond:
            self._beyond.remove(self._first)
            self._first += 1
        return True

    def mark(self, event: Mapping[str, Any]) -> None:
        """Counters of a writer's life never fall, so its largest are its newest; a restarted writer counts anew."""
        started = event.get("started", 0)
        dropped, no_unit = self._counters.get(started, (0, 0))
        self._counters[started] = (max(dropped, event.get("dropped", 0)), max(no_unit, event.get("no_unit", 0)))
        self.closed = bool(event.get("closed", False))

    @property
    def lost(self) -> int:
        """Lines that are missing between those that came, and events dropped before the journal."""
        gaps = self._last - (self._first - 1) - len(self._beyond)
        return gaps + sum(dropped for dropped, _ in self._counters.values())

    @property
    def no_unit(self) -> int:
        return sum(count for _, count in self._counters.values())
