"""No proxy at all: bytes passed on unread, on asyncio, with a connection to the server for each client's.

``python -m … PORT UPSTREAM``. What it costs is the price of the loop and of the system's calls.
"""

import sys

from tests.bench_router.peers import Place
from tests.bench_router.processes import Running, free_port


def start(place: Place) -> Running:
    """The passer-on."""
    port = free_port()
    command = [sys.executable, "-m", __name__, str(port), place.champion]
    return Running(command, place.cores, port, place.directory / "passing.log")


def main(port: int, upstream: str) -> None:
    import asyncio

    host, _, at = upstream.rpartition(":")

    class Side(asyncio.Protocol):
        def __init__(self, other: "Side | None" = None) -> None:
            self.other = other
            self.early = b""

        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            assert isinstance(transport, asyncio.Transport)
            self.transport = transport
            transport.max_size = 65536  # type: ignore[attr-defined]  # as the router has it
            if self.other is None:
                self.opening = loop.create_task(loop.create_connection(lambda: Side(self), host, int(at)))
            else:
                self.other.other = self
                transport.write(self.other.early)

        def data_received(self, data: bytes) -> None:
            if self.other is None:
                self.early += data
            else:
                self.other.transport.write(data)

        def connection_lost(self, exc: Exception | None) -> None:
            if self.other is not None:
                self.other.transport.close()

    loop = asyncio.new_event_loop()
    loop.run_until_complete(loop.create_server(Side, "127.0.0.1", port))
    loop.run_forever()


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
