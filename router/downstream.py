"""One client's connection: takes one request after the other, in order, and writes the answers.

    HEAD ──(head read, body whole)──▶ BUSY ──(answered)──▶ HEAD
    HEAD ──(body to come)──▶ BODY ──(whole)──▶ BUSY        BODY ──(too large to hold)──▶ BODY, passed on as it comes
    any ──(refused, or to be closed with bytes unread)──▶ LINGER: what comes is thrown away until the client ends

A client that pipelines is answered one request at a time; what it sent ahead waits here, up to a limit, and then in
its own socket.
"""

import asyncio
import re
from time import monotonic
from typing import TYPE_CHECKING, Final, cast

from router import answers, outgoing
from router.errors import Refused
from router.exchange import Exchange
from router.framing import TURN_BYTES, ChunkedBody, CountedBody
from router.heads import Reader, Request
from router.pace import NEVER
from router.patience import BODY, BUSY, HEAD, LINGER, Patience

if TYPE_CHECKING:
    from router.plane import Plane

_AHEAD_BYTES: Final = 64 << 10
_CR: Final = 13
_BLANK_LINES: Final = re.compile(rb"\A(?:\r\n)+")


class Client(Patience):
    """The server side of one connection. Where it waits for the client, that is too long from ``due`` on."""

    __slots__ = ("_body", "_pieces", "_reader", "_request", "_taken", "forwarding")

    forwarding: outgoing.Forwarding

    def __init__(self, plane: "Plane") -> None:
        super().__init__(plane)
        self._reader = Reader()
        self._request: Request | None = None
        self._pieces: list[bytes] = []
        self._body: ChunkedBody | CountedBody = CountedBody(0)
        self._taken = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if hasattr(transport, "max_size"):  # as much as a read of another loop takes
            transport.max_size = 65536
        plane = self._plane
        plane.counters.connections += 1
        peer = transport.get_extra_info("peername")
        self.forwarding = outgoing.Forwarding(str(peer[0]).partition("%")[0].encode() if peer else b"unknown")
        full = len(plane.clients) >= plane.config.max_connections and not plane.room.connection()
        plane.clients.add(self)
        if full:
            plane.counters.overload += 1
            self.refuse(503, "too many connections")
        else:
            self.came = now = monotonic()
            self.due = now + plane.idle_s

    def connection_lost(self, exc: Exception | None) -> None:
        plane = self._plane
        plane.clients.discard(self)
        self._taken_from_ahead()
        self._give_back()
        self._at = LINGER
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost()

    def eof_received(self) -> bool:
        self._ended = True
        # A client that has sent its request may shut down its side and still wants the answer, which may be on its way.
        self._plane.outbox.flush()
        return self._at == BUSY or (bool(self._ahead) and not self._partial)

    def pause_writing(self) -> None:
        self.crowded = True
        if self._exchange is not None:
            self._exchange.client_crowded()

    def resume_writing(self) -> None:
        self.crowded = False
        if self._exchange is not None:
            self._exchange.client_ready()
        elif self._at == HEAD:
            self._resume()

    def data_received(self, data: bytes) -> None:
        at = self._at
        if at == HEAD:
            if self._ahead:
                data = self._taken_from_ahead() + data
            self._take_head(data)
        elif at == BODY:
            self._take_body(data)
        elif at == BUSY:
            self._ahead += data
            if len(self._ahead) > _AHEAD_BYTES:
                self.transport.pause_reading()
            self._count_ahead()
        else:
            self._throw_away(data)

    # Reading requests.

    def _take_head(self, data: bytes) -> None:
        plane = self._plane
        end = data.find(b"\r\n\r\n") + 4
        if end == 3 or end > plane.max_header_bytes:
            self._part_of_head(data)
            return
        if data[0] == _CR and data.startswith(b"\r\n"):
            # Some clients end a body with a line break that is not theirs to send (RFC 9112, 2.2).
            self._ahead = _BLANK_LINES.sub(b"", data)
            self._resume()
            return
        try:
            request = self._reader.read(data[:end])
        except Refused as refused:
            self.refuse(refused.status, refused.why)
            return
        self._request = request
        rest = data[end:]
        length = request.length
        if length == 0:
            self._ahead = rest
            self._begin(request)
            if rest:
                self._count_ahead()
        elif (
            length == len(rest) <= plane.small_bytes
            and plane.routes is not None
            and length <= plane.routes.replay_bytes
        ):
            request.body = rest
            self._begin(request)
        else:
            self._begin_body(request, rest)

    def _part_of_head(self, data: bytes) -> None:
        plane = self._plane
        if data[0] == _CR:
            # A line break behind a body, as above, is not the beginning of a request that could come too late.
            data = _BLANK_LINES.sub(b"", data)
            if data in (b"", b"\r") and not self._ended:
                self._ahead = data
                return
        if len(data) > plane.max_header_bytes:
            self.refuse(431, f"the head of a request may have {plane.max_header_bytes} bytes")
        elif self._ended:
            self._close()
        else:
            self._ahead = data
            if not self._partial:
                self._partial = True
                self.due = self._pace.begin() + plane.config.head_s

    def _begin_body(self, request: Request, rest: bytes) -> None:
        plane = self._plane
        if request.length > plane.config.max_body_bytes:
            self.refuse(413, f"the body of a request may have {plane.config.max_body_bytes} bytes")
            return
        if plane.routes is None:
            self._no_table()
            return
        if not rest and b"expect" in request.fields and not request.http10:
            self.write(answers.CONTINUE)
        self._at = BODY
        self._pieces = []
        self._body = ChunkedBody() if request.length < 0 else CountedBody(request.length)
        self._taken = 0
        self._partial = False
        self._pace.begin()
        self._take_body(rest)

    def _take_body(self, data: bytes) -> None:
        if isinstance(self._body, ChunkedBody) and self._body.crumbs(data):
            self.transport.pause_reading()
            data, self._ahead = data[:TURN_BYTES], data[TURN_BYTES:]
            self._plane.loop.call_soon(self._take_on)
        try:
            data = self._body.feed(data)
        except Refused as refused:
            self._break_body(refused)
            return
        plane = self._plane
        done = self._body.done
        if done:
            self._ahead = self._body.rest + self._ahead
        self._taken += len(data)
        if self._taken > plane.config.max_body_bytes:
            self._break_body(Refused(413, f"the body of a request may have {plane.config.max_body_bytes} bytes"))
            return
        if self._ended and not done and not self._ahead:
            self._close()
            return
        self.due = NEVER if done else self._pace.due(self._taken)
        if self._exchange is not None:
            if done:
                self._at = BUSY
            self._exchange.request_part(data, done)
        else:
            self._hold(data, done)
        if done and self._ahead:
            self._count_ahead()

    def _count_ahead(self) -> None:
        """Further requests than the one at hand are held as bodies are. Where there is no room for them their client
        has to go: it need not have sent them yet.
        """
        plane, size = self._plane, len(self._ahead)
        if self._at != BUSY or size <= plane.small_bytes:
            return
        plane.held_bytes += size - self._ahead_budget
        self._ahead_budget = size
        if plane.held_bytes > plane.config.max_held_bytes and not plane.room.body() and self._at == BUSY:
            plane.counters.overload += 1
            self.transport.abort()

    def _taken_from_ahead(self) -> bytes:
        """What was sent ahead, which nobody holds any more."""
        data, self._ahead = self._ahead, b""
        self._plane.held_bytes -= self._ahead_budget
        self._ahead_budget = 0
        return data

    def _take_on(self) -> None:
        """Take the next part of a body that is read in turns."""
        if self._at == BODY and self._ahead and not self._pace.stopped:
            data, self._ahead = self._ahead, b""
            if not self._ended:
                self.transport.resume_reading()
            self._take_body(data)

    def _hold(self, data: bytes, done: bool) -> None:
        """Keep a part of a body; begin where that was the last one, or where there is more than is to be held."""
        plane = self._plane
        request = self._request
        assert request is not None
        self._pieces.append(data)
        self._budget += len(data)
        plane.held_bytes += len(data)
        if plane.held_bytes > plane.config.max_held_bytes and not plane.room.body():
            plane.counters.overload += 1
            self.refuse(503, "too many requests are being received")
            return
        if self._at != BODY:
            return  # it was this one that had to go
        routes = plane.routes
        limit = self._budget if routes is None else routes.replay_bytes
        if self._budget > limit:
            # Also where all of it is there: the arm must not depend on the pieces in which a body comes.
            request.whole = False
            body = b"".join(self._pieces)
            self._pieces = []
            request.body = body[:limit]
            if done:
                self._at = BUSY
            self._begin(request, body[limit:])
        elif done:
            request.body = b"".join(self._pieces)
            self._pieces = []
            self._begin(request)

    def _give_back(self) -> None:
        self._plane.held_bytes -= self._budget
        self._budget = 0

    def _break_body(self, refused: Refused) -> None:
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            self.refuse(refused.status, refused.why)
            return
        exchange.client_lost()
        if exchange.started:
            self.transport.abort()
        else:
            self.refuse(refused.status, refused.why)

    def _begin(self, request: Request, more: bytes = b"") -> None:
        """Have it answered. ``more``: what has come of a body beyond what is held."""
        plane = self._plane
        routes = plane.routes
        if request.whole:
            self._at = BUSY
            self.due = NEVER
        self._partial = False
        if routes is None:
            self._no_table()
            return
        exchange = self._exchange = Exchange(plane, self, request, routes)
        # It holds the body from now on, also where the client leaves.
        exchange.budget, self._budget = self._budget, 0
        if more:
            exchange.request_part(more, self._at == BUSY)
        exchange.begin(monotonic())

    def _no_table(self) -> None:
        self._plane.counters.overload += 1
        self.refuse(503, "this router has no route table yet")

    # Answering.

    @property
    def closing(self) -> bool:
        """Whether the connection ends with the answer to the request at hand."""
        request = self._request
        return request is None or request.close or self._plane.draining or self._at != BUSY

    def write(self, data: bytes) -> None:
        """Bytes of the answer at hand."""
        self._plane.outbox.write(self.transport, data)

    def stop_upload(self) -> None:
        """Read no more of the body for now."""
        if self._at == BODY:
            self.transport.pause_reading()
            self._pace.stop()
            self.due = NEVER

    def resume_upload(self) -> None:
        """Go on reading the body."""
        if self._at == BODY and (self._ahead or not self._ended):
            self._pace.resume()
            self.due = self._pace.due(self._taken)
            if self._ahead:
                self._plane.loop.call_soon(self._take_on)
            else:
                self.transport.resume_reading()

    def answered(self, close: bool, now: float) -> None:
        """The answer at hand is complete, ``close`` if it said that the connection ends."""
        self._exchange = None
        self._request = None
        plane = self._plane
        if self.transport.is_closing():
            return
        if close or (self._ended and not self._ahead):
            self._close()
            return
        self._at = HEAD
        self.due = now + plane.idle_s
        if self.crowded:
            # No further request while the client does not read the answers it has.
            self.transport.pause_reading()
        elif self._ahead:
            plane.loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Read on in what the client sent ahead."""
        if self._at != HEAD or self.crowded or self.transport.is_closing():
            return
        data = self._taken_from_ahead()
        if not self._ended:
            self.transport.resume_reading()
        if data:
            self._take_head(data)
        elif self._ended:
            self._close()

    def break_off(self) -> None:
        """End the connection in the middle of an answer, so that the client sees that it is not complete."""
        self._plane.outbox.flush()
        self.transport.abort()

    def refuse(self, status: int, why: str) -> None:
        """Answer with an error of our own, and end the connection."""
        plane = self._plane
        plane.counters.client_errors += status < 500
        own = answers.CLOSE
        if status == 503:
            own += b"Retry-After: %d\r\n" % plane.config.retry_after_s
        self.write(answers.spoken(status, why, own=own))
        self._linger()

    def _close(self) -> None:
        if self._at == BODY or self._ahead:
            # Closing with bytes unread would reset the connection, and the answer could be lost on its way.
            self._linger()
        else:
            self.cut()

    def _linger(self) -> None:
        self._at = LINGER
        self._request = None
        self._taken_from_ahead()
        self._pieces = []
        self._give_back()
        self._shut()
