"""A worker that drains answers everybody whom it, or the loop under it, has accepted."""

import asyncio
import json
import socket
from pathlib import Path

import pytest

from router.worker import Worker
from router.worker_config import WorkerConfig

REQUEST = b"GET / HTTP/1.1\r\nHost: router\r\n\r\n"
# From being told to draining, and from a connection to its first request, the loop takes less than five turns.
TURNS = range(-5, 10)


async def answer_after(directory: Path, turns: int) -> bytes | None:
    """What a client is answered that connects so many turns of the loop after its worker was told to drain; None where
    nobody listens any more.
    """
    loop = asyncio.get_running_loop()
    config = WorkerConfig(worker="w0", router="router", journal_dir=directory, port=0, drain_s=0.2)
    ours, theirs = socket.socketpair()
    with ours, socket.socket() as client:
        ours.setblocking(False)
        running = asyncio.create_task(Worker(loop, config).run(theirs.detach()))
        ours.sendall(json.dumps({"type": "heard", "t": 0}).encode() + b"\n")
        async with asyncio.timeout(10):
            port = json.loads(await loop.sock_recv(ours, 65_536))["port"]
            for turn in sorted({0, turns}):
                if turn == 0:
                    ours.sendall(b'{"type": "drain"}\n')
                if turn == turns:
                    try:
                        client.connect(("127.0.0.1", port))
                    except ConnectionRefusedError:
                        return None
                    client.sendall(REQUEST)
                for _ in range(abs(turns)):
                    await asyncio.sleep(0)
            await running
        client.settimeout(10)
        return client.recv(65_536)


@pytest.mark.parametrize("turns", TURNS)
def test_whoever_could_connect_is_answered(tmp_path: Path, turns: int) -> None:
    answer = asyncio.run(answer_after(tmp_path, turns))
    assert answer is not None or turns > 0
    assert answer is None or answer.startswith(b"HTTP/1.1 503 ")
