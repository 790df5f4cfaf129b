"""The queue between the loop and MLflow: bounded, emptied by one background thread, never waited for.

While MLflow is away, ticks and records pile up to a bound, from where the oldest go and are counted; the newest
status is always kept. Nothing of this decides anything: the store has every record.
"""

import logging
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Sequence

from mlflow.tracking import MlflowClient

from controller.core.record import Record
from controller.edges.run_page import RunKey, records_of_attempt
from controller.edges.run_writer import Page, RunWriter, Tick
from controller.edges.tracking import connect
from controller.errors import EdgeError
from controller.ports import TickEntry
from controller.spec import ModelRollout
from controller.status import RolloutStatus

_log = logging.getLogger("understudy.mlflow")
_RUNS_KEPT = 2048  # a controller of a cluster has hundreds at work at the same time
_TICKS_AT_ONCE = 200
_FAULTS = 5  # of a page that breaks the client itself; then it is left out


class _Waiting:
    """What one run has not been told yet."""

    def __init__(self, writer: RunWriter, rollout: ModelRollout, status: RolloutStatus) -> None:
        self.writer = writer
        self.rollout, self.status = rollout, status
        self.latest: dict[str, float] = {}
        self.ticks: deque[Tick] = deque()
        self.records: deque[Record] = deque()
        self.changed = True
        self.failures = 0
        self.not_before = 0.0


