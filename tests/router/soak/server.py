"""The model servers of the soak: ``python -m tests.router.soak.server ARM [PORT]`` prints its port and serves.

A line on its standard input is its new mode; where that ends, so does the server. Beside predictions it has a stream of
events at ``/events`` and a long answer at ``/large``.
"""

import asyncio
import sys
from asyncio import StreamWriter
from collections import deque

from tests.router.models import Model, Request, head_of

EVENTS = 20
EVENT_S = 0.1
LARGE = 3 << 20
_PIECE = b"x" * (1 << 16)


class Server(Model):
    """One arm."""

    def __init__(self, arm: str, port: int) -> None:
        super().__init__(arm, port=port)
        # Bodies are large, and nobody asks for them.
        self.requests = deque(maxlen=1)

    async def _do_good(self, request: Request, writer: StreamWriter, status: bytes = b"200 OK") -> bool:
        if b" /events" in request.line:
            head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
            await self._send(writer, head)
            for _ in range(EVENTS):
                await self._send(writer, b"9\r\ndata: 1\n\n\r\n")
                await asyncio.sleep(EVENT_S)
            await self._send(writer, b"0\r\n\r\n")
            return True
        if b" /large" in request.line:
            await self._send(writer, head_of(LARGE, kind=b"text/plain"))
            for _ in range(LARGE // len(_PIECE)):
                await self._send(writer, _PIECE)
            return True
        return await super()._do_good(request, writer, status)


def serve(arm: str, port: int) -> None:
    with Server(arm, port) as server:
        print(server.port, flush=True)
        for line in sys.stdin:
            server.mode = line.strip()
            # What hangs is let go with the next mode.
            server.release_once()


if __name__ == "__main__":
    serve(sys.argv[1], int(sys.argv[2]) if len(sys.argv) > 2 else 0)
