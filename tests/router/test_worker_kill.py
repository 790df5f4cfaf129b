"""A challenger that dies, hangs or lies under load costs no user an answer."""

from pathlib import Path

import pytest

from tests.router.load import Load, run
from tests.router.models import Model, ModelProcess
from tests.router.planes import running, serving, table
from tests.router.raw import await_until, post

REQUESTS = 20_000


def test_killing_the_challenger_under_load_fails_no_request(tmp_path: Path) -> None:
    with ModelProcess("champion") as champion, ModelProcess("challenger") as challenger:
        first = table(1, champion.address, challenger.address, weight_bp=5_000)
        with running(tmp_path, first) as plane:
            load = Load(plane.port, lambda n: post(f"u{n}"), 16, REQUESTS)
            load.start()
            await_until(lambda: len(load.got) > REQUESTS / 4, 60, "a quarter of the load")
            challenger.kill()
            load.join()
            assert load.failed == []
            assert len(load.got) == REQUESTS
            assert {g.status for g in load.got} == {200}
            arms = [g.arm() for g in sorted(load.got)]
            assert arms[: REQUESTS // 8].count("challenger") > REQUESTS / 20
            assert arms[-1_000:].count("challenger") == 0
            # Every answer has its exposure.
            counters = plane.poll()
            found = plane.exposures(REQUESTS - int(counters["journal_dropped_total"]), 20)
            assert len(found) + counters["journal_dropped_total"] == REQUESTS
            assert {e.fallback_reason for e in found} >= {None, "Error", "BreakerOpen"}


@pytest.mark.parametrize("mode", ["hang", "garbage", "slow", "cut", "twice", "reset"])
def test_a_challenger_that_misbehaves_under_load_fails_no_request(tmp_path: Path, mode: str) -> None:
    limits = {"challenger_timeout_ms": 200}
    with serving(tmp_path, "good", weight_bp=5_000, limits=limits) as (plane, _, challenger):
        assert {g.status for g in run(plane.port, lambda n: post(f"u{n}"), 500, 16)} == {200}
        challenger.mode = mode
        got = run(plane.port, lambda n: post(f"u{n}"), 2_500, 16)
        assert {g.status for g in got} == {200}
        assert {g.arm() for g in got[-500:]} == {"champion"}
        assert plane.poll()["breaker_opened_total"] == 1


def test_a_hanging_challenger_leaves_the_champions_users_unharmed(tmp_path: Path) -> None:
    limits = {"challenger_timeout_ms": 60_000, "champion_timeout_ms": 60_000}
    config = {"challenger_connections": 8, "champion_connections": 8}
    with serving(tmp_path, "hang", weight_bp=5_000, limits=limits, **config) as (plane, _, challenger):
        load = Load(plane.port, lambda n: post(f"u{n}"), 32, 400)
        load.start()
        await_until(lambda: len(load.got) == 392, 30, "answers to all but those that hang")
        assert challenger.count == 8
        challenger.release()
        load.join()
        assert {g.status for g in load.got} == {200}
        assert plane.poll()['fallbacks_total{reason="Overload"}'] > 0


def test_a_champion_without_capacity_is_an_overload_and_the_router_stays_up(tmp_path: Path) -> None:
    with Model("champion", "hang") as champion:
        config = {"champion_connections": 4, "champion_queue": 4}
        with running(tmp_path, table(1, champion.address), **config) as plane:
            load = Load(plane.port, lambda n: post(f"u{n}"), 16, 16)
            load.start()
            await_until(lambda: len(load.got) == 8, 10, "eight refusals")
            assert {g.status for g in load.got} == {503}
            champion.release()
            load.join()
            assert sorted(g.status for g in load.got) == [200] * 8 + [503] * 8
            assert champion.most_open == 4
