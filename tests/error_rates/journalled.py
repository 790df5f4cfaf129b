"""Whole rollouts through the parts that users have: real assignment, journals on disk, the engine, the rule.

Smaller than the drawn ones (about 300 requests a look), because every event is written and read, and less tidy: a
third of the requests are of units that come back, one unit in 200 fails whenever it comes, a failure is tried again at
once and up to three times, and labels arrive a minute or more after the prediction. The engine on DuckDB and the one
in plain Python read the same journal and have to lead to the same status at every tick.
"""

import json
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from controller.core import plans
from controller.core.evolve import evolve
from controller.core.fold import EMPTY
from controller.core.record import digest
from controller.edges.engine.source import JournalSource
from controller.edges.memory.source import MemorySource
from controller.specfile import parse
from controller.status import Epoch, Observed, Progress, Reason, RolloutStatus
from router.assignment import Assignment, assign
from router.events import Header, Mark

MINUTE = 60_000_000
BEGIN = 1_000_000 * MINUTE
REQUESTS = 300
RETURNING = 0.33
RETRIES = 3
FRAIL = 0.005  # of the units: fail whenever they come
LABEL_DELAY = 60_000_000  # mean, µs
LOOKS = 50
SPEC = parse(
    """
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: journalled}
spec:
  model: {name: journalled}
  unit: {header: x-unit-id}
  steps: [{weight: 5, hold: 5m}, {weight: 25, hold: 5m}, {weight: 50, hold: 5m}]
  metrics:
    - {name: clicks, kind: Proportion, outcome: click, window: 1s, margin: 25%, role: Success}
    - {name: errors, kind: ErrorRate, margin: 2pp}
    - {name: right, kind: Accuracy, outcome: label, window: 3m, margin: 10pp}
  decision: {tick: 60s, block: 60s, minUnits: 10, maxDuration: 50m, grace: 0s, maxFallback: 20%}
"""
).spec


class Rates(NamedTuple):
    """An arm's: the share of requests that are followed by a click, that fail, and that are right if they do not."""

    click: float = 0.3
    failure: float = 0.005
    right: float = 0.85


class Replayed(NamedTuple):
    """How a rollout ended, and at how many of its ticks the two engines led to different bytes."""

    progress: Progress
    reason: Reason
    metric: str | None
    ticks: int
    different: int


class Journal:
    """One worker's journal and one of outcomes, written a look at a time, for both engines."""

    def __init__(self, folder: Path, memory: MemorySource) -> None:
        self._folder, self._memory = folder, memory
        self._seq = {"r-w0": 0, "r-outcomes": 0}
        for name in self._seq:
            self._write(name, [Header(journal=name, file=1, seq=0, t=BEGIN).model_dump()])

    def add(self, name: str, events: list[dict[str, Any]], t: int) -> None:
        """Lines in the order of their times, and a heartbeat at ``t``."""
        lines = []
        for event in (*events, Mark(seq=0, t=t).model_dump()):
            self._seq[name] += 1
            lines.append({**event, "seq": self._seq[name]})
        self._write(name, lines)

    def _write(self, name: str, lines: list[dict[str, Any]]) -> None:
        with (self._folder / f"{name}.00000001.jsonl").open("a", encoding="utf-8") as out:
            out.writelines(json.dumps(line) + "\n" for line in lines)
        for line in lines:
            self._memory.ingest(name, line)


