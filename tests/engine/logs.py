"""Worlds as journals on disk: the lines that routers would have written, growing while somebody reads them."""

import json
import random
from pathlib import Path
from typing import Any

from controller.edges.engine import ExposureRow, OutcomeRow, SampleRow
from router.events import Exposure, Header, Mark, Outcome
from tests.engine.worlds import World


def exposure_event(row: ExposureRow, rng: random.Random) -> dict[str, Any]:
    """What a router would have said of ``row``; where it leaves a choice, one at random."""
    assigned_by = "hash" if row.hashed else rng.choice(["override", "none"] if row.unit else ["none"])
    stale = False
    if not row.hashed and row.unit is not None and rng.random() < 0.3:
        assigned_by, stale = "hash", True
    answer, cut = json.dumps({"predictions": row.scores and [{"late": s} for s in row.scores]}), False
    if row.scores is None:
        answer, cut = answer[:9], True
    return Exposure(
        seq=0,
        t=row.t,
        request_id=row.request_id,
        attempt=row.attempt,
        epoch=row.epoch,
        generation=row.epoch,
        unit=row.unit,
        arm="challenger" if row.challenger else "champion",
        evidence=row.evidence or (not row.hashed and rng.random() < 0.5),
        assigned_by=assigned_by,
        served_by="champion" if row.fell_back or not row.challenger else "challenger",
        version="3",
        mirror=row.mirror,
        stale=stale,
        usable=row.usable,
        status=200,
        answer_status=200,
        latency_us=row.latency_us,
        attributes=dict(text.split("=") for text in row.segments) | {"other": "x"} | covariate_texts(row),
        inputs="{}",
        answer=answer,
        cut=cut,
    ).model_dump()


def covariate_texts(row: ExposureRow) -> dict[str, str]:
    """The covariates of ``row`` as the router writes them down; in place of those it has not, sometimes no number."""
    texts = {}
    for i, number in enumerate(row.numbers, 1):
        other = ("", "nan", "1e10", "true")[row.t // 10_000 % 4]
        text = other if number is None else repr(number / 1e6)
        if text:
            texts[f"covariate.{i}"] = text
    return texts


def outcome_event(row: OutcomeRow) -> dict[str, Any]:
    """What the outcomes API would have said of ``row``."""
    return Outcome(**row._asdict()).model_dump()


def sample_event(row: SampleRow) -> dict[str, Any]:
    """What the controller would have said of ``row``."""
    said = {name: value for name, value in row._asdict().items() if name != "challenger"}
    return {"type": "sample", "arm": "challenger" if row.challenger else "champion", **said}


class Log:
    """One journal, written line by line into files of random length."""

    def __init__(self, directory: Path, journal: str, rng: random.Random) -> None:
        self._directory, self._journal, self._rng = directory, journal, rng
        self._file, self._seq, self._left = 0, 0, 0
        self.t = 0
        self._torn = b""
        self.lost = 0

    def _path(self) -> Path:
        return self._directory / f"{self._journal}.{self._file:08d}.jsonl"

    def _append(self, data: bytes) -> None:
        with self._path().open("ab") as out:
            out.write(data)

    def write(self, t: int, event: dict[str, Any]) -> None:
        """A line at ``t``; sometimes a new file before it, sometimes only half of it for now."""
        self._append(self._torn)
        self._torn = b""
        if self._left == 0:
            self._file += 1
            self._left = self._rng.randrange(20, 300)
            self._append(
                Header(journal=self._journal, file=self._file, seq=self._seq, t=self.t).model_dump_json().encode()
                + b"\n"
            )
        self._left -= 1
        self._seq += 1
        self.t = max(t, self.t)
        line = json.dumps({**event, "seq": self._seq}).encode() + b"\n"
        cut = self._rng.randrange(len(line)) if self._rng.random() < 0.1 else len(line)
        self._append(line[:cut])
        self._torn = line[cut:]

    def mark(self, t: int, **counters: Any) -> None:
        """A heartbeat, whole."""
        self.write(t, Mark(seq=0, t=max(t, self.t), **counters).model_dump())
        self._append(self._torn)
        self._torn = b""

    def lose(self, lines: int) -> None:
        """Lines that got a number and never reached the disk."""
        self._seq += lines
        self.lost += lines

    def spoil(self) -> None:
        """A line that got a number and is none."""
        self._append(self._torn + b'{"type": "exposure", "t": \x00\x00\n')
        self._torn = b""
        self._seq += 1


class Routers:
    """Two workers, an outcomes API and a controller that write a world down as time goes on."""

    def __init__(self, directory: Path, made: World, seed: int) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.rng = random.Random(seed)
        self.logs = {
            name: Log(directory, name, self.rng) for name in ("edge-w0", "edge-w1", "edge-outcomes", "edge-samples")
        }
        self._lines: list[tuple[int, str, dict[str, Any]]] = []
        for row in made.exposures:
            self._lines.append((row.t, row.journal, exposure_event(row, self.rng)))
        for said in made.outcomes:
            self._lines.append((said.ingest_t, "edge-outcomes", outcome_event(said)))
        for sampled in made.samples:
            self._lines.append((sampled.t, "edge-samples", sample_event(sampled)))
        self._lines.sort(key=lambda line: line[0])
        self._at = 0

    @property
    def done(self) -> bool:
        """Everything is written."""
        return self._at == len(self._lines)

    def go_on(self, lines: int) -> int:
        """Write so many lines more, and a heartbeat of every journal; the time it then is."""
        for t, name, event in self._lines[self._at : self._at + lines]:
            self.logs[name].write(t, event)
        self._at = min(self._at + lines, len(self._lines))
        now = self._lines[self._at - 1][0]
        for log in self.logs.values():
            log.mark(now)
        return now

    def end(self, t: int) -> int:
        """A last heartbeat of every journal at ``t``."""
        for log in self.logs.values():
            log.mark(t)
        return t
