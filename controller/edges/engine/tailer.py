"""Reading journals: by file and byte offset up to the last newline, with their losses and the watermark.

A place is the next unread byte of a journal; it is kept in the engine's state, in the transaction of the rows that
were read before it. A file that has a successor never grows again.
"""

import os
import re
from pathlib import Path
from typing import Any, NamedTuple

import orjson

_FILE = re.compile(r"(?P<journal>[A-Za-z0-9][A-Za-z0-9._-]*)\.(?P<file>\d{8})\.jsonl")
CHUNK = 8 << 20
LONGEST_LINE = 64 << 20
AGAIN = ".again-"  # ends the name of a journal's further copy, before its number
SILENCE = 60_000_000  # µs after which a journal whose writer says nothing is closed


class Place(NamedTuple):
    """How far a journal is read, and what its lines said of it. Times in µs.

    ``seq`` is of the last line, ``t`` its time, before which nothing will follow. ``dropped`` and ``no_unit`` are the
    writer's counters as of its last mark, counted since ``started``. ``spoilt``: lines since ``seq`` that were none.
    """

    file: int = 0
    offset: int = 0
    seq: int = -1
    t: int = 0
    closed: bool = False
    started: int = 0
    dropped: int = 0
    no_unit: int = 0
    spoilt: int = 0

    def live(self, now: int) -> bool:
        """Whether more may come that lies before what other journals have already reached."""
        return not self.closed and self.t >= now - SILENCE


class Found(NamedTuple):
    """What some lines of a journal held: its events by type, the place after them, and the losses they showed."""

    exposures: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]
    samples: list[dict[str, Any]]
    place: Place
    lost: int
    no_unit: int
    malformed: int


def origin(journal: str) -> str:
    """The journal that this one is a copy of, if it is one: both may hold the same lines."""
    return journal.partition(AGAIN)[0]


def files(directory: Path) -> dict[str, list[int]]:
    """The journals of a directory with the numbers of their files, ascending; empty where there is none."""
    found: dict[str, list[int]] = {}
    try:
        names = [entry.name for entry in os.scandir(directory)]
    except FileNotFoundError:
        return {}
    for name in names:
        match = _FILE.fullmatch(name)
        if match is not None:
            found.setdefault(match["journal"], []).append(int(match["file"]))
    return {journal: sorted(numbers) for journal, numbers in sorted(found.items())}


def read(directory: Path, journal: str, numbers: list[int], place: Place) -> tuple[list[bytes], Place]:
    """Complete lines after ``place``, about CHUNK bytes at most, and the place after them (its numbers only).

    ``numbers`` are the journal's files as listed before this call. Where a file is gone, or is shorter than it was
    (the machine lost power), reading goes on at the first line that is there; what is read twice is counted once.
    Raises OSError, and ValueError for a line of more than LONGEST_LINE bytes.
    """
    file, offset = place.file, place.offset
    for number in (n for n in numbers if n >= file):
        if number != file:
            file, offset = number, 0
        try:
            with (directory / f"{journal}.{file:08d}.jsonl").open("rb", buffering=0) as log:
                size = os.fstat(log.fileno()).st_size
                if size < offset:
                    offset = 0
                data = _lines(log.fileno(), offset, size)
        except FileNotFoundError:
            continue
        if data:
            return data[:-1].split(b"\n"), place._replace(file=file, offset=offset + len(data))
    return [], place._replace(file=file, offset=offset)


def _lines(descriptor: int, offset: int, size: int) -> bytes:
    length = CHUNK
    while True:
        data = os.pread(descriptor, min(length, size - offset), offset)
        end = data.rfind(b"\n") + 1
        if end or len(data) < length:
            return data[:end]
        if length >= LONGEST_LINE:
            raise ValueError(f"no line ends within {length} bytes from {offset}")
        length *= 2


def understand(lines: list[bytes], place: Place) -> Found:
    """Events of lines and the losses they show: gaps in ``seq``, the writer's counters, and lines that are none.

    A line that cannot be read is counted and passed over; it never stops the reader.
    """
    exposures: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    samples: list[dict[str, Any]] = []
    lost = no_unit = malformed = 0
    for line in lines:
        try:
            event = orjson.loads(line)
            kind = event["type"]
            seq = int(event["seq"])
            t = int(event["ingest_t"] if kind == "outcome" else event["t"])
        except (ValueError, TypeError, KeyError):
            malformed += 1
            place = place._replace(spoilt=place.spoilt + 1)
            continue
        if kind == "journal":
            place, gap = _header(place, seq, t)
            lost += gap
            continue
        # A line that is not the next one shows what is missing; those that could not be read are not missing.
        if place.seq >= 0:
            lost += max(0, seq - place.seq - 1 - place.spoilt)
        seq, t = max(seq, place.seq), max(t, place.t)
        place = place._replace(seq=seq, t=t, spoilt=0, closed=False)
        if kind == "exposure":
            exposures.append(event)
        elif kind == "outcome":
            outcomes.append(event)
        elif kind == "sample":
            samples.append(event)
        elif kind == "mark":
            place, dropped, without = _mark(place, event)
            lost, no_unit = lost + dropped, no_unit + without
        else:
            malformed += 1
    return Found(exposures, outcomes, samples, place, lost, no_unit, malformed)


def _header(place: Place, seq: int, t: int) -> tuple[Place, int]:
    """A new file: what was written before it and never read is lost, unless this reader only begins here."""
    gap = max(0, seq - place.seq - place.spoilt) if place.seq >= 0 else 0
    return place._replace(seq=max(seq, place.seq), t=max(t, place.t), spoilt=0, closed=False), gap


def _mark(place: Place, event: dict[str, Any]) -> tuple[Place, int, int]:
    counters = [event.get(name, 0) for name in ("started", "dropped", "no_unit")]
    started, dropped, no_unit = (value if type(value) is int else 0 for value in counters)
    fresh = started != place.started
    more = max(0, dropped - (0 if fresh else place.dropped))
    without = max(0, no_unit - (0 if fresh else place.no_unit))
    closed = event.get("closed") is True
    return place._replace(started=started, dropped=dropped, no_unit=no_unit, closed=closed), more, without
