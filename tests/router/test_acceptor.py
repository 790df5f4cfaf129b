"""Who connects when no descriptor is left waits, and is taken in when there is one again."""

import asyncio
import os
import resource
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.acceptor import Acceptor
from router.listeners import bound

ROOT = Path(__file__).resolve().parents[2]


class Hello(asyncio.Protocol):
    """Greets, and ends."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        transport.write(b"hello")
        transport.close()


@contextmanager
def no_descriptor_left() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)  # the lowest that is free
    os.close(lowest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def greeted_after_want() -> tuple[bool, bytes]:
    loop = asyncio.get_running_loop()
    acceptor = Acceptor(loop, bound("127.0.0.1", 0), 16, Hello)
    acceptor.start()
    with socket.socket() as client:
        client.setblocking(False)
        with no_descriptor_left():
            await loop.sock_connect(client, ("127.0.0.1", acceptor.port))
            reading = asyncio.create_task(loop.sock_recv(client, 100))
            early, _ = await asyncio.wait({reading}, timeout=0.2)
        async with asyncio.timeout(10):
            said = await reading
    await acceptor.stop()
    return bool(early), said


def test_who_connects_while_no_descriptor_is_left_is_taken_in_later() -> None:
    """In a process of its own: threads that others leave behind in this one free and take descriptors."""
    code = f"import asyncio; from {__name__} import greeted_after_want; print(*asyncio.run(greeted_after_want()))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "False b'hello'\n"
    assert done.stderr == "a connection cannot be taken in: Too many open files; trying again in 1 s\n"


def test_stopping_when_no_descriptor_is_left_leaves_nothing_to_be_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.acceptor._RETRY_S", 0.0)

    async def faults() -> list[object]:
        loop = asyncio.get_running_loop()
        found: list[object] = []
        loop.set_exception_handler(lambda _, context: found.append(context))
        acceptor = Acceptor(loop, bound("127.0.0.1", 0), 16, Hello)
        with socket.socket() as client:
            client.setblocking(False)
            acceptor.start()
            with no_descriptor_left():
                client.connect_ex(("127.0.0.1", acceptor.port))
                await acceptor.stop()
            for _ in range(5):
                await asyncio.sleep(0)
        return found

    assert asyncio.run(faults()) == []
