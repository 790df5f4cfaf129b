"""The journals of one pretended router: lines as a real one writes them, made when somebody asks for them.

Users come at a steady rate. What is acknowledged is forgotten, as routers delete it.
"""

import random
import time
from collections.abc import Mapping
from typing import Any

import orjson

from router.assignment import assign

SECOND = 1_000_000
MARK_EVERY = SECOND
OUTCOME_AFTER = 5 * SECOND
UNITS = 20_000  # different users of one rollout
ERRORS, HARMED_ERRORS = 0.002, 0.5  # shares of requests that a version fails
CLICKS = 0.2


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


class Journal:
    """Lines of one file from ``start`` on; those before are acknowledged."""

    def __init__(self, name: str) -> None:
        self.name, self.start, self.seq = name, 0, 0
        self._kept = bytearray()
        self._began = now()
        header = {"type": "journal", "journal": name, "file": 0, "version": 1, "seq": 0, "t": self._began}
        self._write(header)

    @property
    def size(self) -> int:
        return self.start + len(self._kept)

    def add(self, event: dict[str, Any]) -> None:
        self.seq += 1
        self._write({**event, "seq": self.seq})

    def mark(self, t: int) -> None:
        self.add({"type": "mark", "t": t, "dropped": 0, "no_unit": 0, "started": self._began, "closed": False})

    def read(self, offset: int, limit: int) -> bytes | None:
        """Whole lines from ``offset`` on; None where they are not there."""
        if not self.start <= offset <= self.size:
            return None
        begin = offset - self.start
        piece = bytes(self._kept[begin : begin + limit])
        return piece[: piece.rfind(b"\n") + 1]

    def forget(self, offset: int) -> None:
        """Nobody needs what lies before ``offset``."""
        if self.start < offset <= self.size:
            del self._kept[: offset - self.start]
            self.start = offset

    def _write(self, event: Mapping[str, Any]) -> None:
        self._kept += orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)


class Traffic:
    """What one router has served. ``rate``: requests a second; ``harmed``: the challenger fails half of its own."""

    def __init__(self, name: str, rate: float, seed: int) -> None:
        self.exposures, self.outcomes = Journal(f"{name}-w0"), Journal(f"{name}-outcomes")
        self.harmed = False
        self.requests = self.failures = 0
        self._name, self._rate, self._random = name, rate, random.Random(seed)
        self._until = self._marked = now()
        self._owed = 0.0
        self._due: list[tuple[int, str]] = []  # clicks to come: when, and of whom

    def catch_up(self, table: Mapping[str, Any] | None) -> None:
        """Write what happened since the last call, by ``table``."""
        began, end = self._until, now()
        self._until = end
        if table is not None:
            self._owed += self._rate * (end - began) / SECOND
            many = int(self._owed)
            self._owed -= many
            for number in range(many):
                self._serve(table, began + (end - began) * number // many, number)
        while self._due and self._due[0][0] <= end:
            t, unit = self._due.pop(0)
            outcome = {"type": "outcome", "t": t, "ingest_t": t, "outcome_id": f"{unit}-{t}", "unit": unit}
            self.outcomes.add({**outcome, "request_id": None, "row": 0, "name": "click", "value": 1.0})
        if end - self._marked >= MARK_EVERY:
            self._marked = end
            self.exposures.mark(end)
            self.outcomes.mark(end)

    def _serve(self, table: Mapping[str, Any], t: int, number: int) -> None:
        draw = self._random
        unit = f"u{draw.randrange(UNITS)}"
        place = assign(table["salt"], unit, table["weight_bp"], table["control_from_bp"], table["counted_bp"])
        challenger = place.arm == "challenger"
        fails = draw.random() < (HARMED_ERRORS if challenger and self.harmed else ERRORS)
        self.requests += 1
        self.failures += fails
        latency = int(draw.lognormvariate(10.3, 0.4))  # µs, around 30 ms
        back = challenger and fails
        self.exposures.add(
            {
                "type": "exposure", "t": t, "request_id": f"{self._name}-{t}-{number}", "attempt": table["attempt"],
                "epoch": table["epoch"], "generation": table["generation"], "unit": unit, "arm": place.arm,
                "evidence": place.evidence, "assigned_by": "hash", "served_by": "champion" if back else place.arm,
                "version": table["champion" if back or not challenger else "challenger"]["version"],
                "attempts": 2 if back else 1, "fallback_reason": "Status" if back else None, "mirror": False,
                "mirrored": False, "stale": False, "unjudged": False, "usable": not fails,
                "status": 500 if fails else 200, "answer_status": 500 if fails and not back else 200,
                "latency_us": latency, "attributes": {}, "inputs": '{"inputs": [[1.0, 2.0, 3.0]]}',
                "answer": '{"predictions": [0.5]}', "cut": False,
            }
        )  # fmt: skip
        if draw.random() < CLICKS:
            self._due.append((t + OUTCOME_AFTER, unit))
