"""A store that was restored from a backup is older than what the routers serve: its tables count all the same."""

import copy

from controller.edges.memory import MemoryNotifier, MemoryRegistry, MemorySource, MemoryStore, MemoryTraffic
from controller.edges.memory import MemoryWorkloads as Workloads
from controller.loop import Loop
from controller.status import PersonRequest, Progress
from tests.decide.rollouts import rollout

TICK = 5_000_000


def test_an_abort_after_a_restore_is_confirmed_only_when_the_routers_serve_it() -> None:
    registry, store, traffic = MemoryRegistry(), MemoryStore(), MemoryTraffic(routers=2)
    registry.register("flight-delay", ["1", "2"])
    registry.move("flight-delay", "champion", "1", "owner")
    registry.move("flight-delay", "challenger", "2", "owner")
    store.put(rollout())

    def ticked(held: MemoryStore, first: int, last: int) -> None:
        loop = Loop(held, MemorySource(), traffic, Workloads(), registry, MemoryNotifier())
        for tick in range(first, last):
            loop.tick("late", tick * TICK)

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
