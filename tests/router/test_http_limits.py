"""Limits of the traffic port: what is too long, too much or too slow is turned away, and the others go on."""

import contextlib
import resource
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.router.load import loaded
from tests.router.planes import Plane, serving
from tests.router.raw import Raw, ask, await_until, post

# Of a request whose body is still to come.
HEAD = b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: 100000\r\n\r\n"


def let_pass(seconds: float) -> None:
    """Wait for the clock: time itself is what the claim is about."""
    due = time.monotonic() + seconds
    await_until(lambda: time.monotonic() > due)


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
        # Also where they have one name, and where none of them goes on.
        assert ask(plane.port, post("u", b"{}", *["X-A: 1"] * 200)).status == 431
        assert ask(plane.port, post("u", b"{}", *["Connection: keep-alive"] * 200)).status == 431


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


def test_a_body_that_comes_with_its_head_may_have_no_more_bytes_than_another(tmp_path: Path) -> None:
    with serving(tmp_path, max_body_bytes=100) as (plane, _, _):
        for body, status in ((b"x" * 100, 200), (b"x" * 101, 413)):
            assert ask(plane.port, post("u", body)).status == status


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


def test_a_body_that_trickles_in_is_given_up_and_one_that_comes_at_a_pace_is_not(tmp_path: Path) -> None:
    with serving(tmp_path, body_s=0.5, min_body_rate=10_000) as (plane, champion, _):
        with Raw(plane.port) as raw:
            raw.send(HEAD)
            began = time.monotonic()
            raw.socket.settimeout(0.05)
            while not _spoken_to(raw):
                raw.send(b"x")
                assert time.monotonic() < began + 5
            assert (raw.answer().status, raw.ended()) == (408, True)
        with Raw(plane.port) as raw:
            raw.send(HEAD)
            raw.socket.settimeout(0.05)
            # Longer than the pause that is allowed, never with one.
            for _ in range(20):
                assert not _spoken_to(raw)
                raw.send(b"x" * 5_000)
            raw.socket.settimeout(5)
            assert raw.answer().status == 200
        assert champion.count == 1


def _spoken_to(raw: Raw) -> bool:
    """Whether an answer has begun, after a wait as long as the socket's."""
    try:
        return raw.more()
    except TimeoutError:
        return False


@pytest.mark.parametrize("fields", [("Connection: close",), ()])
def test_a_client_that_never_reads_its_answer_is_let_go(tmp_path: Path, fields: tuple[str, ...]) -> None:
    with serving(tmp_path, stall_s=0.5, idle_s=0.5) as (plane, champion, _), socket.socket() as client:
        champion.mode, champion.size = "large", 1_000_000
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", plane.port))
        client.sendall(post("u", b"{}", *fields))
        assert plane.exposures(1)[0].usable
        plane.until(lambda: plane.poll()["client_connections"] == 0)


def test_a_client_that_goes_on_reading_has_the_time_that_it_needs(tmp_path: Path) -> None:
    with serving(tmp_path, stall_s=0.5) as (plane, champion, _), socket.socket() as client:
        champion.mode, champion.size = "large", 1_000_000
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.settimeout(5)
        client.connect(("127.0.0.1", plane.port))
        client.sendall(post("u", b"{}", "Connection: close"))
        got, began = 0, time.monotonic()
        while data := client.recv(16_384):
            got += len(data)
            # Twice as long as one that reads nothing has.
            await_until(lambda due=began + got / 1_000_000: time.monotonic() > due)
        assert got > 1_000_000


def test_who_takes_long_over_a_request_makes_room_for_who_comes(tmp_path: Path) -> None:
    with (
        serving(tmp_path, max_connections=2, head_s=0.3) as (plane, _, _),
        Raw(plane.port) as first,
        Raw(plane.port) as second,
    ):
        for raw in (first, second):
            raw.send(HEAD + b"x")
        plane.until(lambda: plane.poll()["held_bytes"] == 2)
        let_pass(0.4)
        assert ask(plane.port, post("u")).status == 200
        assert first.answer().status == 503
        second.send(b"x" * 99_999)
        assert second.answer().status == 200


def test_the_bodies_of_clients_that_have_left_are_still_held(tmp_path: Path) -> None:
    with serving(tmp_path, max_held_bytes=500_000) as (plane, champion, _):
        champion.mode = "hang"
        for number in range(3):
            with Raw(plane.port) as raw:
                raw.send(post("u", b"x" * 200_000))
                if number < 2:
                    await_until(lambda count=number + 1: champion.count == count)
                    raw.reset()
                else:
                    assert raw.answer().status == 503
        assert plane.poll()["held_bytes"] == 400_000
        champion.release()
        plane.until(lambda: plane.poll()["held_bytes"] == 0)


def test_who_sends_ahead_and_reads_no_answer_makes_room_for_who_comes(tmp_path: Path) -> None:
    with serving(tmp_path, max_connections=2, head_s=0.3) as (plane, champion, _), contextlib.ExitStack() as open_ones:
        champion.mode, champion.size = "large", 900_000
        for number in range(2):
            raw = open_ones.enter_context(Raw(plane.port, receive_buffer=4_096))
            raw.send(post(f"u{number}") * 30)
        await_until(lambda: champion.count >= 2)
        await_until(lambda: ask(plane.port, post("other")).status == 200)
        assert champion.count < 60


