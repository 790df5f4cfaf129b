"""A worker that drains answers everybody whom it, or the loop under it, has accepted."""

import asyncio
import contextlib
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.worker import Worker
from router.worker_config import WorkerConfig
from tests.router.planes import Plane, serving, table
from tests.router.raw import Raw, await_until

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


PARTS = {
    "head": b"POST / HTTP/1.1\r\nHost: r\r\nX-Lo",
    "held": b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: 100000\r\n\r\n" + b"x" * 500,
    "passed on": b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: 100000\r\n\r\n" + b"x" * 5_000,
}


def has_taken(plane: Plane, part: str) -> bool:
    """Whether the worker has read a part of a request."""
    told = plane.poll()
    if part == "passed on":
        return told['requests_total{arm="champion"}'] == 1
    return told["client_connections"] == 1 and (part == "head" or told["held_bytes"] == 500)


def recorded(plane: Plane, part: str) -> None:
    """Only what was assigned is, as no evidence: its client was the one that was waited for."""
    found = [(e.answer_status, e.evidence, e.usable) for e in plane.exposures()]
    assert found == ([(503, False, False)] if part == "passed on" else [])


@contextlib.contextmanager
def draining(directory: Path, part: str, drain_s: int) -> Iterator[tuple[Raw, float]]:
    """A worker that was told to end when it had a part of a request; its client, and since when. It ends in good order
    once that client has been told so.
    """
    with serving(directory, drain_s=drain_s, limits={"replay_bytes": 1_000}) as (plane, _, _), Raw(plane.port) as raw:
        raw.send(PARTS[part])
        await_until(lambda: has_taken(plane, part))
        began = time.monotonic()
        plane.send({"type": "drain"})
        yield raw, began
        answer = raw.answer()
        assert (answer.status, answer.closes, b"retry-after" in answer.fields) == (503, True, True)
        assert raw.ended()
        raw.socket.close()
        assert plane.process.wait(10) == 0
        recorded(plane, part)


@pytest.mark.parametrize("part", PARTS)
def test_who_pauses_in_a_request_is_told_before_the_time_is_over(tmp_path: Path, part: str) -> None:
    with draining(tmp_path, part, 10) as (_, began):
        pass
    assert 1.5 < time.monotonic() - began < 6


@pytest.mark.parametrize("part", ["held", "passed on"])
def test_who_is_still_sending_at_the_end_is_told_so(tmp_path: Path, part: str) -> None:
    with draining(tmp_path, part, 4) as (raw, began):
        raw.socket.settimeout(0.02)
        sent, paused = time.monotonic(), 0.0
        while not raw.buffer:
            try:
                assert raw.more(), "closed without a word"
            except TimeoutError:
                paused = max(paused, time.monotonic() - sent)
                raw.send(b"x")
                sent = time.monotonic()
        # On a machine that is busy it is the test that paused.
        assert time.monotonic() - began > 3.6 or max(paused, time.monotonic() - sent) > 0.5
        raw.socket.settimeout(5)


def test_an_upload_that_a_change_of_tables_met_is_told_at_the_end(tmp_path: Path) -> None:
    """Its client was the one that was waited for when the table came; its server is from then on."""
    limits = {"replay_bytes": 1_000, "champion_timeout_ms": 20_000}
    with serving(tmp_path, drain_s=0.5, limits=limits) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "hang"
        raw.send(PARTS["passed on"])
        await_until(lambda: champion.begun == 1)
        assert plane.poll()['requests_total{arm="champion"}'] == 1
        plane.put(table(2, champion.address))
        raw.send(b"x" * 95_000)
        await_until(lambda: champion.count == 1)
        plane.send({"type": "drain"})
        answer = raw.answer()
        assert (answer.status, answer.closes) == (503, True)
        raw.socket.close()
        assert plane.process.wait(10) == 0
        assert [(e.answer_status, e.evidence) for e in plane.exposures()] == [(503, False)]
