"""Lines of a journal that are written together."""

import threading
from collections import deque
from typing import Any

from router.intake import Offered
from router.line import Line


class Request:
    """Events that somebody waits for."""

    __slots__ = ("abandoned", "done", "error", "events", "left")

    def __init__(self, events: list[dict[str, Any]]) -> None:
        self.events = events
        self.left = len(events)
        self.done = threading.Event()
        self.error: Exception | None = None
        self.abandoned = False

    def fail(self, error: Exception) -> None:
        """Whoever waits is told."""
        self.error = self.error or error
        self.done.set()


class Batch:
    """Lines made of events: for each its time and the request that waits for it, if one does.

    First come ``waited`` lines that somebody waits for, then those of events that were offered, then a mark, if any,
    with the losses that it tells.
    """

    def __init__(self) -> None:
        self.waited = 0
        self.told: int | None = None
        self.lines: list[bytes] = []
        self.times: list[int] = []
        self.sources: list[tuple[dict[str, Any] | Line, Request | None]] = []

    def take(self, line: bytes, moment: int, event: dict[str, Any] | Line, request: Request | None) -> int:
        """Add a line; its bytes."""
        self.lines.append(line)
        self.times.append(moment)
        self.sources.append((event, request))
        self.waited += request is not None
        return len(line)

    def take_made(self, waiting: deque[Offered], seq: int, last: int, most: int) -> int:
        """Add lines that were made by others, from the head of what waits, ``most`` of them: after the one of ``seq``,
        with times that do not go back behind ``last``. What they weigh.
        """
        weight = 0
        while most > 0 and waiting:
            line = waiting[0]
            if not isinstance(line, Line):
                break
            waiting.popleft()
            seq += 1
            last = max(last, line.t)
            self.take(line.written(seq, last), last, line, None)
            weight += line.weight
            most -= 1
        return weight
