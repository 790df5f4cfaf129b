"""The record log: each decision in full, as one line of JSON, in a file per rollout.

A record is on the disk before its status is committed, so a decision that counts is never without one. What was
written for a commit that the server then refused is taken back; what a crash left behind stands beyond the committed
sequence, and is no record.
"""

import json
import os
import threading
from pathlib import Path

from controller.core.record import Record
from controller.errors import EdgeError


class RecordLog:
    """The records that this process has written, in ``folder``. EdgeError where the disk does not take them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()

    def append(self, record: Record) -> int:
        """Write ``record`` and wait until it is on the disk; the size of the file before, for ``take_back``."""
        line = json.dumps(record._asdict(), sort_keys=True) + "\n"
        path = self._path(record.uid)
        try:
            with self._lock:
                self._folder.mkdir(parents=True, exist_ok=True)
                with path.open("ab") as file:
                    before = file.tell()
                    torn = before > 0 and not _whole(path)
                    file.write(b"\n" * torn + line.encode())
                    file.flush()
                    os.fsync(file.fileno())
        except OSError as error:
            raise EdgeError(f"record log {path}: {error.strerror}") from error
        return before

    def take_back(self, record: Record, size: int) -> None:
        """The commit of ``record``, which was the last one written, was refused."""
        path = self._path(record.uid)
        try:
            with self._lock, path.open("r+b") as file:
                file.truncate(size)
                os.fsync(file.fileno())
        except OSError as error:
            raise EdgeError(f"record log {path}: {error.strerror}") from error

    def read(self, uid: str, sequence: int) -> list[Record]:
        """The records of ``uid`` up to ``sequence``, oldest first. Of two with one key the later was committed."""
        try:
            lines = self._path(uid).read_bytes().split(b"\n")
        except FileNotFoundError:
            return []
        except OSError as error:
            raise EdgeError(f"record log {self._path(uid)}: {error.strerror}") from error
        found: dict[tuple[int, int], Record] = {}
        for line in lines:
            try:
                record = Record(**json.loads(line))
            except (ValueError, TypeError):
                continue  # torn by a crash before its commit
            if record.sequence <= sequence:
                found[record.generation, record.sequence] = record
        return [found[key] for key in sorted(found)]

    def _path(self, uid: str) -> Path:
        return self._folder / f"{uid}.jsonl"


def _whole(path: Path) -> bool:
    """Whether the last line has its end."""
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
