"""What all requests of a worker share: the routes in force, the breaker, deadlines, counters, the journal."""

import asyncio
import os
import time
from operator import methodcaller
from time import monotonic
from typing import TYPE_CHECKING, Any, Final

from router.breaker import Breaker
from router.counters import Counters, Findings
from router.deadlines import Deadlines
from router.journal import Writer
from router.outbox import Outbox
from router.pool import PoolLimits, PoolShelf
from router.readiness import PATIENCE_S, Readiness
from router.redaction import Redactions
from router.room import Room
from router.routing import Routes
from router.table import RouteTable, WorkerState
from router.tally import UNDER_WAY
from router.worker_config import WorkerConfig

if TYPE_CHECKING:
    from router.downstream import Client

_IDS: Final = 256
# Bodies that come in one piece with their head are not counted among those that are held, up to this size; nor is what
# a client has sent ahead.
_SMALL: Final = 4 << 10
# When this part of what may be held of answers has come, what is held is looked at.
_ANSWER_STEPS: Final = 16
# So many ids of clients' are remembered at least, and twice as many at most, so that none is used twice.
_REMEMBERED: Final = 32_768


class Plane:
    """One worker's data plane. Everything happens on its loop's thread.

    ``routes`` changes between requests only: a request keeps what it found when it was assigned.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, config: WorkerConfig, writer: Writer) -> None:
        self.loop = loop
        self.config = config
        # What every request asks for; the model's own attributes are slower.
        self.max_header_bytes = config.max_header_bytes
        self.small_bytes = min(_SMALL, config.max_body_bytes)
        self.idle_s = config.idle_s
        self.writer = writer
        self.counters = Counters()
        self.redactions = Redactions()
        self.findings = Findings()
        self.routes: Routes | None = None
        self.breaker = Breaker()
        self._trial: tuple[Any, ...] | None = None
        self.stale_from = 0.0
        self.draining = False
        self.ending = False
        self.mirrors = 0
        self.held_bytes = 0
        # Of answers, when it was looked at last, and whether that was too much.
        self.held_answer_bytes = 0
        self.answers_full = False
        self._answers_grown = 0
        self._answers_step = config.max_held_answer_bytes // _ANSWER_STEPS
        self.clients: set[Client] = set()
        self.room = Room(self)
        self.stalls: Deadlines[Any] = Deadlines(loop, config.stall_s, methodcaller("stalled"))
        self.totals: Deadlines[Any] = Deadlines(loop, config.total_s, methodcaller("overran"))
        self._arms: dict[float, Deadlines[Any]] = {}
        self._ids: list[bytes] = []
        self._given: set[bytes] = set()
        self._given_before: set[bytes] = set()
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
        trial = (table.rollout, table.attempt, table.challenger and table.challenger.version)
        if trial != self._trial:
            self._trial = trial
            self.breaker = Breaker()
        routes = Routes(table, champion, challenger, self.redactions, self.findings, self.breaker)
        watched = [(champion, table.champion.probe)]
        if challenger is not None and table.challenger is not None:
            watched.append((challenger, table.challenger.probe))
        self.readiness.watch(*watched)
        self.readiness.sweep(monotonic())
        self.shelf.keep(champion, challenger)
        self.shelf.sweep(monotonic())
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
        self.room.answers()
        self.shelf.sweep(now)
        if not self.draining:
            self.readiness.sweep(now)

    def answers_grew(self, size: int) -> None:
        """So many bytes of an answer have come; where it is much by now, what is held of all is looked at again."""
        self._answers_grown += size
        if self._answers_grown > self._answers_step:
            self._answers_grown = 0
            # Not at once: somebody may have to go, in the middle of what is being done for them.
            self.loop.call_soon(self.room.answers)

    def count_under_way(self) -> None:
        """Leave word of how much is under way, for whoever comes after a worker that is killed."""
        self.writer.counted[UNDER_WAY] = self.outbox.crowd + self.mirrors

    def calls(self) -> list[Any]:
        """Those whom a model server has to answer, or is answering."""
        return [call for waiting in (*self._arms.values(), self.stalls) for call in waiting]

    def cut_off(self) -> "set[Client]":
        """End what is under way, as the worker ends before it is over. All of it is recorded. Those are returned that
        may still be sending, and would not hear of it if their connection was closed at once.
        """
        self.ending = True
        sending = {client for client in list(self.clients) if client.turn_away()}
        for call in self.calls():
            call.cut_off()
        return sending

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

    def key_of(self, given: bytes) -> bytes:
        """A request's id in the journal: the one that its client gave it, or a new one where the client has given that
        to another request a while ago, as pages do that pass theirs on to every call they make.
        """
        if given in self._given or given in self._given_before:
            self.counters.repeated_ids += 1
            return self.request_id()
        if len(self._given) >= _REMEMBERED:
            self._given_before, self._given = self._given, set()
        self._given.add(given)
        return given

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
            **self.counters.named(self.findings),
            **self.writer.counters(),
            **self.redactions.counters(),
            "client_connections": len(self.clients),
            "upstream_connections": self.shelf.connections,
            "mirrors_in_flight": self.mirrors,
            "servers_not_ready": self.readiness.not_ready,
            "held_bytes": self.held_bytes,
            "held_answer_bytes": self.held_answer_bytes,
            "breaker_opened_total": self.breaker.opened,
        }
