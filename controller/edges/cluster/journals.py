"""What the routers of a rollout wrote down, as statistics: copied from each of them, read, and acknowledged."""

import json
import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

from controller.core.cells import StatisticsQuery
from controller.core.fold import Statistics
from controller.edges.cluster.copies import Copies, fault_of
from controller.edges.cluster.routers import ClusterTraffic, Replica
from controller.edges.engine.schema import SharedStates
from controller.edges.engine.shelf import Shelf
from controller.edges.engine.source import JournalSource
from controller.edges.exchange import Call, Exchange
from controller.errors import EdgeError

log = logging.getLogger("understudy.journals")
CALL_S = 5.0
ACKNOWLEDGE_S = 10.0


class ClusterJournals:
    """``StatisticsSource`` of the routers of one rollout. ``reader`` is our name at the routers, who keep what we have
    not acknowledged; ``over`` says, when this is closed, whether nobody will ask any more. ``shared``: the DuckDB that
    the states of all rollouts are in; ``shelf``: which of them are open. EdgeError where the state cannot be opened."""

    def __init__(
        self,
        traffic: ClusterTraffic,
        folder: Path,
        reader: str,
        over: Callable[[], bool],
        shared: SharedStates | None = None,
        shelf: Shelf | None = None,
    ) -> None:
        self._traffic = traffic
        self._reader = reader
        self._over = over
        journals = folder / "journal"
        self.copies = Copies(journals.absolute())
        self._state = journals, folder / "engine.duckdb", shared
        self._shelf = Shelf() if shelf is None else shelf
        self._using = threading.Lock()
        self._source: JournalSource | None = self._opened()
        self._exchange: Exchange | None = None
        self._shown = ""  # the token that it shows
        self._said: dict[str, object] = {}
        self._say_at = 0.0
        self._told: dict[str, str] = {}

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        """Copy, read, acknowledge. A router that does not answer keeps the watermark back and is named in the
        result; EdgeError as ``JournalSource`` raises it."""
        try:
            with self._using:
                return self._read(query, now)
        finally:
            self._shelf.used(self)

    @property
    def size_mb(self) -> float:
        source = self._source
        return 0.0 if source is None else source.size_mb

    def put_away(self) -> bool:
        """Close the state until the next ``read``; False while one is under way."""
        if not self._using.acquire(blocking=False):
            return False
        try:
            self._let_go()
        finally:
            self._using.release()
        return True

    def _read(self, query: StatisticsQuery, now: int) -> Statistics:
        replicas = self._traffic.replicas
        if self._source is None:
            self._source = self._opened()
        source = self._source
        try:
            awaited = self.copies.fetch(replicas, self._exchanged(), _counted(source))
        except OSError as error:
            raise EdgeError(f"journals cannot be copied: {error}") from error
        self._tell(awaited)
        statistics = source.read(query, now, awaited)
        try:
            self._acknowledge(source, replicas)
        except OSError as error:
            log.warning("copies that were read cannot be deleted: %s", error)
        return statistics._replace(awaited=tuple(sorted(set(awaited.values()))))

    def close(self) -> None:
        """Let go of the state; where the rollout is over, routers need keep nothing for us any more."""
        if self._over() and self._traffic.token:
            self._ask("DELETE", self._traffic.replicas, {})
        with self._using:
            self._let_go()
        self._shelf.closed(self)
        self._hang_up()

    def _opened(self) -> JournalSource:
        journals, state, shared = self._state
        return JournalSource(journals, state, reader=None, shared=shared)  # routers are told of it by call

    def _let_go(self) -> None:
        if self._source is not None:
            self._source.close()
            self._source = None

    def _exchanged(self) -> Exchange:
        """With the token as it is known now. EdgeError where it is not known yet."""
        token = self._traffic.token
        if not token:
            raise EdgeError("the token of the routers is not known yet")
        if self._exchange is None or self._shown != token:
            self._hang_up()
            self._exchange, self._shown = Exchange(CALL_S, headers={"authorization": f"Bearer {token}"}), token
        return self._exchange

    def _hang_up(self) -> None:
        if self._exchange is not None:
            self._exchange.close()
            self._exchange = None

    def _acknowledge(self, source: JournalSource, replicas: Sequence[Replica]) -> None:
        """Tell each router what is committed here. Where that fails it keeps more, until the next time."""
        if time.monotonic() < self._say_at:
            return
        self._say_at = time.monotonic() + ACKNOWLEDGE_S
        read = _counted(source)
        said = {replica.uid: self.copies.positions(replica, read) for replica in replicas}
        news = [r for r in replicas if said[r.uid] and said[r.uid] != self._said.get(r.uid)]
        self.copies.prune(read)
        for replica, fault in self._ask("PUT", news, said):
            if fault:
                log.warning("%s does not take what was read: %s", replica.name, fault)
            else:
                self._said[replica.uid] = said[replica.uid]

    def _ask(
        self, method: str, replicas: Sequence[Replica], said: Mapping[str, object]
    ) -> Iterable[tuple[Replica, str]]:
        """One call about us to each; what went wrong."""
        bodies = [json.dumps(said[r.uid]).encode() if said else None for r in replicas]
        urls = [f"{replica.url}/v1/readers/{self._reader}" for replica in replicas]
        answers = self._exchanged().all([Call(method, u, b) for u, b in zip(urls, bodies, strict=True)])
        return [(replica, fault_of(answer)) for replica, answer in zip(replicas, answers, strict=True)]

    def _tell(self, awaited: Mapping[str, str]) -> None:
        """Log what is missing, once."""
        if awaited != self._told:
            for fault in sorted(set(awaited.values())):
                log.warning("journals: nothing newer counts before this is copied: %s", fault)
            self._told = dict(awaited)


def _counted(source: JournalSource) -> dict[str, tuple[int, int]]:
    """The file and offset up to which each copy is counted."""
    return {name: (place.file, place.offset) for name, place in source.places.items() if place.seq >= 0}
