"""Everything outside the controller in one run: edges, users, people, and time.

``true`` is the time that everybody but the controller lives by; the controller's clock is ``true + offset``.
"""

import random
from typing import Any

from controller.core.fold import Statistics
from controller.edges.memory import (
    MemoryNotifier,
    MemoryRegistry,
    MemorySource,
    MemoryStore,
    MemoryTraffic,
    MemoryWorkloads,
)
from controller.spec import ModelRollout
from controller.status import PersonRequest, RolloutStatus
from tests.sim.crowd import Crowd
from tests.sim.faults import Fault, Faults
from tests.sim.plan import KEY, MODEL, SECOND, draw_rollout, draw_truth

START = 1_760_000_000_000_000
VERSIONS = ("1", "2", "3", "4")
LONGEST_JUMP = 25


class World:
    """One run's world, drawn from its seed."""

    def __init__(
        self, rng: random.Random, allowed: frozenset[Fault], truth: str | None = None, store: Any = None
    ) -> None:
        """``truth``: the name of the one to draw; None: any. ``store``: an empty one; None: in memory."""
        self.rng = rng
        self.true, self.offset = START, 0
        self.truth = draw_truth(rng, truth)
        self.same_version = self.truth.name == "same" and rng.random() < 0.12
        rollout = draw_rollout(rng, self.same_version)
        self.faults = Faults(rng, allowed)
        self.store = MemoryStore() if store is None else store
        self.store.put(rollout, uid=f"uid-{rng.randrange(10**6)}")
        self.source = MemorySource()
        self.traffic = MemoryTraffic(routers=rng.choice((1, 2)), workers=rng.choice((1, 2)))
        self.workloads = MemoryWorkloads(start=rng.choice((0, 3 * SECOND)))
        self.registry = MemoryRegistry()
        self.registry.register(MODEL, VERSIONS)
        self.registry.move(MODEL, "champion", "1", "owner")
        self.registry.move(MODEL, "challenger", "1" if self.same_version else "2", "owner")
        self.notifier = MemoryNotifier()
        self.crowd = Crowd(rng, self.truth, self.traffic, self.source, self.faults)
        self.statistics: Statistics | None = None  # what the loop read in this tick
        self.answers: dict[str, list[Any]] = {}  # earlier answers, for stale reads
        self.misled: set[str] = set()  # calls of this tick that got an answer which is no longer true
        self.asked: list[PersonRequest] = []
        self.crashes = 0
        self.jumped = 0  # µs by which the controller's clock has lied, in sum
        self.backward = 0  # µs that it jumped back, in sum
        self.edits = 0
        self.registry_away_until = 0
        self._unreachable_until = self._down_until = 0
        # The champion serves already; the challenger's server has yet to start.
        self.workloads.advance(self.true - 60 * SECOND)
        self.workloads.ensure("champion", "1")
        self.workloads.advance(self.true)

    @property
    def now(self) -> int:
        """The controller's clock."""
        return self.true + self.offset

    @property
    def rollout(self) -> ModelRollout:
        return self.store.load(KEY).rollout

    @property
    def status(self) -> RolloutStatus:
        """The committed status."""
        return self.store.load(KEY).status

    def pass_time(self, duration: int) -> None:
        """Let ``duration`` µs pass, with what users do and routers take over meanwhile."""
        for part in (duration // 2, duration - duration // 2):
            since, self.true = self.true, self.true + part
            self._mishaps()
            self.traffic.advance(self.true)
            self.workloads.advance(self.true)
            self.crowd.live(since, self.true)
            self.crowd.deliver(self.true)

    def heal(self) -> None:
        """No more faults; what was broken works again."""
        self.faults.heal()
        self.answers.clear()
        self.registry_away_until = 0
        self.workloads.servers["challenger"].broken = False
        for router in self.traffic.routers:
            router.reachable = True
            for worker in router.workers:
                worker.lag = 0
                worker.waiting = [(self.true, table) for _, table in worker.waiting]

    def _mishaps(self) -> None:
        faults, rng = self.faults, self.rng
        router = rng.choice(self.traffic.routers)
        if faults.fires(Fault.RESTART, 0.012):
            router.restart(rng.randrange(len(router.workers)), self.true + rng.choice((0, 1, 3)) * SECOND)
        worker = rng.choice(router.workers)
        if faults.fires(Fault.SLOW, 0.03):
            worker.lag = rng.choice((1, 4, 14, 40)) * SECOND
        elif rng.random() < 0.03:
            worker.lag = 0
        if faults.fires(Fault.UNREACHABLE, 0.015):
            router.reachable = False
            self._unreachable_until = self.true + rng.choice((2, 6, 15, 30)) * SECOND
        if self.true >= self._unreachable_until:
            for each in self.traffic.routers:
                each.reachable = True
        if faults.fires(Fault.REGISTRY_AWAY, 0.02):
            self.registry_away_until = self.true + rng.choice((2, 5, 20)) * SECOND
        if faults.fires(Fault.SERVER_DOWN, 0.01):
            self._down_until = self.true + rng.choice((3, 10)) * SECOND
        self.workloads.servers["challenger"].broken = self.true < self._down_until and not faults.healed
        for fault, sign in ((Fault.CLOCK_FORWARD, 1), (Fault.CLOCK_BACKWARD, -1)):
            if faults.fires(fault, 0.012):
                jump = rng.randint(1, LONGEST_JUMP) * SECOND
                self.offset += sign * jump
                self.jumped += jump
                self.backward += jump if sign < 0 else 0
