"""What a client sends ahead of the answer to its last request is held, counted, and bounded with all that is held."""

import contextlib
from pathlib import Path

import pytest

from tests.router.planes import serving
from tests.router.raw import Raw, ask, await_until, post

GET = b"GET /invocations HTTP/1.1\r\nHost: r\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n"
AHEAD = GET * 1_000
FIRST = {"no body": GET, "length": post("u"), "chunks": CHUNKED}


@pytest.mark.parametrize("at_once", [True, False], ids=["at once", "after it"])
@pytest.mark.parametrize("first", FIRST)
def test_it_is_counted_until_it_is_answered(tmp_path: Path, first: str, at_once: bool) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "hang"
        if at_once:
            raw.send(FIRST[first] + AHEAD)
        else:
            raw.send(FIRST[first])
            await_until(lambda: champion.count == 1)
            raw.send(AHEAD)
        await_until(lambda: plane.poll()["held_bytes"] >= len(AHEAD))
        assert plane.poll()["held_bytes"] <= len(AHEAD) + len(FIRST[first])  # its body may be held as well
        champion.release()
        for _ in range(1_001):
            assert raw.answer().status == 200
        await_until(lambda: plane.poll()["held_bytes"] == 0)


def test_a_little_is_not_counted_and_what_was_is_forgotten_with_its_client(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as little, Raw(plane.port) as much:
        champion.mode = "hang"
        little.send(GET * 100)
        much.send(GET + AHEAD)
        await_until(lambda: plane.poll()["held_bytes"] == len(AHEAD))
        await_until(lambda: champion.count == 2)
        much.reset()
        await_until(lambda: plane.poll()["held_bytes"] == 0)


@pytest.mark.parametrize("first", FIRST)
def test_beyond_what_may_be_held_those_who_send_more_are_let_go(tmp_path: Path, first: str) -> None:
    """Three times as much as there is room for."""
    with (
        serving(tmp_path, max_held_bytes=3 * len(AHEAD)) as (plane, champion, _),
        contextlib.ExitStack() as stack,
    ):
        champion.mode = "hang"
        clients = [stack.enter_context(Raw(plane.port)) for _ in range(9)]
        for raw in clients:
            raw.send(FIRST[first] + AHEAD)
        await_until(lambda: plane.poll()["overload_total"] >= 6)
        await_until(lambda: plane.poll()["client_connections"] <= 3)
        assert 2 * len(AHEAD) <= plane.poll()["held_bytes"] <= 3 * len(AHEAD)
        # Who sends nothing ahead is served.
        champion.mode = "good"
        assert ask(plane.port, post("v")).status == 200
        champion.release()
        await_until(lambda: plane.poll()["held_bytes"] == 0)


def test_who_sends_ahead_and_takes_no_answer_makes_room_for_the_bodies_of_others(tmp_path: Path) -> None:
    body = b"x" * 100_000
    limits = {"judge_bytes": 1_000}
    with (
        serving(tmp_path, max_held_bytes=120_000, head_s=0.3, limits=limits) as (plane, champion, _),
        Raw(plane.port, receive_buffer=4_096) as slow,
    ):
        champion.mode, champion.size = "large", 20_000_000
        slow.send(GET + AHEAD)
        await_until(lambda: champion.count == 1 and plane.poll()["held_bytes"] == len(AHEAD))
        champion.mode = "plain"
        await_until(lambda: ask(plane.port, post("u", body)).status == 200)
        assert plane.poll()["held_bytes"] == 0
