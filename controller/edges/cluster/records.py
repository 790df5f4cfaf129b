"""The record log: each decision in full, as one line of JSON, in a file per rollout.

A record is on the disk before its status is committed, so a decision that counts is never without one; an empty line
says that it was. What was written for a commit that the server then refused is taken back. What a crash left behind
counts only where the status says so: beyond the committed sequence it is none, and one that is not beyond it may stand
where another replica, with a log of its own, decided instead.
"""

import contextlib
import json
import os
import threading
from pathlib import Path

from controller.core.record import Record
from controller.errors import EdgeError
from controller.status import RolloutStatus

VOID = b"{}"  # a line after a record that was never committed


class Unrecorded(EdgeError):
    """The disk does not take a record: this process cannot decide."""


class RecordLog:
    """The records that this process has written, in ``folder``. EdgeError where the disk fails."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def append(self, record: Record, held: RolloutStatus) -> int:
        """Write ``record`` and wait until it is on the disk; the size of the file before, for ``take_back``. ``held``:
        what is committed now. Unrecorded where it cannot be."""
        line = json.dumps(record._asdict(), sort_keys=True) + "\n"
        path = self._path(record.uid)
        try:
            with self._lock:
                self._folder.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    file.write(_close(path, held))
                    before = file.tell()
                    file.write(line.encode())
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise Unrecorded(f"record log {path}: {error.strerror}") from error
        return before

    def settle(self, record: Record) -> None:
        """The commit of ``record``, which was the last one written, was done. Where that cannot be noted, the next
        status tells."""
        with contextlib.suppress(OSError), self._lock, self._path(record.uid).open("ab") as file:
            file.write(b"\n")

    def take_back(self, record: Record, size: int) -> None:
        """The commit of ``record``, which was the last one written, was refused."""
        path = self._path(record.uid)
        try:
            with self._lock, path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())
        except OSError as error:
            raise EdgeError(f"record log {path}: {error.strerror}") from error

    def read(self, uid: str, held: RolloutStatus) -> list[Record]:
        """The records of ``uid`` that led to ``held``, which is committed, oldest first. Of two with one key the later
        was committed."""
        try:
            found, unheard = _records(self._path(uid).read_bytes())
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EdgeError(f"record log {self._path(uid)}: {error.strerror}") from error
        if unheard is not None and not _led_to(unheard, held):
            del found[unheard.generation, unheard.sequence]
        return [found[key] for key in sorted(found) if found[key].sequence <= held.sequence]

    def _path(self, uid: str) -> Path:
        return self._folder / f"{uid}.jsonl"


def _records(log: bytes) -> tuple[dict[tuple[int, int], Record], Record | None]:
    """The records in ``log``, and the last one where it does not say what became of that. One that is torn at the end
    was not committed."""
    found: dict[tuple[int, int], Record] = {}
    unheard: Record | None = None
    for line in log.split(b"\n")[:-1]:
        if line in (b"", VOID):
            if line and unheard is not None:
                del found[unheard.generation, unheard.sequence]
            unheard = None
            continue
        try:
            record = Record(**json.loads(line))
        except (ValueError, TypeError):
            continue  # torn by a crash before its commit
        found[record.generation, record.sequence] = unheard = record
    return found, unheard


def _led_to(record: Record, held: RolloutStatus) -> bool:
    """Whether ``held`` is what was decided in ``record``, by its number and time. Where more was decided since, that
    cannot be told any more."""
    before = json.loads(record.inputs).get("status") or {}
    return (record.sequence, max(record.now, before.get("clock", 0))) == (held.sequence, held.decided_at)


def _close(path: Path, held: RolloutStatus) -> bytes:
    """What the log lacks before another record may follow."""
    log = path.read_bytes() if not _closed(path) else b""
    _, unheard = _records(log)
    torn = b"\n" if log and not log.endswith(b"\n") else b""
    if unheard is None:
        return torn
    return torn + (b"\n" if _led_to(unheard, held) else VOID + b"\n")


def _closed(path: Path) -> bool:
    """Whether nothing is open at the end, as after every commit."""
    with path.open("rb") as file:
        if (size := file.seek(0, os.SEEK_END)) < 2:
            return size == 0
        file.seek(-2, os.SEEK_END)
        return file.read(2) == b"\n\n"
