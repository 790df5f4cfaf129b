"""Mirrored requests: the challenger answers unseen, nobody waits, and both answers are recorded."""

import json
import socket
import time
from pathlib import Path

import pytest

from router.assignment import point
from tests.router.load import run
from tests.router.models import Model
from tests.router.planes import running, serving, table
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


def test_a_page_that_passes_its_request_id_on_to_each_call_has_each_call_on_record(tmp_path: Path) -> None:
    """Each with an id of its own in the journal, its mirror with the same; the servers and the page see the page's."""
    with serving(tmp_path, **MIRROR) as (plane, champion, challenger):
        for rows in range(1, 5):
            body = json.dumps({"inputs": [0] * rows}).encode()
            answer = ask(plane.port, post("u", body, "X-Request-Id: page-1"))
            assert answer.fields[b"x-request-id"] == b"page-1"
        exposures = plane.exposures(8)
        shown = {e.request_id: e.inputs for e in exposures if not e.mirror}
        assert len(shown) == 4
        assert shown == {e.request_id: e.inputs for e in exposures if e.mirror}
        assert exposures[0].request_id == "page-1"
        for server in (champion, challenger):
            assert {v for request in server.requests for v in request.values(b"x-request-id")} == {b"page-1"}
        assert plane.poll()["repeated_ids_total"] == 3


def test_units_are_mirrored_by_their_point(tmp_path: Path) -> None:
    # However slow the challenger is beside what else the machine does.
    patient = {"limits": {"challenger_timeout_ms": 20_000}, "mirrors": 400}
    with serving(tmp_path, mirror_bp=3_000, **patient) as (plane, _, challenger):
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


def test_a_mirror_for_which_no_connection_is_free_was_not_made(tmp_path: Path) -> None:
    """The limit is the router's: no failure of the challenger's, on no record."""
    with serving(tmp_path, "hang", challenger_connections=1, **MIRROR) as (plane, _, challenger):
        ask(plane.port, post("u1"))
        await_until(lambda: challenger.count == 1)
        ask(plane.port, post("u2"))
        challenger.release()
        seen = {(e.unit, e.mirror, e.mirrored, e.usable) for e in plane.exposures(3)}
        assert seen == {("u1", False, True, True), ("u1", True, False, True), ("u2", False, False, True)}
        counters = plane.poll()
        assert (counters["mirrored_total"], counters["mirror_dropped_total"]) == (1, 1)


def test_what_the_end_of_a_worker_cuts_off_is_not_mirrored(tmp_path: Path) -> None:
    """Nobody would be there for the challenger's answer."""
    with socket.create_server(("127.0.0.1", 0)) as server, Model("challenger") as challenger:
        first = table(1, f"127.0.0.1:{server.getsockname()[1]}", challenger.address, **MIRROR)
        with running(tmp_path, first, drain_s=0.2) as plane, Raw(plane.port) as raw:
            raw.send(post("u"))
            taken, _ = server.accept()
            with taken:
                taken.recv(65_536)
                taken.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n")
                raw.until(b"first")
                assert plane.drain() == 0
            assert [(e.mirror, e.mirrored) for e in plane.exposures(1)] == [(False, False)]


def test_a_mirror_tries_the_arms_other_address_where_one_refuses(tmp_path: Path) -> None:
    """As a request does that is shown: nothing was sent to the server that refused."""
    with socket.socket() as deaf, Model("champion") as champion, Model("challenger") as challenger:
        deaf.bind(("127.0.0.1", 0))
        first = table(1, champion.address, challenger.address, **MIRROR)
        first["challenger"]["upstreams"] = [f"127.0.0.1:{deaf.getsockname()[1]}", challenger.address]
        with running(tmp_path, first) as plane:
            for number in range(1, 5):
                assert ask(plane.port, post(f"u{number}")).status == 200
                plane.exposures(2 * number)
            mirrors = [e for e in plane.exposures(8) if e.mirror]
            assert [(e.usable, e.fallback_reason) for e in mirrors] == [(True, None)] * 4
            assert plane.poll()["retries_total"] >= 1
