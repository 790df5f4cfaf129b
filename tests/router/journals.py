"""What the tests of the journal share: events to write, a plain reading of the files, and what always holds."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from router.journal_file import event_time
from router.journal_reader import files_of, read_from


def now() -> int:
    """Microseconds since the epoch."""
    return time.time_ns() // 1000


def exposure(number: int, t: int | None = None) -> dict[str, Any]:
    """Enough of an exposure for a journal, which looks at nothing but type and time."""
    return {"type": "exposure", "t": now() if t is None else t, "request_id": f"r{number}"}


def outcome(number: int, t: int = 1) -> dict[str, Any]:
    return {"type": "outcome", "t": t, "ingest_t": now(), "outcome_id": f"o{number}", "name": "click"}


def read_all(directory: Path, journal: str, limit_bytes: int = 1 << 20) -> list[dict[str, Any]]:
    """Every event a reader meets, headers included, from the beginning on."""
    events: list[dict[str, Any]] = []
    file, offset = 0, 0
    while True:
        chunk = read_from(directory, journal, file, offset, limit_bytes)
        if not chunk.lines:
            return events
        events += map(json.loads, chunk.lines)
        file, offset = chunk.file, chunk.offset


def assert_sound(events: list[dict[str, Any]]) -> None:
    """seq counts the lines from 1 without gaps, headers agree with it, and time never goes back."""
    seq, last = 0, 0
    for event in events:
        if event["type"] == "journal":
            assert event["seq"] == seq
        else:
            assert event["seq"] == seq + 1
            seq += 1
        assert event_time(event) >= last
        last = event_time(event)


def ids(events: list[dict[str, Any]]) -> list[str]:
    """The identities of exposures and outcomes, in the order of the journal."""
    return [
        str(event.get("request_id") or event.get("outcome_id"))
        for event in events
        if "seq" in event and event["type"] in {"exposure", "outcome"}
    ]


def newest(directory: Path, journal: str) -> Path:
    return directory / f"{journal}.{files_of(directory, journal)[-1]:08d}.jsonl"


def until(condition: Callable[[], bool], what: str, seconds: float = 10.0) -> None:
    """Wait for ``condition``; fails after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not within {seconds} s: {what}"
        time.sleep(0.005)
