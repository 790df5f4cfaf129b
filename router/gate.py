"""The door of the control API: what is known of who asks, and who is let through."""

import asyncio
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from router.auth import Access
from router.faults import Fault

_HEAD_S = 10.0

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class ControlProtocol(HttpToolsProtocol):
    """HTTP/1.1 whose requests know whether their client has shown a certificate, as ASGI's extension ``tls`` has it.

    A certificate that is none of the authority's does not get this far. Who connects has so many seconds for the head
    of a request, and again from its first byte on: connections that ask nothing would keep out those that do.
    """

    _head: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._head = self.loop.call_later(_HEAD_S, transport.abort)

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
        self.scope["extensions"] = {"tls": {"client_cert_name": name}}


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
        await self._app(scope, receive, send)
