"""Where there are as many connections as may be, somebody goes for who comes, or who comes is told to come back."""

import contextlib
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from router.worker_config import GOING
from tests.router.planes import Plane, serving
from tests.router.raw import Raw, ask, await_until, post


def test_beyond_the_most_connections_the_longest_idle_one_goes(tmp_path: Path) -> None:
    with serving(tmp_path, max_connections=3) as (plane, _, _):
        first, second, third = (Raw(plane.port) for _ in range(3))
        for raw in (second, third, first):
            raw.send(post("u"))
            assert raw.answer().status == 200
        assert ask(plane.port, post("u")).status == 200
        assert second.ended()
        for raw in (first, third):
            raw.send(post("u"))
            assert raw.answer().status == 200


@pytest.mark.parametrize("said", [b"\r", b"\r\n", b"\r\n\r"])
def test_who_sent_no_more_than_a_line_break_is_as_idle_as_who_sent_nothing(tmp_path: Path, said: bytes) -> None:
    with serving(tmp_path, max_connections=10) as (plane, _, _):
        strangers = [Raw(plane.port) for _ in range(10)]
        for raw in strangers:
            raw.send(said)
        plane.until(lambda: plane.poll()["client_connections"] == 10)
        await_until(lambda: ask(plane.port, post("u")).status == 200)
        for raw in strangers:
            raw.socket.close()


def test_where_all_connections_are_busy_a_new_one_is_told_to_come_back(tmp_path: Path) -> None:
    with serving(tmp_path, max_connections=2) as (plane, champion, _):
        champion.mode = "hang"
        busy = [Raw(plane.port) for _ in range(2)]
        for raw in busy:
            raw.send(post("u"))
        plane.until(lambda: plane.poll()["upstream_connections"] == 2)
        with Raw(plane.port) as third:
            answer = third.answer()
            assert (answer.status, answer.fields[b"retry-after"]) == (503, b"1")
            assert third.ended()
        champion.release()
        for raw in busy:
            assert raw.answer().status == 200


@contextlib.contextmanager
def stopped(plane: Plane) -> Iterator[None]:
    """Whatever is done meanwhile has all come when the worker gets to it."""
    plane.process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        plane.process.send_signal(signal.SIGCONT)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(("room", "come"), [(5, 30), (200, 1_200)])
def test_a_burst_of_requests_is_answered_as_far_as_there_is_room_and_the_rest_told_to_come_back(
    tmp_path: Path, loop: str, room: int, come: int
) -> None:
    """Who has just come is not idle, whether or not what it asks was read yet, and however many come."""
    with (
        serving(tmp_path, max_connections=room, champion_connections=room, loop=loop) as (plane, champion, _),
        contextlib.ExitStack() as open_ones,
    ):
        champion.mode = "hang"
        with stopped(plane):
            burst = [open_ones.enter_context(Raw(plane.port)) for _ in range(come)]
            for raw in burst:
                raw.send(post("u"))
        await_until(lambda: champion.count == room)
        await_until(lambda: plane.poll()["overload_total"] == come - room)
        assert plane.counters["client_connections"] <= room + GOING
        champion.release()
        said = Counter(raw.answer().status for raw in burst)
        assert said == {200: room, 503: come - room}
        assert plane.counters["connections_total"] == come


def test_who_has_come_a_moment_ago_is_not_sent_away_for_being_silent(tmp_path: Path) -> None:
    with serving(tmp_path, max_connections=5) as (plane, _, _), contextlib.ExitStack() as open_ones:
        with stopped(plane):
            silent = [open_ones.enter_context(Raw(plane.port)) for _ in range(5)]
            late = open_ones.enter_context(Raw(plane.port))
        assert late.answer().status == 503
        for raw in silent:
            raw.send(post("u"))
            assert raw.answer().status == 200
