"""Bytes on their way out, sent together.

Sending wakes whoever waits for the bytes, and waking a sleeping process costs more than everything else about a small
message. Where several requests are in flight, what the loop's turn has to send is kept until the turn is over and
then sent at once: the first message wakes the receiver, and the others find it awake.
"""

import asyncio


class Outbox:
    """Sends for many connections. ``crowd`` counts the requests in flight; a lonely one is sent directly."""

    __slots__ = ("_loop", "_waiting", "crowd")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._waiting: list[tuple[asyncio.Transport, bytes]] = []
        self.crowd = 0

    def write(self, transport: asyncio.Transport, data: bytes) -> None:
        """Send ``data`` at the end of the loop's turn at the latest, in the order of the calls."""
        waiting = self._waiting
        if not waiting:
            if self.crowd < 2:
                _send(transport, data)
                return
            self._loop.call_soon(self.flush)
        waiting.append((transport, data))

    def flush(self) -> None:
        """Send what waits. To be called before a connection is closed in good order."""
        waiting = self._waiting
        if waiting:
            self._waiting = []
            for transport, data in waiting:
                _send(transport, data)


def _send(transport: asyncio.Transport, data: bytes) -> None:
    """Nothing to who has gone: uvloop's transports raise then, and what others wait for stands behind it."""
    if not transport.is_closing():
        transport.write(data)
