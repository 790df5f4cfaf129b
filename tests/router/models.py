"""Model servers for tests of the router: they answer in MLflow's protocol, or misbehave in a chosen way.

``Model`` runs in a thread and can be told to change its ways; ``ModelProcess`` is a process that can be killed.
"""

import asyncio
import json
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Any, Self


class Request:
    """A request as a model server received it: its head as bytes, and its body."""

    def __init__(self, head: bytes, body: bytes) -> None:
        self.head = head
        self.body = body
        self.line, *self.lines = head[:-4].split(b"\r\n")

    def values(self, name: bytes) -> list[bytes]:
        """The values of all fields of this (lower-case) name."""
        pairs = (line.partition(b":") for line in self.lines)
        return [value.strip() for key, _, value in pairs if key.lower() == name]


class Model:
    """A model server of one arm. ``mode`` says what it does with the next request. ``second``: another host where it
    listens, on ``second_port``."""

    def __init__(
        self, arm: str, mode: str = "good", host: str = "127.0.0.1", port: int = 0, second: str | None = None
    ) -> None:
        self.arm = arm
        self.mode = mode
        # What it does when it is asked for its health, which is not counted among the requests.
        self.health = "good"
        self.asked = 0
        self.size = 0
        self.late_s = 0.6
        self.raw = b""
        self.requests: deque[Request] = deque(maxlen=1_000)
        # Requests whose head has come, for which it is settled what it does, and those that have come whole.
        self.begun = 0
        self.halved = 0
        self.count = 0
        self.connections = 0
        self.open = 0
        self.most_open = 0
        self._host, self._port, self._second = host, port, second
        self.second_port = 0
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._release = asyncio.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._run()), daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    @property
    def address(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{host}:{self.port}"

    def release(self) -> None:
        """Let every request that hangs be answered, and the later ones too."""
        self._loop.call_soon_threadsafe(self._release.set)

    def release_once(self) -> None:
        """Let those requests be answered that hang now; later ones hang again."""

        def swap() -> None:
            self._release.set()
            self._release = asyncio.Event()

        self._loop.call_soon_threadsafe(swap)

    async def _run(self) -> None:
        servers = [await self._listening(self._host, self._port)]
        self.port = servers[0].sockets[0].getsockname()[1]
        if self._second is not None:
            servers.append(await self._listening(self._second, 0))
            self.second_port = servers[1].sockets[0].getsockname()[1]
        self._ready.set()
        await self._stop.wait()
        for server in servers:
            server.close()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0.01)

    async def _listening(self, host: str, port: int) -> asyncio.Server:
        return await asyncio.start_server(self._serve, host, port, limit=1 << 20, backlog=1_024)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.open += 1
        self.most_open = max(self.open, self.most_open)
        try:
            while await self._answer(reader, writer):
                pass
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass
        finally:
            self.open -= 1
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = await reader.readuntil(b"\r\n\r\n")
        request = Request(head, b"")
        probe = b" /health" in request.line
        mode = self.health if probe else self.mode
        self.begun += not probe
        if mode == "unread":
            await self._release.wait()
        if mode != "early":
            request.body = await read_body(request, reader)
        if probe:
            self.asked += 1
        else:
            self.count += 1
            self.requests.append(request)
        act: Callable[..., Awaitable[bool]] = getattr(self, f"_do_{mode}")
        return await act(request, writer)

    def prediction(self, request: Request) -> bytes:
        """A usable answer: as many predictions as rows, and whose they are."""
        try:
            asked = json.loads(request.body)
            rows = len(asked["inputs"])
        except (ValueError, KeyError, TypeError):
            rows = 1
        answer: dict[str, Any] = {"predictions": [0.5] * rows, "arm": self.arm}
        return json.dumps(answer).encode()

    async def _send(self, writer: asyncio.StreamWriter, data: bytes) -> None:
        writer.write(data)
        await writer.drain()

    async def _do_good(self, request: Request, writer: asyncio.StreamWriter, status: bytes = b"200 OK") -> bool:
        body = self.prediction(request)
        if request.line.startswith(b"HEAD "):
            await self._send(writer, head_of(len(body), status))
        else:
            await self._send(writer, head_of(len(body), status) + body)
        return b"close" not in request.values(b"connection")

    async def _do_500(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return await self._do_good(request, writer, b"500 Internal Server Error")

    async def _do_400(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return await self._do_good(request, writer, b"400 Bad Request")

    async def _raw(self, writer: asyncio.StreamWriter, body: bytes) -> bool:
        await self._send(writer, head_of(len(body)) + body)
        return True

    async def _do_garbage(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return await self._raw(writer, b"\x00<html>{]")

    async def _do_nan(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return await self._raw(writer, b'{"predictions": [NaN]}')

    async def _do_infinity(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return await self._raw(writer, b'{"predictions": [1e999]}')

    async def _do_rows(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return await self._raw(writer, b'{"predictions": [1, 2, 3, 4, 5, 6, 7]}')

    async def _do_empty(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return await self._raw(writer, b"")

    async def _do_hang(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        await self._release.wait()
        return await self._do_good(request, writer)

    async def _do_cut(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, head_of(1_000) + b'{"predictions": [')
        return False

    async def _do_slow(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        for byte in head_of(1_000) + b" " * 1_000:
            await self._send(writer, bytes([byte]))
            await asyncio.sleep(0.05)
        return True

    async def _do_large_nan(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """More than is kept of an answer, with something in it that is no JSON."""
        return await self._raw(writer, b'{"predictions": [NaN], "pad": "' + b"x" * 100_000 + b'"}')

    async def _do_late(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        await asyncio.sleep(self.late_s)
        return await self._do_good(request, writer)

    async def _do_tail(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Late where the request says ``X-Slow: 1``."""
        if request.values(b"x-slow") == [b"1"]:
            return await self._do_late(request, writer)
        return await self._do_good(request, writer)

    async def _do_halves(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """A good answer, its second half once ``release`` was called."""
        body = self.prediction(request)
        await self._send(writer, head_of(len(body)) + body[:9])
        self.halved += 1
        await self._release.wait()
        await self._send(writer, body[9:])
        return True

    async def _do_large_halves(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """``size`` bytes of text, with their length said, the second half once ``release`` was called."""
        await self._send(writer, head_of(self.size, kind=b"text/plain") + b"x" * (self.size // 2))
        self.halved += 1
        await self._release.wait()
        await self._send(writer, b"x" * (self.size - self.size // 2))
        return True

    async def _do_large_cut(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """The same, cut off instead of its second half."""
        writer.write(head_of(self.size, kind=b"text/plain") + b"x" * (self.size // 2))
        await self._release.wait()
        return False

    async def _do_chunked_halves(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """``size`` bytes in two chunks, the second one and the end once ``release`` was called."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self._send(writer, head + b"5\r\nfirst\r\n")
        await self._release.wait()
        await self._send(writer, b"%x\r\n%b\r\n0\r\n\r\n" % (self.size - 5, b"x" * (self.size - 5)))
        return True

    async def _do_gone(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        return False

    async def _do_gone_once(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """As a worker that crashes and is started anew."""
        self.mode = "good"
        return False

    async def _do_reset(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        return False

    async def _do_twice(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        body = self.prediction(request)
        await self._send(writer, head_of(len(body)) + head_of(len(body)) + body)
        return True

    async def _do_second(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """A whole answer that nobody asked for follows the one that was."""
        body = self.prediction(request)
        await self._send(writer, head_of(len(body)) + body + head_of(9) + b"unwanted!")
        return True

    async def _do_once(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """A good answer, then the connection is closed without a word, as by a server that is tired of it."""
        await self._do_good(request, writer)
        return False

    async def _do_chunked(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        body = self.prediction(request)
        head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self._send(writer, head)
        for byte in body:
            await self._send(writer, b"1\r\n%c\r\n" % byte)
        await self._send(writer, b"0\r\nX-Trailer: dropped\r\n\r\n")
        return True

    async def _do_until_close(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        body = self.prediction(request)
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n" + body)
        return False

    async def _do_informed(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
        return await self._do_good(request, writer)

    async def _do_large(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """``size`` bytes of text, with their length said."""
        await self._send(writer, head_of(self.size, kind=b"text/plain"))
        left = self.size
        while left:
            piece = min(left, 1 << 16)
            await self._send(writer, b"x" * piece)
            left -= piece
        return True

    async def _do_events(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Three events; the last two once ``release`` was called."""
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
        await self._send(writer, head + b"9\r\ndata: 1\n\n\r\n")
        await self._release.wait()
        await self._send(writer, b"9\r\ndata: 2\n\n\r\n9\r\ndata: 3\n\n\r\n0\r\n\r\n")
        return True

    async def _do_ticks(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Events without end, twenty a second."""
        await self._send(writer, b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n")
        while True:
            await self._send(writer, b"data: 1\n\n")
            await asyncio.sleep(0.05)

    async def _do_events_later(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """The same, its head too once ``release`` was called, and the rest once more."""
        await self._release.wait()
        return await self._do_events(request, writer)

    async def _do_early(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """An answer before the body was read, and then no reading at all."""
        await self._send(writer, head_of(2, b"413 Content Too Large") + b"{}")
        return False

    async def _do_raw(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        await self._send(writer, self.raw)
        return False

    async def _do_unread(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """Reads a body once ``release`` was called."""
        return await self._do_plain(request, writer)

    async def _do_plain(self, request: Request, writer: asyncio.StreamWriter) -> bool:
        """What was received, as text."""
        body = b"%d bytes, crc irrelevant" % len(request.body)
        await self._send(writer, head_of(len(body), kind=b"text/plain") + body)
        return True


def head_of(length: int, status: bytes = b"200 OK", kind: bytes = b"application/json") -> bytes:
    """The head of an answer of known length."""
    return b"HTTP/1.1 %b\r\nContent-Type: %b\r\nContent-Length: %d\r\n\r\n" % (status, kind, length)


async def read_body(request: Request, reader: asyncio.StreamReader) -> bytes:
    """A request's body by its own framing, read as plainly as can be."""
    if request.values(b"transfer-encoding"):
        pieces = []
        while size := int((await reader.readuntil(b"\r\n")).strip(), 16):
            pieces.append((await reader.readexactly(size + 2))[:-2])
        await reader.readexactly(2)
        return b"".join(pieces)
    length = request.values(b"content-length")
    return await reader.readexactly(int(length[0])) if length else b""


class ModelProcess:
    """A good model server as a process: ``module`` run with the arm's name, which prints its port. ``more``: what else
    such a module is told.
    """

    def __init__(self, arm: str, module: str = "tests.router.models", *more: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, arm, *more], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.process.stdout is not None
        self.address = f"127.0.0.1:{int(self.process.stdout.readline())}"

    def tell(self, line: str) -> None:
        """Write a line to its standard input, for a module that reads it."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.kill()
        self.process.wait(10)
        assert self.process.stdin is not None
        self.process.stdin.close()

    def kill(self) -> None:
        """End it without a word."""
        self.process.send_signal(signal.SIGKILL)


if __name__ == "__main__":
    with Model(sys.argv[1]) as served:
        print(served.port, flush=True)
        threading.Event().wait()
