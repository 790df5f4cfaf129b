"""The controller's process on one machine: ticks every rollout in the store at its time, until told to end."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping

from controller import wiring
from controller.edges.registry import MlflowRegistry
from controller.edges.showing import ShowingRegistry
from controller.embedded import check, latest, refusal
from controller.embedded.latest import Latest
from controller.errors import Conflict, EdgeError, NotFound, SpecError
from controller.loop import Loop
from controller.settings import Settings
from controller.telemetry import Telemetry

log = logging.getLogger("understudy.controller")

FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 5.0
CONFLICT_PAUSE_S = 0.02
FLUSH_S = 5.0  # for what MLflow has not been shown yet
IDLE_S = 0.5  # a new rollout, and what a person asks for, is seen after this time


class Ticker:
    """Ticks the rollouts of ``loop``; each comes back when its last tick asked for it, or, where that failed, soon."""

    def __init__(self, loop: Loop, settings: Settings, telemetry: Telemetry) -> None:
        self._registry = ShowingRegistry(loop.registry)
        self._loop = loop._replace(registry=self._registry)
        self._settings = settings
        self._telemetry = telemetry
        self._log_counters: Callable[[], Mapping[str, int]] = lambda: getattr(loop.registry, "counters", {})
        self._due: dict[str, float] = {}
        self._failures: dict[str, int] = {}
        self._sequences: dict[str, int] = {}
        self.end = threading.Event()

    def run(self) -> None:
        """Until ``end`` is set. A fault of ours costs the tick, and leaves its trace in the log."""
        while not self.end.is_set():
            now = time.monotonic()
            for key in self._keys():
                now = time.monotonic()
                due = self._due.setdefault(key, now)
                if due > now and self._asked(key):
                    due = now
                if due <= now and not self.end.is_set():
                    pause = self._tick(key, now - due)
                    self._due[key] = time.monotonic() + pause
            soonest = min(self._due.values(), default=now + IDLE_S)
            self.end.wait(min(max(soonest - time.monotonic(), 0.0), IDLE_S))

    def _keys(self) -> list[str]:
        try:
            keys = self._loop.store.keys()
        except EdgeError as error:
            log.warning("the rollouts cannot be listed: %s", error)
            return list(self._due)
        for gone in self._due.keys() - set(keys):
            del self._due[gone]
        return keys

    def _asked(self, key: str) -> bool:
        """Whether a person waits for an answer."""
        if self._failures.get(key):
            return False
        try:
            stored = self._loop.store.load(key)
        except EdgeError:
            return False
        return any(request.id not in stored.status.handled for request in stored.requests)

    def _tick(self, key: str, late: float) -> float:
        """One tick; seconds until the next."""
        began = time.monotonic()
        try:
            wake_at = self._loop.tick(key, time.time_ns() // 1000)
        except Conflict as error:
            log.info("%s: read again: %s", key, error)
            self._telemetry.ticked(key, "conflict", time.monotonic() - began, late)
            return CONFLICT_PAUSE_S
        except NotFound:
            return IDLE_S  # deleted since it was listed
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            ours = not isinstance(error, EdgeError)
            log.log(logging.ERROR if ours else logging.WARNING, "%s: the tick failed: %s", key, error, exc_info=ours)
            self._telemetry.ticked(key, "failed", time.monotonic() - began, late)
            return min(FIRST_PAUSE_S * 2.0 ** min(failures, 10), LONGEST_PAUSE_S)
        self._failures.pop(key, None)
        self._telemetry.ticked(key, "ok", time.monotonic() - began, late)
        self._show(key)
        return max(wake_at / 1e6 - time.time(), 0.01)

    def _show(self, key: str) -> None:
        """Log line, metrics and the file for those who watch."""
        try:
            status = self._loop.store.load(key).status
        except EdgeError as error:
            log.warning("%s: %s", key, error)
            return
        shown = self._registry.shown.get(key)
        fresh = shown is not None and shown.entry.status.clock == status.clock
        metrics = shown.entry.metrics if shown is not None and fresh else {}
        self._telemetry.shows(status, metrics)
        self._telemetry.run_log(self._log_counters())
        if self._sequences.setdefault(key, status.sequence - 1) != status.sequence:
            self._sequences[key] = status.sequence
            self._telemetry.decided(status)
            log.info(
                "%s: %s %s%s: %s",
                key,
                status.decision,
                status.reason,
                f" ({status.metric})" if status.metric else "",
                status.message,
            )
        run_id = shown.run_id if shown else None
        before = latest.read(self._settings.latest_file) if not metrics else None
        kept = before.metrics if before is not None and before.rollout == key else {}
        said = Latest(key, status.clock, run_id or (before.run_id if before else None), metrics or kept, os.getpid())
        latest.write(self._settings.latest_file, said)


def main(settings: Settings, checks: bool) -> int:
    """Tick until SIGTERM or SIGINT; the exit code. ``checks``: first see whether rollouts that never began can."""
    try:
        loop = wiring.build(settings)
        said = _refused(loop) if checks else []
    except SpecError as error:
        refusal.write(settings.refusal_file, error.problems)
        return 2
    except EdgeError as error:
        log.error("%s", error)
        return 1
    if said:
        refusal.write(settings.refusal_file, said)
        return refusal.CODE
    code = serve(loop, settings)
    wiring.close(loop, FLUSH_S)
    return code


def _refused(loop: Loop) -> list[str]:
    assert isinstance(loop.registry, MlflowRegistry)
    keys = loop.store.keys()
    stored = [loop.store.load(key) for key in keys]
    return [p for s in stored if s.status.attempt is None for p in check.problems(loop.registry, s.rollout)]


def serve(loop: Loop, settings: Settings) -> int:
    """Tick until SIGTERM or SIGINT. EdgeError where the port of the metrics is taken."""
    telemetry = Telemetry()
    port = telemetry.serve("127.0.0.1", settings.metrics_port)
    ticker = Ticker(loop, settings, telemetry)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: ticker.end.set())
    log.info("ticking; metrics on http://127.0.0.1:%d/metrics", port)
    ticker.run()
    return 0