class Crowd:
    """People who come, come back, click and meet failures."""

    def __init__(self, seed: int, salt: str, rates: Rates) -> None:
        self._rng = np.random.default_rng(seed)
        self._salt, self._rates = salt, rates
        self._known: list[str] = []
        self._late: list[dict[str, Any]] = []  # happened, and not said yet
        self._number = 0

    def look(self, epoch: Epoch, since: int) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """One minute of exposures, and the outcomes that follow."""
        exposures: list[dict[str, Any]] = []
        outcomes: list[dict[str, Any]] = []
        for t in np.sort(self._rng.integers(since, since + MINUTE - 10_000_000, REQUESTS)).tolist():
            if self._known and self._rng.random() < RETURNING:
                unit = self._known[int(self._rng.integers(len(self._known)))]
            else:
                unit = f"{'frail' if self._rng.random() < FRAIL else 'u'}{self._number}"
                self._known.append(unit)
            place = assign(self._salt, unit, epoch.weight_bp, epoch.control_from_bp)
            rates = self._rates if place.arm == "challenger" else Rates()
            for again in range(RETRIES + 1):
                self._number += 1
                usable = bool(self._rng.random() >= rates.failure) and not unit.startswith("frail")
                at = t + again * 1_000_000
                exposures.append(_exposure(self._number, at, epoch.number, unit, place, usable))
                if usable:
                    outcomes += self._outcomes(at, unit, rates)
                    break
        self._late = sorted([*self._late, *outcomes], key=lambda o: int(o["ingest_t"]))
        due = [o for o in self._late if o["ingest_t"] < since + MINUTE]
        self._late = self._late[len(due) :]
        return sorted(exposures, key=lambda e: int(e["t"])), due

    def _outcomes(self, t: int, unit: str, rates: Rates) -> list[dict[str, Any]]:
        """A click at once, perhaps, and the label of the answer when it is known."""
        right = float(self._rng.random() < rates.right)
        later = t + int(self._rng.exponential(LABEL_DELAY))
        said = [_outcome(self._number, later, "label", right, None, f"q{self._number}")]
        if self._rng.random() < rates.click:
            said.append(_outcome(self._number, t + 500_000, "click", 1.0, unit, None))
        return said


def _exposure(number: int, t: int, epoch: int, unit: str, place: Assignment, usable: bool) -> dict[str, Any]:
    return {
        "type": "exposure", "t": t, "request_id": f"q{number}", "attempt": 1, "epoch": epoch, "generation": epoch,
        "unit": unit, "arm": place.arm, "evidence": place.evidence, "assigned_by": "hash",
        "served_by": place.arm if usable else "champion", "version": "1", "mirror": False, "stale": False,
        "usable": usable, "status": 200 if usable else 500, "answer_status": 200, "latency_us": 1000, "attributes": {},
        "answer": '{"predictions": [0.9]}', "cut": False,
    }  # fmt: skip


def _outcome(number: int, t: int, name: str, value: float, unit: str | None, request: str | None) -> dict[str, Any]:
    return {
        "type": "outcome", "t": t, "ingest_t": t, "outcome_id": f"{name}{number}", "unit": unit,
        "request_id": request, "row": 0, "name": name, "value": value,
    }  # fmt: skip


def replay(seed: int, rates: Rates) -> Replayed:
    """One rollout to its decision, or to the last look."""
    uid = f"r{seed}"
    memory = MemorySource()
    observed = Observed(
        champion_alias="1", challenger_alias="2", champion_upstreams=("a:1",), challenger_upstreams=("b:1",),
        challenger_ready=True, champion_ready=True, confirmed=10**9,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as name:
        source = JournalSource(Path(name), None)
        journal, crowd = Journal(Path(name), memory), Crowd(seed, f"{uid}/1", rates)
        status = evolve(SPEC, RolloutStatus(uid=uid, rollout="journalled", observed=observed), EMPTY, BEGIN).status
        different = 0
        for look in range(LOOKS):
            now = BEGIN + (look + 1) * MINUTE
            epoch = status.current_epoch
            assert epoch is not None
            exposures, outcomes = crowd.look(epoch, now - MINUTE)
            journal.add("r-w0", exposures, now)
            journal.add("r-outcomes", outcomes, now)
            asked = plans.query("journalled", SPEC, status)
            found = [evolve(SPEC, status, s.read(asked, now), now).status for s in (source, memory)]
            different += digest(found[0]) != digest(found[1])
            status = found[0]
            if status.progress is not Progress.RUNNING:
                break
        source.close()
    return Replayed(status.progress, status.reason, status.metric, look + 1, different)
