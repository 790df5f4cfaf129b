"""The door of the control API: what is known of who asks, and who is let through."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

import orjson
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.auth import Access
from router.faults import Fault

_HEAD_S = 10.0
# Beyond, the one that has been idle for the longest has to go.
MOST_CONNECTIONS = 900

_LET_IN = "understudy.let_in"

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ControlProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests know whether their client has shown a certificate, as ASGI's extension ``tls`` has it.

    A certificate that is none of the authority's does not get this far. Who connects has so many seconds for the head
    of a request, and again from its first byte on: connections that ask nothing would keep out those that do. Where
    there are too many nevertheless, those that were never let in go first: the controller always gets through.
    """

    _head: asyncio.TimerHandle | None = None
    _let_in = False
    _idle_since = 0.0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = self.loop.call_later(_HEAD_S, transport.abort)
        self._idle_since = self.loop.time()
        if len(self.connections) > MOST_CONNECTIONS:
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

    def on_headers_complete(self) -> None:
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
        body = orjson.dumps(Fault(400, msg).content)
        head = b"HTTP/1.1 400 Bad Request\r\ncontent-type: application/json\r\ncontent-length: %d\r\n" % len(body)
        self.transport.write(head + b"connection: close\r\n\r\n" + body)
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
