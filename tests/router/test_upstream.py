"""A model server may answer a large request before it has read it, and close: the answer is what the caller gets."""

import asyncio
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import uvloop

from router.heads import Response
from router.outbox import Outbox
from router.pool import Pool, PoolLimits
from router.upstream import Connection, Failure

LIMITS = PoolLimits(connections=1, queue=0, connect_s=5, idle_s=5)
PART = b"x" * 65_536
LOOPS = pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
TOO_LARGE = b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 9\r\nConnection: close\r\n\r\n"


class Uploader:
    """Asks with a body of which the first part is there."""

    to_head = False
    streamed = True

    def __init__(self) -> None:
        self.connection: Connection | None = None
        self.told: list[int | bytes | str | Failure] = []
        self.asked, self.begun, self.answered = asyncio.Event(), asyncio.Event(), asyncio.Event()

    def wait_in_line(self) -> None: ...

    def outgoing(self, connection: Connection) -> bytes:
        self.connection = connection
        self.asked.set()
        return b"POST /invocations HTTP/1.1\r\nHost: model\r\nContent-Length: 50000000\r\n\r\n" + PART

    def sendable(self) -> None: ...

    def crowded(self) -> None: ...

    def answer_whole(self, response: Response, body: bytes) -> None:
        self.told += [response.status, body, "end"]
        self.answered.set()

    def answer_head(self, response: Response) -> None:
        self.told.append(response.status)

    def answer_body(self, data: bytes) -> None:
        self.told.append(data)
        self.begun.set()

    def answer_pause(self) -> None: ...

    def answer_end(self) -> None:
        self.told.append("end")
        self.answered.set()

    def answer_failed(self, failure: Failure) -> None:
        self.told.append(failure)
        self.answered.set()


class Asker(Uploader):
    """Asks with a request that is there as a whole."""

    streamed = False

    def outgoing(self, connection: Connection) -> bytes:
        super().outgoing(connection)
        return b"GET /invocations HTTP/1.1\r\nHost: model\r\n\r\n"


@contextmanager
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


async def told_after(
    server: socket.socket, answer: bytes, *, complete: bool = False
) -> list[int | bytes | str | Failure]:
    """What a caller is told whose next part goes out after ``answer`` came and the connection was reset; ``complete``:
    it was the last one.
    """
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
    if complete:
        caller.connection.sent()
    async with asyncio.timeout(10):
        await caller.answered.wait()
    await asyncio.sleep(0)
    assert pool.pending == 0
    pool.retire()
    await asyncio.sleep(0)
    assert pool.connections == 0
    return caller.told


@pytest.mark.parametrize("complete", [False, True], ids=["in the middle", "all written"])
@pytest.mark.parametrize(
    "head", [TOO_LARGE, TOO_LARGE.replace(b"Connection: close\r\n", b"")], ids=["closes", "is kept"]
)
@LOOPS
def test_an_answer_that_came_before_the_connection_was_reset_is_the_answer(
    loop: Callable[[], asyncio.AbstractEventLoop], head: bytes, complete: bool
) -> None:
    """Also where its head is one that was seen before."""
    with listening() as server, asyncio.Runner(loop_factory=loop) as runner:
        for _ in range(2):
            told = runner.run(told_after(server, head + b"too large", complete=complete))
            assert told == [413, b"too large", "end"]


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
@LOOPS
def test_half_an_answer_before_a_reset_is_a_failure_told_once(
    loop: Callable[[], asyncio.AbstractEventLoop], answer: bytes, before: list[int | bytes]
) -> None:
    with listening() as server, asyncio.Runner(loop_factory=loop) as runner:
        assert runner.run(told_after(server, answer)) == [*before, Failure.BROKEN]


@pytest.mark.parametrize("waiting", [False, True])
def test_an_answer_that_nobody_asked_for_is_not_the_next_callers(waiting: bool) -> None:
    """It lies unread in the socket when the next caller asks, or has waited for the connection."""

    async def play(server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        limits = PoolLimits(connections=1, queue=1, connect_s=5, idle_s=5)
        pool = Pool(loop, Outbox(loop), f"127.0.0.1:{server.getsockname()[1]}", limits)
        first, second = Asker(), Asker()
        async with asyncio.timeout(10):
            pool.ask(first)
            await first.asked.wait()
            taken, _ = server.accept()
            if waiting:
                pool.ask(second)
            taken.sendall(answer(b"first"))
            if waiting:
                # Both are there before the first is read, and the second is beyond what one read takes.
                assert first.connection is not None
                first.connection.data_received(answer(b"first"))
            else:
                await first.answered.wait()
                taken.sendall(answer(b"stray"))
                pool.ask(second)
            other, _ = await loop.run_in_executor(None, server.accept)
            await second.asked.wait()
            other.sendall(answer(b"second"))
            await second.answered.wait()
        assert first.told == [200, b"first", "end"]
        assert second.told == [200, b"second", "end"]
        for connection in (taken, other):
            connection.close()

    with listening() as server:
        asyncio.run(play(server))


def answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


def test_a_body_in_very_many_chunks_leaves_others_their_turn() -> None:
    """Between the parts of one read everything else on the loop goes on; nothing of the body is lost or turned."""

    async def play(server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, Outbox(loop), f"127.0.0.1:{server.getsockname()[1]}", LIMITS)
        caller = Asker()
        turns = 0

        def turn() -> None:
            nonlocal turns
            turns += 1
            loop.call_soon(turn)

        async with asyncio.timeout(10):
            pool.ask(caller)
            await caller.asked.wait()
            taken, _ = server.accept()
            body = bytes(range(256)) * 40
            chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
            taken.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks[:30_000])
            loop.call_soon(turn)
            await caller.begun.wait()
            begun = turns
            assert caller.connection is not None
            # Who it is for does not keep up for a while.
            caller.connection.pause()
            taken.sendall(chunks[30_000:] + b"0\r\n\r\n")
            held = len(b"".join(said for said in caller.told if isinstance(said, bytes)))
            assert held < 1_000
            caller.connection.resume()
            await caller.answered.wait()
        assert turns - begun > 20
        assert b"".join(said for said in caller.told if isinstance(said, bytes)) == body
        taken.close()

    with listening() as server:
        asyncio.run(play(server))


