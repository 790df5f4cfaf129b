"""Answers on the wire: held and judged, or passed on as they come. Real sockets on both sides."""

import json
import select
import time
from pathlib import Path

import pytest

from tests.router.models import Model
from tests.router.planes import Plane, running, serving, table
from tests.router.raw import Raw, ask, await_until, post

ALL = {"weight_bp": 10_000, "limits": {"challenger_timeout_ms": 2_000}}


@pytest.mark.parametrize("arm", ["champion", "challenger"])
@pytest.mark.parametrize("mode", ["good", "chunked", "until_close", "informed"])
def test_an_answer_arrives_whatever_its_framing(tmp_path: Path, arm: str, mode: str) -> None:
    other = ALL if arm == "challenger" else {}
    with serving(tmp_path, mode, **other) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = mode
        for _ in range(3):
            raw.send(post("u"))
            answer = raw.answer()
            assert answer.status == 200
            assert answer.body == b'{"predictions": [0.5], "arm": "%b"}' % arm.encode()
            assert b"x-trailer" not in answer.fields
        for exposure in plane.exposures(3):
            assert (exposure.usable, exposure.served_by, exposure.answer) == (True, arm, answer.body.decode())
            assert not exposure.cut


def test_head_is_answered_without_a_body_and_with_the_length(tmp_path: Path) -> None:
    with serving(tmp_path, **ALL) as (plane, champion, challenger), Raw(plane.port) as raw:
        for unit in ("X-Unit: u\r\n", ""):
            for _ in range(3):
                raw.send(f"HEAD /x HTTP/1.1\r\nHost: r\r\n{unit}\r\n".encode())
                answer = raw.answer(to_head=True)
                assert (answer.status, answer.after) == (200, b"")
                assert int(answer.fields[b"content-length"]) > 0
        assert (champion.count, challenger.count) == (3, 3)
        assert all(e.usable for e in plane.exposures(6))


def test_a_champions_long_answer_streams_and_a_slow_reader_holds_up_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as slow:
        champion.mode, champion.size = "large", 80_000_000
        slow.send(post("u"))
        slow.until(b"\r\n\r\n")
        champion.mode = "good"
        for _ in range(20):
            assert ask(plane.port, post("v")).status == 200
        # Back-pressure: neither the router nor the server sends what nobody reads.
        assert resident_bytes(plane.process.pid) < 120_000_000
        assert len(slow.take(80_000_000)) == 80_000_000
        long = next(e for e in plane.exposures(21) if e.unit == "u")
        assert (long.usable, long.unjudged, long.cut, len(str(long.answer))) == (True, True, True, 64 << 10)


def test_a_champions_answer_that_has_begun_is_passed_on_once_a_challengers_would_be_late(tmp_path: Path) -> None:
    """However long it pauses then, within what any answer may; and it is late, as a challenger's is."""
    limits = {"challenger_timeout_ms": 300, "champion_timeout_ms": 400}
    with serving(tmp_path, limits=limits) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "halves"
        raw.send(post("u"))
        half = raw.until(b'"predi')
        assert half.startswith(b"HTTP/1.1 200 OK\r\n")
        champion.release()
        assert raw.until(b'"champion"}').endswith(b'ctions": [0.5], "arm": "champion"}')
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.unjudged, exposure.status, exposure.answer_status) == (False, False, 200, 200)


def test_a_challengers_answer_beyond_what_is_held_passes_on_unjudged(tmp_path: Path) -> None:
    with serving(tmp_path, "large", **ALL) as (plane, _, challenger):
        challenger.size = 3_000_000
        answer = ask(plane.port, post("u"))
        assert (answer.status, len(answer.body)) == (200, 3_000_000)
        (exposure,) = plane.exposures(1)
        assert (exposure.served_by, exposure.unjudged, exposure.usable, exposure.cut) == (
            "challenger",
            True,
            True,
            True,
        )


def test_a_chunked_answer_that_grows_too_large_to_hold_passes_on(tmp_path: Path) -> None:
    limits = {"judge_bytes": 10, "challenger_timeout_ms": 2_000}
    with serving(tmp_path, "chunked", weight_bp=10_000, limits=limits) as (plane, _, _):
        answer = ask(plane.port, post("u"))
        assert answer.body == b'{"predictions": [0.5], "arm": "challenger"}'
        assert plane.exposures(1)[0].unjudged


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_events_reach_the_client_as_they_come(tmp_path: Path, arm: str) -> None:
    other = ALL if arm == "challenger" else {}
    with serving(tmp_path, "events", **other) as (plane, champion, challenger), Raw(plane.port) as raw:
        champion.mode = "events"
        raw.send(post("u"))
        assert raw.until(b"data: 1\n\n").startswith(b"HTTP/1.1 200 OK\r\n")
        (champion if arm == "champion" else challenger).release()
        raw.until(b"data: 3\n\n\r\n0\r\n\r\n")
        # The connection goes on.
        raw.send(post("u"))
        assert raw.answer().body == b"data: 1\n\ndata: 2\n\ndata: 3\n\n"
        for exposure in plane.exposures(2):
            assert (exposure.served_by, exposure.unjudged, exposure.usable) == (arm, True, True)
            assert exposure.answer == "data: 1\n\ndata: 2\n\ndata: 3\n\n"


