"""What a client gets, and what the journal says, where the challenger does not answer usably."""

import json
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from tests.router.load import run
from tests.router.models import Model
from tests.router.planes import running, serving, table
from tests.router.raw import Raw, ask, await_until, post

ALL = {"weight_bp": 10_000, "limits": {"challenger_timeout_ms": 400}}
# Way to misbehave → reason of the fallback, and status of the first attempt.
WAYS = {
    "500": ("Status", 500),
    "400": ("Status", 400),
    "garbage": ("Unusable", 200),
    "nan": ("Unusable", 200),
    "infinity": ("Unusable", 200),
    "rows": ("Unusable", 200),
    "empty": ("Unusable", 200),
    "hang": ("Timeout", 0),
    "slow": ("Timeout", 0),
    "cut": ("Error", 200),
    "gone": ("Error", 0),
    "reset": ("Error", 0),
    "twice": ("Unusable", 200),
}


@pytest.mark.parametrize("mode", WAYS)
def test_the_champion_answers_in_the_same_request(tmp_path: Path, mode: str) -> None:
    reason, status = WAYS[mode]
    with serving(tmp_path, mode, **ALL) as (plane, champion, challenger):
        answer = ask(plane.port, post("u", b'{"inputs": [[1], [2]]}', "X-Request-Id: mine"))
        assert (answer.status, json.loads(answer.body)) == (200, {"predictions": [0.5, 0.5], "arm": "champion"})
        (exposure,) = plane.exposures(1)
        assert (exposure.arm, exposure.evidence, exposure.usable) == ("challenger", True, False)
        assert (exposure.served_by, exposure.version) == ("champion", "1")
        assert (exposure.fallback_reason, exposure.status) == (reason, status)
        assert (exposure.answer_status, exposure.attempts) == (200, 2)
        # An answer that cannot be used is no faster than the deadline.
        assert exposure.latency_us >= 400_000
        assert plane.poll()[f'fallbacks_total{{reason="{reason}"}}'] == 1
        # Both saw the same request, under the same id.
        (first,), (second,) = challenger.requests, champion.requests
        assert first.values(b"x-request-id") == second.values(b"x-request-id") == [b"mine"]
        assert first.body == second.body


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])  # of which the second is looked up, and looked up again
def test_a_challenger_that_nobody_listens_for_is_stood_in_for(tmp_path: Path, host: str) -> None:
    with socket.socket() as reserved, Model("champion") as champion:
        reserved.bind(("127.0.0.1", 0))
        nobody = f"{host}:{reserved.getsockname()[1]}"
        with running(tmp_path, table(1, champion.address, nobody, weight_bp=10_000)) as plane:
            assert ask(plane.port, post("u")).status == 200
            (exposure,) = plane.exposures(1)
            assert (exposure.fallback_reason, exposure.status) == ("Error", 0)


@pytest.mark.parametrize(
    ("mode", "status"),
    [("500", 500), ("nan", 200), ("hang", 504), ("cut", 502), ("gone", 502)],
)
def test_where_requests_must_not_be_repeated_the_failure_passes_on(tmp_path: Path, mode: str, status: int) -> None:
    with serving(tmp_path, mode, replay_to_champion=False, **ALL) as (plane, champion, _):
        assert ask(plane.port, post("u")).status == status
        assert champion.count == 0
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.served_by, exposure.version) == (False, "challenger", "2")
        assert (exposure.fallback_reason, exposure.answer_status, exposure.attempts) == (None, status, 1)


def test_a_request_that_was_never_sent_goes_to_the_champion_even_where_none_may_be_repeated(tmp_path: Path) -> None:
    with socket.socket() as reserved, Model("champion") as champion:
        reserved.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{reserved.getsockname()[1]}"
        first = table(1, champion.address, nobody, weight_bp=10_000, replay_to_champion=False)
        with running(tmp_path, first) as plane:
            assert ask(plane.port, post("u")).status == 200


@pytest.mark.parametrize(("mode", "status"), [("500", 500), ("hang", 504), ("gone", 502), ("400", 400)])
def test_a_failing_champion_is_nobodys_to_replace(tmp_path: Path, mode: str, status: int) -> None:
    limits = {"limits": {"challenger_timeout_ms": 300, "champion_timeout_ms": 300}}
    with serving(tmp_path, **limits) as (plane, champion, challenger):
        champion.mode = mode
        assert ask(plane.port, post("u")).status == status
        assert challenger.count == 0
        (exposure,) = plane.exposures(1)
        assert (exposure.arm, exposure.usable, exposure.answer_status) == ("champion", False, status)


@pytest.mark.parametrize("mode", ["nan", "garbage", "empty"])
def test_a_champions_answer_is_passed_on_as_it_is_but_recorded_for_what_it_is(tmp_path: Path, mode: str) -> None:
    with serving(tmp_path) as (plane, champion, _):
        champion.mode = mode
        assert ask(plane.port, post("u")).status == 200
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.unjudged, exposure.status) == (False, False, 200)


