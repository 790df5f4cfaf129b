"""How a client's connection ends: with what it is owed, and not later than it takes to take it.

A connection that is closed while bytes of the client's are unread would be reset, and the answer could be lost on its
way: what comes is thrown away for a moment until the client ends. What is still to be written is waited for as long
as the client goes on reading it.
"""

import asyncio
import contextlib
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.pace import NEVER

if TYPE_CHECKING:
    from router.plane import Plane

ROUTER_ENDS: Final = "the router ends; another one answers"
_LINGER_BYTES: Final = 1 << 20
_LINGER_S: Final = 1.0


class Ending:
    """The end of a connection. Where it waits for the client, that is too long from ``due`` on.

    What inherits from it is an ``asyncio.Protocol`` by its methods and not by its base, as ``upstream.Connection`` is:
    where this package is compiled, a class with an interpreted base would be interpreted as well.
    """

    __slots__ = ("_closing_from", "_ended", "_plane", "_thrown", "_unwritten", "due", "transport")

    transport: asyncio.Transport

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self.due = NEVER
        # The client has ended its side.
        self._ended = False
        self._thrown = 0
        # Bytes that the client had still to take when it was looked at last, once the connection is to end.
        self._unwritten = 0
        self._closing_from = 0.0

    def _shut(self) -> None:
        """Let the client end the connection, or have it end when all is written."""
        self._plane.outbox.flush()
        transport = self.transport
        if self._ended or transport.is_closing():
            self._close_written()
            return
        transport.resume_reading()
        if transport.can_write_eof():
            # A client that has reset the connection a moment ago cannot be told of the end.
            with contextlib.suppress(OSError):
                transport.write_eof()
        self.due = monotonic() + _LINGER_S

    def _throw_away(self, data: bytes) -> None:
        """What comes from a client after the end."""
        self._thrown += len(data)
        if self._thrown > _LINGER_BYTES:
            self.transport.abort()

    def _close_written(self) -> None:
        """Close as soon as the client has taken what is written."""
        self._plane.outbox.flush()
        transport = self.transport
        transport.close()
        self._unwritten = transport.get_write_buffer_size()
        if self._unwritten:
            self._closing_from = now = monotonic()
            self.due = now + self._plane.config.stall_s

    def _overdue_at_the_end(self) -> None:
        """The time to end is over: a client that takes nothing, or takes too long in total, loses the rest."""
        if not self._unwritten:
            self._close_written()
            return
        now, left = monotonic(), self.transport.get_write_buffer_size()
        config = self._plane.config
        if left < self._unwritten and now < self._closing_from + config.total_s:
            self._unwritten = left
            self.due = now + config.stall_s
        else:
            self.transport.abort()
