"""Requests that are dear to read: what they cost falls on those who send them."""

import contextlib
from pathlib import Path

import psutil
import pytest

from router.worker_config import GOING
from tests.router.models import Model
from tests.router.planes import running, serving, table
from tests.router.raw import Raw, ask, await_until, post

CRUMBS = b"1\r\nx\r\n" * 10_000


def test_bodies_in_very_many_chunks_are_read_in_turns_with_others(tmp_path: Path) -> None:
    head = b"POST /invocations HTTP/1.1\r\nHost: router\r\nX-Unit: flood\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(tmp_path) as (plane, champion, _), contextlib.ExitStack() as open_ones:
        floods = [open_ones.enter_context(Raw(plane.port)) for _ in range(10)]
        other = open_ones.enter_context(Raw(plane.port))
        for raw in floods:
            raw.send(head + CRUMBS + b"0\r\n\r\n" + post("next"))
        other.send(post("other"))
        assert other.answer().status == 200
        assert champion.requests[0].values(b"x-unit") == [b"other"]
        for raw in floods:
            assert [raw.answer().status for _ in range(2)] == [200, 200]
        assert sorted(len(request.body) for request in champion.requests)[-10:] == [10_000] * 10
        assert plane.poll()["held_bytes"] == 0


@pytest.mark.parametrize("limits", [{}, {"replay_bytes": 1_000}, {"replay_bytes": 5_000}], ids=str)
def test_a_client_that_has_sent_all_and_shut_its_side_is_answered_also_behind_very_many_chunks(
    tmp_path: Path, limits: dict[str, int]
) -> None:
    """Also where the body is more than is held: nothing that could come would have it read on."""
    head = b"POST /i HTTP/1.1\r\nHost: router\r\nX-Unit: u\r\nTransfer-Encoding: chunked\r\n\r\n"
    with serving(tmp_path, limits=limits) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "hang"
        raw.send(post("u") + head + CRUMBS + b"0\r\n\r\n")
        raw.socket.shutdown(1)
        await_until(lambda: champion.count == 1)
        champion.release()
        assert [raw.answer().status for _ in range(2)] == [200, 200]
        assert champion.requests[1].body == b"x" * 10_000
        assert raw.ended()
        assert plane.poll()["held_bytes"] == 0


def test_who_was_refused_and_stays_keeps_nobody_out(tmp_path: Path) -> None:
    """They have a second to read their answer, unless others need the room; and they are never more than there is."""
    with serving(tmp_path, max_connections=10) as (plane, _, _), contextlib.ExitStack() as open_ones:
        for _ in range(4):
            for _ in range(10 + GOING):
                open_ones.enter_context(Raw(plane.port)).send(b"BAD\r\n\r\n")
            await_until(lambda: plane.poll()["client_connections"] >= 10)
            assert ask(plane.port, post("u")).status == 200
            assert plane.poll()["client_connections"] <= 11 + GOING


def test_who_comes_where_all_are_busy_is_refused_however_many_are_being_refused(tmp_path: Path) -> None:
    with serving(tmp_path, max_connections=10) as (plane, champion, _), contextlib.ExitStack() as open_ones:
        champion.mode = "hang"
        busy = [open_ones.enter_context(Raw(plane.port)) for _ in range(10)]
        for raw in busy:
            raw.send(post("u"))
        await_until(lambda: champion.count == 10)
        for _ in range(30 + GOING):
            others = open_ones.enter_context(Raw(plane.port))
            assert others.answer().status == 503
            assert plane.poll()["client_connections"] <= 12 + GOING
        champion.release()
        assert [raw.answer().status for raw in busy] == [200] * 10


def test_a_large_body_in_very_many_chunks_goes_on_as_it_comes(tmp_path: Path) -> None:
    """More than is held, to a server that takes nothing for a while."""
    with serving(tmp_path, limits={"replay_bytes": 1_000}) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "plain"
        raw.send(b"POST /i HTTP/1.1\r\nHost: router\r\nX-Unit: u\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(3):
            raw.send(CRUMBS)
        raw.send(b"0\r\n\r\n" + post("v"))
        assert [raw.answer().status for _ in range(2)] == [200, 200]
        assert champion.requests[0].body == b"x" * 30_000


def test_a_broken_chunk_behind_very_many_is_still_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        raw.send(b"POST /i HTTP/1.1\r\nHost: router\r\nTransfer-Encoding: chunked\r\n\r\n" + CRUMBS + b"zz\r\n")
        answer = raw.answer()
        assert (answer.status, answer.closes) == (400, True)
        assert champion.count == 0


def test_a_request_that_waits_is_not_held_as_a_tree_of_its_json(tmp_path: Path) -> None:
    """A body of empty lists takes thirty times as much once it is parsed; the unit is somewhere in it."""
    body = b'{"user": "ada", "inputs": [' + b",".join([b"[]"] * 60_000) + b"]}"
    first = table(1, "", unit={"json_pointer": "/user"})
    with Model("champion", "hang") as champion, contextlib.ExitStack() as open_ones:
        first["champion"]["upstreams"] = [champion.address]
        plane = open_ones.enter_context(running(tmp_path, first))
        waiting = [open_ones.enter_context(Raw(plane.port)) for _ in range(20)]
        before = psutil.Process(plane.process.pid).memory_info().rss
        for raw in waiting:
            raw.send(post(None, body))
        plane.until(lambda: champion.count == 20)
        held = psutil.Process(plane.process.pid).memory_info().rss - before
        champion.release()
        assert [raw.answer().status for raw in waiting] == [200] * 20
        assert {exposure.unit for exposure in plane.exposures(20)} == {"ada"}
    # Body and copy for the server of each, and one tree, which is taken apart again.
    assert held < 20 * 4 * len(body) + (40 << 20)
