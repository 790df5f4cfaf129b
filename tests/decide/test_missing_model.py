"""A model that the registry does not have is its own reason, and no failure of the registry."""

from controller.edges.memory import MemoryNotifier, MemoryRegistry, MemorySource, MemoryStore, MemoryTraffic
from controller.edges.memory import MemoryWorkloads as Workloads
from controller.errors import EdgeError
from controller.loop import Loop
from controller.ports import ResolvedVersion
from controller.status import Reason, RolloutStatus
from tests.decide.rollouts import rollout


class Unreachable(MemoryRegistry):
    """A registry that does not answer."""

    def resolve(self, model: str, reference: str) -> ResolvedVersion | None:
        raise EdgeError("the registry does not answer")


def ticked(registry: MemoryRegistry) -> RolloutStatus:
    """The rollout of model flight-delay after two ticks."""
    store = MemoryStore()
    loop = Loop(store, MemorySource(), MemoryTraffic(), Workloads(), registry, MemoryNotifier())
    store.put(rollout())
    for now in (1_000_000, 2_000_000):
        loop.tick("late", now)
    return store.load("late").status


def test_a_model_that_does_not_exist_is_told_by_its_name() -> None:
    status = ticked(MemoryRegistry())
    assert (status.reason, status.attempt) == (Reason.MODEL_MISSING, None)
    assert "model 'flight-delay' is not registered" in status.message


def test_an_alias_that_does_not_exist_is_told_by_its_name() -> None:
    registry = MemoryRegistry()
    registry.register("flight-delay", ["1"])
    status = ticked(registry)
    assert (status.reason, status.attempt) == (Reason.VERSION_MISSING, None)
    assert "no version or alias 'champion'" in status.message


def test_a_registry_that_does_not_answer_is_unavailable() -> None:
    assert ticked(Unreachable()).reason is Reason.REGISTRY_UNAVAILABLE
