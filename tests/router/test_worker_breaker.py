"""The breaker of a worker, from the first failure to the full share again."""

from pathlib import Path

from router.breaker import PROBES
from tests.router.load import run
from tests.router.planes import serving
from tests.router.raw import ask, post


def test_a_challenger_that_recovers_is_probed_and_then_given_a_growing_share(tmp_path: Path) -> None:
    with serving(tmp_path, "500", weight_bp=10_000) as (plane, _, challenger):
        assert {g.arm() for g in run(plane.port, lambda n: post(f"u{n}"), 30)} == {"champion"}
        assert plane.poll()["breaker_opened_total"] == 1
        challenger.mode = "good"
        failed = challenger.count

        def closed() -> bool:
            assert ask(plane.port, post("u")).status == 200
            plane.poll()
            return plane.state is not None and plane.state.breaker == "closed"

        plane.until(closed, 60)
        assert challenger.count - failed == PROBES
        assert plane.state is not None
        assert plane.state.breaker_open_ms >= 7_000
        # A tenth at first, all of it ten seconds later.
        got = run(plane.port, lambda n: post(f"u{n}"), 100, 1)
        assert {g.status for g in got} == {200}
        assert 5 <= [g.arm() for g in got].count("challenger") <= 60
        assert plane.poll()["breaker_opened_total"] == 1
