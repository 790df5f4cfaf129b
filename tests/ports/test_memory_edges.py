"""The ports in memory keep the same promises as those that talk to the world."""

from collections.abc import Callable

import pytest

from controller.edges.memory import MemoryNotifier, MemoryRegistry, MemoryStore, MemoryTraffic
from controller.errors import EdgeError
from tests.ports.contracts.notifier import NotifierContract
from tests.ports.contracts.registry import RegistryContract, RegistryWorld
from tests.ports.contracts.store import StoreContract
from tests.ports.contracts.traffic import TrafficContract, table


class TestMemoryStore(StoreContract):
    @pytest.fixture
    def store(self) -> MemoryStore:
        return MemoryStore()


class TestMemoryNotifier(NotifierContract):
    @pytest.fixture
    def notifier(self) -> MemoryNotifier:
        return MemoryNotifier()

    @pytest.fixture
    def received(self, notifier: MemoryNotifier) -> Callable[[], list[str]]:
        return lambda: [f"{n.title}\n{n.text}" for sent in notifier.sent.values() for n in sent]


class TestMemoryTraffic(TrafficContract):
    @pytest.fixture
    def provider(self) -> MemoryTraffic:
        return MemoryTraffic(routers=2, workers=2)

    @pytest.fixture
    def confirmed_within(self, provider: MemoryTraffic) -> Callable[[int, float], object]:
        return lambda generation, seconds: provider.advance(provider.now + int(seconds * 1e6))

    def test_a_table_is_confirmed_only_when_the_slowest_worker_uses_it(self, provider: MemoryTraffic) -> None:
        provider.routers[1].workers[0].lag = 5_000_000
        provider.apply(table(3))
        assert provider.observe().confirmed == -1
        provider.advance(4_999_999)
        assert provider.observe().confirmed == -1
        provider.advance(5_000_000)
        assert provider.observe().confirmed == 3

    def test_a_worker_that_comes_back_serves_nothing_before_the_table_its_router_holds(
        self, provider: MemoryTraffic
    ) -> None:
        provider.apply(table(3))
        provider.routers[0].restart(0, at=1_000_000)
        assert provider.observe().confirmed == -1
        assert provider.weights() == [0, 500, 500, 500]
        provider.advance(1_000_000)
        assert provider.observe().confirmed == 3

    def test_a_router_that_cannot_be_reached_makes_the_picture_incomplete(self, provider: MemoryTraffic) -> None:
        provider.routers[0].reachable = False
        with pytest.raises(EdgeError, match="r0"):
            provider.apply(table(3))
        assert not provider.observe().complete
        assert provider.observe().confirmed == -1
        assert provider.weights() == [0, 0, 500, 500]


class TestMemoryRegistry(RegistryContract):
    @pytest.fixture
    def world(self) -> RegistryWorld:
        registry = MemoryRegistry()
        known: dict[str, list[str]] = {}

        def add(model: str, signed: bool) -> str:
            version = str(len(known.setdefault(model, [])) + 1)
            known[model].append(version)
            registry.register(model, [version], signed)
            return version

        def aliases(model: str) -> dict[str, str]:
            named = {alias: registry.alias(model, alias) for alias in ("champion", "challenger")}
            return {alias: version for alias, version in named.items() if version is not None}

        return RegistryWorld(registry, "m", add, lambda m, a, v: registry.move(m, a, v, "person"), aliases)

    def test_every_real_move_is_remembered_with_who_made_it(self, world: RegistryWorld) -> None:
        first, second = world.add_version("m", True), world.add_version("m", True)
        world.point("m", "champion", first)
        for _ in range(2):
            world.registry.set_alias("m", "champion", second)
        world.registry.delete_alias("m", "champion", second)
        assert isinstance(world.registry, MemoryRegistry)
        assert [(m.was, m.version, m.who) for m in world.registry.moves] == [
            (None, first, "person"),
            (first, second, "controller"),
            (second, None, "controller"),
        ]