@pytest.mark.parametrize("pauses", [False, True], ids=["takes it", "does not keep up"])
@LOOPS
def test_nothing_is_missing_of_an_answer_in_turns_whose_connection_is_reset(
    loop: Callable[[], asyncio.AbstractEventLoop], pauses: bool
) -> None:
    """What waits for its turn comes before what is unread. Who does not keep up is given it too: there it counts."""
    body = b"".join(b"%05d," % number for number in range(8_000))
    chunks = b"".join(b"3\r\n%b\r\n" % body[at : at + 3] for at in range(0, len(body), 3))

    async def play(server: socket.socket) -> None:
        running = asyncio.get_running_loop()
        pool = Pool(running, Outbox(running), f"127.0.0.1:{server.getsockname()[1]}", LIMITS)
        caller = Uploader()
        async with asyncio.timeout(10):
            pool.ask(caller)
            await caller.asked.wait()
            taken, _ = server.accept()
            with taken:
                taken.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks[:40_000])
                await caller.begun.wait()
                assert caller.connection is not None
                if pauses:
                    caller.connection.pause()
                taken.sendall(chunks[40_000:] + b"0\r\n\r\n")
            for _ in range(100):
                caller.connection.send(PART)
            for _ in range(100):
                await asyncio.sleep(0)
                if not pool.connections:
                    break
            assert not caller.answered.is_set()
            caller.connection.send(PART)  # it need not know yet
            await caller.answered.wait()
        assert caller.told[0] == 200
        assert caller.told[-1] == "end"
        assert b"".join(said for said in caller.told if isinstance(said, bytes)) == body
        assert pool.connections == 0

    with listening() as server, asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play(server))


def test_informational_heads_without_end_are_no_answer() -> None:
    async def play(server: socket.socket, number: int) -> list[int | bytes | str | Failure]:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, Outbox(loop), f"127.0.0.1:{server.getsockname()[1]}", LIMITS)
        caller = Asker()
        async with asyncio.timeout(10):
            pool.ask(caller)
            await caller.asked.wait()
            taken, _ = server.accept()
            with taken:
                taken.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n" * number + answer(b"at last"))
                await caller.answered.wait()
        return caller.told

    with listening() as server:
        assert asyncio.run(play(server, 16)) == [200, b"at last", "end"]
        assert asyncio.run(play(server, 17)) == [Failure.BROKEN]


def test_informational_heads_are_counted_for_each_answer_anew() -> None:
    """Behind them the head that counts is known, and comes by itself."""

    async def play(server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, Outbox(loop), f"127.0.0.1:{server.getsockname()[1]}", LIMITS)
        taken: socket.socket | None = None
        for _ in range(40):
            caller = Asker()
            async with asyncio.timeout(10):
                pool.ask(caller)
                await caller.asked.wait()
                if taken is None:
                    taken, _ = server.accept()
                    taken.settimeout(10)
                await loop.run_in_executor(None, taken.recv, 65_536)
                taken.sendall(b"HTTP/1.1 103 Early Hints\r\n\r\n")
                for _ in range(5):  # turns of the loop, in which it is read by itself
                    await asyncio.sleep(0)
                taken.sendall(answer(b"ok"))
                await caller.answered.wait()
            assert caller.told == [200, b"ok", "end"]
        assert taken is not None
        taken.close()

    with listening() as server:
        asyncio.run(play(server))


def test_a_server_that_said_too_much_has_each_connection_used_once(caplog: pytest.LogCaptureFixture) -> None:
    """What came after an answer was seen in time; the next time it could come too late to be told from an answer."""

    async def play(server: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        pool = Pool(loop, Outbox(loop), f"127.0.0.1:{server.getsockname()[1]}", LIMITS)
        async with asyncio.timeout(10):
            for surplus in (b"\r\n", b"", b""):
                caller = Asker()
                pool.ask(caller)
                await caller.asked.wait()
                # Each on a connection of its own.
                taken, _ = await loop.run_in_executor(None, server.accept)
                with taken:
                    taken.sendall(answer(b"mine") + surplus)
                    await caller.answered.wait()
                assert caller.told[-1] == "end"

    with listening() as server:
        asyncio.run(play(server))
    assert "sent more than the answer" in caplog.text
