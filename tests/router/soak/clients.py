"""The clients of the soak: quick ones, and those that upload, take streams, read slowly, or leave.

Each says of every request what it is about to send, and then how that ended (``ledger.Note``).
"""

import asyncio
import itertools
import random
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator

from tests.router.raw import post
from tests.router.soak.ledger import Note

QUICK = 16
UPLOADERS = 1
STREAMS = 4
SLOW = 2
# Seconds between two requests of one of them.
UPLOAD_EVERY_S = 0.5
LEAVE_EVERY_S = 0.1
UPLOAD_BYTES = 2_500_000
_ANSWER_S = 30.0
_PIECE = 1 << 14


class Broken(Exception):
    """The connection ended, or brought what is no answer; ``status`` is that of the answer that had begun."""

    def __init__(self, status: int, why: object) -> None:
        super().__init__(f"{why!r} after {status}")
        self.status = status


class Line:
    """One connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.closes = False

    @classmethod
    async def to(cls, port: int, receive_buffer: int = 0) -> "Line":
        raw = socket.socket()
        raw.setblocking(False)
        if receive_buffer:
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        await asyncio.get_running_loop().sock_connect(raw, ("127.0.0.1", port))
        return cls(*await asyncio.open_connection(sock=raw, limit=1 << 16))

    async def send(self, data: bytes) -> None:
        """Send what is taken; whoever answers early does not read the rest."""
        try:
            self.writer.write(data)
            await self.writer.drain()
        except ConnectionError:
            self.closes = True

    async def head(self) -> tuple[int, int]:
        """Status of the next answer, and the length of its body, -1 where that comes in chunks."""
        try:
            head = (await asyncio.wait_for(self.reader.readuntil(b"\r\n\r\n"), _ANSWER_S)).lower()
        except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, TimeoutError) as error:
            raise Broken(0, error) from None
        self.closes = self.closes or b"connection: close" in head
        at = head.find(b"content-length:")
        length = int(head[at + 15 : head.index(b"\r", at)]) if at >= 0 else -1
        return int(head[9:12]), length

    async def answer(self, pause_s: float = 0.0) -> tuple[int, bytes]:
        """Status and (of a short answer) body; ``pause_s`` after each piece. Raises Broken."""
        status, length = await self.head()
        try:
            if length < 0:
                return status, await asyncio.wait_for(self._chunks(), _ANSWER_S)
            body = b""
            while length:
                body = await asyncio.wait_for(self.reader.read(min(_PIECE, length)), _ANSWER_S)
                if not body:
                    raise EOFError
                length -= len(body)
                if pause_s:
                    await asyncio.sleep(pause_s)
        except (OSError, asyncio.IncompleteReadError, ValueError, EOFError, TimeoutError) as error:
            raise Broken(status, error) from None
        return status, body

    async def _chunks(self) -> bytes:
        body = b""
        while size := int(await self.reader.readuntil(b"\r\n"), 16):
            body += (await self.reader.readexactly(size + 2))[:-2]
        await self.reader.readexactly(2)
        return body

    def end(self, *, reset: bool = False) -> None:
        if reset:
            raw = self.writer.get_extra_info("socket")
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.writer.transport.abort()
        else:
            self.writer.close()


def arm_of(body: bytes) -> str:
    """Who says to have made an answer."""
    return next((arm for arm in ("champion", "challenger") if b'"arm": "%b"' % arm.encode() in body), "")


class Clients:
    """All of them, on a thread of their own, until told to stop. ``broken``: why some ended before that."""

    def __init__(self, port: int, rate: float, note: Callable[[Note], None], seed: int) -> None:
        self.broken: list[str] = []
        self.sent = 0
        self._port = port
        self._pause_s = QUICK / rate
        self._note = note
        self._chance = random.Random(seed)
        self._numbers = itertools.count()
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after the requests under way."""
        self._stopping = True
        self._thread.join(90)
        if self._thread.is_alive():
            self.broken.append("the clients do not end")

    async def _run(self) -> None:
        kinds = [self._quick] * QUICK + [self._uploads] * UPLOADERS + [self._streams] * STREAMS
        kinds += [self._reads_slowly] * SLOW + [self._leaves]
        ends = await asyncio.gather(*(kind() for kind in kinds), return_exceptions=True)
        self.broken += [repr(end) for end in ends if end is not None]

    def _begin(self, kind: str) -> str:
        number = next(self._numbers)
        self.sent += 1
        request_id = f"s{number}"
        self._note(Note(request_id, kind))
        return request_id

    async def _ask(self, line: Line, kind: str, request: Callable[[str], bytes], pause_s: float = 0.0) -> Line:
        """One request to its end; the connection for the next one."""
        request_id = self._begin(kind)
        try:
            await line.send(request(request_id))
            status, body = await line.answer(pause_s)
            self._note(Note(request_id, kind, True, status, True, arm=arm_of(body)))
        except Broken as broken:
            self._note(Note(request_id, kind, True, broken.status))
            line.closes = True
        if line.closes:
            line.end()
            return await Line.to(self._port)
        return line

    def _small(self, request_id: str) -> bytes:
        number = int(request_id[1:])
        body = b'{"inputs": [[%d]], "email": "u%d@example.org", "pad": "%b"}' % (
            number, number, b"x" * self._chance.choice((0, 0, 100, 2_000)),
        )  # fmt: skip
        return post(f"u{number % 20_011}", body, f"X-Request-Id: {request_id}")

    async def _quick(self) -> None:
        line = await Line.to(self._port)
        due = time.monotonic() + self._chance.random() * self._pause_s
        while not self._stopping:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + self._pause_s, time.monotonic() - 1)
            line = await self._ask(line, "plain", self._small)
        line.end()

    async def _uploads(self) -> None:
        """A body too large to be held, of known length or in chunks."""
        line = await Line.to(self._port)
        while not self._stopping:
            await asyncio.sleep(UPLOAD_EVERY_S)
            line = await self._ask(line, "upload", self._large if self._chance.random() < 0.5 else self._chunked)
        line.end()

    def _large(self, request_id: str) -> bytes:
        return post(f"u{request_id}", b" " * UPLOAD_BYTES + b'{"inputs": [[1]]}', f"X-Request-Id: {request_id}")

    def _chunked(self, request_id: str) -> bytes:
        head = (
            f"POST /invocations HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\nX-Unit: u{request_id}\r\n"
            f"X-Request-Id: {request_id}\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        piece = b"%x\r\n%b\r\n" % (UPLOAD_BYTES // 50, b" " * (UPLOAD_BYTES // 50))
        return head.encode() + piece * 50 + b'10\r\n{"inputs": [[1]]\r\n1\r\n}\r\n0\r\n\r\n'

    async def _streams(self) -> None:
        line = await Line.to(self._port)
        while not self._stopping:
            line = await self._ask(line, "stream", lambda request_id: get("/events", request_id))
        line.end()

    async def _reads_slowly(self) -> None:
        while not self._stopping:
            line = await Line.to(self._port, receive_buffer=1 << 14)
            line = await self._ask(line, "slow", lambda request_id: get("/large", request_id), 0.01)
            line.end()

    async def _leaves(self) -> None:
        for way, reset in itertools.cycle(itertools.product(self._ways(), (True, False))):
            if self._stopping:
                return
            await asyncio.sleep(LEAVE_EVERY_S)
            line = await Line.to(self._port)
            await way(line)
            line.end(reset=reset)

    def _ways(self) -> Iterator[Callable[[Line], Awaitable[None]]]:
        yield from (self._in_the_head, self._in_a_body, self._in_an_upload, self._before_the_answer)
        yield from (self._in_an_answer, self._in_a_stream)

    async def _in_the_head(self, line: Line) -> None:
        # No request yet: an event of it would be one of nobody.
        await line.send(get("/x", "nobody")[:-2])

    async def _in_a_body(self, line: Line) -> None:
        await self._leave(line, lambda request_id: self._small(request_id)[:-5], read=False)

    async def _in_an_upload(self, line: Line) -> None:
        await self._leave(line, lambda request_id: self._large(request_id)[:-1_000_000], read=False)

    async def _before_the_answer(self, line: Line) -> None:
        await self._leave(line, self._small, read=False)

    async def _in_an_answer(self, line: Line) -> None:
        await self._leave(line, lambda request_id: get("/large", request_id), read=True)

    async def _in_a_stream(self, line: Line) -> None:
        await self._leave(line, lambda request_id: get("/events", request_id), read=True)

    async def _leave(self, line: Line, request: Callable[[str], bytes], *, read: bool) -> None:
        request_id = self._begin("leaver")
        await line.send(request(request_id))
        try:
            status = (await line.head())[0] if read else 0
            self._note(Note(request_id, "leaver", True, status, left=True))
        except Broken as broken:
            self._note(Note(request_id, "leaver", True, broken.status))


def get(path: str, request_id: str) -> bytes:
    """A request without a body."""
    return (
        f"GET {path} HTTP/1.1\r\nHost: router\r\nX-Unit: u{request_id}\r\nX-Request-Id: {request_id}\r\n\r\n".encode()
    )