def test_who_drips_a_body_that_is_held_makes_room_for_the_bodies_of_others(tmp_path: Path) -> None:
    with (
        serving(tmp_path, max_held_bytes=150_000, head_s=0.3) as (plane, champion, _),
        Raw(plane.port) as slow,
        Raw(plane.port) as other,
    ):
        slow.send(HEAD + b"x" * 90_000)
        plane.until(lambda: plane.poll()["held_bytes"] == 90_000)
        other.send(HEAD + b"y" * 100_000)
        assert other.answer().status == 503  # the other one has not taken long yet
        let_pass(0.4)
        assert ask(plane.port, post("v", b"y" * 100_000)).status == 200
        assert slow.answer().status == 503
        assert plane.poll()["held_bytes"] == 0
        assert [len(request.body) for request in champion.requests] == [100_000]


@contextlib.contextmanager
def dripping(directory: Path, sent: int, *, held: int, **config: Any) -> Iterator[tuple[Plane, Raw]]:
    """A worker, and a client that has ``sent`` bytes of a body of which ``held`` are held, on its way to a server."""
    head = b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: slow\r\nContent-Length: 200000\r\n\r\n"
    with (
        serving(directory, head_s=0.3, limits={"replay_bytes": held}, **config) as (plane, champion, _),
        Raw(plane.port) as slow,
    ):
        slow.send(head + b"x" * sent)
        await_until(lambda: champion.begun == 1)
        yield plane, slow


def test_who_drips_a_body_that_is_passed_on_makes_room_for_the_bodies_of_others(tmp_path: Path) -> None:
    with dripping(tmp_path, 90_000, held=80_000, max_held_bytes=150_000) as (plane, slow):
        assert plane.poll()["held_bytes"] == 90_000  # for the journal, and for judging the answer
        let_pass(0.4)
        assert ask(plane.port, post("v", b"y" * 70_000)).status == 200
        assert slow.answer().status == 503
        assert plane.poll()["held_bytes"] == 0
        assert {e.unit: e.answer_status for e in plane.exposures(2)} == {"slow": 499, "v": 200}


def test_who_drips_a_large_body_lets_go_of_the_servers_connection_for_who_waits(tmp_path: Path) -> None:
    with dripping(tmp_path, 2_000, held=1_000, champion_connections=1) as (plane, slow):
        let_pass(0.4)
        assert ask(plane.port, post("v")).status == 200
        assert slow.answer().status == 503
        assert {e.unit: e.answer_status for e in plane.exposures(2)} == {"slow": 499, "v": 200}


def test_who_does_not_read_a_large_answer_lets_go_of_the_servers_connection_for_who_waits(tmp_path: Path) -> None:
    with serving(tmp_path, champion_connections=1, head_s=0.3) as (plane, champion, _):
        champion.mode, champion.size = "large", 50_000_000
        with Raw(plane.port, receive_buffer=4_096) as slow:
            slow.send(post("slow"))
            slow.until(b"\r\n\r\n")
            champion.mode = "good"
            let_pass(0.4)
            assert ask(plane.port, post("v")).status == 200


def test_no_more_of_those_who_read_no_answer_have_to_go_than_there_is_need(tmp_path: Path) -> None:
    with (
        serving(tmp_path, max_held_bytes=300_000, head_s=0.3) as (plane, champion, _),
        contextlib.ExitStack() as open_ones,
    ):
        champion.mode, champion.size = "large", 50_000_000
        for number in range(3):
            raw = open_ones.enter_context(Raw(plane.port, receive_buffer=4_096))
            raw.send(post(f"u{number}", b"x" * 90_000))
            raw.until(b"\r\n\r\n")
        champion.mode = "good"
        assert plane.poll()["held_bytes"] == 270_000
        let_pass(0.4)
        await_until(lambda: ask(plane.port, post("v", b"y" * 60_000)).status == 200)
        plane.until(lambda: plane.poll()["held_bytes"] == 180_000)


def test_a_line_break_behind_a_body_is_no_request_that_comes_too_late(tmp_path: Path) -> None:
    with serving(tmp_path, head_s=0.2) as (plane, _, _), Raw(plane.port) as raw:
        for stray in (b"\r\n", b"\r\n\r\n\r", b"\r"):
            raw.send(post("u") + stray)
            assert raw.answer().status == 200
            let_pass(0.6)
            raw.send((b"\n" if stray.endswith(b"\r") else b"") + post("u"))
            assert raw.answer().status == 200


def test_a_body_that_comes_with_its_head_is_counted_among_those_that_are_held(tmp_path: Path) -> None:
    with serving(tmp_path, max_held_bytes=50_000) as (plane, champion, _), contextlib.ExitStack() as open_ones:
        champion.mode = "hang"
        waiting = [open_ones.enter_context(Raw(plane.port)) for _ in range(2)]
        for raw in waiting:
            raw.send(post("u", b"x" * 20_000))
        await_until(lambda: champion.count == 2)
        assert plane.poll()["held_bytes"] == 40_000
        assert ask(plane.port, post("v", b"x" * 20_000)).status == 503
        champion.release()
        assert [raw.answer().status for raw in waiting] == [200, 200]
        assert plane.poll()["held_bytes"] == 0
