"""How long a client may take over its request: no long pause, and no trickle that is kept up for ever."""

from time import monotonic
from typing import Final

NEVER: Final = float("inf")


class Pace:
    """Of one request at a time. ``began``: when it began to come, as if nobody had ever kept its client waiting."""

    __slots__ = ("_heard", "_longest_pause_s", "_rate", "_stopped", "began")

    def __init__(self, longest_pause_s: float, rate: float) -> None:
        self._longest_pause_s = longest_pause_s
        self._rate = rate
        self.began = 0.0
        self._heard = 0.0
        self._stopped = 0.0

    @property
    def stopped(self) -> bool:
        """Whether it is not read for now."""
        return self._stopped > 0

    def begin(self) -> float:
        """A request begins to come: now."""
        self.began = self._heard = now = monotonic()
        self._stopped = 0.0
        return now

    def stop(self) -> None:
        """Whoever reads the request does not go on for now."""
        if not self._stopped:
            self._stopped = monotonic()

    def resume(self) -> None:
        """It is read again."""
        if self._stopped:
            self._heard = now = monotonic()
            self.began += now - self._stopped
            self._stopped = 0.0

    def due(self, taken: int) -> float:
        """A part has come, ``taken`` bytes in all; when it is too much: a pause that long, or that much time beyond
        what the least rate takes for them.
        """
        if self._stopped:
            return NEVER
        self._heard = now = monotonic()
        return min(now, self.began + taken / self._rate) + self._longest_pause_s

    def taken_s(self, now: float) -> float:
        """Seconds since it began to come; 0 while it is not read."""
        return 0.0 if self._stopped else now - self.began

    def silent_s(self, now: float) -> float:
        """Seconds since a part of it came; 0 while it is not read."""
        return 0.0 if self._stopped else now - self._heard
