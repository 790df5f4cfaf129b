"""Journals → statistics of a tick: tail, count, fold; positions are committed together with what was counted."""

import json
import os
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from controller.core.cells import StatisticsQuery
from controller.core.covariates import misread
from controller.core.fold import Statistics
from controller.edges.engine import states, tailer
from controller.edges.engine.engine import Engine
from controller.edges.engine.rows import (
    ExposureRow,
    OutcomeRow,
    Pointer,
    SampleRow,
    exposure_row,
    outcome_row,
    sample_row,
)
from controller.edges.engine.schema import SharedStates
from controller.edges.engine.state import plain, restored
from controller.edges.engine.tailer import Place
from controller.errors import EdgeError
from controller.kinds import SCORED

_Row = TypeVar("_Row")
_COUNT_AFTER = 10_000  # rows that are put into the state together, at least, while there are more
POSITION = "position"  # kind of what is kept
# More requests a second than a small state is made for, in so many that it is no chance.
_DENSE = 40
_MANY = 400
_GROW_AGAIN_S = 600.0  # after it could not be done


class _Journal(NamedTuple):
    """One journal in one directory."""

    directory: Path
    name: str

    @property
    def key(self) -> str:
        return f"{self.directory}/{self.name}"


@dataclass(frozen=True)
class _Gathered:
    """Rows of several journals that are not counted yet, the losses that were noticed, and the places after them."""

    places: dict[str, Place] = field(default_factory=dict)
    exposures: list[ExposureRow] = field(default_factory=list)
    outcomes: list[OutcomeRow] = field(default_factory=list)
    samples: list[SampleRow] = field(default_factory=list)
    losses: Counter[str] = field(default_factory=Counter)

    @property
    def dense(self) -> bool:
        """Whether requests came so fast one after the other that a large state is cheaper. Their number alone does not
        tell, for after a pause there are many, nor do outcomes, which come in batches."""
        times = [row.t for row in self.exposures]
        return len(times) >= _MANY and len(times) * 1_000_000 >= _DENSE * (max(times) - min(times))


