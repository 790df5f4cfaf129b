"""Two real workers under a real supervisor: table changes and a rolling restart under load lose nothing."""

import signal
from pathlib import Path

from tests.router.load import loaded
from tests.router.models import Model
from tests.router.planes import table
from tests.router.raw import await_until, post
from tests.router.routers import started


def test_a_rolling_restart_and_table_changes_under_load_lose_no_request(tmp_path: Path) -> None:
    with (
        Model("champion") as champion,
        Model("challenger") as challenger,
        started(tmp_path, "real", workers=2) as router,
    ):
        first = table(1, champion.address, challenger.address, weight_bp=2_500)
        assert router.put(first).status_code == 200
        port = int(router.ready["traffic"].rpartition(":")[2])
        with loaded(port, lambda n: post(f"u{n}"), 16) as load:
            await_until(lambda: len(load.got) > 500, 20, "the load's beginning")
            for generation in range(2, 22):
                assert router.put(first | {"generation": generation}).status_code == 200
                assert router.generations() == [generation, generation]
            before = set(router.workers())
            router.process.send_signal(signal.SIGHUP)
            await_until(lambda: not before & set(router.workers()), 40, "the end of the old workers")
            sent = len(load.got)
            await_until(lambda: len(load.got) > sent + 500, 20, "some more load")
        assert load.failed == []
        assert {got.status for got in load.got} == {200}
        assert router.generations() == [21, 21]
