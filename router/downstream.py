"""One client's connection: takes one request after the other, in order, and writes the answers.

    HEAD ──(head read, body whole)──▶ BUSY ──(answered)──▶ HEAD
    HEAD ──(body to come)──▶ BODY ──(whole)──▶ BUSY        BODY ──(too large to hold)──▶ BODY, passed on as it comes
    any ──(refused, or to be closed with bytes unread)──▶ LINGER: what comes is thrown away until the client ends

A client that pipelines is answered one request at a time; what it sent ahead waits here, up to a limit, and then in
its own socket.
"""

import asyncio
import contextlib
import re
from time import monotonic
from typing import TYPE_CHECKING, cast

from router import answers, outgoing
from router.errors import Refused
from router.exchange import Exchange
from router.framing import ChunkedBody, CountedBody
from router.heads import Reader, Request

if TYPE_CHECKING:
    from router.plane import Plane

_AHEAD_BYTES = 64 << 10
_LINGER_BYTES = 1 << 20
_LINGER_S = 1.0

_HEAD, _BODY, _BUSY, _LINGER = range(4)
_NEVER = float("inf")
_CR = 13
_BLANK_LINES = re.compile(rb"\A(?:\r\n)+")


class Client(asyncio.Protocol):
    """The server side of one connection. Where it waits for the client, that is too long from ``due`` on."""

    __slots__ = (
        "__weakref__",
        "_ahead",
        "_at",
        "_body",
        "_budget",
        "_crowded",
        "_ended",
        "_exchange",
        "_partial",
        "_pieces",
        "_plane",
        "_reader",
        "_request",
        "_taken",
        "_thrown",
        "due",
        "forwarding",
        "transport",
    )

    transport: asyncio.Transport
    forwarding: outgoing.Forwarding

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self._at = _HEAD
        self._reader = Reader()
        self.due = _NEVER
        # What the client has sent but nobody has looked at; of the head of a request if it is ``_partial``.
        self._ahead = b""
        self._partial = False
        self._request: Request | None = None
        self._pieces: list[bytes] = []
        self._body: ChunkedBody | CountedBody = CountedBody(0)
        self._taken = 0
        self._budget = 0
        self._exchange: Exchange | None = None
        self._ended = False
        self._crowded = False
        self._thrown = 0

    # What the event loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        if hasattr(transport, "max_size"):  # as much as a read of another loop takes
            transport.max_size = 65536
        plane = self._plane
        plane.counters.connections += 1
        peer = transport.get_extra_info("peername")
        self.forwarding = outgoing.Forwarding(str(peer[0]).partition("%")[0].encode() if peer else b"unknown")
        full = len(plane.clients) >= plane.config.max_connections and not plane.make_room()
        plane.clients.add(self)
        if full:
            plane.counters.overload += 1
            self.refuse(503, "too many connections")
        else:
            self.due = monotonic() + plane.idle_s

    def connection_lost(self, exc: Exception | None) -> None:
        plane = self._plane
        plane.clients.discard(self)
        self._give_back()
        self._at = _LINGER
        exchange, self._exchange = self._exchange, None
        if exchange is not None:
            exchange.client_lost()

    def eof_received(self) -> bool:
        self._ended = True
        # A client that has sent its request may shut down its side and still wants the answer.
        return self._at == _BUSY or (bool(self._ahead) and not self._partial)

    def pause_writing(self) -> None:
        self._crowded = True
        if self._exchange is not None:
            self._exchange.client_crowded()

    def resume_writing(self) -> None:
        self._crowded = False
        if self._exchange is not None:
            self._exchange.client_ready()
        elif self._at == _HEAD:
            self._resume()

    def data_received(self, data: bytes) -> None:
        at = self._at
        if at == _HEAD:
            if self._ahead:
                data, self._ahead = self._ahead + data, b""
            self._take_head(data)
        elif at == _BODY:
            self._take_body(data)
        elif at == _BUSY:
            self._ahead += data
            if len(self._ahead) > _AHEAD_BYTES:
                self.transport.pause_reading()
        else:
            self._thrown += len(data)
            if self._thrown > _LINGER_BYTES:
                self.transport.abort()

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
        elif length == len(rest) and plane.routes is not None and length <= plane.routes.replay_bytes:
            request.body = rest
            self._begin(request)
        else:
            self._begin_body(request, rest)

    def _part_of_head(self, data: bytes) -> None:
        plane = self._plane
        if len(data) > plane.max_header_bytes:
            self.refuse(431, f"the head of a request may have {plane.max_header_bytes} bytes")
        elif self._ended:
            self._close()
        else:
            self._ahead = data
            if not self._partial:
                self._partial = True
                self.due = monotonic() + plane.config.head_s

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
        self._at = _BODY
        self._pieces = []
        self._body = ChunkedBody() if request.length < 0 else CountedBody(request.length)
        self._taken = 0
        self._partial = False
        self._take_body(rest)

    def _take_body(self, data: bytes) -> None:
        try:
            data = self._body.feed(data)
        except Refused as refused:
            self._break_body(refused)
            return
        plane = self._plane
        done = self._body.done
        if done:
            self._ahead = self._body.rest
        self._taken += len(data)
        if self._taken > plane.config.max_body_bytes:
            self._break_body(Refused(413, f"the body of a request may have {plane.config.max_body_bytes} bytes"))
            return
        if self._ended and not done:
            self._close()
            return
        self.due = _NEVER if done else monotonic() + plane.config.body_s
        if self._exchange is not None:
            if done:
                self._at = _BUSY
            self._exchange.request_part(data, done)
        else:
            self._hold(data, done)

    def _hold(self, data: bytes, done: bool) -> None:
        """Keep a part of a body; begin where that was the last one, or where there is more than is to be held."""
        plane = self._plane
        request = self._request
        assert request is not None
        self._pieces.append(data)
        self._budget += len(data)
        plane.held_bytes += len(data)
        if plane.held_bytes > plane.config.max_held_bytes:
            plane.counters.overload += 1
            self.refuse(503, "too many requests are being received")
        elif done or (plane.routes is not None and self._budget > plane.routes.replay_bytes):
            request.whole = done
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

    def _begin(self, request: Request) -> None:
        plane = self._plane
        routes = plane.routes
        if request.whole:
            self._at = _BUSY
            self.due = _NEVER
        self._partial = False
        if routes is None:
            self._no_table()
            return
        exchange = self._exchange = Exchange(plane, self, request, routes)
        exchange.begin(monotonic())

    def _no_table(self) -> None:
        self._plane.counters.overload += 1
        self.refuse(503, "this router has no route table yet")

    # Answering.

    @property
    def closing(self) -> bool:
        """Whether the connection ends with the answer to the request at hand."""
        request = self._request
        return request is None or request.close or self._plane.draining or self._at != _BUSY

    def write(self, data: bytes) -> None:
        """Bytes of the answer at hand."""
        self._plane.outbox.write(self.transport, data)

    def stop_upload(self) -> None:
        """Read no more of the body for now."""
        if self._at == _BODY:
            self.transport.pause_reading()

    def resume_upload(self) -> None:
        """Go on reading the body."""
        if self._at == _BODY and not self._ended:
            self.transport.resume_reading()

    def answered(self, close: bool, now: float) -> None:
        """The answer at hand is complete, ``close`` if it said that the connection ends."""
        self._exchange = None
        self._request = None
        if self._budget:
            self._give_back()
        plane = self._plane
        if self.transport.is_closing():
            return
        if close or (self._ended and not self._ahead):
            self._close()
            return
        self._at = _HEAD
        self.due = now + plane.idle_s
        if self._crowded:
            # No further request while the client does not read the answers it has.
            self.transport.pause_reading()
        elif self._ahead:
            plane.loop.call_soon(self._resume)

    def _resume(self) -> None:
        """Read on in what the client sent ahead."""
        if self._at != _HEAD or self._crowded or self.transport.is_closing():
            return
        data, self._ahead = self._ahead, b""
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
        if self._at == _BODY or self._ahead:
            # Closing with bytes unread would reset the connection, and the answer could be lost on its way.
            self._linger()
        else:
            self.cut()

    def _linger(self) -> None:
        self._at = _LINGER
        self._request = None
        self._ahead = b""
        self._pieces = []
        self._give_back()
        self._plane.outbox.flush()
        if self._ended or self.transport.is_closing():
            self.transport.close()
            return
        self.transport.resume_reading()
        if self.transport.can_write_eof():
            # A client that has reset the connection a moment ago cannot be told of the end.
            with contextlib.suppress(OSError):
                self.transport.write_eof()
        self.due = monotonic() + _LINGER_S

    # Deadlines.

    @property
    def idle(self) -> bool:
        """Whether no request has begun."""
        return self._at == _HEAD and not self._ahead

    def overdue(self) -> None:
        """What was waited for did not come."""
        self.due = _NEVER
        if self._at == _BODY:
            self._break_body(Refused(408, "the body of the request took too long"))
        elif self._partial and self._at == _HEAD:
            self.refuse(408, "the head of the request took too long")
        else:
            self.cut()

    def cut(self) -> None:
        """End the connection; nobody is owed anything on it."""
        self._at = _LINGER
        self._plane.outbox.flush()
        self.transport.close()
