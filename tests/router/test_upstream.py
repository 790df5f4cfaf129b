"""A model server may answer a large request before it has read it, and close: the answer is what the caller gets."""

import asyncio
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from router.heads import Response
from router.outbox import Outbox
from router.pool import Pool, PoolLimits
from router.upstream import Connection, Failure

LIMITS = PoolLimits(connections=1, queue=0, connect_s=5, idle_s=5)
PART = b"x" * 65_536
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"


class Uploader:
    """Asks with a body of which the first part is there."""

    to_head = False
    streamed = True

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.told: list[int | bytes | str | Failure] = []
        self.asked, self.answered = asyncio.Event(), asyncio.Event()

    def outgoing(self, connection: Connection) -> bytes:
        self.connection = connection
        self.asked.set()
        return b"POST /invocations HTTP/1.1\r\nHost: model\r\nContent-Length: 50000000\r\n\r\n" + PART

    def sendable(self) -> None: ...

    def crowded(self) -> None: ...

    def answer_whole(self, response: Response, body: bytes) -> None:
        self.told += [response.status, body, "end"]

    def answer_head(self, response: Response) -> None:
        self.told.append(response.status)

    def answer_body(self, data: bytes) -> None:
        self.told.append(data)

    def answer_pause(self) -> None: ...

    def answer_end(self) -> None:
        self.told.append("end")
        self.answered.set()

    def answer_failed(self, failure: Failure) -> None:
        self.told.append(failure)
        self.answered.set()


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


async def told_after(server: socket.socket, answer: bytes) -> list[int | bytes | str | Failure]:
    """What a caller is told whose next part goes out after ``answer`` came and the connection was reset."""
    loop = asyncio.get_running_loop()
    pool = Pool(loop, Outbox(loop), f"127.0.0.1:{server.getsockname()[1]}", LIMITS)
    caller = Uploader()
    pool.ask(caller)
    async with asyncio.timeout(10):
        await caller.asked.wait()
    assert caller.connection is not None
    # The loop does not turn from here on, so what the server does is not read before the next parts are sent.
    taken, _ = server.accept()
    with taken:
        taken.sendall(answer)  # and closes with most of the request unread
    for _ in range(100):
        caller.connection.send(PART)
    async with asyncio.timeout(10):
        await caller.answered.wait()
    pool.retire()
    await asyncio.sleep(0)
    assert pool.connections == 0
    return caller.told


def test_an_answer_that_came_before_the_connection_was_reset_is_the_answer() -> None:
    with listening() as server:
        assert asyncio.run(told_after(server, TOO_LARGE + b"too large")) == [413, b"too large", "end"]


@pytest.mark.parametrize(
    ("answer", "before"),
    [
        (b"", []),
        (TOO_LARGE[:20], []),
        (TOO_LARGE + b"too", [413, b"too"]),
        (b"nonsense\r\n\r\n", []),
        (b"HTTP/1.1 413 Content Too Large\r\nConnection: close\r\n\r\ncut", [413, b"cut"]),
    ],
    ids=["nothing", "half a head", "half a body", "not HTTP", "of unknown length"],
)
def test_half_an_answer_before_a_reset_is_a_failure_told_once(answer: bytes, before: list[int | bytes]) -> None:
    with listening() as server:
        assert asyncio.run(told_after(server, answer)) == [*before, Failure.BROKEN]
