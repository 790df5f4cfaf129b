"""The journals of the soak, read as they grow, whose files are let go once they were read."""

from pathlib import Path
from typing import Any

import orjson

from router.journal_reader import acknowledge, journals, read_from
from tests.router.soak.ledger import Ledger

READER = "soak"


class Reading:
    """A reader of all journals that enters each exposure into the ledger."""

    def __init__(self, directory: Path, ledger: Ledger) -> None:
        self.lines = self.gaps = self.leaks = self.rotations = 0
        self._dropped: dict[tuple[str, int], int] = {}
        self._closed: dict[str, bool] = {}
        self._directory = directory
        self._ledger = ledger
        self._positions: dict[str, tuple[int, int]] = {}
        self._seq: dict[str, int] = {}

    @property
    def dropped(self) -> int:
        """What the journals' own marks count as dropped."""
        return sum(self._dropped.values())

    @property
    def unclosed(self) -> list[str]:
        """Journals whose last line does not say that they are complete."""
        return [journal for journal, closed in self._closed.items() if not closed]

    def read(self) -> None:
        """All that is there by now."""
        for journal in journals(self._directory):
            at = self._positions.get(journal, (0, 0))
            while (chunk := read_from(self._directory, journal, *at)).lines:
                self.rotations += chunk.file != at[0]
                at = chunk.file, chunk.offset
                self._ledger.take_notes()
                for line in chunk.lines:
                    self._take(journal, line)
            self._positions[journal] = at
        self._ledger.take_notes()
        acknowledge(self._directory, READER, self._positions)

    def _take(self, journal: str, line: bytes) -> None:
        event: dict[str, Any] = orjson.loads(line)
        self.lines += 1
        if event["type"] == "journal":
            return
        self.gaps += event["seq"] != self._seq.get(journal, 0) + 1
        self._seq[journal] = event["seq"]
        self._closed[journal] = event["type"] == "mark" and event["closed"]
        self.leaks += b"@example.org" in line
        if event["type"] == "mark":
            self._dropped[journal, event["started"]] = event["dropped"]
        elif event["type"] == "exposure":
            self._ledger.enter(event)
