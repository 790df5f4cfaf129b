"""A stream that ends because of its client is no failure of its server: in either arm, in a mirror, read or not."""

import socket
import time
from pathlib import Path
from typing import Any

import pytest

from router.events import Exposure
from tests.router.planes import Plane, serving
from tests.router.raw import Raw, await_until, post

MIRROR = {"mirror_bp": 10_000, "control_from_bp": 5_000}


def verdict(exposure: Exposure) -> tuple[Any, ...]:
    """What the evidence sees of an answer, and what its client got."""
    return exposure.usable, exposure.unjudged, exposure.evidence, exposure.status, exposure.answer_status


FLOWED = (True, True, True, 200, 499)


def leave_after(plane: Plane, seconds: float) -> None:
    """Take a stream's first event, and leave so many seconds after having asked."""
    began = time.monotonic()
    with Raw(plane.port) as raw:
        raw.send(post("u"))
        raw.until(b"data: 1")
        while time.monotonic() < began + seconds:
            raw.until(b"data: 1")
        raw.reset()


def shown_and_mirrored(plane: Plane, number: int = 1) -> tuple[list[Exposure], list[Exposure]]:
    found = plane.exposures(2 * number)
    return [e for e in found if not e.mirror], [e for e in found if e.mirror]


def test_a_mirrored_stream_ends_with_the_originals_client(tmp_path: Path) -> None:
    """So many of them that the breaker would open, were they failures."""
    with serving(tmp_path, "ticks", total_s=2.0, **MIRROR) as (plane, champion, challenger):
        champion.mode = "ticks"
        for _ in range(11):
            leave_after(plane, 0)
        shown, mirrored = shown_and_mirrored(plane, 11)
        assert {verdict(e) for e in shown} == {verdict(e) for e in mirrored} == {FLOWED}
        assert all(e.fallback_reason is None for e in mirrored)
        assert max(e.latency_us for e in mirrored) < 1_000_000
        told = plane.poll()
        assert (told["mirrors_in_flight"], told["breaker_opened_total"]) == (0, 0)
        await_until(lambda: challenger.open == 0)


def test_a_mirrored_stream_that_was_silent_when_the_originals_client_left_has_failed(tmp_path: Path) -> None:
    """The original flows on; the challenger says nothing after its first event for longer than an answer may take."""
    with serving(tmp_path, "events", limits={"challenger_timeout_ms": 1_000}, **MIRROR) as (plane, champion, _):
        champion.mode = "ticks"
        leave_after(plane, 1.8)
        (shown,), (mirrored,) = shown_and_mirrored(plane)
        assert verdict(shown) == FLOWED
        assert (mirrored.usable, mirrored.evidence, mirrored.fallback_reason) == (False, True, "Timeout")
        assert plane.poll()["mirrors_in_flight"] == 0


def test_a_mirrored_stream_that_is_cut_before_the_originals_client_left_has_failed(tmp_path: Path) -> None:
    with serving(tmp_path, "raw", **MIRROR) as (plane, champion, challenger):
        champion.mode = "ticks"
        head = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nContent-Length: 99\r\n\r\n"
        challenger.raw = head + b"data: 1\n\n"
        leave_after(plane, 0.6)
        (shown,), (mirrored,) = shown_and_mirrored(plane)
        assert verdict(shown) == FLOWED
        assert (mirrored.usable, mirrored.evidence, mirrored.fallback_reason) == (False, True, "Error")


def test_a_mirrored_stream_that_took_long_because_it_began_sooner_has_not_failed(tmp_path: Path) -> None:
    """The original begins after 0.8 s and is left after 1.4 s; the mirror has flowed for a second by then."""
    limits = {"challenger_timeout_ms": 5_000}
    with serving(tmp_path, "ticks", total_s=1.0, limits=limits, **MIRROR) as (plane, champion, _):
        champion.mode = "events_later"
        began = time.monotonic()
        with Raw(plane.port) as raw:
            raw.send(post("u"))
            await_until(lambda: time.monotonic() > began + 0.8)
            champion.release_once()
            raw.until(b"data: 1")
            await_until(lambda: time.monotonic() > began + 1.4)
            raw.reset()
        (shown,), (mirrored,) = shown_and_mirrored(plane)
        assert verdict(shown) == verdict(mirrored) == FLOWED
        assert 1_000_000 <= mirrored.latency_us < shown.latency_us


@pytest.mark.parametrize("weight", [0, 10_000], ids=["champion", "challenger"])
@pytest.mark.parametrize("limit", ["stall_s", "total_s"])
def test_an_answer_that_its_client_does_not_read_has_not_failed(tmp_path: Path, limit: str, weight: int) -> None:
    """More than is held or fits into sockets; it waits for the client until the router breaks it off."""
    way = {"weight_bp": weight, "control_from_bp": weight, limit: 0.5}
    with serving(tmp_path, "large", **way) as (plane, champion, challenger), socket.socket() as client:
        champion.mode = "large"
        champion.size = challenger.size = 50_000_000
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        client.connect(("127.0.0.1", plane.port))
        client.sendall(post("u"))
        (exposure,) = plane.exposures(1)
        assert verdict(exposure) == FLOWED
        await_until(lambda: plane.poll()["client_connections"] == 0)


def test_a_stream_that_does_not_go_on_after_its_client_has_caught_up_has_failed(tmp_path: Path) -> None:
    """The server's silence counts from where nobody keeps it waiting any more."""
    limits = {"judge_bytes": 1_000}
    with serving(tmp_path, stall_s=0.7, limits=limits) as (plane, champion, _):
        champion.mode, champion.size = "large_halves", 20_000_000
        with Raw(plane.port, receive_buffer=4_096) as raw:
            raw.send(post("u"))
            raw.until(b"\r\n\r\n")
            raw.take(10_000_000)
            assert raw.rest() == b""
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.status, exposure.answer_status) == (False, 200, 200)
