"""A challenger that does not answer the model's own example gets no traffic, and that counts against it."""

from pathlib import Path

import pytest

from tests.router.load import run
from tests.router.models import Model
from tests.router.planes import Plane, running, serving, table
from tests.router.raw import ask, post

PROBE = {"path": "/health"}
EXAMPLE = {"path": "/health", "body": '{"inputs": [[1], [2]]}'}


def probed(
    generation: int, champion: Model, challenger: Model, probe: dict[str, str], **other: object
) -> dict[str, object]:
    made = table(generation, champion.address, challenger.address, **{"weight_bp": 10_000, **other})
    made["challenger"]["probe"] = probe
    return made


def until_not_ready(plane: Plane, number: int) -> None:
    plane.until(lambda: plane.poll()["servers_not_ready"] == number)


@pytest.mark.parametrize("bad", ["500", "nan", "rows", "cut", "gone", "empty", "garbage", "twice"])
def test_a_challenger_that_fails_its_example_gets_no_traffic_until_it_answers_it_well(tmp_path: Path, bad: str) -> None:
    with Model("champion") as champion, Model("challenger") as challenger:
        challenger.health = bad
        with running(tmp_path, probed(1, champion, challenger, EXAMPLE)) as plane:
            until_not_ready(plane, 1)
            assert b"champion" in ask(plane.port, post("u")).body
            assert challenger.count == 0
            challenger.health = "good"
            until_not_ready(plane, 0)
            assert b"challenger" in ask(plane.port, post("u")).body
            one, two = plane.exposures(2)
            assert (one.arm, one.evidence, one.usable) == ("challenger", True, False)
            assert (one.served_by, one.fallback_reason) == ("champion", "NotReady")
            assert (one.attempts, one.status, one.answer_status) == (1, 0, 200)
            # As if it had not answered by the deadline.
            assert one.latency_us == 1_000_000
            assert (two.served_by, two.usable) == ("challenger", True)
            assert plane.poll()['fallbacks_total{reason="NotReady"}'] == 1


def test_a_server_nobody_listens_for_is_not_ready_and_the_breaker_stays_out_of_it(tmp_path: Path) -> None:
    with Model("champion") as champion, Model("challenger") as gone:
        made = probed(1, champion, gone, PROBE)
    with Model("champion") as champion:
        made["champion"] = {"version": "1", "upstreams": [champion.address]}
        with running(tmp_path, made) as plane:
            until_not_ready(plane, 1)
            assert {g.status for g in run(plane.port, lambda n: post(f"u{n}"), 50)} == {200}
            assert {e.fallback_reason for e in plane.exposures(50)} == {"NotReady"}
            assert plane.state is not None
            assert (plane.state.breaker, plane.state.breaker_open_ms) == ("closed", 0)


def test_one_bad_answer_of_a_proven_server_changes_nothing_and_two_in_a_row_do(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, challenger):
        plane.put(probed(2, champion, challenger, PROBE))
        plane.until(lambda: challenger.asked >= 2)
        challenger.health = "500"
        asked = challenger.asked
        plane.until(lambda: challenger.asked > asked)
        assert plane.poll()["servers_not_ready"] == 0
        until_not_ready(plane, 1)
        assert challenger.asked >= asked + 2


def test_an_example_is_posted_as_it_is_and_a_path_alone_is_got(tmp_path: Path) -> None:
    with Model("champion") as champion, Model("challenger") as challenger:
        probe = {"path": "/invocations", "body": '{"inputs": [[7]]}'}
        with running(tmp_path, probed(1, champion, challenger, probe, weight_bp=0)) as plane:
            plane.until(lambda: challenger.count >= 1)
            request = challenger.requests[0]
            assert request.line == b"POST /invocations HTTP/1.1"
            assert request.body == b'{"inputs": [[7]]}'
            assert request.values(b"content-type") == [b"application/json"]
            assert request.values(b"host") == [challenger.address.encode()]
            assert plane.lines()[1:] == [line for line in plane.lines()[1:] if line["type"] == "mark"]


def test_a_challenger_that_is_not_ready_is_not_mirrored_to(tmp_path: Path) -> None:
    with Model("champion") as champion, Model("challenger") as challenger:
        challenger.health = "500"
        mirror = {"weight_bp": 0, "mirror_bp": 10_000, "control_from_bp": 5_000}
        with running(tmp_path, probed(1, champion, challenger, PROBE, **mirror)) as plane:
            until_not_ready(plane, 1)
            assert ask(plane.port, post("u")).status == 200
            (exposure,) = plane.exposures(1)
            assert not exposure.mirrored
            assert plane.poll()["mirror_dropped_total"] == 1
            assert challenger.count == 0


def test_of_several_servers_those_that_are_ready_are_used(tmp_path: Path) -> None:
    with Model("champion") as champion, Model("challenger") as one, Model("challenger") as two:
        one.health = "500"
        made = probed(1, champion, one, PROBE)
        made["challenger"] = {"version": "2", "upstreams": [one.address, two.address], "probe": PROBE}
        with running(tmp_path, made) as plane:
            until_not_ready(plane, 1)
            run(plane.port, lambda n: post(f"u{n}"), 60)
            assert (one.count, two.count) == (0, 60)
            one.health = "good"
            until_not_ready(plane, 0)
            run(plane.port, lambda n: post(f"u{n}"), 60)
            assert one.count > 0


def test_a_champion_that_is_not_ready_serves_all_the_same(tmp_path: Path) -> None:
    with Model("champion") as champion:
        champion.health = "500"
        made = table(1, champion.address)
        made["champion"]["probe"] = PROBE
        with running(tmp_path, made) as plane:
            until_not_ready(plane, 1)
            assert ask(plane.port, post("u")).status == 200


def test_a_table_that_asks_no_more_believes_the_server_again(tmp_path: Path) -> None:
    with serving(tmp_path, weight_bp=10_000) as (plane, champion, challenger):
        challenger.health = "500"
        plane.put(probed(2, champion, challenger, PROBE))
        until_not_ready(plane, 1)
        plane.put(table(3, champion.address, challenger.address, weight_bp=10_000))
        assert b"challenger" in ask(plane.port, post("u")).body
        assert plane.poll()["servers_not_ready"] == 0
