"""Limits of the traffic port: what is too long, too much or too slow is turned away, and the others go on."""

import resource
import time
from pathlib import Path

import pytest

from tests.router.load import loaded
from tests.router.planes import serving
from tests.router.raw import Raw, ask, post


def test_a_head_that_is_too_long_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path, max_header_bytes=2_000) as (plane, champion, _):
        assert ask(plane.port, post("u", b"{}", "X-Long: " + "x" * 1_000)).status == 200
        assert ask(plane.port, post("u", b"{}", "X-Long: " + "x" * 2_000)).status == 431
        with Raw(plane.port) as raw:
            raw.send(b"GET /" + b"x" * 5_000)
            assert raw.answer().status == 431
            assert raw.ended()
        assert champion.count == 1


def test_too_many_fields_are_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _):
        assert ask(plane.port, post("u", b"{}", *(f"X-{n}: 1" for n in range(100)))).status == 200
        assert ask(plane.port, post("u", b"{}", *(f"X-{n}: 1" for n in range(200)))).status == 431


@pytest.mark.parametrize("framing", [b"Content-Length: 100001", b"Transfer-Encoding: chunked"])
def test_a_body_that_is_too_long_is_refused_and_the_answer_arrives(tmp_path: Path, framing: bytes) -> None:
    with serving(tmp_path, max_body_bytes=100_000) as (plane, champion, _), Raw(plane.port) as raw:
        raw.send(b"POST / HTTP/1.1\r\nHost: r\r\n" + framing + b"\r\n\r\n")
        raw.send(b"186a1\r\n" + b"x" * 100_001 + b"\r\n0\r\n\r\n")
        answer = raw.answer()
        assert (answer.status, answer.closes) == (413, True)
        assert raw.ended()
        assert champion.count == 0


def test_bodies_held_at_the_same_time_are_bounded(tmp_path: Path) -> None:
    with serving(tmp_path, max_held_bytes=300_000) as (plane, _, _):
        raws = [Raw(plane.port) for _ in range(4)]
        for raw in raws:
            raw.send(b"POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 200000\r\n\r\n" + b"x" * 100_000)
        turned_away = [raw for raw in raws if not _waits(raw)]
        assert turned_away
        answer = turned_away[0].answer()
        assert (answer.status, answer.fields[b"retry-after"]) == (503, b"1")
        for raw in raws:
            raw.socket.close()
        plane.until(lambda: plane.poll()["held_bytes"] == 0)
        assert ask(plane.port, post("u")).status == 200


def _waits(raw: Raw) -> bool:
    raw.socket.settimeout(0.5)
    try:
        raw.more()
    except TimeoutError:
        return True
    finally:
        raw.socket.settimeout(10)
    return False


def test_a_head_or_body_that_does_not_go_on_is_given_up(tmp_path: Path) -> None:
    with serving(tmp_path, head_s=0.3, body_s=0.3) as (plane, _, _):
        for begun in (b"POST / HT", b"POST / HTTP/1.1\r\nHost: r\r\nContent-Length: 10\r\n\r\nab"):
            with Raw(plane.port) as raw:
                raw.send(begun)
                assert raw.answer().status == 408
                assert raw.ended()


def test_a_head_that_comes_byte_by_byte_has_no_longer_than_any_other(tmp_path: Path) -> None:
    with serving(tmp_path, head_s=0.5) as (plane, _, _), Raw(plane.port) as raw:
        began = time.monotonic()
        while time.monotonic() - began < 10 and not raw.buffer:
            try:
                raw.send(b"a")
                raw.socket.settimeout(0.02)
                raw.more()
            except TimeoutError:
                continue
        assert b" 408 " in raw.buffer
        assert time.monotonic() - began < 3


def test_an_idle_connection_is_closed_and_a_used_one_is_not(tmp_path: Path) -> None:
    with serving(tmp_path, idle_s=0.4) as (plane, _, _), Raw(plane.port) as idle, Raw(plane.port) as used:
        began = time.monotonic()
        while time.monotonic() - began < 1:
            used.send(post("u"))
            assert used.answer().status == 200
        assert idle.ended()


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


def test_thousands_of_idle_connections_leave_others_unharmed(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = min(10_000, hard - 500)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, wanted + 400), hard))
    idle = []
    try:
        with serving(tmp_path, max_connections=20_000) as (plane, _, _):
            idle = [Raw(plane.port) for _ in range(wanted)]
            # Half of them have begun a head that never ends.
            for raw in idle[::2]:
                raw.send(b"POST /invocations HTTP/1.1\r\nHo")
            with loaded(plane.port, lambda n: post(f"u{n}")) as load:
                began = time.monotonic()
                while len(load.got) < 2_000:
                    assert time.monotonic() - began < 30
                    time.sleep(0.01)
            assert load.failed == []
            assert {g.status for g in load.got} == {200}
            assert plane.poll()["client_connections"] >= wanted
    finally:
        for raw in idle:
            raw.socket.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
