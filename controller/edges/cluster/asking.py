"""Threads on which model servers are asked: who decides over rollouts does not wait for servers that say nothing.

They are the process's, whatever number of rollouts it has. Servers that took their time have threads of their own, so
that a crowd of them keeps nobody from being asked whose servers answer.
"""

import logging
import threading
from collections import deque
from collections.abc import Callable

log = logging.getLogger("understudy.asking")
Work = Callable[[], None]


class Lane:
    """Does what it is given in that order, on at most ``most`` daemon threads, each started when it is first needed."""

    def __init__(self, name: str, most: int) -> None:
        self._name, self._most = name, most
        self._condition = threading.Condition()
        self._works: deque[Work] = deque()
        self._threads = self._idle = 0

    def put(self, work: Work) -> None:
        """Have it done; returns at once. Who puts bounds how much of his own may wait here."""
        with self._condition:
            self._works.append(work)
            if self._idle < len(self._works) and self._threads < self._most:
                self._threads += 1
                threading.Thread(target=self._run, name=f"{self._name}-{self._threads}", daemon=True).start()
            self._condition.notify()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._idle += 1
                self._condition.wait_for(lambda: self._works)
                self._idle -= 1
                work = self._works.popleft()
            try:
                work()
            except Exception:  # a fault of ours costs this answer, and others are waiting
                log.exception("a server could not be asked")


PROMPT, SLOW = Lane("asks", 48), Lane("asks-slow", 16)
