"""The worker's end of the channel to its supervisor: JSON, one message a line."""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any, cast

import orjson

log = logging.getLogger("understudy.router.worker")

_LONGEST_LINE = 4 << 20


class Channel(asyncio.Protocol):
    """Hands each message to ``heard``, and calls ``ended`` when the supervisor is gone."""

    def __init__(self, heard: Callable[[dict[str, Any]], None], ended: Callable[[], None]) -> None:
        self._heard = heard
        self._ended = ended
        self._transport: asyncio.Transport | None = None
        self._part = b""

    def say(self, message: Mapping[str, Any]) -> None:
        """Send a message without waiting."""
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(orjson.dumps(message, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Send what waits, and end the channel."""
        if self._transport is not None:
            self._transport.close()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._ended()

    def data_received(self, data: bytes) -> None:
        *lines, self._part = (self._part + data).split(b"\n")
        if len(self._part) > _LONGEST_LINE:
            log.error("the supervisor's message has no end")
            if self._transport is not None:
                self._transport.abort()
            return
        for line in lines:
            try:
                message = orjson.loads(line)
            except ValueError:
                message = None
            if isinstance(message, dict):
                self._heard(message)
            else:
                log.error("the supervisor said what nobody understands: %r", line[:100])
