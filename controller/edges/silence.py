"""A server that keeps everybody waiting is asked by one at a time, and for a while by nobody.

Threads that tick are few. With one rollout after the other waiting for a tracking server that takes connections and
says nothing, harm that others do would be found minutes later; what it would have said can wait.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from controller.edges.tracking import Refused
from controller.errors import EdgeError, NotFound

_SLOW_S = 2.0  # a call that fails sooner keeps nobody waiting
_QUIET_S = 10.0


class Silence:
    """Of one server, for any number of threads. ``clock`` gives seconds."""

    def __init__(self, server: str, clock: Callable[[], float] = time.monotonic) -> None:
        self._server, self._clock = server, clock
        self._lock = threading.Lock()
        self._silent_since: float | None = None
        self._next = 0.0

    @contextmanager
    def asked(self) -> Iterator[None]:
        """Around a call. EdgeError at once where the server was silent a moment ago, or somebody is finding out
        whether it still is."""
        began = self._clock()
        with self._lock:
            if self._silent_since is not None:
                if began < self._next:
                    since = began - self._silent_since
                    raise EdgeError(f"{self._server} did not answer {since:.0f} s ago, and is asked again soon")
                self._next = began + _QUIET_S
        try:
            yield
        except (NotFound, Refused):
            self._heard()
            raise
        except EdgeError:
            now = self._clock()
            if now - began >= _SLOW_S:
                with self._lock:
                    self._silent_since, self._next = now, now + _QUIET_S
            raise
        else:
            self._heard()

    def _heard(self) -> None:
        with self._lock:
            self._silent_since = None
