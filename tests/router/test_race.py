"""A name with several addresses is as good as the best of them, and nothing is left of the others."""

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest

from router.outbox import Outbox
from router.pool import Pool
from router.race import first_of
from router.upstream import Failure
from tests.router.models import Model
from tests.router.test_pool import LIMITS, Asker, seen_while


@contextmanager
def swallowing(address: str, port: int) -> Iterator[socket.socket]:
    """A listener whose queue is full: who connects is told nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family) as hole:
        hole.bind((address, port))
        hole.listen(0)
        waiting = [socket.socket(family) for _ in range(4)]
        try:
            for each in waiting:
                each.setblocking(False)
                each.connect_ex((address, hole.getsockname()[1]))
            yield hole
        finally:
            for each in waiting:
                each.close()


@contextmanager
def pool_of(monkeypatch: pytest.MonkeyPatch, port: int, *addresses: str, connect_s: float = 5) -> Iterator[Pool]:
    """A pool in the running loop, for a name with these addresses."""
    real = socket.getaddrinfo

    def answer(host: str, _: object, **named: int) -> list[object]:
        assert host == "model.test"
        return [info for address in addresses for info in real(address, port, **named)]

    monkeypatch.setattr("router.lookup.socket.getaddrinfo", answer)
    loop = asyncio.get_running_loop()
    pool = Pool(loop, Outbox(loop), f"model.test:{port}", replace(LIMITS, connect_s=connect_s))
    try:
        yield pool
    finally:
        pool.retire()


def watch(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that the running loop connects to from now on."""
    loop = asyncio.get_running_loop()
    real, seen = loop.sock_connect, list[str]()

    async def sock_connect(sock: socket.socket, address: tuple[str, int]) -> None:
        seen.append(address[0])
        await real(sock, address)

    monkeypatch.setattr(loop, "sock_connect", sock_connect)
    return seen


async def ask(pool: Pool) -> Asker:
    """Ask on a new connection."""
    asker = Asker()
    pool.close_older(float("inf"))
    pool.ask(asker)
    await seen_while(pool, [asker])
    return asker


def record(monkeypatch: pytest.MonkeyPatch) -> list[socket.socket]:
    """The sockets that this thread makes from now on."""
    made, here = list[socket.socket](), threading.get_ident()

    class Recorded(socket.socket):
        def __init__(self, *args: Any, **named: Any) -> None:
            super().__init__(*args, **named)
            if threading.get_ident() == here:
                made.append(self)

    monkeypatch.setattr(socket, "socket", Recorded)
    return made


async def cleared(made: list[socket.socket]) -> None:
    """Wait until there are no other tasks, and all these sockets are closed."""
    async with asyncio.timeout(10):
        while len(asyncio.all_tasks()) > 1 or any(each.fileno() >= 0 for each in made):  # noqa: ASYNC110
            await asyncio.sleep(0)


@pytest.mark.parametrize("dead", ["127.0.0.2", "::1"])
def test_an_address_that_says_nothing_is_overtaken_and_comes_last_from_then_on(
    monkeypatch: pytest.MonkeyPatch, dead: str
) -> None:
    monkeypatch.setattr("router.dialing.RECHECK_S", 1e9)

    async def asked() -> None:
        seen = watch(monkeypatch)
        with pool_of(monkeypatch, model.port, dead, "127.0.0.1") as pool:
            assert [(await ask(pool)).status for _ in range(5)] == [200] * 5
        assert seen == [dead] + ["127.0.0.1"] * 5

    with Model("champion") as model, swallowing(dead, model.port):
        asyncio.run(asked())


def test_an_address_that_was_overtaken_is_used_again_once_it_takes_connections(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("router.dialing.RECHECK_S", 0.0)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.read(1):
            writer.write(b"HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")
        else:
            writer.close()

    async def asked(hole: socket.socket) -> None:
        with pool_of(monkeypatch, model.port, "127.0.0.2", "127.0.0.1") as pool:
            assert (await ask(pool)).status == 200
            async with asyncio.timeout(10), await asyncio.start_server(answer, sock=hole):
                while (await ask(pool)).status != 201:
                    pass

    with Model("champion") as model, swallowing("127.0.0.2", model.port) as hole:
        asyncio.run(asked(hole))


def test_one_that_refuses_is_followed_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked() -> None:
        won = await first_of(asyncio.get_running_loop(), ["127.0.0.2", "127.0.0.1"], model.port, 1e9)
        won.sock.close()
        assert (won.address, won.overtaken) == ("127.0.0.1", ())

    with Model("champion") as model:
        asyncio.run(asked())


@pytest.mark.parametrize(
    ("addresses", "failure"),
    [
        (["127.0.0.2", "127.0.0.1"], None),
        (["127.0.0.2", "127.0.0.3"], Failure.REFUSED),  # none says anything
        (["127.0.0.4", "127.0.0.5"], Failure.REFUSED),  # both refuse
    ],
)
def test_nothing_is_left_of_those_that_lost(
    monkeypatch: pytest.MonkeyPatch, addresses: list[str], failure: Failure | None
) -> None:
    async def asked() -> None:
        made = record(monkeypatch)
        with pool_of(monkeypatch, model.port, *addresses, connect_s=0.6) as pool:
            for _ in range(3):
                assert (await ask(pool)).failure is failure
        assert len(made) >= 3
        await cleared(made)
        assert pool.connections == 0

    with Model("champion") as model, swallowing("127.0.0.2", model.port), swallowing("127.0.0.3", model.port):
        asyncio.run(asked())


def test_both_that_connect_in_the_same_moment_leave_one(monkeypatch: pytest.MonkeyPatch) -> None:
    async def asked() -> None:
        made = record(monkeypatch)
        loop = asyncio.get_running_loop()
        for _ in range(20):
            (await first_of(loop, ["127.0.0.1", "127.0.0.1", "127.0.0.1"], model.port, 0)).sock.close()
        assert len(made) > 20
        await cleared(made)

    with Model("champion") as model:
        asyncio.run(asked())
