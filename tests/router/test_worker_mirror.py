"""Mirrored requests: the challenger answers unseen, nobody waits, and both answers are recorded."""

import json
import time
from pathlib import Path

import pytest

from router.assignment import point
from tests.router.load import run
from tests.router.planes import serving
from tests.router.raw import Raw, ask, await_until, post

MIRROR = {"mirror_bp": 10_000, "control_from_bp": 5_000}


def test_a_mirrored_request_is_answered_by_both_and_recorded_twice_under_one_id(tmp_path: Path) -> None:
    with serving(tmp_path, **MIRROR) as (plane, champion, challenger):
        assert json.loads(ask(plane.port, post("u", b'{"inputs": [1, 2]}')).body)["arm"] == "champion"
        shown, unseen = sorted(plane.exposures(2), key=lambda e: e.mirror)
        assert (shown.mirror, shown.mirrored, shown.arm, shown.served_by) == (False, True, "champion", "champion")
        assert (unseen.mirror, unseen.arm, unseen.version, unseen.evidence) == (True, "challenger", "2", True)
        assert (unseen.usable, unseen.status, unseen.answer_status) == (True, 200, 200)
        assert shown.request_id == unseen.request_id
        assert shown.inputs == unseen.inputs == '{"inputs": [1, 2]}'
        assert '"challenger"' in str(unseen.answer)
        (seen,), (copy,) = champion.requests, challenger.requests
        assert seen.body == copy.body
        assert seen.values(b"x-request-id") == copy.values(b"x-request-id")


def test_units_are_mirrored_by_their_point(tmp_path: Path) -> None:
    with serving(tmp_path, mirror_bp=3_000) as (plane, _, challenger):
        run(plane.port, lambda n: post(f"u{n}"), 400)
        expected = {f"u{n}" for n in range(400) if point("s/1", f"u{n}") < 3_000}
        found = plane.exposures(400 + len(expected))
        assert {e.unit for e in found if e.mirror} == {e.unit for e in found if e.mirrored} == expected
        assert challenger.count == len(expected)


def test_a_request_without_a_unit_is_not_mirrored(tmp_path: Path) -> None:
    with serving(tmp_path, **MIRROR) as (plane, _, challenger):
        ask(plane.port, post(None))
        assert not plane.exposures(1)[0].mirrored
        assert challenger.count == 0


@pytest.mark.parametrize(
    ("mode", "reason", "status"),
    [("nan", "Unusable", 200), ("500", "Status", 500), ("hang", "Timeout", 0), ("cut", "Error", 200)],
)
def test_a_mirrored_answer_that_cannot_be_used_is_recorded_and_harms_nobody(
    tmp_path: Path, mode: str, reason: str, status: int
) -> None:
    with serving(tmp_path, mode, limits={"challenger_timeout_ms": 300}, **MIRROR) as (plane, _, _):
        assert ask(plane.port, post("u")).status == 200
        unseen = next(e for e in plane.exposures(2) if e.mirror)
        assert (unseen.usable, unseen.fallback_reason, unseen.status) == (False, reason, status)
        assert unseen.latency_us >= 300_000


def test_a_mirror_never_delays_the_client(tmp_path: Path) -> None:
    with serving(tmp_path, "hang", limits={"challenger_timeout_ms": 20_000}, **MIRROR) as (plane, _, challenger):
        with Raw(plane.port) as raw:
            began = time.monotonic()
            for _ in range(5):
                raw.send(post("u"))
                assert raw.answer().status == 200
            took = time.monotonic() - began
            await_until(lambda: challenger.count >= 1)
        assert took < 10


def test_mirrors_in_flight_are_bounded_and_the_rest_is_counted(tmp_path: Path) -> None:
    limits = {"challenger_timeout_ms": 20_000}
    with serving(tmp_path, "hang", limits=limits, mirrors=3, **MIRROR) as (plane, _, challenger):
        assert {g.status for g in run(plane.port, lambda n: post(f"u{n}"), 50)} == {200}
        counters = plane.poll()
        assert counters["mirrors_in_flight"] == challenger.count == 3
        assert (counters["mirrored_total"], counters["mirror_dropped_total"]) == (3, 47)
        assert sum(e.mirrored for e in plane.exposures(50)) == 3
        challenger.release()
        await_until(lambda: plane.poll()["mirrors_in_flight"] == 0)
        assert sum(e.mirror for e in plane.exposures(53)) == 3
