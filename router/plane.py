"""What all requests of a worker share: the routes in force, the breaker, deadlines, counters, the journal."""

import asyncio
import os
import time
from operator import attrgetter, methodcaller
from time import monotonic
from typing import TYPE_CHECKING, Any

from router.breaker import Breaker
from router.counters import Counters
from router.deadlines import Deadlines
from router.journal import Writer
from router.outbox import Outbox
from router.pool import PoolLimits, PoolShelf
from router.readiness import PATIENCE_S, Readiness
from router.redaction import Redactions
from router.routing import Routes
from router.table import RouteTable, WorkerState
from router.worker_config import WorkerConfig

if TYPE_CHECKING:
    from router.downstream import Client

_IDS = 256
# This part of the idle clients makes room at a time: looking for them costs, so it should be worth it.
_ROOM = 64


class Plane:
    """One worker's data plane. Everything happens on its loop's thread.

    ``routes`` changes between requests only: a request keeps what it found when it was assigned.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, config: WorkerConfig, writer: Writer) -> None:
        self.loop = loop
        self.config = config
        # What every request asks for; the model's own attributes are slower.
        self.max_header_bytes = config.max_header_bytes
        self.idle_s = config.idle_s
        self.writer = writer
        self.counters = Counters()
        self.redactions = Redactions()
        self.routes: Routes | None = None
        self.breaker = Breaker()
        self._trial: tuple[Any, ...] | None = None
        self.stale_from = 0.0
        self.draining = False
        self.mirrors = 0
        self.held_bytes = 0
        self.clients: set[Client] = set()
        self.stalls: Deadlines[Any] = Deadlines(loop, config.stall_s, methodcaller("stalled"))
        self.totals: Deadlines[Any] = Deadlines(loop, config.total_s, methodcaller("stalled"))
        self._arms: dict[float, Deadlines[Any]] = {}
        self._ids: list[bytes] = []
        self.outbox = Outbox(loop)
        self.shelf = PoolShelf(
            loop,
            self.outbox,
            PoolLimits(config.champion_connections, config.champion_queue, config.connect_s, config.upstream_idle_s),
            PoolLimits(config.challenger_connections, 0, config.connect_s, config.upstream_idle_s),
        )
        self.readiness = Readiness(Deadlines(loop, PATIENCE_S, methodcaller("timed_out")))

    def use(self, table: RouteTable) -> None:
        """Serve by this table from the next request on. Raises ValueError for addresses that are none."""
        champion = self.shelf.backend("champion", table.champion)
        challenger = None
        if table.challenger is not None:
            challenger = self.shelf.backend("challenger", table.challenger)
        routes = Routes(table, champion, challenger, self.redactions)
        trial = (table.rollout, table.attempt, table.challenger and table.challenger.version)
        if trial != self._trial:
            self._trial = trial
            self.breaker = Breaker()
        watched = [(champion, table.champion.probe)]
        if challenger is not None and table.challenger is not None:
            watched.append((challenger, table.challenger.probe))
        self.readiness.watch(*watched)
        self.readiness.sweep(monotonic())
        self.shelf.keep(champion, challenger)
        for seconds in [s for s, waiting in self._arms.items() if not waiting]:
            del self._arms[seconds]
        self.routes = routes
        self.counters.tables += 1
        self.heard(time.time_ns() // 1000)

    def heard(self, t: int) -> None:
        """The controller was heard of at ``t`` (µs since the epoch)."""
        if self.routes is not None:
            age = max(0.0, time.time() - t / 1e6)
            self.stale_from = monotonic() - age + self.routes.table.ttl_s

    def sweep(self) -> None:
        """Look for clients and connections that have waited for too long."""
        now = monotonic()
        for client in [client for client in self.clients if client.due < now]:
            client.overdue()
        self.shelf.sweep(now)
        if not self.draining:
            self.readiness.sweep(now)

    def make_room(self) -> bool:
        """Close the clients that have been idle for the longest; False where none is idle."""
        idle = sorted((client for client in self.clients if client.idle), key=attrgetter("due"))
        for client in idle[: max(1, len(idle) // _ROOM)]:
            client.cut()
        return bool(idle)

    def deadlines(self, seconds: float) -> Deadlines[Any]:
        """The queue of those whom a model server has to answer within so many seconds."""
        try:
            return self._arms[seconds]
        except KeyError:
            found = self._arms[seconds] = Deadlines(self.loop, seconds, methodcaller("timed_out"))
            return found

    def request_id(self) -> bytes:
        """A new random id of 32 hexadecimal digits."""
        ids = self._ids
        if not ids:
            drawn = os.urandom(16 * _IDS).hex().encode()
            ids.extend(drawn[at : at + 32] for at in range(0, len(drawn), 32))
        return ids.pop()

    def state(self) -> WorkerState:
        """What this worker says of itself."""
        return WorkerState(
            worker=self.config.worker,
            generation=-1 if self.routes is None else self.routes.generation,
            breaker=self.breaker.state,
            breaker_open_ms=self.breaker.unavailable_ms(monotonic()),
            dropped=self.writer.dropped,
        )

    def numbers(self) -> dict[str, float]:
        """Every counter and gauge by name."""
        return {
            **self.counters.named(),
            **self.writer.counters(),
            **self.redactions.counters(),
            "client_connections": len(self.clients),
            "upstream_connections": self.shelf.connections,
            "mirrors_in_flight": self.mirrors,
            "servers_not_ready": self.readiness.not_ready,
            "held_bytes": self.held_bytes,
            "breaker_opened_total": self.breaker.opened,
        }
