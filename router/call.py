"""One attempt to have a request answered by a model server; what clients wait for and mirrors have in common."""

from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from router import answers, outgoing
from router.capture import Attempt
from router.deadlines import Deadlines
from router.heads import Request, Response
from router.judge import passes_through
from router.pool import Backend, Pool
from router.routing import Routes
from router.upstream import Connection, Failure

if TYPE_CHECKING:
    from router.plane import Plane

_STALE_RETRIES: Final = 2
_SAFE: Final = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class Call:
    """Sends a request to one server of an arm and holds what comes back: a ``Caller`` that leaves open how it ends.

    ``begin_call`` may be used again for a further attempt once the one before is over.
    """

    plane: "Plane"
    routes: Routes
    request: Request
    request_id: bytes
    tail: bytes
    backend: Backend
    pool: Pool
    waiting: Deadlines[Any]
    sent_at: float
    # When its time began to run; never, while the client is the one that is waited for.
    asked_at: float
    to_head: bool
    # The request's id in the journal, where no two have the same.
    key: bytes
    # Bytes of the request's body that count against those that may be held at the same time.
    budget = 0
    # There was no connection free, which a challenger fails of.
    queued = False
    # Its server did not read for longer than a challenger may, while the request was on its way.
    unread = False
    # A request that is too large to be held has more to come; it is intact until that has begun to be sent.
    streamed = False
    intact = True
    connection: Connection | None = None
    # How often its arm was asked again.
    retries = 0
    response: Response | None = None
    was_sent = False
    received = 0
    # Up to so many bytes it is held until it is judged, or received whole; unless there is no room for it.
    judge_bytes = 0
    # What that is for each answer, to begin with; 0: none is judged.
    judge_limit = 0
    # What is held of the answer: mostly it comes in one piece.
    held: bytes = b""
    more_held: list[bytes] | None = None

    def begin_call(self, backend: Backend, seconds: float, now: float) -> None:
        """Send the request to an arm, which has so many seconds to answer."""
        self.backend = backend
        self.waiting = waiting = self.plane.deadlines(seconds)
        waiting.add(self, now)
        self.sent_at = self.asked_at = now
        pools = backend.pools
        self.pool = pool = pools[0] if len(pools) == 1 else backend.pick(now)
        pool.ask(self)

    def asked_again(self, failure: Failure, connection: Connection | None) -> bool:
        """Have the same arm answer by another connection or address, where the failure is none of its servers'; the
        deadline is the one that runs.
        """
        if failure is Failure.REFUSED and self.retries < len(self.backend.pools) - 1:
            pool = self.backend.pick(monotonic())
        elif failure is Failure.STALE and connection is not None and self.retries < _STALE_RETRIES:
            repeatable = self.intact and (self.routes.replay or self.request.method in _SAFE)
            if not repeatable or not self.forgiven(connection):
                return False
            pool = self.pool
        else:
            return False
        self.retries += 1
        self.plane.counters.retries += 1
        self.pool = pool
        self.forget_answer()
        pool.ask(self)
        return True

    def forgiven(self, connection: Connection) -> bool:
        """Whether the same arm may try again after a kept connection was closed without a word.

        One that had been idle was closed by a server that was tired of it and has read nothing. On one that was in
        use a moment ago a request was dropped, and its arm has failed.
        """
        return self.sent_at - connection.since >= self.plane.config.upstream_fresh_s

    def forget_answer(self) -> None:
        """Be ready for another one."""
        self.connection = None
        self.response = None
        self.was_sent = False
        self.received = 0
        # Whether there is room is asked of each answer by itself.
        self.judge_bytes = self.judge_limit
        self.held = b""
        self.more_held = None

    def drop_connection(self) -> None:
        """Want no answer any more."""
        connection = self.connection
        if connection is not None:
            self.connection = None
            connection.abandon()
        else:
            self.pool.forget(self)

    def body(self) -> bytes:
        """What is held of the answer."""
        if self.more_held is not None:
            self.held = b"".join((self.held, *self.more_held))
            self.more_held = None
        return self.held

    @property
    def holding(self) -> int:
        """Bytes of the answer that are held."""
        return self.received

    def hold_no_more(self) -> None:
        """Where too much of answers is held, this one goes on as one that is too large to be held."""
        response = self.response
        if self.judge_bytes and response is not None and not passes_through(response, self.judge_bytes):
            self.judge_bytes = 0
            self.plane.counters.unheld += 1

    def give_back(self) -> None:
        """The request's body is not held any more."""
        self.plane.held_bytes -= self.budget
        self.budget = 0

    def late(self, now: float) -> bool:
        """Whether the challenger would have been given up by now: one rule for the record of both arms."""
        return now - self.asked_at > self.routes.challenger_s or self.queued or self.unread

    def attempt(
        self, body: bytes, *, usable: bool, unjudged: bool = False, complete: bool = False, late: bool | None = None
    ) -> Attempt:
        """The attempt as it ended now; ``late`` where that is known from earlier.

        Unless its answer came to its end, what is held of it is only a part.
        """
        response = self.response
        status = 0 if response is None else response.status
        now = monotonic()
        if late is None:
            late = self.late(now)
        cut = self.received > 0 and not complete
        attempt = Attempt(status, now - self.sent_at, body, usable, unjudged, cut, late)
        if response is not None:
            attempt.coding = response.coding
        return attempt

    # What a connection asks of its caller.

    def wait_in_line(self) -> None:
        """There is no connection free."""
        self.queued = True

    def outgoing(self, connection: Connection) -> bytes:
        """The request's bytes; its time runs from here."""
        self.connection = connection
        self.was_sent = True
        self.sent_at = monotonic()
        request = self.request
        body = request.body
        if request.method != b"POST" and (body or self.streamed) and request.method in outgoing.BODYLESS:
            # A server that does not read the body would take it for the beginning of the next client's request.
            connection.once = True
        if self.streamed:
            if request.length < 0 and body:
                body = answers.chunk(body)
            self.plane.loop.call_soon(self.sendable)
        return outgoing.message(request, connection.pool.authority, self.tail, body)

    def sendable(self) -> None:
        """More of a streamed request may be sent."""

    def crowded(self) -> None:
        """No more of a streamed request may be sent for now."""

    def answer_whole(self, response: Response, body: bytes) -> None:
        """An answer that came in one piece."""
        self.answer_head(response)
        if body:
            self.answer_body(body)
        # It may have been too much already.
        if self.connection is not None:
            self.answer_end()

    def answer_head(self, response: Response) -> None:
        """The head of the answer."""
        self.response = response

    def answer_body(self, data: bytes) -> None:
        """A part of its body."""
        self.received += len(data)
        if self.more_held is not None:
            self.more_held.append(data)
        elif self.held:
            self.more_held = [data]
        else:
            self.held = data

    def answer_pause(self) -> None:
        """Nothing more of it has come yet."""

    def answer_end(self) -> None:
        """All of it has come."""
        raise NotImplementedError

    def answer_failed(self, failure: Failure) -> None:
        """Not all of it will come."""
        raise NotImplementedError

    def timed_out(self) -> None:
        """It did not come in time."""
        raise NotImplementedError
