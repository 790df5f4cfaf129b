"""Are the model servers ready? Every worker asks each of them the model's own example, again and again.

A server that has just come into the table is believed to be ready until its first answer, since the controller has
asked it before and a restarted worker must not count its own ignorance against an arm. From then on its last answers
decide: a server that never answered well is out at its first bad answer, a proven one at its second in a row, and
either is back at the next good one.
"""

from typing import Final

from router import outgoing
from router.call import Call
from router.deadlines import Deadlines
from router.heads import Request
from router.judge import judge
from router.pool import Backend, Pool
from router.table import Probe
from router.upstream import Failure

EVERY_S: Final = 1.0
PATIENCE_S: Final = 5.0
BAD_IN_A_ROW: Final = 2
_ANSWER_BYTES: Final = 1 << 20


def request_of(probe: Probe) -> Request:
    """What is sent: GET, or POST where the probe has a body."""
    lines = [b"Accept: application/json", b"User-Agent: understudy-router"]
    fields = dict(line.split(b": ") for line in lines)
    if probe.body is None:
        return Request(b"GET", probe.path.encode(), False, lines, fields)
    content_type = probe.content_type.encode()
    request = Request(b"POST", probe.path.encode(), False, [*lines, b"Content-Type: " + content_type], fields)
    request.body = probe.body.encode()
    return request


class Watch(Call):
    """One server that is asked, one question at a time."""

    to_head = False

    def __init__(self, waiting: Deadlines[Call], backend: Backend, pool: Pool, probe: Probe) -> None:
        self.pool = pool
        self.probe = probe
        self.request = request_of(probe)
        self.request_id = b"probe"
        self.tail = outgoing.tail(self.request, b"probe", b"", None)
        self.backend = backend
        self.waiting = waiting
        self.asking = False
        self.due = 0.0
        self._bad = 0
        self._proven = False

    def ask(self, now: float) -> None:
        """Send the question, if the last one was answered and it is time."""
        if self.asking or now < self.due:
            return
        self.asking = True
        self.due = now + EVERY_S
        self.forget_answer()
        self.sent_at = now
        self.waiting.add(self, now)
        self.pool.ask(self)

    def end(self) -> None:
        """Ask no more."""
        self.due = float("inf")
        if self.asking:
            self._over()
            self.drop_connection()

    def _over(self) -> None:
        self.asking = False
        self.waiting.remove(self)

    def _said(self, good: bool) -> None:
        self._over()
        if good:
            self._proven = self.pool.ready = True
            self._bad = 0
            return
        self._bad += 1
        if not self._proven or self._bad >= BAD_IN_A_ROW:
            self.pool.ready = False

    # What a connection tells.

    def answer_body(self, data: bytes) -> None:
        """No example is answered by this much."""
        super().answer_body(data)
        if self.received > _ANSWER_BYTES:
            self.drop_connection()
            self._said(False)

    def answer_end(self) -> None:
        """Judged like the answer to a client's request."""
        self.connection = None
        assert self.response is not None
        self._said(judge(self.response, self.body(), self.request) is not False)

    def answer_failed(self, failure: Failure) -> None:
        """A kept connection that was closed, or none that is free, says nothing about the model."""
        self.connection = None
        if failure in (Failure.STALE, Failure.FULL):
            self._over()
            if failure is Failure.STALE:
                self.due = 0.0
        else:
            self._said(False)

    def timed_out(self) -> None:
        """Neither is no answer one."""
        self.drop_connection()
        self._said(False)


class Readiness:
    """All servers of a worker's table that say how they are to be asked."""

    def __init__(self, waiting: Deadlines[Call]) -> None:
        self._waiting = waiting
        self._watches: dict[tuple[Pool, Probe], Watch] = {}

    def watch(self, *backends: tuple[Backend, Probe | None]) -> None:
        """Ask the servers of these from now on, and no others. A server nobody asks about counts as ready."""
        wanted = {(pool, probe): backend for backend, probe in backends if probe for pool in backend.pools}
        asked = {pool for pool, _ in wanted}
        for key, watch in list(self._watches.items()):
            if key not in wanted:
                del self._watches[key]
                watch.end()
                watch.pool.ready = watch.pool.ready or watch.pool not in asked
        for (pool, probe), backend in wanted.items():
            if (pool, probe) not in self._watches:
                self._watches[pool, probe] = Watch(self._waiting, backend, pool, probe)

    def sweep(self, now: float) -> None:
        """Ask whom it is time to ask."""
        for watch in self._watches.values():
            watch.ask(now)

    @property
    def not_ready(self) -> int:
        """Servers that are known not to be ready."""
        return sum(not watch.pool.ready for watch in self._watches.values())
