"""Users and their routers: requests are split by the tables that the workers really have, answered as the truth
says, and written to journals; some of what is written reaches the engine, and that is all it knows."""

import heapq
import random
from collections import deque
from typing import Any

from controller.edges.memory import MemorySource, MemoryTraffic
from controller.edges.memory.traffic import MemoryWorker
from router.assignment import Arm, assign, point
from router.table import RouteTable
from tests.sim.faults import Fault, Faults
from tests.sim.plan import SECOND, Truth

OPENS_AFTER = 10  # failures in a row
REOPENS = 5 * SECOND
LANDS = ("x", "y", "z")


class Journal:
    """What one writer wrote, and how much of it the engine has."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.seq = 0
        self.last_t = 0
        self.queue: deque[dict[str, Any]] = deque()
        self.held: list[dict[str, Any]] = []
        self.stalled_until = 0

    def write(self, event: dict[str, Any]) -> None:
        """Append a line; its time never goes back."""
        self.seq += 1
        self.last_t = event["t"] = max(event["t"], self.last_t) if event["type"] != "outcome" else event["t"]
        event["seq"] = self.seq
        self.queue.append(event)


class Crowd:
    """All traffic of a run. ``challenger_units``: by (attempt, epoch), who really met the challenger."""

    def __init__(
        self, rng: random.Random, truth: Truth, traffic: MemoryTraffic, source: MemorySource, faults: Faults
    ) -> None:
        self._rng, self.truth, self._traffic, self._source, self._faults = rng, truth, traffic, source, faults
        self.rate = rng.choice((15, 25, 40))  # requests a second
        self._loss = rng.choice((0.001, 0.004, 0.03))  # share of the lines that come late or never, where they do
        self._returning = rng.choice((0.2, 0.5, 0.8))
        self._units: list[str] = []
        self._requests = 0
        self._outcomes: list[tuple[int, int, dict[str, Any]]] = []
        self._failed_in_row: dict[str, int] = {}
        self._open_until: dict[str, int] = {}
        self.journals: dict[str, Journal] = {}
        self.challenger_units: dict[tuple[int, int], set[str]] = {}

    def live(self, since: int, until: int) -> None:
        """Everything that users do in [since, until)."""
        rng = self._rng
        count = round(self.rate * (until - since) / SECOND * rng.uniform(0.7, 1.3))
        workers = [w for r in self._traffic.routers for w in r.workers]
        for i in range(count):
            worker = rng.choice(workers)
            if worker.table is not None:
                self._request(worker, worker.table, since + (until - since) * i // count)
        while self._outcomes and self._outcomes[0][0] < until:
            _, _, outcome = heapq.heappop(self._outcomes)
            self._journal("outcomes").write(outcome)
        for worker in workers:
            self._breaker(worker, since, until)
            self._journal(worker.name)
        for journal in self.journals.values():
            journal.write({"type": "mark", "t": until, "started": 1})

    def deliver(self, now: int) -> None:
        """Bring what the journals hold to the engine, as far as nothing goes wrong."""
        for journal in self.journals.values():
            if self._faults.healed:
                journal.stalled_until = 0
            elif self._faults.fires(Fault.DELAY, 0.02):
                journal.stalled_until = max(journal.stalled_until, now + self._rng.randint(1, 15) * SECOND)
            elif self._faults.fires(Fault.SILENT, 0.004):
                journal.stalled_until = now + self._rng.randint(62, 90) * SECOND
            if now < journal.stalled_until:
                continue
            held, journal.held = journal.held, []
            while journal.queue:
                self._line(journal, journal.queue.popleft())
            for event in held:
                self._source.ingest(journal.name, event)

    def _line(self, journal: Journal, event: dict[str, Any]) -> None:
        faults = self._faults
        if faults.fires(Fault.DROP, self._loss):
            return
        if faults.fires(Fault.REORDER, self._loss):
            journal.held.append(event)
            return
        self._source.ingest(journal.name, event)
        if faults.fires(Fault.DUPLICATE, 0.01):
            self._source.ingest(journal.name, dict(event))

    def _request(self, worker: MemoryWorker, table: RouteTable, t: int) -> None:
        rng = self._rng
        if self._units and rng.random() < self._returning:
            unit = self._units[-1 - int(rng.random() ** 2 * min(len(self._units), 400))]
        else:
            unit = f"u{len(self._units)}"
            self._units.append(unit)
        self._requests += 1
        place = assign(table.salt, unit, table.weight_bp, table.control_from_bp, table.counted_bp)
        mirrored = table.challenger is not None and point(table.salt, unit) < table.mirror_bp
        label = rng.random() < 0.5
        attributes = {a.name: LANDS[len(unit) % 3] for a in table.attributes}
        event: dict[str, Any] = {
            "type": "exposure", "t": t, "request_id": f"q{self._requests}", "attempt": table.attempt,
            "epoch": table.epoch, "generation": table.generation, "unit": unit, "arm": place.arm,
            "evidence": place.evidence, "assigned_by": "hash", "mirrored": mirrored, "attributes": attributes,
        }  # fmt: skip
        if place.arm == "challenger":
            self.challenger_units.setdefault((table.attempt, table.epoch), set()).add(unit)
        elif mirrored:
            self.challenger_units.setdefault((table.attempt, table.epoch), set()).add(unit)
            self._exposed(worker, {**event, "arm": "challenger", "evidence": False, "mirror": True}, label, table)
        if place.arm == "challenger" and rng.random() < self.truth.lopsided:
            return
        served = self._exposed(worker, event, label, table)
        self._follow_up(event, served, label)

    def _exposed(self, worker: MemoryWorker, event: dict[str, Any], label: bool, table: RouteTable) -> Arm:
        """Let the assigned arm answer, and the champion where it did not; returns who served."""
        rng, arm = self._rng, event["arm"]
        how = self.truth.challenger if arm == "challenger" else self.truth.champion
        cut_off = arm == "challenger" and worker.breaker == "open" and not event.get("mirror")
        usable = not cut_off and rng.random() >= how.error
        served: Arm = arm if usable else "champion"
        score = min(max(0.5 + (0.5 if label else -0.5) * how.sharpness + rng.gauss(0, 0.15), 0.01), 0.99)
        event |= {
            "served_by": served, "usable": usable, "status": 200 if usable else 500,
            "answer_status": 200, "version": "", "latency_us": int(how.latency * rng.lognormvariate(0, 0.25)),
            "fallback_reason": None if usable or arm == "champion" else "BreakerOpen" if cut_off else "Status",
            "answer": f'{{"predictions": [{score:.3f}]}}' if usable else None,
        }  # fmt: skip
        if arm == "challenger" and not cut_off and not event.get("mirror"):
            failed = 0 if usable else self._failed_in_row.get(worker.name, 0) + 1
            self._failed_in_row[worker.name] = failed
            if failed >= OPENS_AFTER:
                worker.breaker = "open"
                self._open_until[worker.name] = event["t"] + REOPENS
        self._journal(worker.name).write(event)
        return served

    def _follow_up(self, event: dict[str, Any], served: Arm, label: bool) -> None:
        rng, how = self._rng, self.truth.challenger if served == "challenger" else self.truth.champion
        t, number = event["t"], self._requests
        if rng.random() < how.click:
            at = t + rng.randint(100_000, 4 * SECOND)
            about = {"unit": event["unit"]} if rng.random() < 0.7 else {"request_id": event["request_id"]}
            click = {"type": "outcome", "t": at, "ingest_t": at, "name": "click", "outcome_id": f"c{number}", **about}
            heapq.heappush(self._outcomes, (at, number, {**click, "value": float(rng.randint(1, 5))}))
        if rng.random() < 0.9:
            at = t + rng.randint(100_000, 3 * SECOND)
            said = {"type": "outcome", "t": at, "ingest_t": at, "name": "label", "outcome_id": f"l{number}"}
            said |= {"request_id": event["request_id"], "value": float(label)}
            heapq.heappush(self._outcomes, (at, -number, said))

    def _breaker(self, worker: MemoryWorker, since: int, until: int) -> None:
        if worker.breaker == "open":
            worker.breaker_open_ms += (until - since) // 1000
            if until >= self._open_until.get(worker.name, 0):
                worker.breaker = "half-open"
                self._failed_in_row[worker.name] = OPENS_AFTER - 1
        elif worker.breaker == "half-open" and self._failed_in_row.get(worker.name, 0) == 0:
            worker.breaker = "closed"

    def _journal(self, name: str) -> Journal:
        return self.journals.setdefault(name, Journal(name))