class JournalSource:
    """Reads every journal of some directories into an ``Engine``; implements ``StatisticsSource``.

    ``state``: the engine's file, held by this process alone (as long as there is little in it, one beside it that ends
    in ``.sqlite``); None keeps it in memory, so that every start reads all journals again. ``reader``: the name under
    which this process acknowledges what it has (with a file only), so that routers may delete it; None: not here.
    ``budget_s``: how long one ``read`` goes on reading; what is left then waits for the next one, and the watermark
    shows it. ``shared``: the DuckDB that the states of many rollouts are in.

    Raises EdgeError where the state cannot be opened.
    """

    def __init__(
        self,
        journals: Path | Sequence[Path],
        state: Path | None,
        *,
        reader: str | None = "controller",
        budget_s: float = 20.0,
        shared: SharedStates | None = None,
    ) -> None:
        paths = [journals] if isinstance(journals, Path) else journals
        self._directories = [path.absolute() for path in paths]
        self._state, self._shared, self._dense, self._grow_at = state, shared, False, 0.0
        self._held: Engine | None = states.opened(state, shared)
        self._acknowledges = state is not None and reader is not None
        self._reader = reader
        self._budget_s = budget_s
        found = self.engine.kept.taken(POSITION)
        self._places: dict[str, Place] = {key: restored(Place, json.loads(body)) for key, body in found.items()}
        self._said: dict[Path, dict[str, Any]] = {}

    @property
    def engine(self) -> Engine:
        """The state below; for reading. EdgeError where it has to be opened and cannot be."""
        if self._held is None:
            self._held = states.opened(self._state, self._shared)
        return self._held

    @property
    def size_mb(self) -> float:
        """What the open state holds of memory, about."""
        return 0.0 if self._held is None else self._held.tables.size_mb

    def close(self) -> None:
        """Let go of the state."""
        if self._held is not None:
            self._held.close()

    @property
    def places(self) -> Mapping[str, Place]:
        """How far each journal is read, by its name; all of it is committed."""
        return {key.rpartition("/")[2]: place for key, place in self._places.items()}

    def read(self, query: StatisticsQuery, now: int, awaited: Collection[str] = ()) -> Statistics:
        """Everything that the journals hold, for the attempt and epochs of ``query``. ``now`` in µs. ``awaited``: names
        of journals that may have grown where we cannot read them: nothing after their last line is final.

        Raises EdgeError where a journal or the state cannot be read, ValueError where the query contradicts what was
        judged already (another rollout, a changed baseline) or its prediction is no JSON pointer. Nothing is lost
        then: the next call goes on from what was committed.
        """
        labels = any(m.family in SCORED for m in query.metrics)
        pointer = Pointer(query.prediction) if labels else None
        try:
            self.engine.adopt(query)
            unread, gathered = self._tail(query, pointer, now)
            unread |= {f"{directory}/{name}" for directory in self._directories for name in awaited}
            statistics = self._advanced(query, gathered, now, unread)
            self._acknowledge()
            self._grow()
        except states.ERRORS as error:
            raise EdgeError(f"journals or their statistics cannot be read: {error}") from error
        return statistics

    def _grow(self) -> None:
        """Go on in a large state where the small one is outgrown. EdgeError where that is there and cannot be opened:
        it is then by the next call."""
        if self._state is None or time.monotonic() < self._grow_at or not states.outgrew(self.engine, self._dense):
            return
        if not states.grow_into(self._state, self.engine):
            self._grow_at = time.monotonic() + _GROW_AGAIN_S
            return
        self.engine.close()
        self._held = None  # where it cannot be opened now
        self._held = states.opened(self._state, self._shared)

    def _advanced(self, query: StatisticsQuery, gathered: _Gathered, now: int, unread: set[str]) -> Statistics:
        """Count what is left and fold what became final, in one transaction: each costs milliseconds. What was read is
        counted even where no statistics can be made of it."""
        try:
            with self.engine.batch():
                places = self._counted(gathered)
                statistics = self.engine.advance(query, self._watermark(now, unread, places))
        except (EdgeError, ValueError, *states.ERRORS):
            self._count(gathered)
            raise
        self._places = places
        return statistics

    def _tail(self, query: StatisticsQuery, pointer: Pointer | None, now: int) -> tuple[set[str], _Gathered]:
        """Read on, always the journal that is furthest behind; the keys of those that were not read to their end, and
        what is not counted yet.

        Journals are listed again until no new one appears: one that appears later holds nothing before that moment.
        """
        complete: set[str] = set()
        deadline = time.monotonic() + self._budget_s
        read = 0
        gathered = _Gathered()
        while True:
            waiting = {j: numbers for j, numbers in self._listed().items() if j.key not in complete}
            if not waiting:
                return set(), gathered
            while waiting:
                places = {j: gathered.places.get(j.key) or self._places.get(j.key, Place()) for j in waiting}
                journal = min(waiting, key=lambda j: places[j].t)
                rows = self._read(journal, waiting[journal], places[journal], query, pointer, gathered)
                if rows is None:
                    complete.add(journal.key)
                    del waiting[journal]
                    continue
                read += rows
                unread = {j.key for j in waiting}
                late = time.monotonic() > deadline
                many = read >= self.engine.tables.settle_after
                if late or many or len(gathered.exposures) + len(gathered.outcomes) >= _COUNT_AFTER:
                    self._count(gathered)
                    gathered = _Gathered()
                if late:
                    return unread, gathered
                if many:
                    self.engine.advance(query, self._watermark(now, unread, self._places))
                    self._grow()
                    read = 0

    def _listed(self) -> dict[_Journal, list[int]]:
        return {
            _Journal(directory, name): numbers
            for directory in self._directories
            for name, numbers in tailer.files(directory).items()
        }

    def _read(
        self, journal: _Journal, numbers: list[int], old: Place, query: StatisticsQuery, pointer: Pointer | None,
        gathered: _Gathered,
    ) -> int | None:  # fmt: skip
        """Put one chunk of a journal after ``old`` to what is ``gathered``: how many rows; None at its end."""
        try:
            lines, place = tailer.read(journal.directory, journal.name, numbers, old)
        except ValueError as error:
            raise EdgeError(f"{journal.key}: {error}") from error
        if not lines:
            if journal.key not in gathered.places:
                # Known from now on, so that the watermark waits for its first line.
                self._places.setdefault(journal.key, place)
            return None
        found = tailer.understand(lines, place)
        asked, origin = query.covariates, tailer.origin(journal.name)
        exposures, spoilt = _rows(found.exposures, lambda e: exposure_row(e, query.segments, pointer, asked, origin))
        outcomes, more = _rows(found.outcomes, outcome_row)
        samples, wrong = _rows(found.samples, sample_row)
        gathered.exposures.extend(exposures)
        gathered.outcomes.extend(outcomes)
        gathered.samples.extend(samples)
        gathered.losses.update(
            lost=found.lost,
            no_unit=found.no_unit,
            malformed=found.malformed + spoilt + more + wrong,
            misread=sum(misread(e.get("attributes") or {}) for e in found.exposures) if asked else 0,
        )
        gathered.places[journal.key] = found.place
        return len(exposures) + len(outcomes)

    def _count(self, gathered: _Gathered) -> None:
        """Count what was gathered, in one transaction with the places after it."""
        if not gathered.places:
            return
        with self.engine.batch():
            places = self._counted(gathered)
        self._places = places

    def _counted(self, gathered: _Gathered) -> dict[str, Place]:
        """Count what was gathered; how far each journal is read once the transaction that this is in is committed."""
        if gathered.places:
            self._dense |= gathered.dense
            self.engine.ingest(gathered.exposures, gathered.outcomes, gathered.samples)
            self.engine.count(**gathered.losses)
            for key, place in gathered.places.items():
                self.engine.kept.put(POSITION, key, json.dumps(plain(place)))
        return {**self._places, **gathered.places}

    @staticmethod
    def _watermark(now: int, unread: set[str], places: Mapping[str, Place]) -> int:
        """Nothing earlier will follow: the least last time of the journals that still live, or are not read out.

        Once all writers are gone it lies just after the latest time that any of them reached.
        """
        if not unread <= places.keys():
            return 0
        live = [p.t for key, p in places.items() if key in unread or p.live(now)]
        return min(live) if live else max((p.t + 1 for p in places.values()), default=0)

    def _acknowledge(self) -> None:
        """Leave word in every directory of what is committed, for the routers to delete by."""
        if not self._acknowledges:
            return
        for directory in self._directories:
            said = {
                key.rsplit("/", 1)[1]: {"file": place.file, "offset": place.offset}
                for key, place in self._places.items()
                if key.rsplit("/", 1)[0] == str(directory) and place.seq >= 0
            }
            if said and said != self._said.get(directory):
                _write(directory / "readers" / f"{self._reader}.json", json.dumps(said).encode())
                self._said[directory] = said


def _rows(events: list[dict[str, Any]], made: Callable[[Mapping[str, Any]], _Row]) -> tuple[list[_Row], int]:
    """The rows of events, and how many events were malformed."""
    rows, malformed = [], 0
    for event in events:
        try:
            rows.append(made(event))
        except (ValueError, TypeError, KeyError):
            malformed += 1
    return rows, malformed


def _write(path: Path, content: bytes) -> None:
    """Replace a file, whole or not at all. It may be lost with the machine's power: then routers keep more."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.new")
    temporary.write_bytes(content)
    temporary.replace(path)
