"""The cheapest model server that HTTP/1.1 allows, for campaigns with many requests: one fixed answer for all.

``python -m tests.router.quick_model NAME`` prints its port; it reads requests that say the length of their body.
"""

import asyncio
import sys


def answer_of(name: str) -> bytes:
    """What it says."""
    body = b'{"predictions": [0.5], "arm": "%b"}' % name.encode()
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


class Server(asyncio.Protocol):
    """One connection."""

    def __init__(self, answer: bytes) -> None:
        self._answer = answer
        self._part = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        data = self._part + data
        while (end := data.find(b"\r\n\r\n")) >= 0:
            lower = data[:end].lower()
            at = lower.find(b"content-length:")
            length = int(lower[at + 15 :].split(b"\r\n", 1)[0]) if at >= 0 else 0
            if len(data) < end + 4 + length:
                break
            data = data[end + 4 + length :]
            self._transport.write(self._answer)
        self._part = data


async def _serve(name: str) -> None:
    answer = answer_of(name)
    server = await asyncio.get_running_loop().create_server(lambda: Server(answer), "127.0.0.1", 0, backlog=1_024)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(sys.argv[1]))