def test_both_arms_failing_shows_the_champions_failure(tmp_path: Path) -> None:
    with serving(tmp_path, "500", **ALL) as (plane, champion, _):
        champion.mode = "400"
        assert ask(plane.port, post("u")).status == 400
        (exposure,) = plane.exposures(1)
        assert (exposure.status, exposure.answer_status) == (500, 400)


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_a_connection_that_the_server_was_tired_of_costs_nothing(tmp_path: Path, arm: str) -> None:
    """One that was idle for long enough: the server has closed it, and has read nothing."""
    weight: dict[str, Any] = {"weight_bp": 10_000 if arm == "challenger" else 0, "upstream_fresh_s": 0}
    with serving(tmp_path, **weight) as (plane, champion, challenger), Raw(plane.port) as raw:
        server = champion if arm == "champion" else challenger
        raw.send(post("u"))
        assert json.loads(raw.answer().body)["arm"] == arm
        server.mode = "gone_once"
        raw.send(post("u"))
        assert json.loads(raw.answer().body)["arm"] == arm
        assert [(e.served_by, e.usable, e.attempts) for e in plane.exposures(2)] == [(arm, True, 1)] * 2
        assert plane.poll()["retries_total"] == 1


def test_a_server_that_closes_without_a_word_fails_no_request(tmp_path: Path) -> None:
    for arm in ("champion", "challenger"):
        weight: dict[str, Any] = {"weight_bp": 10_000 if arm == "challenger" else 0}
        with serving(tmp_path / arm, **weight) as (plane, champion, challenger), Raw(plane.port) as raw:
            (champion if arm == "champion" else challenger).mode = "once"
            for _ in range(100):
                raw.send(post("u"))
                assert raw.answer().status == 200
            assert len(plane.exposures(100)) == 100


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_a_request_that_was_dropped_on_a_connection_in_use_counts_against_its_arm(tmp_path: Path, arm: str) -> None:
    """A worker that crashes behind a kept connection says as little as one that was tired of it."""
    weight: dict[str, Any] = {"weight_bp": 10_000 if arm == "challenger" else 0}
    with serving(tmp_path, **weight) as (plane, champion, challenger), Raw(plane.port) as raw:
        server = champion if arm == "champion" else challenger
        for _ in range(10):
            raw.send(post("u"))
            assert raw.answer().status == 200
            server.mode = "gone_once"
            raw.send(post("u"))
            answer = raw.answer()
            assert (answer.status, json.loads(answer.body)["arm"]) == (200, "champion")
        found = plane.exposures(20)
        assert [e.usable for e in found] == [True, False] * 10
        failed = found[1]
        assert (failed.arm, failed.status, failed.served_by, failed.attempts) == (arm, 0, "champion", 2)
        assert failed.fallback_reason == ("Error" if arm == "challenger" else None)
        assert plane.poll()[f'unusable_total{{arm="{arm}"}}'] == 10


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_it_counts_as_much_where_the_arm_has_little_traffic(tmp_path: Path, arm: str) -> None:
    """A challenger's connections are idle for seconds where it has one request in a hundred."""
    weight: dict[str, Any] = {"weight_bp": 10_000 if arm == "challenger" else 0}
    with serving(tmp_path, **weight) as (plane, champion, challenger), Raw(plane.port) as raw:
        raw.send(post("u"))
        assert raw.answer().status == 200
        since = time.monotonic()
        await_until(lambda: time.monotonic() - since > 2)
        (champion if arm == "champion" else challenger).mode = "gone_once"
        raw.send(post("u"))
        assert raw.answer().status == 200
        assert [(e.usable, e.arm, e.served_by) for e in plane.exposures(2)] == [
            (True, arm, arm), (False, arm, "champion")
        ]  # fmt: skip


def test_an_answer_that_nobody_asked_for_never_reaches_anybody(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _):
        champion.mode = "second"
        for got in run(plane.port, lambda n: post(f"u{n}"), 200):
            assert (got.status, got.arm()) == (200, "champion")


def test_a_challenger_of_two_addresses_goes_on_where_one_is_gone(tmp_path: Path) -> None:
    with socket.socket() as reserved, Model("champion") as champion, Model("challenger") as challenger:
        reserved.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{reserved.getsockname()[1]}"
        first = table(1, champion.address, weight_bp=10_000)
        first["challenger"] = {"version": "2", "upstreams": [nobody, challenger.address]}
        with running(tmp_path, first) as plane:
            got = run(plane.port, lambda n: post(f"u{n}"), 60)
            assert {g.arm() for g in got} == {"challenger"}


def test_requests_are_shared_among_the_addresses_of_an_arm(tmp_path: Path) -> None:
    with Model("champion") as one, Model("champion") as two:
        first = table(1, one.address)
        first["champion"]["upstreams"].append(two.address)
        with running(tmp_path, first) as plane:
            run(plane.port, lambda n: post(f"u{n}"), 200)
            assert one.count + two.count == 200
            assert min(one.count, two.count) >= 60
