"""HTTP/1.1 on `asyncio.Protocol` and httptools: one request at a time per connection, everything bounded."""

from __future__ import annotations

import asyncio
import email.utils
import http
import itertools
import secrets
import time
from collections.abc import Callable

import httptools

from controller.serving.application import Answer, Application, fault_answer
from controller.serving.faults import Fault, InputFault, OverloadFault
from controller.serving.pool import Ticket
from controller.serving.settings import ServeSettings

MAX_HEADER_BYTES = 32 * 1024
READ_SECONDS = 30.0  # from the first byte of a request to its last; also for a client that does not read
IDLE_SECONDS = 120.0  # longer than usual upstream pools keep a connection, so that they close first
LINGER_SECONDS = 2.0  # how long a refused client may go on sending into the void before it is cut off
DRAIN_IDLE_SECONDS = 5.0  # how long a connection may stay idle while its worker is being replaced
_REASONS = {status.value: status.phrase for status in http.HTTPStatus}


class Connections:
    """What all connections of a worker share: bounds, common header lines, the state of draining."""

    def __init__(self, application: Application, settings: ServeSettings, headers: dict[str, str]) -> None:
        self.application = application
        self.settings = settings
        self.open: set[Connection] = set()
        self.draining = False
        self.buffered = 0
        self.buffer_limit = 8 * settings.max_request_bytes
        self.common = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._prefix = secrets.token_hex(4)
        self._numbers = itertools.count(1)
        self._date = (0, "")

    def new_request_id(self) -> str:
        return f"{self._prefix}-{next(self._numbers)}"

    def date(self) -> str:
        now = int(time.time())
        if now != self._date[0]:
            self._date = (now, email.utils.formatdate(now, usegmt=True))
        return self._date[1]

    def drain(self, *, idle_now: bool) -> None:
        """From now on every answer closes its connection. `idle_now`: close the idle ones at once."""
        self.draining = True
        for connection in list(self.open):
            connection.drain(idle_now=idle_now)

    def sweep(self, now: float) -> None:
        """Close what is overdue; called about once a second, which is cheaper than a timer per request."""
        for connection in list(self.open):
            if now > connection.deadline:
                connection.overdue()


