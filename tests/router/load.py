"""Traffic for a router: many keep-alive connections, each with one request at a time."""

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple


class Got(NamedTuple):
    """What a request got, and when it was sent (0: no answer) on the monotonic clock."""

    number: int
    status: int
    body: bytes

    def arm(self) -> str:
        said: dict[str, Any] = json.loads(self.body)
        return str(said["arm"])


class Load:
    """Sends ``request(number)`` for 0, 1, 2 … until told to stop, or ``total`` requests."""

    def __init__(
        self, port: int, request: Callable[[int], bytes], connections: int = 8, total: int | None = None
    ) -> None:
        self.got: list[Got] = []
        self.failed: list[str] = []
        self._port = port
        self._request = request
        self._connections = connections
        self._total = total
        self._next = 0
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def runs(self) -> bool:
        """Whether requests are still being sent."""
        return self._thread.is_alive()

    def stop(self) -> None:
        """End after the requests under way."""
        self._stopping = True
        self.join()

    def join(self, seconds: float = 100) -> None:
        self._thread.join(seconds)
        assert not self._thread.is_alive(), "the load does not end"

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(self._connections)))

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        try:
            while not self._stopping and (self._total is None or self._next < self._total):
                number, self._next = self._next, self._next + 1
                writer.write(self._request(number))
                status, body, closes = await asyncio.wait_for(read_answer(reader), 30)
                self.got.append(Got(number, status, body))
                if closes:
                    writer.close()
                    reader, writer = await asyncio.open_connection("127.0.0.1", self._port, limit=1 << 22)
        except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError) as error:
            self.failed.append(repr(error))
        finally:
            writer.close()


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bytes, bool]:
    """Status and body of an answer whose length is said, and whether it ends its connection."""
    head = await reader.readuntil(b"\r\n\r\n")
    lower = head.lower()
    at = lower.index(b"content-length:") + len(b"content-length:")
    length = int(lower[at : lower.index(b"\r", at)])
    return int(head[9:12]), await reader.readexactly(length), b"connection: close" in lower


@contextmanager
def loaded(port: int, request: Callable[[int], bytes], connections: int = 8) -> Iterator[Load]:
    """Load for as long as the context lasts."""
    load = Load(port, request, connections)
    load.start()
    try:
        yield load
    finally:
        load.stop()


def run(port: int, request: Callable[[int], bytes], total: int, connections: int = 8) -> list[Got]:
    """So many requests; none may be without an answer."""
    load = Load(port, request, connections, total)
    load.start()
    load.join()
    assert load.failed == []
    return sorted(load.got)
