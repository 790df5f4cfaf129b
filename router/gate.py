"""The door of the control API: what is known of who asks, and who is let through."""

import asyncio
import http
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.auth import Access
from router.faults import Fault

_HEAD_S = 10.0
# Beyond, the one that has been idle for the longest has to go. Over TLS, some are for who has not said yet who it is.
MOST_CONNECTIONS = 900
MOST_HANDSHAKES = 128

# Bytes of a head, or of trailers, that are taken before a request is known by them, and fields of both.
MOST_HEAD_BYTES = 64 << 10
MOST_FIELDS = 128
# Of all who were never let in; heads of a usual size are not counted.
MOST_HEADS_BYTES = 4 << 20
_USUAL_HEAD_BYTES = 4 << 10
# What is given to the parser at once. Where a head begins within it, its bytes are known no better than that.
_PIECE_BYTES = 16 << 10

_LET_IN = "understudy.let_in"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ControlProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests know whether their client has shown a certificate, as ASGI's extension ``tls`` has it.

    A certificate that is none of the authority's does not get this far. Who connects has so many seconds for the head
    of a request, and again from its first byte on: connections that ask nothing would keep out those that do. Where
    there are too many nevertheless, those that were never let in go first: the controller always gets through.
    What is held of a head is bounded as well, since nobody knows yet who sends it.
    """

    # Of all clients together.
    most_connections = MOST_CONNECTIONS
    # Since the last head, part of a body, or end.
    _unread = 0
    _fault: Fault | None = None
    _head: asyncio.TimerHandle | None = None
    _let_in = False
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = self.loop.call_later(_HEAD_S, transport.abort)
        self._idle_since = self.loop.time()
        if len(self.connections) > self.most_connections:
            self._make_room()

    def _make_room(self) -> None:
        others = (each for each in self.connections if isinstance(each, ControlProtocol) and each is not self)
        idle = (each for each in others if each.cycle is None or each.cycle.response_complete)
        oldest = min(idle, key=lambda each: (each._let_in, each._idle_since), default=None)
        if oldest is not None:
            # It is told of its end later than others may come.
            self.connections.discard(oldest)
            oldest.transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:
        self._head_came()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        for at in range(0, len(data), _PIECE_BYTES):
            piece = data[at : at + _PIECE_BYTES]
            self._unread += len(piece)
            super().data_received(piece)
            if self.transport.is_closing():
                return
            if self._unread > _USUAL_HEAD_BYTES and (fault := self._too_much()) is not None:
                self._refuse(fault)
                return

    def _too_much(self) -> Fault | None:
        if self._unread > MOST_HEAD_BYTES:
            return Fault(431, f"the head has more than {MOST_HEAD_BYTES} bytes")
        if not self._let_in:
            strangers = (each for each in self.connections if isinstance(each, ControlProtocol) and not each._let_in)
            if sum(each._unread for each in strangers) > MOST_HEADS_BYTES:
                return Fault(503, "too many heads are under way", retry_after=1)
        return None

    def on_header(self, name: bytes, value: bytes) -> None:
        # Trailers come here too.
        if len(self.headers) >= MOST_FIELDS:
            self._fault = Fault(431, f"there are more than {MOST_FIELDS} fields")
            raise self._fault  # the parser stops there, and says that this is no HTTP
        super().on_header(name, value)

    def on_body(self, body: bytes) -> None:
        self._unread = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._unread = 0
        super().on_message_complete()

    def on_headers_complete(self) -> None:
        self._unread = 0
        self._head_came()
        super().on_headers_complete()

    def _head_came(self) -> None:
        if self._head is not None:
            self._head.cancel()
            self._head = None

    def on_message_begin(self) -> None:
        super().on_message_begin()
        if self._head is None:
            self._head = self.loop.call_later(_HEAD_S, self.transport.abort)
        shown = self.transport.get_extra_info("peercert")
        name = None if not shown else ",".join(f"{key}={value}" for part in shown["subject"] for key, value in part)
        self.scope["extensions"] = {"tls": {"client_cert_name": name}, _LET_IN: {"call": self._was_let_in}}

    def send_400_response(self, msg: str) -> None:
        """What is no HTTP is told so in the form of all other faults."""
        self._refuse(self._fault or Fault(400, msg))

    def _refuse(self, fault: Fault) -> None:
        body = orjson.dumps(fault.content)
        status = f"HTTP/1.1 {fault.status} {http.HTTPStatus(fault.status).phrase}\r\n"
        own = "".join(f"{name}: {value}\r\n" for name, value in fault.headers.items())
        head = b"content-type: application/json\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        self.transport.write((status + own).encode() + head + body)
        self.transport.close()

    def on_response_complete(self) -> None:
        self._idle_since = self.loop.time()
        super().on_response_complete()

    def _was_let_in(self) -> None:
        self._let_in = True


def is_certified(scope: Scope) -> bool:
    """Whether who asks has shown a certificate."""
    return scope["extensions"]["tls"]["client_cert_name"] is not None


class Gate:
    """Lets through who may; the ``probes`` are paths that everybody may see."""

    def __init__(
        self, app: Callable[[Scope, Receive, Send], Awaitable[None]], access: Access, probes: set[str]
    ) -> None:
        self._app = app
        self._access = access
        self._probes = probes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] not in self._probes:
            headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
            fault = self._access.fault(headers, is_certified(scope))
            if fault is not None:
                response = Fault(*fault).response()
                if fault[0] == 401:
                    response.headers["WWW-Authenticate"] = "Bearer"
                await response(scope, receive, send)
                return
            scope["extensions"][_LET_IN]["call"]()
        await self._app(scope, receive, send)
