"""Route tables are swapped under load: nothing is lost, and a confirmed table rules at once."""

from pathlib import Path

from router.assignment import POINTS, assign
from router.telemetry import METRICS, sample
from tests.router.load import loaded
from tests.router.models import Model
from tests.router.planes import running, serving, table
from tests.router.raw import Raw, post

SWAPS = 250


def test_swaps_under_load_lose_no_request_and_route_none_by_an_older_table(tmp_path: Path) -> None:
    with Model("champion") as champion, Model("challenger") as challenger:
        tables = [table(n, champion.address, challenger.address, weight_bp=10_000 * (n % 2)) for n in range(SWAPS + 1)]
        with running(tmp_path, tables[0]) as plane, loaded(plane.port, lambda n: post(f"l{n}"), 6) as load:
            with Raw(plane.port) as raw:
                for new in tables[1:]:
                    plane.put(new)
                    raw.send(post("own"))
                    answer = raw.answer()
                    wanted = b"challenger" if new["weight_bp"] else b"champion"
                    assert wanted in answer.body, f"generation {new['generation']} was confirmed"
            load.stop()
            assert load.failed == []
            assert len(load.got) > SWAPS
            assert {g.status for g in load.got} == {200}
            found = plane.exposures(len(load.got) + SWAPS, 20)
            for exposure in found:
                assert exposure.arm == ("challenger" if exposure.generation % 2 else "champion")
                assert exposure.served_by == exposure.arm


def test_connections_to_unchanged_servers_survive_a_swap_and_others_are_let_go(tmp_path: Path) -> None:
    with (
        Model("champion") as one,
        Model("champion") as two,
        Model("challenger") as challenger,
        running(tmp_path, table(1, one.address, challenger.address)) as plane,
        Raw(plane.port) as raw,
    ):
        for generation in range(2, 12):
            raw.send(post("u"))
            raw.answer()
            plane.put(table(generation, one.address, challenger.address, weight_bp=generation))
        assert one.connections == 1
        plane.put(table(20, two.address, challenger.address))
        raw.send(post("u"))
        raw.answer()
        assert two.connections == 1
        plane.until(lambda: plane.poll()["upstream_connections"] == 1)


def test_an_older_table_is_refused_and_a_repeated_one_changes_nothing(tmp_path: Path) -> None:
    with serving(tmp_path, weight_bp=10_000) as (plane, champion, challenger), Raw(plane.port) as raw:
        plane.put(table(5, champion.address, challenger.address, weight_bp=10_000))
        plane.send({"type": "table", "table": table(4, champion.address)})
        plane.send({"type": "table", "table": table(5, champion.address, challenger.address, weight_bp=10_000)})
        plane.send({"type": "table", "table": {"generation": 6}})
        plane.send({"type": "table", "table": table(7, "no address at all")})
        counters = plane.poll()
        raw.send(post("u"))
        assert b"challenger" in raw.answer().body
        assert counters["tables_total"] == 2
        assert plane.state is not None
        assert plane.state.generation == 5


def test_a_channel_that_talks_nonsense_does_not_disturb_the_traffic(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _), Raw(plane.port) as raw:
        for nonsense in ({"type": "sing"}, {"no": "type"}, {"type": "heard", "t": "noon"}):
            plane.send(nonsense)
        raw.send(post("u"))
        assert raw.answer().status == 200
        assert plane.poll()['requests_total{arm="champion"}'] == 1


def test_the_assignment_of_a_request_under_way_is_not_changed_by_a_new_table(tmp_path: Path) -> None:
    with serving(tmp_path, "hang", weight_bp=10_000) as (plane, champion, challenger), Raw(plane.port) as raw:
        raw.send(post("u"))
        plane.until(lambda: plane.poll()["upstream_connections"] == 1)
        plane.put(table(2, champion.address))
        challenger.release()
        assert b"challenger" in raw.answer().body
        (exposure,) = plane.exposures(1)
        assert (exposure.generation, exposure.arm) == (1, assign("s/1", "u", 10_000, POINTS).arm)


def test_a_drain_answers_what_is_under_way_and_leaves_the_journal_complete(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as busy, Raw(plane.port) as idle:
        champion.mode = "hang"
        busy.send(post("u"))
        idle.send(b"")
        plane.until(lambda: plane.poll()["upstream_connections"] == 1)
        plane.send({"type": "drain"})
        plane.poll()
        champion.release()
        answer = busy.answer()
        assert answer.status == 200
        # An idle client may just have sent its next request: it is still answered, and told to go.
        idle.send(post("v"))
        answer = idle.answer()
        assert (answer.status, answer.closes) == (200, True)
        assert busy.ended()
        assert plane.process.wait(10) == 0
        assert len(plane.exposures(2)) == 2
        assert plane.lines()[-1]["closed"] is True


def test_a_worker_ends_when_its_supervisor_is_gone(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _):
        plane._channel.shutdown(2)
        assert plane.process.wait(10) == 0
        assert plane.lines()[-1]["closed"] is True


def test_every_number_that_a_worker_tells_is_a_metric(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _):
        for named in plane.poll():
            assert sample(named, 0).name in METRICS
