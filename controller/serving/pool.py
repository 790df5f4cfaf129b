"""A few threads that score, behind a bounded queue, each piece of work with a deadline.

All methods run on the event loop's thread; only the work itself runs on the pool's. The threads are daemons: a
model that never returns cannot keep the process alive.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from typing import Any

from controller.serving.faults import Fault, OverloadFault

Done = Callable[[Any], None]


class Ticket:
    """One piece of work. `done` is called exactly once, unless `abandon` came first."""

    __slots__ = ("done", "overrun", "settled", "started", "timer", "work")

    def __init__(self, work: Callable[[], Any], done: Done) -> None:
        self.work = work
        self.done = done
        self.started = False
        self.settled = False
        self.overrun = False
        self.timer: asyncio.TimerHandle | None = None

    def settle(self, result: Any) -> None:
        if self.settled:
            return
        self.settled = True
        if self.timer is not None:
            self.timer.cancel()
        self.done(result)

    def abandon(self) -> None:
        """Nobody wants the result any more; work that has not started will not be done."""
        self.settled = True
        if self.timer is not None:
            self.timer.cancel()


class ScoringPool:
    """`threads` at work, at most `waiting` more in line; `on_stuck` is called when every thread is overdue."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        threads: int,
        waiting: int,
        timeout: float,
        on_stuck: Callable[[], None],
    ) -> None:
        self._loop = loop
        self._bound = threads + waiting
        self._threads = threads
        self._timeout = timeout
        self._on_stuck = on_stuck
        self._queue: queue.SimpleQueue[Ticket] = queue.SimpleQueue()
        self._overdue = 0
        self.pending = 0
        self.refused = 0
        for number in range(threads):
            threading.Thread(target=self._run, name=f"score-{number}", daemon=True).start()

    def submit(self, work: Callable[[], Any], done: Done, *, beyond_bound: bool = False) -> Ticket:
        """Call `done` with the result of `work`, or with the Exception it raised or that time brought.

        Raises OverloadFault when the line is full (`beyond_bound`: never; for the one health check).
        """
        if self.pending >= self._bound and not beyond_bound:
            self.refused += 1
            raise OverloadFault(f"{self.pending} requests are waiting or running already; allowed: {self._bound}")
        ticket = Ticket(work, done)
        self.pending += 1
        ticket.timer = self._loop.call_later(self._timeout, self._expire, ticket)
        self._queue.put(ticket)
        return ticket

    def _expire(self, ticket: Ticket) -> None:
        if ticket.settled:
            return
        if ticket.started:
            ticket.overrun = True
            self._overdue += 1
            late = f"the model took longer than {self._timeout:g} s"
            ticket.settle(Fault(late, status=504, error_code="DEADLINE_EXCEEDED"))
            if self._overdue >= self._threads:
                self._on_stuck()
        else:
            self.refused += 1
            ticket.settle(OverloadFault(f"no free thread within {self._timeout:g} s"))

    def _finish(self, ticket: Ticket, result: Any) -> None:
        self.pending -= 1
        if ticket.overrun:
            self._overdue -= 1
        ticket.settle(result)

    def _run(self) -> None:
        while True:
            ticket = self._queue.get()
            result: Any = None
            if not ticket.settled:
                ticket.started = True
                try:
                    result = ticket.work()
                except BaseException as error:  # noqa: BLE001  a model may raise anything, SystemExit too
                    result = error
            try:
                self._loop.call_soon_threadsafe(self._finish, ticket, result)
            except RuntimeError:
                return  # the loop is closed: the process is ending
