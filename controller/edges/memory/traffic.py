"""Routers in memory: a table reaches each worker after a delay, and only then does the worker confirm it."""

from typing import Literal

from controller.errors import Conflict, EdgeError
from controller.ports import TrafficObservation
from router.table import RouterState, RouteTable, WorkerState


class MemoryWorker:
    """One worker process of a router. ``waiting``: tables on their way, each with the time (µs) it arrives; ``lag``
    (µs): how long they take."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.table: RouteTable | None = None
        self.waiting: list[tuple[int, RouteTable]] = []
        self.lag = 0
        self.breaker: Literal["closed", "open", "half-open"] = "closed"
        self.breaker_open_ms = 0

    def move(self, now: int) -> None:
        """Take over what has arrived by ``now``; an older table than the one at work is not used."""
        arrived = [table for at, table in self.waiting if at <= now]
        self.waiting = [(at, table) for at, table in self.waiting if at > now]
        for table in arrived:
            if self.table is None or table.generation > self.table.generation:
                self.table = table

    @property
    def state(self) -> WorkerState:
        generation = self.table.generation if self.table else -1
        return WorkerState(
            worker=self.name, generation=generation, breaker=self.breaker, breaker_open_ms=self.breaker_open_ms
        )


class MemoryRouter:
    """One router: the table it holds (its disk), and its workers. ``reachable`` false: every call to it fails."""

    def __init__(self, name: str, workers: int) -> None:
        self.name = name
        self.table: RouteTable | None = None
        self.workers = [MemoryWorker(f"{name}-w{i}") for i in range(workers)]
        self.reachable = True

    def take(self, table: RouteTable, now: int) -> None:
        """Hold ``table`` and hand it to the workers. Conflict where it is older than the one held, or of the same
        generation with another content."""
        if self.table is not None and table.generation <= self.table.generation:
            if table == self.table:
                return
            raise Conflict(f"router {self.name} holds generation {self.table.generation}, not {table.generation}")
        self.table = table
        for worker in self.workers:
            worker.waiting.append((now + worker.lag, table))

    def restart(self, index: int, at: int) -> None:
        """Worker ``index`` dies; its successor gets the table held before it serves, and confirms it at ``at``."""
        worker = MemoryWorker(self.workers[index].name)
        if self.table is not None:
            worker.waiting.append((at, self.table))
        self.workers[index] = worker

    @property
    def state(self) -> RouterState:
        generation = self.table.generation if self.table else -1
        return RouterState(router=self.name, generation=generation, workers=tuple(w.state for w in self.workers))


class MemoryTraffic:
    """``TrafficProvider`` over routers in memory."""

    def __init__(self, routers: int = 1, workers: int = 1) -> None:
        self.routers = [MemoryRouter(f"r{i}", workers) for i in range(routers)]
        self.now = 0

    def advance(self, now: int) -> None:
        """It is ``now`` (µs): workers take over what has arrived."""
        self.now = now
        for worker in self._workers():
            worker.move(now)

    def apply(self, table: RouteTable) -> None:
        """Hand ``table`` to every router that can be reached; EdgeError where one could not, or refused it."""
        failed = [self._given(router, table) for router in self.routers]
        self.advance(self.now)
        said = "; ".join(f for f in failed if f)
        if said:
            raise EdgeError(said)

    def observe(self) -> TrafficObservation:
        """As the port says."""
        reachable = tuple(r.state for r in self.routers if r.reachable)
        return TrafficObservation(reachable, len(reachable) == len(self.routers))

    def weights(self) -> list[int]:
        """What each worker really does, in basis points for the challenger; 0 where it has no table."""
        return [w.table.weight_bp if w.table else 0 for w in self._workers()]

    def _given(self, router: MemoryRouter, table: RouteTable) -> str:
        if not router.reachable:
            return f"router {router.name} does not answer"
        try:
            router.take(table, self.now)
        except Conflict as error:
            return str(error)
        return ""

    def _workers(self) -> list[MemoryWorker]:
        return [worker for router in self.routers for worker in router.workers]