class RunLog:
    """``log`` queues, a daemon thread writes. Several threads may call."""

    def __init__(
        self,
        tracking_uri: str,
        *,
        ticks_kept: int = 5_000,
        records_kept: int = 1_000,
        pause_s: tuple[float, float] = (0.5, 30.0),
    ) -> None:
        """``ticks_kept``, ``records_kept``: bounds of what waits, over all runs; ``pause_s``: after the first
        failure, and the longest."""
        self._uri = tracking_uri
        self._client: MlflowClient = connect(tracking_uri)
        self._ticks_kept, self._records_kept, self._pause_s = ticks_kept, records_kept, pause_s
        self._runs: OrderedDict[RunKey, _Waiting] = OrderedDict()
        self._change = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closing = False
        self._ticks = self._records = 0  # that wait, over all runs
        self._dropped_ticks = self._dropped_records = self._forgotten_refusals = 0

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        """Queue a tick; the run's id once there is one. A status without an attempt has no run."""
        status = entry.status
        if status.attempt is None:
            return None
        tick = Tick(entry.tick, status.clock // 1000, dict(entry.metrics))
        records = [] if entry.record is None else [entry.record]
        return self._queue(rollout, status, [tick] if entry.metrics else [], records)

    def catch_up(self, rollout: ModelRollout, status: RolloutStatus, records: Sequence[Record]) -> None:
        """Queue what the store knows of the attempt, in case that the process before ended before showing it."""
        if status.attempt is not None:
            self._queue(rollout, status, [], records_of_attempt(list(records), status))

    def counters(self) -> dict[str, int]:
        """``ticks_waiting``, ``ticks_dropped``, ``records_waiting``, ``records_dropped``, and ``refused``: pieces
        that MLflow did not take and that are not tried again."""
        with self._change:
            runs = self._runs.values()
            return {
                "ticks_waiting": self._ticks,
                "ticks_dropped": self._dropped_ticks,
                "records_waiting": self._records,
                "records_dropped": self._dropped_records,
                "refused": self._forgotten_refusals + sum(r.writer.refused for r in runs),
            }

    def flush(self, timeout_s: float) -> bool:
        """Wait until all that was logged is shown; False where that takes longer than ``timeout_s``."""
        with self._change:
            return self._change.wait_for(lambda: not any(_dirty(r) for r in self._runs.values()), timeout_s)

    def close(self, timeout_s: float) -> bool:
        """``flush``, then end the thread; what is logged from now on is counted as dropped."""
        done = self.flush(timeout_s)
        with self._change:
            self._closing = True
            self._change.notify_all()
            thread = self._thread
        if thread is not None and done:
            thread.join(timeout_s)
        return done

    def _queue(
        self, rollout: ModelRollout, status: RolloutStatus, ticks: Sequence[Tick], records: Sequence[Record]
    ) -> str | None:
        assert status.attempt is not None
        key = RunKey(status.uid, status.attempt.number)
        with self._change:
            if self._closing:
                self._dropped_ticks += len(ticks)
                self._dropped_records += len(records)
                return None
            run = self._runs.get(key)
            if run is None:
                run = self._runs[key] = _Waiting(RunWriter(self._client, self._uri, key), rollout, status)
                self._make_room()
            run.rollout, run.status, run.changed = rollout, status, True
            run.ticks.extend(ticks)
            run.records.extend(records)
            self._ticks += len(ticks)
            self._records += len(records)
            if run.ticks:
                run.latest = run.ticks[-1].metrics
            self._bound()
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="mlflow-runs", daemon=True)
                self._thread.start()
            self._change.notify_all()
            return run.writer.run_id

    def _bound(self) -> None:
        while self._ticks > self._ticks_kept:
            max(self._runs.values(), key=lambda r: len(r.ticks)).ticks.popleft()
            self._ticks -= 1
            self._dropped_ticks += 1
        while self._records > self._records_kept:
            max(self._runs.values(), key=lambda r: len(r.records)).records.popleft()
            self._records -= 1
            self._dropped_records += 1

    def _make_room(self) -> None:
        """Forget runs that ended and are shown, oldest first; where none is, the oldest of all."""
        while len(self._runs) > _RUNS_KEPT:
            shown = (k for k, r in self._runs.items() if r.status.progress.terminal and not _dirty(r))
            gone = self._runs.pop(next(shown, next(iter(self._runs))))
            self._drop(gone)
            self._forgotten_refusals += gone.writer.refused

    def _drop(self, gone: _Waiting) -> None:
        """Nothing of it waits any more; what is being written of it is found shown later."""
        self._ticks -= len(gone.ticks)
        self._records -= len(gone.records)
        self._dropped_ticks += len(gone.ticks)
        self._dropped_records += len(gone.records)
        gone.ticks.clear()
        gone.records.clear()

    def _work(self) -> None:
        while True:
            with self._change:
                run = self._next()
                if run is None:
                    return
                ticks, records = list(run.ticks)[:_TICKS_AT_ONCE], list(run.records)
                page = Page(run.rollout, run.status, run.latest, ticks, records)
                run.changed = False
            failure: Exception | None = None
            try:
                run.writer.write(page)
            except EdgeError as error:
                failure = error
            except Exception as error:  # noqa: BLE001 — the thread must outlive whatever an answer of MLflow does to its client
                _log.exception("writing the run of %s", page.status.uid)
                failure = error
            with self._change:
                self._settle(run, page, failure)
                self._change.notify_all()

    def _next(self) -> _Waiting | None:
        """The run to write now; waits for one. None: closing."""
        while True:
            now = time.monotonic()
            waiting = [r for r in self._runs.values() if _dirty(r)]
            ready = [r for r in waiting if r.not_before <= now]
            if self._closing:
                return None
            if ready:
                return min(ready, key=lambda r: r.not_before)
            self._change.wait(min((r.not_before for r in waiting), default=now + 3600.0) - now)

    def _settle(self, run: _Waiting, page: Page, failure: Exception | None) -> None:
        if failure is not None and not isinstance(failure, EdgeError) and run.failures >= _FAULTS:
            run.writer.refused += 1
            failure = None
        if failure is None:
            # What the bound took away and counted while it was being written is shown nevertheless.
            waited = len(run.ticks), len(run.records)
            self._dropped_ticks -= _drop_shown(run.ticks, page.ticks)
            self._dropped_records -= _drop_shown(run.records, page.records)
            self._ticks -= waited[0] - len(run.ticks)
            self._records -= waited[1] - len(run.records)
            run.failures, run.not_before = 0, time.monotonic()
            return
        if run.failures == 0:
            _log.warning("%s: the run is behind: %s", page.rollout.metadata.name, failure)
        run.failures += 1
        run.changed = True
        first, longest = self._pause_s
        run.not_before = time.monotonic() + min(longest, first * 2.0 ** min(run.failures - 1, 16))


def _dirty(run: _Waiting) -> bool:
    return run.changed or bool(run.ticks) or bool(run.records)


def _drop_shown(waiting: "deque[Tick] | deque[Record]", shown: Sequence[Tick | Record]) -> int:
    """Take what is shown from what waits; how many of it did not wait any more."""
    done = {id(item) for item in shown}
    gone = len(shown)
    while waiting and id(waiting[0]) in done:
        waiting.popleft()
        gone -= 1
    return gone
