"""The files below a journal's writer: lock, repair of a torn end, whole lines or nothing, rotation."""

import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson

from router.events import JOURNAL_VERSION, Header
from router.journal_reader import checked_name, file_path, files_of, sync_directory

_STEP_BACK = 1 << 16
_PIECE_BYTES = 1 << 17


class JournalLocked(OSError):
    """Another process writes this journal."""


def event_time(event: dict[str, Any]) -> int:
    """The time, in µs, that never decreases along a journal: when the line was made.

    That is ``t``, except of an outcome: its ``t`` is when it happened, which may be days ago, and
    ``ingest_t`` is when it came in.
    """
    return int(event["ingest_t"] if event["type"] == "outcome" else event["t"])


class JournalFiles:
    """The files of one journal, open for appending, held by this process alone.

    ``seq`` and ``t`` are of the last line, ``file`` is the number of the current file and ``size`` its bytes.
    Raises JournalLocked where another writer has the journal, ValueError for an impossible name or a file
    that belongs to another journal or a later version, OSError where the disk refuses.
    """

    def __init__(self, directory: Path, journal: str) -> None:
        self.directory = directory
        self.journal = checked_name(journal)
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock = self._locked()
        self._descriptor = -1
        self.file = 0
        self.size = 0
        self.seq = 0
        self.t = 0
        self.opened = time.monotonic()
        # Set where a torn line could not be cut away: nothing may follow it until it is.
        self._torn_at: int | None = None
        try:
            self._resume()
        except BaseException:
            self.close()
            raise

    def _locked(self) -> int:
        path = self.directory / f"{self.journal}.lock"
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise JournalLocked(f"journal {self.journal} in {self.directory} has another writer") from None
        return descriptor

    def _resume(self) -> None:
        """Open the newest file where the last writer left it, or the next one where its end is not to be
        trusted.
        """
        numbers = files_of(self.directory, self.journal)
        for number in reversed(numbers):
            path = file_path(self.directory, self.journal, number)
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CLOEXEC)
            try:
                last = self._last_line(descriptor, path)
            except BaseException:
                os.close(descriptor)
                raise
            if last is not None:
                self.seq, self.t, trusted = last
                if trusted and number == numbers[-1]:
                    self._take(descriptor, number)
                    return
            os.close(descriptor)
            if last is not None:
                break
        self._create(numbers[-1] + 1 if numbers else 0)

    def _last_line(self, descriptor: int, path: Path) -> tuple[int, int, bool] | None:
        """(seq, t, whether the very last line says so) after cutting a torn end; None for a file without a
        header.
        """
        header_end = _repaired(descriptor)
        if header_end == 0:
            return None
        try:
            header = Header.model_validate_json(os.pread(descriptor, header_end, 0).strip())
        except ValueError:
            header = None
        if header is None or header.journal != self.journal or header.version != JOURNAL_VERSION:
            raise ValueError(
                f"{path.name}: its first line is no header of journal {self.journal} in version "
                f"{JOURNAL_VERSION}; move the file away to let the journal go on"
            )
        trusted = True
        end = os.fstat(descriptor).st_size
        while end > header_end:
            start = _line_start(descriptor, end)
            try:
                event = orjson.loads(os.pread(descriptor, end - start, start))
                return int(event["seq"]), event_time(event), trusted
            except (ValueError, TypeError, KeyError):
                # A whole line that is no event (blocks lost with the machine's power). Readers may have met
                # it: it stays, and a new file follows.
                trusted = False
                end = start
        return header.seq, header.t, trusted

    def _take(self, descriptor: int, number: int) -> None:
        os.fchmod(descriptor, 0o600)
        self._descriptor, self.file = descriptor, number
        self.size = os.fstat(descriptor).st_size
        self.opened = time.monotonic()
        self._torn_at = None

    def _create(self, number: int) -> None:
        """Make file ``number``, with its header, the current one; where that fails the current one stays."""
        path = file_path(self.directory, self.journal, number)
        header = Header(journal=self.journal, file=number, seq=self.seq, t=max(self.t, time.time_ns() // 1000))
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_APPEND | os.O_CLOEXEC, 0o600)
        line = orjson.dumps(header.model_dump(), option=orjson.OPT_APPEND_NEWLINE)
        try:
            if os.write(descriptor, line) != len(line):
                raise OSError(f"{path.name}: no space for its header")
            os.fdatasync(descriptor)
            sync_directory(self.directory)
        except OSError:
            os.close(descriptor)
            path.unlink(missing_ok=True)
            raise
        if self._descriptor >= 0:
            os.close(self._descriptor)
        self.t = header.t
        self._take(descriptor, number)

    def append(self, lines: list[bytes]) -> tuple[int, int, OSError | None]:
        """Write lines; answers how many of them stay, their bytes, and the error if any.

        What stays may have been read already, hence is never taken back. Without an error all of it stays and
        is durable.
        """
        try:
            self._cut()
        except OSError as error:
            return 0, 0, error
        written, failure = 0, None
        try:
            for piece in _pieces(lines):
                view = memoryview(piece)
                while view:
                    done = os.write(self._descriptor, view)
                    written += done
                    view = view[done:]
        except OSError as error:
            failure = error
        count, kept = (len(lines), written) if failure is None else _whole(lines, written)
        if written > kept:
            self._torn_at = self.size + kept
        self.size += kept
        try:
            if failure is not None:
                self._cut()
            if kept:
                os.fdatasync(self._descriptor)
        except OSError as error:
            failure = failure or error
        return count, kept, failure

    def _cut(self) -> None:
        if self._torn_at is not None:
            os.ftruncate(self._descriptor, self._torn_at)
            self._torn_at = None

    def rotate(self) -> None:
        """Finish the current file and begin the next. Raises OSError; the current file then stays."""
        self._cut()
        self._create(self.file + 1)

    def close(self) -> None:
        """Let go of the files and of the lock."""
        for descriptor in (self._descriptor, self._lock):
            if descriptor >= 0:
                os.close(descriptor)
        self._descriptor = self._lock = -1


def is_free(directory: Path, journal: str) -> bool:
    """Whether nobody writes ``journal`` at the moment. Raises OSError where that cannot be found out."""
    try:
        descriptor = os.open(directory / f"{journal}.lock", os.O_RDWR | os.O_CLOEXEC)
    except FileNotFoundError:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    finally:
        os.close(descriptor)
    return True


def _repaired(descriptor: int) -> int:
    """Cut everything after the last newline; answers where the first line ends, 0 without a line."""
    size = os.fstat(descriptor).st_size
    end = _line_start(descriptor, size, torn=True)
    if end < size:
        os.ftruncate(descriptor, end)
        os.fdatasync(descriptor)
    at = 0
    while at < end:
        found = os.pread(descriptor, _STEP_BACK, at).find(b"\n")
        if found >= 0:
            return at + found + 1
        at += _STEP_BACK
    return 0


def _line_start(descriptor: int, end: int, *, torn: bool = False) -> int:
    """Where the line that ends with the newline before ``end`` begins; with ``torn``, where the rest after it
    does.
    """
    at = end if torn else end - 1
    while at > 0:
        start = max(0, at - _STEP_BACK)
        found = os.pread(descriptor, at - start, start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        at = start
    return 0


def _pieces(lines: list[bytes]) -> Iterator[bytes]:
    """The lines joined, of which no piece is so long that others would wait for the interpreter meanwhile."""
    begin = size = 0
    for at, line in enumerate(lines):
        if size >= _PIECE_BYTES:
            yield b"".join(lines[begin:at])
            begin, size = at, 0
        size += len(line)
    yield b"".join(lines[begin:])


def _whole(lines: list[bytes], written: int) -> tuple[int, int]:
    """How many of the lines are among the first ``written`` bytes of all, and their bytes."""
    count = size = 0
    for line in lines:
        if size + len(line) > written:
            break
        count += 1
        size += len(line)
    return count, size
