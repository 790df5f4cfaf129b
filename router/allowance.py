"""How much of the interpreter's time may go into what nobody waits for."""

from collections.abc import Callable
from time import monotonic, thread_time
from typing import TypeVar

_Result = TypeVar("_Result")


class Allowance:
    """Seconds of work: ``share`` of the time that passes, of which at most ``most_s`` are saved up.

    What has begun is finished, so more may be taken than is left; then there is nothing until that has come in again.
    """

    __slots__ = ("_at", "_clock", "_left", "_most_s", "_share")

    def __init__(self, share: float, most_s: float, clock: Callable[[], float] = monotonic) -> None:
        self._share = share
        self._most_s = most_s
        self._clock = clock
        self._left = most_s
        self._at = clock()

    def left(self) -> bool:
        """Whether something may be begun."""
        now = self._clock()
        self._left = min(self._most_s, self._left + (now - self._at) * self._share)
        self._at = now
        return self._left > 0

    def took(self, seconds: float) -> None:
        """So much was worked."""
        self._left -= seconds

    def spend(self, work: Callable[[], _Result]) -> _Result | None:
        """What the work makes, its processor time counted; None, and it is not begun, where nothing is left."""
        if not self.left():
            return None
        began = thread_time()
        try:
            return work()
        finally:
            self.took(thread_time() - began)
