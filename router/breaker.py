"""The breaker: keeps requests away from a challenger that fails, without the controller.

    closed ──(10 failures in a row, or ≥ 20 requests within some 1 … 10 s of which more than half failed)──▶ open
    open ──(5 s)──▶ half-open: one request a second
    half-open ──(a failure)──▶ open        half-open ──(3 successes)──▶ closed, at first with a growing share

Times are the caller's clock, in seconds.
"""

from collections import deque
from typing import Final, Literal

BreakerState = Literal["closed", "open", "half-open"]

IN_A_ROW: Final = 10
AT_LEAST: Final = 20
WINDOW_S: Final = 10
REST_S: Final = 5.0
PROBE_EVERY_S: Final = 1.0
PROBES: Final = 3
SLOW_START_S: Final = 10.0
_FIRST_SHARE: Final = 0.1


class Breaker:
    """Counts what became of the challenger's requests and says whether the next one may be sent."""

    def __init__(self) -> None:
        self.state: BreakerState = "closed"
        self.opened = 0
        self._row = 0
        self._seconds: deque[tuple[int, list[int]]] = deque()
        self._since = 0.0
        self._unavailable_since: float | None = None
        self._unavailable_s = 0.0
        self._next_probe = 0.0
        self._proven = 0
        self._slow_from: float | None = None
        self._credit = 0.0

    def admit(self, now: float) -> bool:
        """Whether a request may go to the challenger; True counts as the probe while half open."""
        if self.state == "closed":
            return self._slow_from is None or self._admit_slowly(now)
        if self.state == "open":
            if now - self._since < REST_S:
                return False
            self.state = "half-open"
            self._proven = 0
            self._next_probe = now
        if now < self._next_probe:
            return False
        self._next_probe = now + PROBE_EVERY_S
        return True

    def succeeded(self, now: float) -> None:
        """A request was answered usably."""
        self._row = 0
        if self.state == "closed":
            self._count(now, 0)
        elif self.state == "half-open":
            self._proven += 1
            if self._proven >= PROBES:
                self._close(now)

    def failed(self, now: float) -> None:
        """A request was not answered usably, and that was the challenger's fault."""
        self._row += 1
        if self.state == "closed":
            self._count(now, 1)
            if self._row >= IN_A_ROW or self._mostly_failed(now):
                self._open(now)
        elif self.state == "half-open":
            self._open(now)

    def unavailable_ms(self, now: float) -> int:
        """Time in total that it was not closed, in milliseconds."""
        running = 0.0 if self._unavailable_since is None else now - self._unavailable_since
        return int((self._unavailable_s + running) * 1000)

    def _admit_slowly(self, now: float) -> bool:
        assert self._slow_from is not None
        share = _FIRST_SHARE + (1 - _FIRST_SHARE) * (now - self._slow_from) / SLOW_START_S
        if share >= 1:
            self._slow_from = None
            return True
        self._credit += share
        if self._credit < 1:
            return False
        self._credit -= 1
        return True

    def _count(self, now: float, failures: int) -> None:
        second = int(now)
        if not self._seconds or self._seconds[-1][0] != second:
            self._seconds.append((second, [0, 0]))
            while self._seconds[0][0] <= second - WINDOW_S:
                self._seconds.popleft()
        counts = self._seconds[-1][1]
        counts[0] += 1
        counts[1] += failures

    def _mostly_failed(self, now: float) -> bool:
        """Whether some window that ends now, of at most ten seconds, has enough requests and mostly failures."""
        requests = failures = 0
        for second, counts in reversed(self._seconds):
            if second <= int(now) - WINDOW_S:
                break
            requests += counts[0]
            failures += counts[1]
            if requests >= AT_LEAST and 2 * failures > requests:
                return True
        return False

    def _open(self, now: float) -> None:
        if self._unavailable_since is None:
            self._unavailable_since = now
            self.opened += 1
        self.state = "open"
        self._since = now
        self._slow_from = None
        self._seconds.clear()

    def _close(self, now: float) -> None:
        self.state = "closed"
        if self._unavailable_since is not None:
            self._unavailable_s += now - self._unavailable_since
            self._unavailable_since = None
        self._row = 0
        self._credit = 0.0
        self._slow_from = now
