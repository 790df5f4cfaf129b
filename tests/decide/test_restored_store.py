"""A store that was restored from a backup is older than what the routers serve: its tables count all the same."""

import copy
from collections.abc import Callable

from controller.edges.memory import MemoryNotifier, MemoryRegistry, MemorySource, MemoryStore, MemoryTraffic
from controller.edges.memory import MemoryWorkloads as Workloads
from controller.loop import Loop
from controller.ports import TrafficObservation
from controller.status import PersonRequest, Progress
from router.table import LARGEST, RouterState, WorkerState
from tests.decide.rollouts import rollout

TICK = 5_000_000


def ticking(traffic: MemoryTraffic) -> tuple[MemoryStore, Callable[[MemoryStore, int, int], None]]:
    """A store with a rollout, and what makes the ticks from one number to before another with such a store."""
    registry, store = MemoryRegistry(), MemoryStore()
    registry.register("flight-delay", ["1", "2"])
    registry.move("flight-delay", "champion", "1", "owner")
    registry.move("flight-delay", "challenger", "2", "owner")
    store.put(rollout())

    def ticked(held: MemoryStore, first: int, last: int) -> None:
        loop = Loop(held, MemorySource(), traffic, Workloads(), registry, MemoryNotifier())
        for tick in range(first, last):
            loop.tick("late", tick * TICK)

    return store, ticked


def test_an_abort_after_a_restore_is_confirmed_only_when_the_routers_serve_it() -> None:
    traffic = MemoryTraffic(routers=2)
    store, ticked = ticking(traffic)
    ticked(store, 1, 4)
    backup = copy.deepcopy(store)
    for asked, (first, last) in enumerate([(4, 8), (8, 12)]):  # each makes a newer table
        changed = rollout(traffic={"router": {"tableTtl": f"{40 + asked}m"}})
        store.put(changed)
        ticked(store, first, last)
    newest = max(w.generation for r in traffic.routers for w in r.state.workers)
    before = backup.load("late").status
    assert before.table is not None
    assert before.table.generation < newest
    backup.submit("late", PersonRequest(id="1", verb="abort", who="ada", why="to see", at=1))
    ticked(backup, 12, 20)
    status = backup.load("late").status
    assert status.progress is Progress.ROLLED_BACK
    assert traffic.weights() == [0, 0]
    assert all(w.generation > newest for r in traffic.routers for w in r.state.workers)


class Lied(MemoryTraffic):
    """Beside the routers there is one that says it holds the newest table that there can be."""

    def observe(self) -> TrafficObservation:
        seen = super().observe()
        worker = WorkerState(worker="w0", generation=LARGEST)
        return seen._replace(routers=(RouterState(router="liar", generation=LARGEST, workers=(worker,)), *seen.routers))


def test_a_generation_after_which_there_is_no_next_one_is_not_believed() -> None:
    traffic = Lied(routers=2)
    store, ticked = ticking(traffic)
    ticked(store, 1, 6)
    status = store.load("late").status
    assert (status.observed.confirmed, status.observed.overtaken) == (-1, 0)
    assert status.table is not None
    assert status.table.generation < 10
    store.submit("late", PersonRequest(id="1", verb="abort", who="ada", why="to see", at=1))
    ticked(store, 6, 12)
    assert store.load("late").status.progress is Progress.ROLLED_BACK
    assert traffic.weights() == [0, 0]
    assert all(w.generation < 10 for r in traffic.routers for w in r.state.workers)


def test_beside_a_lie_a_router_that_holds_a_newer_table_is_believed() -> None:
    states = tuple(RouterState(router=f"{n}", generation=n, workers=()) for n in (9, 12, LARGEST))
    seen = TrafficObservation(states, complete=True)
    assert [seen.overtakes(ours) for ours in (0, 11, 12, LARGEST)] == [12, 12, 0, 0]
