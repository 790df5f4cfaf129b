"""The route table that a router holds, and its copy on disk for the next start."""

import logging
import os
import time
from pathlib import Path

from pydantic import ValidationError

from router.journal_reader import write_atomically
from router.kept_table import read_kept
from router.table import RouteTable

log = logging.getLogger("understudy.router.table")

# How often at most the workers are told that the controller was heard of, and the file's time is moved.
_TELL_US = 200_000
_TOUCH_US = 5_000_000


class TableConflict(ValueError):
    """The table is older than the one held, or another one of the same generation."""


class TableStore:
    """The newest table of a router. ``heard`` is when the controller was last heard of (µs), 0 for never.

    The file's modification time carries ``heard`` over a restart, so that a router that is restarted again
    and again does not forget that its controller is gone.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.table: RouteTable | None = None
        self.heard = 0
        self._on_disk: RouteTable | None = None
        # Sends everybody to the champion, in the place of one that cannot be used whole.
        self._stand_in: RouteTable | None = None
        self._told = 0
        self._touched = 0

    def load(self) -> None:
        """Take the table that an earlier life has kept. Of one that another version has written, unknown fields are
        passed over, and where the rest is refused its champion alone serves, until a table comes; one that cannot be
        understood is put aside. Each with a message.

        Raises OSError where the file is there and cannot be read.
        """
        try:
            content = self.path.read_bytes()
            modified = self.path.stat().st_mtime_ns // 1000
        except FileNotFoundError:
            return
        try:
            self.table, unknown, refused = read_kept(content)
        except ValidationError as error:
            aside = self.path.with_name(f"{self.path.name}.corrupt")
            self.path.replace(aside)
            log.error(
                "%s holds no route table and was moved to %s; requests get 503 until a table comes: %s",
                self.path,
                aside,
                _told(error),
            )
            return
        if unknown:
            log.warning("%s has fields that this version does not know; they are passed over: %s", self.path, unknown)
        if refused is not None:
            self._stand_in = self.table
            log.error(
                "%s is of another version and cannot be used whole; the champion alone serves until a table comes: %s",
                self.path,
                _told(refused),
            )
        self._on_disk = self.table
        self.heard = min(modified, time.time_ns() // 1000)

    def yields_to(self, table: RouteTable) -> bool:
        """Whether ``table`` is newer than the one held, or the one in whose place that stands."""
        held = self.table
        if held is None or table.generation > held.generation:
            return True
        return held is self._stand_in and table.generation == held.generation

    def check(self, table: RouteTable) -> bool:
        """Whether ``table`` is news; raises TableConflict where it may not replace the one held."""
        held = self.table
        if held is None or self.yields_to(table):
            return True
        if table.generation < held.generation:
            raise TableConflict(
                f"generation {table.generation} is older than generation {held.generation}, which is served"
            )
        if table != held:
            raise TableConflict(
                f"generation {table.generation} is served already, with another content: a changed table needs a "
                "higher generation"
            )
        return False

    def hear(self) -> bool:
        """Note that the controller was heard of; whether the workers should be told again."""
        self.heard = time.time_ns() // 1000
        if self.heard - self._told < _TELL_US:
            return False
        self._told = self.heard
        if self._on_disk is None or self.heard - self._touched < _TOUCH_US:
            return True
        self._touched = self.heard
        try:
            os.utime(self.path)
        except OSError as error:
            log.warning("%s: its time cannot be set: %s", self.path, error)
        return True

    @property
    def persisted(self) -> bool:
        """Whether the table held is the one on disk."""
        return self._on_disk == self.table

    def persist(self) -> None:
        """Bring the table held to disk; one call at a time. Raises OSError."""
        table = self.table
        if table is None:
            return
        self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomically(self.path, table.model_dump_json(indent=1).encode())
        self._on_disk = table


def _told(error: ValidationError) -> str:
    return "; ".join(problem["message"] for problem in problems(error))


def problems(error: ValidationError) -> list[dict[str, str]]:
    """The faults of a validation, each with the field it names and what is wrong with it."""
    found = []
    for fault in error.errors(include_url=False, include_input=False, include_context=False):
        field = ".".join(str(part) for part in fault["loc"])
        message = fault["msg"].removeprefix("Value error, ")
        found.append({"field": field, "message": f"{field}: {message}" if field else message})
    return found
