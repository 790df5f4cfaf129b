"""A rollout decided live, tick by tick, on traffic that obeys its route table, and written down in two ways."""

import random
from pathlib import Path
from typing import NamedTuple

from controller.backtest.result import Decided
from controller.core.evidence import Evidence
from controller.core.evolve import evolve
from controller.core.plans import query
from controller.edges.engine import Engine
from controller.edges.engine.rows import exposure_row, outcome_row
from controller.spec import ModelRollout
from controller.status import Progress, RolloutStatus
from router.assignment import assign
from router.events import Event, Exposure, Header, Mark, Outcome
from router.heads import Request
from router.subject import extractor
from router.table import RouteTable
from tests.backtest.logs import START, Log
from tests.decide.rollouts import ready

BEGIN = START * 1_000_000
MOST_TICKS = 200
HEADER = "x-clicked-before"


class Lived(NamedTuple):
    """How it ended: the status then, the evidence of the decision, when it fell; and the log of it."""

    status: RolloutStatus
    evidence: tuple[Evidence, ...]
    at: int
    log: Log


class _Journal:
    """One journal with everything in it, in the order of its times."""

    def __init__(self, path: Path) -> None:
        path.mkdir(parents=True)
        self._file = (path / "edge-w0.00000001.jsonl").open("w")
        self._seq = 0
        self.line(Header(journal="edge-w0", file=1, seq=0, t=BEGIN))

    def line(self, event: Event) -> None:
        if not isinstance(event, Header):
            self._seq += 1
            event = event.model_copy(update={"seq": self._seq})
        self._file.write(event.model_dump_json() + "\n")

    def close(self, t: int) -> None:
        self.line(Mark(seq=0, t=t, closed=True))
        self._file.close()


def live(rollout: ModelRollout, journals: Path, click: tuple[float, float], seed: int, rate: int = 15) -> Lived:
    """Run ``rollout`` on traffic in which units of the arms click with probabilities ``click`` (champion, challenger).

    A click comes at once, so that the journal's times never decrease. Where the plan asks for numbers, the requests
    have one in the header HEADER: 1 or 0, and units with a 1 click more often by .8.
    """
    spec, name, rng, engine = rollout.spec, rollout.metadata.name, random.Random(seed), Engine()
    journal, log = _Journal(journals), Log([], [])
    status = RolloutStatus(uid="live", rollout=name, observed=ready())
    tick, now = spec.decision.tick, BEGIN
    status = evolve(spec, status, engine.advance(query(name, spec, status), now), now).status
    for _ in range(MOST_TICKS):
        for event in _traffic(status, rng, now, tick, rate, click, log):
            journal.line(event)
            if isinstance(event, Exposure):
                asked = query(name, spec, status).covariates
                engine.ingest([exposure_row(event.model_dump(), [], None, asked)], [])
            elif isinstance(event, Outcome):
                engine.ingest([], [outcome_row(event.model_dump())])
        now += tick
        moved = evolve(spec, status, engine.advance(query(name, spec, status), now), now)
        status = moved.status
        if status.progress is not Progress.RUNNING:
            journal.close(now)
            engine.close()
            return Lived(status, moved.evidence, now, log)
    raise AssertionError(f"nothing was decided: {status.message}")


def _traffic(
    status: RolloutStatus, rng: random.Random, now: int, tick: int, rate: int, click: tuple[float, float], log: Log
) -> list[Event]:
    table, epoch = status.table, status.current_epoch
    assert table is not None
    assert epoch is not None
    events: list[Event] = []
    count = rate * tick // 1_000_000
    for i in range(count):
        t = now + tick * i // count
        number = len(log.exposures)
        unit = f"u{number}"
        place = assign(table.salt, unit, table.weight_bp, table.control_from_bp)
        before = rng.random() < 0.5 if table.attributes else None
        exposed = _exposure(t, f"r{number}", unit, place.arm, place.evidence, epoch.number)
        events.append(exposed.model_copy(update={"attributes": _attributes(table, before)}))
        log.exposures.append({
            "unit": unit, "arm": place.arm, "ts": t / 1e6, "weight": table.weight_bp / 100, "request_id": f"r{number}",
            "status": 200, "control": place.point >= table.control_from_bp,
        })  # fmt: skip
        chance = click[place.arm == "challenger"]
        if before is not None:
            log.exposures[-1][f"covariate.{HEADER}"] = int(before)
            chance += 0.4 if before else -0.4
        if rng.random() < chance:
            events.append(Outcome(t=t, ingest_t=t, outcome_id=f"o{number}", unit=unit, name="click", value=1))
            log.outcomes.append({"unit": unit, "name": "click", "value": 1, "ts": t / 1e6})
    return events


def _attributes(table: RouteTable, before: bool | None) -> dict[str, str]:
    """What a router finds in the request of a unit with this number."""
    request = Request(b"POST", b"/", False, [], {HEADER.encode(): b"%d" % before} if before is not None else {})
    found = {a.name: extractor(a.source)(request) for a in table.attributes}
    return {name: text for name, text in found.items() if text is not None}


def _exposure(t: int, request: str, unit: str, arm: str, evidence: bool, epoch: int) -> Exposure:
    return Exposure.model_validate({
        "seq": 0, "t": t, "request_id": request, "attempt": 1, "epoch": epoch, "generation": 1, "unit": unit,
        "arm": arm, "evidence": evidence, "assigned_by": "hash", "served_by": arm, "version": "1", "usable": True,
        "status": 200, "answer_status": 200, "latency_us": 1000,
    })  # fmt: skip


def last(decisions: tuple[Decided, ...]) -> tuple[str, str, str | None]:
    """The last decision without its numbers."""
    return decisions[-1].decision, decisions[-1].reason, decisions[-1].metric
