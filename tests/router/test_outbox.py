"""Answers that leave in one turn of the loop: what becomes of one client is nobody else's loss, nor is it his own."""

import os
import signal
import socket
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.router.models import head_of
from tests.router.planes import Plane, running, table
from tests.router.raw import Raw, post

CLIENTS = 5


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(10)
        yield server


def answers_in_one_turn(plane: Plane, listening: socket.socket, open_: ExitStack, how: str) -> list[Raw]:
    """Clients whose answers a worker that was stopped for a moment finds all at once, beside what the first one did."""
    clients, servers = [], []
    for number in range(CLIENTS):
        clients.append(open_.enter_context(Raw(plane.port)))
        clients[-1].send(post(f"u{number}"))
        server, _ = listening.accept()
        servers.append(open_.enter_context(server))
        server.settimeout(10)
        server.recv(65_536)
    plane.process.send_signal(signal.SIGSTOP)
    os.waitpid(plane.process.pid, os.WUNTRACED)
    if how == "reset":
        clients[0].reset()
    for number, server in enumerate(servers):
        body = b'{"predictions": [%d]}' % number
        server.sendall(head_of(len(body)) + body)
    if how == "half-close":
        clients[0].socket.shutdown(socket.SHUT_WR)
    plane.process.send_signal(signal.SIGCONT)
    return clients


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("how", ["reset", "half-close"])
def test_each_client_that_is_there_gets_its_answer(
    tmp_path: Path, listening: socket.socket, loop: str, how: str
) -> None:
    server = f"127.0.0.1:{listening.getsockname()[1]}"
    with running(tmp_path, table(1, server), loop=loop) as plane, ExitStack() as open_:
        clients = answers_in_one_turn(plane, listening, open_, how)
        for number, client in list(enumerate(clients))[how == "reset" :]:
            answer = client.answer()
            assert (answer.status, answer.body) == (200, b'{"predictions": [%d]}' % number)
        assert [e.usable for e in plane.exposures(CLIENTS)] == [True] * CLIENTS
