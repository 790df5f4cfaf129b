"""Statistics that contradict the status (those of another life of the folder) hold a rollout; people still rule it."""

from controller.core.cells import StatisticsQuery
from controller.core.fold import Statistics
from controller.edges.memory import MemoryNotifier, MemoryRegistry, MemorySource, MemoryStore, MemoryTraffic
from controller.edges.memory import MemoryWorkloads as Workloads
from controller.loop import Loop
from controller.status import PersonRequest, Progress, Reason
from tests.decide.rollouts import rollout


class Contradicting(MemorySource):
    """A source that has judged something else before."""

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        raise ValueError("errors: its baseline was frozen and cannot be open again within the attempt")


def test_the_rollout_holds_and_an_abort_is_obeyed() -> None:
    registry, store = MemoryRegistry(), MemoryStore()
    registry.register("flight-delay", ["1", "2"])
    registry.move("flight-delay", "champion", "1", "owner")
    registry.move("flight-delay", "challenger", "2", "owner")
    loop = Loop(store, Contradicting(), MemoryTraffic(), Workloads(), registry, MemoryNotifier())
    store.put(rollout())
    for second in range(5, 300, 5):
        loop.tick("late", second * 1_000_000)
    status = store.load("late").status
    assert (status.progress, status.reason) == (Progress.RUNNING, Reason.STALE)
    store.submit("late", PersonRequest(id="1", verb="abort", who="ada", why="to see", at=1))
    for second in range(300, 330, 5):
        loop.tick("late", second * 1_000_000)
    assert store.load("late").status.progress is Progress.ROLLED_BACK
