"""Between the loop and its ports: what can go wrong at a call goes wrong here, and every call is witnessed."""

from collections.abc import Callable
from typing import TypeVar

from controller.core.cells import StatisticsQuery
from controller.core.fold import Statistics
from controller.core.record import Record
from controller.core.serving import Served
from controller.errors import EdgeError
from controller.loop import Loop
from controller.ports import ResolvedVersion, ServerObservation, Stored, TickEntry, TrafficObservation
from controller.spec import ModelRollout
from controller.status import Notice, PersonRequest, RolloutStatus
from router.assignment import Arm
from router.table import RouteTable
from tests.sim.faults import CrashNow, Fault
from tests.sim.safety import Safety
from tests.sim.world import World

T = TypeVar("T")
FAILS = 0.006
CRASHES = 0.0012
STALES = 0.03
REMEMBERED = 8


class Wires:
    """One controller's connections; a new controller gets new ones."""

    def __init__(self, world: World, safety: Safety) -> None:
        self.world, self.safety = world, safety

    def loop(self) -> Loop:
        """A loop without any memory of its own."""
        return Loop(_Store(self), _Source(self), _Traffic(self), _Workloads(self), _Registry(self), _Notifier(self))

    def call(self, name: str, act: Callable[[], T], stale: Fault | None = None) -> T:
        """``act``, unless the controller dies around it, the edge fails around it, or an old answer is given."""
        faults = self.world.faults
        self._dies()
        if faults.fires(Fault.FAIL_BEFORE, FAILS):
            self.safety.failed(name, done=False)
            raise EdgeError(f"{name}: did nothing")
        if name.startswith("registry.") and self.world.true < self.world.registry_away_until:
            raise EdgeError(f"{name}: the registry is away")
        result = act()
        if stale is not None:
            result = self._stale(name, result, stale)
        if faults.fires(Fault.FAIL_AFTER, FAILS):
            self.safety.failed(name, done=True)
            raise EdgeError(f"{name}: did it, but says it failed")
        self._dies()
        return result

    def _stale(self, name: str, result: T, fault: Fault) -> T:
        earlier = self.world.answers.setdefault(name, [])
        old = bool(earlier) and self.world.faults.fires(fault, STALES)
        said = self.world.rng.choice(earlier) if old else result
        if old and said != result:
            self.world.misled.add(name)
        earlier.append(result)
        del earlier[:-REMEMBERED]
        return said

    def _dies(self) -> None:
        if self.world.faults.fires(Fault.CRASH, CRASHES):
            raise CrashNow


class _Store:
    """Requests that were handled are shown again, as a store may that forgets them later."""

    def __init__(self, wires: Wires) -> None:
        self._w = wires

    def keys(self) -> list[str]:
        return self._w.call("store.keys", self._w.world.store.keys)

    def load(self, key: str) -> Stored:
        return self._w.call("store.load", lambda: self._load(key), Fault.STALE_STORE)

    def commit(self, key: str, status: RolloutStatus, version: str, record: Record | None) -> str:
        return self._w.call("store.commit", lambda: self._commit(key, status, version, record))

    def submit(self, key: str, request: PersonRequest) -> None:
        self._w.call("store.submit", lambda: self._w.world.store.submit(key, request))

    def _load(self, key: str) -> Stored:
        stored = self._w.world.store.load(key)
        return stored._replace(requests=tuple(self._w.world.asked))

    def _commit(self, key: str, status: RolloutStatus, version: str, record: Record | None) -> str:
        before = self._w.world.store.load(key)
        said = self._w.world.store.commit(key, status, version, record)
        self._w.safety.committed(before, status, record)
        return said


class _Source:
    def __init__(self, wires: Wires) -> None:
        self._w = wires

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        world = self._w.world
        world.statistics = None
        try:
            world.statistics = self._w.call("source.read", lambda: world.source.read(query, now))
        except ValueError as error:  # which the loop takes for another life's statistics; here there is one life
            raise AssertionError(f"the source contradicts the status: {error}") from error
        return world.statistics


class _Traffic:
    def __init__(self, wires: Wires) -> None:
        self._w = wires

    def apply(self, table: RouteTable) -> None:
        self._w.safety.applies(table)
        self._w.call("traffic.apply", lambda: self._w.world.traffic.apply(table))

    def observe(self) -> TrafficObservation:
        return self._w.call("traffic.observe", self._w.world.traffic.observe, Fault.STALE_TRAFFIC)


class _Workloads:
    def __init__(self, wires: Wires) -> None:
        self._w = wires

    def ensure(self, arm: Arm, version: str | None) -> None:
        self._w.call(f"workloads.ensure {arm}", lambda: self._w.world.workloads.ensure(arm, version))

    def serving(self, served: Served) -> tuple[str, ...]:
        return self._w.call("workloads.serving", lambda: self._w.world.workloads.serving(served))

    def observe(self, arm: Arm) -> ServerObservation:
        world = self._w.world
        return self._w.call(f"workloads.observe {arm}", lambda: world.workloads.observe(arm), Fault.STALE_SERVERS)


class _Registry:
    def __init__(self, wires: Wires) -> None:
        self._w = wires

    def resolve(self, model: str, reference: str) -> ResolvedVersion | None:
        registry = self._w.world.registry
        name = f"registry.resolve {reference}"
        found = self._w.call(name, lambda: registry.resolve(model, reference), Fault.STALE_REGISTRY)
        self._w.safety.resolved(reference, found)
        return found

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self._w.safety.moves(alias, version)
        self._w.call("registry.set_alias", lambda: self._w.world.registry.set_alias(model, alias, version))
        self._w.safety.moved()

    def delete_alias(self, model: str, alias: str, version: str) -> None:
        self._w.safety.moves(alias, None)
        registry = self._w.world.registry
        self._w.call("registry.delete_alias", lambda: registry.delete_alias(model, alias, version))
        self._w.safety.moved()

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        return self._w.call("registry.log", lambda: self._w.world.registry.log(rollout, entry))


class _Notifier:
    def __init__(self, wires: Wires) -> None:
        self._w = wires

    def send(self, notice: Notice) -> None:
        self._w.safety.sends(notice)
        self._w.call("notifier.send", lambda: self._w.world.notifier.send(notice))
