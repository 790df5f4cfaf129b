"""A mirrored answer that would be passed on unjudged is read to its end, and recorded as one that is shown."""

import time
from pathlib import Path
from typing import Any

import pytest

from router.events import Exposure
from tests.router.models import head_of
from tests.router.planes import serving
from tests.router.raw import Raw, ask, await_until, post

MIRROR = {"mirror_bp": 10_000, "control_from_bp": 5_000}
EVENTS = "data: 1\n\ndata: 2\n\ndata: 3\n\n"
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n" + EVENTS.encode()
CUT_STREAM = STREAM.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\n1b\r\n", 1)
LARGE = head_of(50_000, kind=b"text/plain") + b"x" * 50_000


def verdict(exposure: Exposure) -> tuple[Any, ...]:
    """What the evidence sees of an answer, and what is kept of it."""
    return exposure.usable, exposure.unjudged, exposure.evidence, exposure.status, exposure.answer, exposure.answer_cut


def shown_and_mirrored(directory: Path, raw: bytes, **other: Any) -> tuple[Exposure, Exposure]:
    """The challenger's answer of these bytes, after which it closes the connection: once shown, once unseen."""
    found = []
    for number, way in enumerate(({"weight_bp": 10_000}, MIRROR)):
        place = directory / str(number)
        place.mkdir()
        with serving(place, "raw", **way, **other) as (plane, _, challenger):
            challenger.raw = raw
            with Raw(plane.port) as client:
                client.send(post("u", b"{}", "Connection: close"))
                client.rest()
            found.append(next(e for e in plane.exposures(1 + number) if e.mirror or not number))
    return found[0], found[1]


@pytest.mark.parametrize(
    ("raw", "usable", "reason"),
    [(STREAM, True, None), (CUT_STREAM, False, "Error"), (LARGE, True, None), (LARGE[:-1], False, "Error")],
    ids=["stream", "cut stream", "large", "cut"],
)
def test_a_mirror_is_recorded_as_an_answer_that_is_shown(
    tmp_path: Path, raw: bytes, usable: bool, reason: str | None
) -> None:
    limits = {"judge_bytes": 10_000, "capture_bytes": 1_000}
    shown, mirrored = shown_and_mirrored(tmp_path, raw, limits=limits)
    assert verdict(mirrored) == verdict(shown)
    assert (mirrored.usable, mirrored.unjudged, mirrored.status) == (usable, usable, 200)
    assert mirrored.fallback_reason == reason


def test_a_failure_that_is_too_large_to_be_held_is_one_of_its_status(tmp_path: Path) -> None:
    raw = LARGE.replace(b"200 OK", b"500 Oh No")
    shown, mirrored = shown_and_mirrored(tmp_path, raw, limits={"judge_bytes": 10_000}, replay_to_champion=False)
    assert (mirrored.usable, mirrored.unjudged, mirrored.status, mirrored.fallback_reason) == (
        False,
        False,
        500,
        "Status",
    )
    assert (shown.usable, shown.status) == (False, 500)


def test_a_mirrored_stream_that_began_in_time_is_not_late(tmp_path: Path) -> None:
    """It has its last two events when the challenger's time is long over."""
    with serving(tmp_path, "events", limits={"challenger_timeout_ms": 200}, **MIRROR) as (plane, _, challenger):
        assert ask(plane.port, post("u")).status == 200
        await_until(lambda: challenger.count == 1)
        (shown,) = plane.exposures(1)
        await_until(lambda due=shown.t + 500_000: plane.poll() and time.time_ns() // 1000 > due)
        assert plane.poll()["mirrors_in_flight"] == 1
        challenger.release()
        mirrored = next(e for e in plane.exposures(2) if e.mirror)
        assert (mirrored.usable, mirrored.unjudged, mirrored.answer, mirrored.answer_cut) == (True, True, EVENTS, False)
        assert mirrored.latency_us > 300_000
        assert plane.poll()["mirrors_in_flight"] == 0


@pytest.mark.parametrize("limit", ["stall_s", "total_s"])
def test_a_mirrored_stream_that_does_not_end_has_failed(tmp_path: Path, limit: str) -> None:
    with serving(tmp_path, "events", **MIRROR, **{limit: 0.3}) as (plane, _, _):
        assert ask(plane.port, post("u")).status == 200
        mirrored = next(e for e in plane.exposures(2) if e.mirror)
        assert (mirrored.usable, mirrored.status, mirrored.fallback_reason) == (False, 200, "Timeout")
        assert plane.poll()["mirrors_in_flight"] == 0


def test_of_a_mirrored_stream_no_more_is_kept_than_is_captured(tmp_path: Path) -> None:
    limits = {"capture_bytes": 100}
    with serving(tmp_path, "large", limits=limits | {"judge_bytes": 1_000}, **MIRROR) as (plane, _, challenger):
        challenger.size = 5_000_000
        assert ask(plane.port, post("u")).status == 200
        mirrored = next(e for e in plane.exposures(2) if e.mirror)
        assert (mirrored.usable, mirrored.answer, mirrored.answer_cut) == (True, "x" * 100, True)


def test_a_mirrored_stream_that_a_drain_cuts_off_is_no_evidence(tmp_path: Path) -> None:
    with serving(tmp_path, "events", drain_s=0.3, **MIRROR) as (plane, _, challenger):
        assert ask(plane.port, post("u")).status == 200
        await_until(lambda: challenger.count == 1)
        assert plane.drain() == 0
        mirrored = next(e for e in plane.exposures(2) if e.mirror)
        assert (mirrored.usable, mirrored.evidence) == (False, False)
