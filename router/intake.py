"""What waits for a journal's thread: offered by the event loop, which is compiled, as every request comes by here."""

import threading
from collections import deque
from typing import Any, Protocol

from router.line import Line


class Pending(Protocol):
    """An event that the journal's thread makes, so that nobody who answers requests has to."""

    # About how many bytes it holds.
    weight: int

    def event(self) -> dict[str, Any]:
        """The event, without ``seq``."""


Offered = dict[str, Any] | Pending | Line


class Intake:
    """A queue of at most ``capacity`` events and ``capacity_bytes`` (estimated from their bodies), of one thread that
    offers and one that takes. What is written by one of them is read by the other, so that no lock is needed.

    ``offered`` events came before; how many there are is left in the first of the ``counted`` cells. ``wake`` is set
    when the queue is half full.
    """

    def __init__(
        self, counted: "memoryview[int]", offered: int, capacity: int, capacity_bytes: int, wake: threading.Event
    ) -> None:
        self.waiting: deque[Offered] = deque()
        self.capacity = capacity
        self.closed = False
        # By who offers.
        self.refused = 0
        self._offered = offered
        self._offered_bytes = 0
        # By the thread that takes.
        self.taken_bytes = 0
        self._counted = counted
        self._capacity_bytes = capacity_bytes
        self._wake = wake

    def offer(self, event: Offered) -> bool:
        """Hand over an event; False, and counted as refused, where the queue is full. Never waits, never raises.

        To be called from one thread. The event belongs to the journal from now on.
        """
        self._offered += 1
        self._counted[0] = self._offered
        waiting = len(self.waiting)
        size = event.weight if isinstance(event, Line) else weight(event)
        if (
            waiting >= self.capacity
            or self._offered_bytes - self.taken_bytes + size > self._capacity_bytes
            or self.closed
        ):
            self.refused += 1
            return False
        self._offered_bytes += size
        self.waiting.append(event)
        if waiting == self.capacity // 2:
            self._wake.set()
        return True


def weight(event: Offered) -> int:
    """About how many bytes an event holds: its bodies, and something for the rest."""
    if not isinstance(event, dict):
        return event.weight
    return 512 + len(event.get("inputs") or "") + len(event.get("answer") or "")
