"""One attempt to have a request answered by a model server; what clients wait for and mirrors have in common."""

from typing import TYPE_CHECKING, Any

from router import answers, outgoing
from router.capture import Attempt
from router.deadlines import Deadlines
from router.heads import Request, Response
from router.pool import Backend, Pool
from router.routing import Routes
from router.upstream import Connection, Failure

if TYPE_CHECKING:
    from router.plane import Plane


class Call:
    """Sends a request to one server of an arm and holds what comes back: a ``Caller`` that leaves open how it ends.

    ``begin_call`` may be used again for a further attempt once the one before is over.
    """

    __slots__ = (
        "backend",
        "connection",
        "held",
        "intact",
        "parts",
        "plane",
        "pool",
        "received",
        "request",
        "request_id",
        "response",
        "routes",
        "sent_at",
        "streamed",
        "tail",
        "to_head",
        "waiting",
        "was_sent",
    )

    backend: Backend
    pool: Pool
    connection: Connection | None
    response: Response | None
    held: list[bytes]
    waiting: Deadlines[Any]

    def __init__(self, plane: "Plane", routes: Routes, request: Request, request_id: str, tail: bytes) -> None:
        self.plane = plane
        self.routes = routes
        self.request = request
        self.request_id = request_id
        self.tail = tail
        self.to_head = request.method == b"HEAD"
        # A request that is too large to be held has more to come; it is intact until that has begun to be sent.
        self.streamed = not request.whole
        self.intact = True
        self.parts: list[bytes] = []

    def begin_call(self, backend: Backend, seconds: float, now: float) -> None:
        """Send the request to an arm, which has so many seconds to answer."""
        self.backend = backend
        self.waiting = self.plane.deadlines(seconds)
        self.waiting.add(self, now)
        self.ask(backend.pick(now), now)

    def ask(self, pool: Pool, now: float) -> None:
        """Send the request by a pool; the deadline is the one that runs."""
        self.pool = pool
        self.connection = None
        self.response = None
        self.was_sent = False
        self.sent_at = now
        self.held = []
        self.received = 0
        pool.ask(self)

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
        held = self.held
        return held[0] if len(held) == 1 else b"".join(held)

    def attempt(self, now: float, body: bytes, *, usable: bool, unjudged: bool = False) -> Attempt:
        """The attempt as it ended now."""
        status = 0 if self.response is None else self.response.status
        return Attempt(status, now - self.sent_at, body, usable=usable, unjudged=unjudged)

    # What a connection asks of its caller.

    def outgoing(self, connection: Connection) -> bytes:
        """The request's bytes; its time runs from here."""
        self.connection = connection
        self.was_sent = True
        self.sent_at = self.plane.loop.time()
        body = self.request.body
        if self.streamed:
            if self.request.length < 0:
                body = answers.chunk(body)
            self.plane.loop.call_soon(self.sendable)
        return outgoing.message(self.request, connection.pool.authority, self.tail, body)

    def sendable(self) -> None:
        """More of a streamed request may be sent."""

    def crowded(self) -> None:
        """No more of a streamed request may be sent for now."""

    def answer_head(self, response: Response) -> None:
        """The head of the answer."""
        self.response = response

    def answer_body(self, data: bytes) -> None:
        """A part of its body."""
        self.received += len(data)
        self.held.append(data)

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