class Connection(asyncio.Protocol):
    """One client connection. States: idle, reading a request, scoring it, writing the answer."""

    def __init__(self, shared: Connections, loop: asyncio.AbstractEventLoop) -> None:
        self._shared = shared
        self._loop = loop
        self._transport: asyncio.Transport | None = None
        self._parser = httptools.HttpRequestParser(self)
        self._ready: list[tuple[str, str, str, bytes, str, bool] | Fault] = []
        self._ticket: Ticket | None = None
        self._busy = False
        self._held = 0  # bytes of the request being scored
        self._closing = False
        self._paused_writing = False
        self._paused_reading = False
        self._reading = False
        self._last = False  # no request can follow: the byte stream is unusable from here
        self._lingering = False
        self.deadline = loop.time() + IDLE_SECONDS
        self._reset()

    def _reset(self) -> None:
        self._url = b""
        self._header_bytes = 0
        self._length = 0
        self._content_type = ""
        self._request_id = ""
        self._expects = False
        self._headers: list[tuple[bytes, bytes]] = []
        self._chunks: list[bytes] = []

    # --- asyncio -------------------------------------------------------------------------------------------
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        shared = self._shared
        if len(shared.open) >= shared.settings.max_connections:
            fault = OverloadFault(f"too many connections; allowed: {shared.settings.max_connections}")
            request_id = shared.new_request_id()
            self._write(fault_answer(fault, request_id), request_id, keep=False)
            return
        shared.open.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._shared.open.discard(self)
        self._closing = True
        self._release(self._length)
        for item in self._ready:
            if isinstance(item, tuple):
                self._release(len(item[3]))
        self._ready.clear()
        self._length = 0
        self._release(self._held)
        self._held = 0
        if self._ticket is not None:
            self._ticket.abandon()

    def data_received(self, data: bytes) -> None:
        if self._closing or self._last:
            return
        try:
            self._feed(data)
        except httptools.HttpParserError as error:
            # A fault raised in a callback arrives as the context of the parser's own error.
            context = error.__context__
            self._refuse(context if isinstance(context, Fault) else InputFault("not valid HTTP/1.1"))
        self._hold_back()

    def _hold_back(self) -> None:
        """Read no more while a request is being scored and the next one is arriving already."""
        more = self._ready or self._reading
        if self._busy and more and not self._paused_reading and not self._closing and self._transport is not None:
            self._paused_reading = True
            self._transport.pause_reading()

    def _feed(self, data: bytes) -> None:
        """Parse. An offer to upgrade the protocol, which some clients make with every request, is ignored, as HTTP

        allows: the parser stops at the end of such a request's headers, so a new one reads them without the offer.
        """
        while True:
            try:
                self._parser.feed_data(data)
                return
            except httptools.HttpParserUpgrade as offer:
                method = self._parser.get_method()
                if method == b"CONNECT":
                    self._refuse(InputFault("no tunnels here", status=405, error_code="METHOD_NOT_ALLOWED"))
                    return
                kept = [pair for pair in self._headers if pair[0].lower() not in (b"connection", b"upgrade")]
                lines = [b"%b %b HTTP/1.1" % (method, self._url), *(b"%b: %b" % pair for pair in kept), b"", b""]
                data = b"\r\n".join(lines) + data[offer.args[0] :]
                self._parser = httptools.HttpRequestParser(self)

    def pause_writing(self) -> None:
        self._paused_writing = True

    def resume_writing(self) -> None:
        self._paused_writing = False
        self._next()

    # --- httptools -----------------------------------------------------------------------------------------
    def on_message_begin(self) -> None:
        self._reset()
        self._reading = True
        if not self._busy:
            self.deadline = self._loop.time() + READ_SECONDS

    def on_url(self, url: bytes) -> None:
        self._url += url
        self._count_header(len(url))

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count_header(len(name) + len(value))
        self._headers.append((name, value))
        name = name.lower()
        if name == b"content-type":
            self._content_type = value.decode("latin-1")
        elif name == b"x-request-id" and 0 < len(value) <= 128 and value.isascii() and value.decode().isprintable():
            self._request_id = value.decode()
        elif name == b"content-length" and value.isdigit() and len(value) < 20:
            self._check_size(int(value))
        elif name == b"expect":
            self._expects = value.lower() == b"100-continue"

    def _count_header(self, size: int) -> None:
        self._header_bytes += size
        if self._header_bytes > MAX_HEADER_BYTES:
            raise InputFault(
                f"the request's headers are too long; allowed: {MAX_HEADER_BYTES} bytes",
                status=431,
                error_code="HEADERS_TOO_LARGE",
            )

    def _check_size(self, size: int) -> None:
        limit = self._shared.settings.max_request_bytes
        if size > limit:
            raise InputFault(
                f"the body is larger than allowed; allowed: {limit} bytes",
                status=413,
                error_code="REQUEST_TOO_LARGE",
            )

    def on_headers_complete(self) -> None:
        if self._expects and not self._busy and self._transport is not None and not self._parser.should_upgrade():
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._check_size(self._length + len(body))
        if self._shared.buffered + len(body) > self._shared.buffer_limit:
            raise OverloadFault("too many bytes of requests are waiting already")
        self._chunks.append(body)
        self._length += len(body)
        self._shared.buffered += len(body)

    def on_message_complete(self) -> None:
        if self._parser.should_upgrade():
            return
        self._reading = False
        body = self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)
        method = self._parser.get_method().decode("latin-1")
        path = self._url.partition(b"?")[0].decode("latin-1")
        keep = self._parser.should_keep_alive()
        self._ready.append((method, path, self._content_type, body, self._request_id, keep))
        self._chunks, self._length = [], 0
        self._next()

    # --- requests and answers ------------------------------------------------------------------------------
    def _next(self) -> None:
        if self._busy or self._closing or self._paused_writing:
            return
        if not self._ready:
            self._become_idle()
            return
        item = self._ready.pop(0)
        if isinstance(item, Fault):
            request_id = self._request_id or self._shared.new_request_id()
            answer = fault_answer(item, request_id)
            self._shared.application.count(answer)
            self._write(answer, request_id, keep=False)
            return
        method, path, content_type, body, given, keep = item
        request_id = given or self._shared.new_request_id()
        self._busy, self._held = True, len(body)
        self.deadline = float("inf")  # the pool has its own deadline

        def respond(answer: Answer) -> None:
            self._release(self._held)
            self._busy, self._ticket, self._held = False, None, 0
            if not self._closing:
                self._write(answer, request_id, keep=keep, head=method == "HEAD")
                # Not at once: a long pipeline of requests must not become a deep stack.
                self._loop.call_soon(self._next)

        ticket = self._shared.application.handle(method, path, content_type, body, request_id, respond)
        if self._busy:
            self._ticket = ticket

    def _become_idle(self) -> None:
        if self._transport is None or self._transport.is_closing():
            return
        wait = READ_SECONDS if self._reading else DRAIN_IDLE_SECONDS if self._shared.draining else IDLE_SECONDS
        self.deadline = self._loop.time() + wait
        if self._paused_reading:
            self._paused_reading = False
            self._transport.resume_reading()

    def _refuse(self, fault: Fault) -> None:
        """A fault that leaves the byte stream unusable: answered after the requests before it, then closed."""
        self._release(self._length)
        self._chunks, self._length = [], 0
        self._reading, self._last = False, True
        self._ready.append(fault)
        self._next()

    def _release(self, size: int) -> None:
        self._shared.buffered -= size

    def _write(self, answer: Answer, request_id: str, *, keep: bool, head: bool = False) -> None:
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        keep = keep and not self._shared.draining and not (self._last and not self._ready)
        extra = "".join(f"{name}: {value}\r\n" for name, value in answer.headers)
        start = (
            f"HTTP/1.1 {answer.status} {_REASONS[answer.status]}\r\ndate: {self._shared.date()}\r\n"
            f"content-type: {answer.content_type}\r\ncontent-length: {len(answer.body)}\r\n"
            f"connection: {'keep-alive' if keep else 'close'}\r\nx-request-id: {request_id}\r\n"
            f"{self._shared.common}{extra}\r\n"
        )
        transport.write(start.encode("latin-1") + (b"" if head else answer.body))
        self.deadline = self._loop.time() + READ_SECONDS
        if not keep:
            self._closing = True
            self._end(transport)

    def _end(self, transport: asyncio.Transport) -> None:
        """Close; but when the client may still be sending, only this side, or the reset would destroy the answer."""
        if not self._last:
            transport.close()
            return
        transport.write_eof()
        self._lingering = True
        self.deadline = self._loop.time() + LINGER_SECONDS
        if self._paused_reading:
            self._paused_reading = False
            transport.resume_reading()

    def drain(self, *, idle_now: bool) -> None:
        if self._busy or self._reading or self._ready or self._lingering or self._transport is None:
            return
        if idle_now:
            self._closing = True
            self._transport.close()
        else:
            self.deadline = min(self.deadline, self._loop.time() + DRAIN_IDLE_SECONDS)

    def overdue(self) -> None:
        """The client has not sent, or not read, for too long."""
        if self._transport is None:
            return
        if self._reading and not self._closing:
            self._refuse(InputFault("the request did not arrive in time", status=408, error_code="REQUEST_TIMEOUT"))
            self.deadline = self._loop.time() + 1.0
        else:
            self._transport.abort()


def connection_factory(shared: Connections, loop: asyncio.AbstractEventLoop) -> Callable[[], Connection]:
    return lambda: Connection(shared, loop)
