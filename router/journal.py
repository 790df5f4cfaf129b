"""The journal's writer: takes events without ever making an answer wait, and puts them on disk in batches.

One writer a journal (a lock keeps a second one out), one thread a writer. ``offer`` puts an event into a
bounded queue and returns; ``append`` waits until its events are on disk. Batches are written with one
``fdatasync`` each. Where the disk is full, slow or broken, the queue keeps what fits, the rest is counted as
dropped, and the writer goes on by itself once the disk takes lines again; a line is never torn and never
taken back.
"""

import logging
import threading
import time
from collections import deque
from pathlib import Path
from typing import Any

import orjson

from router.batch import Batch, Request
from router.intake import Intake, Pending, weight
from router.journal_file import JournalFiles, JournalLocked, event_time
from router.journal_reader import LONGEST_LINE
from router.line import Line
from router.tally import Tally

__all__ = ["JournalLocked", "Writer"]

log = logging.getLogger("understudy.router.journal")

_BATCH_EVENTS = 2_048
_BATCH_BYTES = 8 << 20
# Serialising holds the interpreter: after so many events the thread lets the event loop have a turn.
_TURN_EVENTS = 64
_MARK_S = 0.9
_RETRY_S = 1.0


class Writer:
    """Appends events (dicts as ``router.events`` shapes them, without ``seq``) to one journal.

    ``capacity`` and ``capacity_bytes`` bound what may wait for the disk (bytes are estimated from the
    bodies); ``flush_ms`` is the longest an event waits for its batch. A file is finished at ``rotate_bytes``
    or after ``rotate_s``; finished files are deleted by ``router.retention``.

    Opening repairs a torn last line and continues ``seq``. What the last writer with the same ``tally`` was offered
    and neither wrote nor told as lost, since it was killed, counts as lost. Raises JournalLocked, ValueError or OSError
    as ``JournalFiles`` does. ``no_unit`` belongs to the caller: it counts requests without a unit.
    """

    def __init__(
        self,
        directory: Path,
        journal: str,
        *,
        capacity: int = 10_000,
        capacity_bytes: int = 64 << 20,
        flush_ms: float = 100,
        rotate_bytes: int = 64 << 20,
        rotate_s: float = 3_600,
        tally: Tally | None = None,
    ) -> None:
        self._files = JournalFiles(directory, journal)
        self._tally = tally or Tally()
        # What outlives this process; the caller says how many requests are under way (``tally.UNDER_WAY``).
        self.counted = self._tally.cells
        self.journal = journal
        self.no_unit = 0
        self._flush_s = flush_ms / 1000
        self._rotate_bytes = rotate_bytes
        self._rotate_s = rotate_s
        self._requests: deque[Request] = deque()
        # Like what the intake counts, written by one side only: lost and written by the thread.
        self._lost = self._tally.resume(self._files.seq)
        if self._lost:
            log.warning("journal %s: its last writer was killed with %d events unwritten", journal, self._lost)
        self._offered_written = 0
        self._told = 0
        self._written = 0
        self._written_bytes = 0
        self._errors = 0
        self._sync_s = 0.0
        self._failing = False
        self._started = time.time_ns() // 1000
        self._marked = 0.0
        self._retry_rotation = 0.0
        self._retry_write = 0.0
        self._wake = threading.Event()
        self._intake = Intake(self.counted, self._lost, capacity, capacity_bytes, self._wake)
        # Every request comes by: not a method of this class, which is interpreted.
        self.offer = self._intake.offer
        self._append_lock = threading.Lock()
        self._waiting_events = 0
        self._thread = threading.Thread(target=self._run, name=f"journal-{journal}", daemon=True)
        self._thread.start()
        if self._lost:
            # Told at once: whoever comes next counts what was not.
            self._wake.set()

    @property
    def dropped(self) -> int:
        """Events that were offered and will never be in the journal, since the writer started."""
        return self._intake.refused + self._lost

    def counters(self) -> dict[str, float]:
        """What the writer did since it started, by metric name; losses with those of its lives that were killed."""
        return {
            "journal_events_total": self._written,
            "journal_bytes_total": self._written_bytes,
            "journal_dropped_total": self._tally.told_before + self.dropped,
            "journal_errors_total": self._errors,
            "journal_queued": len(self._intake.waiting),
            "journal_sync_seconds_total": self._sync_s,
        }

    def append(self, events: list[dict[str, Any]], timeout: float = 5.0) -> None:
        """Write events and return once they are on disk. At most ``timeout`` seconds; any thread may call.

        Raises OSError (TimeoutError among them) where not all of them are known to be on disk: some may be,
        so whoever repeats must expect duplicates. Raises TypeError or ValueError for an event that is no
        JSON, which leaves none of them written.
        """
        if not events:
            return
        for event in events:
            orjson.dumps(event)
            event_time(event)
        request = Request(events)
        with self._append_lock:
            if self._intake.closed:
                raise OSError(f"journal {self.journal} is closed")
            # More than may wait at all would be refused for ever, and are taken by themselves.
            if self._waiting_events and self._waiting_events + len(events) > self._intake.capacity:
                raise OSError(f"journal {self.journal}: {self._waiting_events} events wait for the disk already")
            self._waiting_events += len(events)
            self._requests.append(request)
        self._wake.set()
        try:
            if not request.done.wait(timeout):
                request.abandoned = True
                raise TimeoutError(f"journal {self.journal}: the disk took longer than {timeout} s")
        finally:
            with self._append_lock:
                self._waiting_events -= len(events)
        if request.error is not None:
            raise request.error

    def close(self, timeout: float = 5.0) -> None:
        """Write what waits and a last mark, then let go of the journal; what the disk refuses is lost."""
        with self._append_lock:
            self._intake.closed = True
        self._wake.set()
        self._thread.join(timeout)
        if self._thread.is_alive():
            log.error("journal %s: the disk did not answer within %s s at the end", self.journal, timeout)

    def _run(self) -> None:
        try:
            while not self._intake.closed:
                self._wake.wait(self._flush_s)
                self._wake.clear()
                self._flush()
            self._flush()
            self._finish()
        finally:
            self._intake.closed = True
            self._fail_requests(OSError(f"journal {self.journal} is closed"))
            self._files.close()

    def _flush(self) -> None:
        """Write until nothing waits or the disk refuses."""
        self._rotate_if_due()
        while True:
            # While the disk refuses, the queue is tried once in a while; somebody who waits gets an answer at
            # once.
            now = time.monotonic()
            held = self._failing and now < self._retry_write and not self._intake.closed
            due = (now - self._marked >= _MARK_S or self.dropped != self._told) and not held
            batch = self._batch(requests_only=held)
            if due:
                self._add(batch, self._mark(), None)
            if not batch.lines or not self._write(batch):
                return
            if due:
                self._marked = now

    def _batch(self, *, requests_only: bool) -> Batch:
        """Take what waits, requests first (somebody waits for them), up to the limits of one write."""
        batch, size = Batch(), 0
        while self._requests and len(batch.lines) < _BATCH_EVENTS:
            request = self._requests.popleft()
            if request.abandoned:
                continue
            for event in request.events:
                self._add(batch, event, request)
        if requests_only:
            return batch
        intake = self._intake
        while intake.waiting and len(batch.lines) < _BATCH_EVENTS and size < _BATCH_BYTES:
            made = batch.take_made(intake.waiting, *self._before(batch), _TURN_EVENTS - len(batch.lines) % _TURN_EVENTS)
            intake.taken_bytes += made
            size += made
            if not made:
                offered = intake.waiting.popleft()
                assert not isinstance(offered, Line)
                intake.taken_bytes += weight(offered)
                size += self._add(batch, offered, None)
            if len(batch.lines) % _TURN_EVENTS == 0:
                time.sleep(0)
        return batch

    def _before(self, batch: Batch) -> tuple[int, int]:
        """The seq and the time of the line before its next one."""
        return self._files.seq + len(batch.lines), batch.times[-1] if batch.times else self._files.t

    def _add(self, batch: Batch, event: dict[str, Any] | Pending, request: Request | None) -> int:
        """Make a line of an event, with its seq and a time that does not go back; its bytes, 0 if it is no JSON."""
        seq, last = self._before(batch)
        try:
            if not isinstance(event, dict):
                event = event.event()
            kind = event["type"]
            moment = max(event_time(event), last)
            event["ingest_t" if kind == "outcome" else "t"] = moment
            event["seq"] = seq + 1
            line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
            if len(line) > LONGEST_LINE and kind == "exposure":
                # Escaped, a body may be six times as long. Nobody could read on from here.
                event = {**event, "inputs": None, "answer": None, "cut": True, "answer_cut": True}
                line = orjson.dumps(event, option=orjson.OPT_APPEND_NEWLINE)
        except (TypeError, ValueError, LookupError, AttributeError) as error:
            self._lost += 1
            log.error("journal %s: an event that cannot be written was dropped: %r", self.journal, error)
            return 0
        if kind == "mark":
            batch.told = event["dropped"]
        return batch.take(line, moment, event, request)

    def _mark(self, *, closed: bool = False) -> dict[str, Any]:
        return {
            "type": "mark",
            "seq": 0,
            "t": time.time_ns() // 1000,
            "dropped": self.dropped,
            "no_unit": self.no_unit,
            "started": self._started,
            "closed": closed,
        }

    def _write(self, batch: Batch) -> bool:
        began = time.monotonic()
        events = len(batch.lines) - batch.waited - (batch.told is not None)
        self._tally.batch(self._files.seq + 1, batch.waited, events, batch.told, self._offered_written, self._told)
        kept, kept_bytes, error = self._files.append(batch.lines)
        self._sync_s += time.monotonic() - began
        if kept:
            self._files.seq += kept
            self._files.t = batch.times[kept - 1]
            self._written += kept
            self._written_bytes += kept_bytes
            self._offered_written += min(max(kept - batch.waited, 0), events)
            if batch.told is not None and kept == len(batch.lines):
                self._told = batch.told
        if error is None:
            self._recovered()
            for _, request in batch.sources:
                if request is not None:
                    request.left -= 1
                    if request.left == 0:
                        request.done.set()
            return True
        self._refuse(batch, kept, error)
        return False

    def _refuse(self, batch: Batch, kept: int, error: OSError) -> None:
        """The disk did not take a batch: who waits is told, what was offered goes back to the head of the queue."""
        self._errors += 1
        self._retry_write = time.monotonic() + _RETRY_S
        if not self._failing:
            self._failing = True
            log.error("journal %s cannot be written, events wait and then get lost: %s", self.journal, error)
        for _, request in batch.sources:
            if request is not None:
                request.fail(error)
        left = [event for event, request in batch.sources[kept:] if request is None]
        back = [event for event in left if isinstance(event, Line) or event["type"] != "mark"]
        self._intake.taken_bytes -= sum(map(weight, back))
        self._intake.waiting.extendleft(reversed(back))

    def _recovered(self) -> None:
        if self._failing:
            self._failing = False
            log.warning("journal %s is written again, %d events were lost", self.journal, self.dropped)

    def _finish(self) -> None:
        """The last mark counts what the disk refused at the end."""
        if self._intake.waiting:
            self._lost += len(self._intake.waiting)
            self._intake.waiting.clear()
        last = Batch()
        self._add(last, self._mark(closed=True), None)
        self._write(last)

    def _fail_requests(self, error: OSError) -> None:
        while self._requests:
            self._requests.popleft().fail(error)

    def _rotate_if_due(self) -> None:
        now = time.monotonic()
        full = self._files.size >= self._rotate_bytes or now - self._files.opened >= self._rotate_s
        if not full or now < self._retry_rotation:
            return
        try:
            self._files.rotate()
        except OSError as error:
            self._retry_rotation = now + _RETRY_S
            self._errors += 1
            log.warning("journal %s goes on in its old file: %s", self.journal, error)