def test_an_answer_that_breaks_off_after_its_beginning_was_passed_on_is_seen_to_be_cut(tmp_path: Path) -> None:
    with serving(tmp_path, limits={"judge_bytes": 100}) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "cut"
        raw.send(post("u"))
        assert b"Content-Length: 1000\r\n" in raw.rest()
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.cut, exposure.status) == (False, True, 200)


def test_an_answer_that_breaks_off_before_anything_of_it_was_passed_on_is_told(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _):
        champion.mode = "cut"
        assert ask(plane.port, post("u")).status == 502
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.status, exposure.answer_status) == (False, 200, 502)


def test_an_answer_that_will_soon_be_whole_is_passed_on_in_one_piece(tmp_path: Path) -> None:
    """As a challenger's is: writing between its parts would make the champion's look slower."""
    with serving(tmp_path, limits={"challenger_timeout_ms": 20_000}) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "halves"
        raw.send(post("u"))
        await_until(lambda: champion.halved == 1)
        for _ in range(3):  # the router has read what was sent
            plane.poll()
        assert select.select([raw.socket], [], [], 0)[0] == []
        champion.release()
        assert json.loads(raw.answer().body)["arm"] == "champion"


def test_an_answer_that_takes_longer_than_a_challengers_may_is_passed_on_as_it_comes(tmp_path: Path) -> None:
    with serving(tmp_path, limits={"challenger_timeout_ms": 100}) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "slow"  # a minute in all
        raw.send(post("u"))
        assert b"Content-Length: 1000\r\n" in raw.until(b"\r\n\r\n")


def test_a_stream_that_stalls_is_ended(tmp_path: Path) -> None:
    with serving(tmp_path, stall_s=0.3) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "events"
        raw.send(post("u"))
        began = time.monotonic()
        assert b"data: 1" in raw.rest()
        assert time.monotonic() - began < 5
        assert not plane.exposures(1)[0].usable


def test_a_stream_has_to_end_some_time(tmp_path: Path) -> None:
    with serving(tmp_path, total_s=0.5) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "events"
        raw.send(post("u"))
        assert b"data: 1" in raw.rest()
        assert not plane.exposures(1)[0].usable


def test_a_client_that_leaves_a_stream_ends_it_at_the_server_too(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _):
        champion.mode, champion.size = "large", 500_000_000
        with Raw(plane.port) as raw:
            raw.send(post("u"))
            raw.until(b"\r\n\r\n")
        await_until(lambda: champion.open == 0, 5, "the end of the server's connection")
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.answer_status) == (True, 499)


def ask_and_leave(plane: Plane, server: Model) -> None:
    """Be gone before ``server`` answers."""
    with Raw(plane.port) as raw:
        raw.send(post("u"))
        await_until(lambda: server.count == 1)
        raw.reset()
    plane.until(lambda: plane.poll()["client_connections"] == 0)


def test_what_a_challenger_answers_to_a_client_that_has_left_is_still_evidence(tmp_path: Path) -> None:
    with serving(tmp_path, "hang", **ALL) as (plane, _, challenger):
        ask_and_leave(plane, challenger)
        challenger.release()
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.status, exposure.answer_status) == (True, 200, 499)


def test_fields_of_the_servers_connection_do_not_reach_the_client(tmp_path: Path) -> None:
    with Model("champion") as champion, running(tmp_path, table(1, champion.address)) as plane:
        answer = ask(plane.port, post("u", b"{}", "X-Request-Id: mine"))
        assert set(answer.fields) == {b"content-type", b"content-length", b"x-request-id"}
        assert answer.fields[b"x-request-id"] == b"mine"


def resident_bytes(pid: int) -> int:
    """Memory of a process that is in use."""
    with Path(f"/proc/{pid}/statm").open() as statm:
        return int(statm.read().split()[1]) * 4_096


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_a_stream_whose_client_left_before_it_began_ends_as_it_begins(tmp_path: Path, arm: str) -> None:
    weight = {"weight_bp": 10_000 if arm == "challenger" else 0}
    with serving(tmp_path, "events_later", **weight) as (plane, champion, challenger):
        champion.mode = "events_later"
        server = challenger if arm == "challenger" else champion
        ask_and_leave(plane, server)
        server.release_once()
        plane.until(lambda: plane.poll()["upstream_connections"] == 0)
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.unjudged, exposure.answer_status) == (True, True, 499)


@pytest.mark.parametrize("size", [50, 5_000])
def test_an_answer_whose_client_left_in_the_middle_is_recorded_once(tmp_path: Path, size: int) -> None:
    """Also where only its last part tells that it is more than would be held, and comes with the end."""
    with serving(tmp_path, limits={"judge_bytes": 1_000}) as (plane, champion, _):
        champion.mode, champion.size = "chunked_halves", size
        with Raw(plane.port) as raw:
            raw.send(post("u"))
            raw.until(b"first")
            raw.reset()
        plane.until(lambda: plane.poll()["client_connections"] == 0)
        champion.release()
        plane.until(lambda: plane.poll()['answers_total{status="4xx"}'] == 1)
        assert ask(plane.port, post("v")).status == 200
        first, second = plane.exposures(2)
        assert (first.usable, first.answer_status) == (True, 499)
        assert (second.unit, second.answer_status) == ("v", 200)
