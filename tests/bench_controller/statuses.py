"""The statuses of the rollouts that are at work, as whoever watches them sees them."""

import itertools
import threading
import time
from collections import Counter

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS
from controller.edges.cluster.watch import follow
from tests.bench_controller.objects import KIND
from tests.bench_controller.places import ACTIVE

SELECTOR = f"{KIND}={ACTIVE}"


class Statuses:
    """Watches until ``close``. ``ticks``: by key, when it was ticked (µs of the controller's clock)."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._end = threading.Event()
        self._lock = threading.Lock()
        self.ticks: dict[str, list[int]] = {}
        self._progress: dict[str, str] = {}
        self._confirmed: dict[str, bool] = {}
        self._thread = threading.Thread(target=self._run, name="statuses", daemon=True)
        self._thread.start()

    def progress(self) -> Counter[str]:
        """How many stand where; Running only where every router serves what was asked for."""
        with self._lock:
            return Counter(
                p if p != "Running" or self._confirmed.get(key) else "Unconfirmed" for key, p in self._progress.items()
            )

    def lags(self, since: int, until: int, tick: int) -> list[float]:
        """By how many seconds more than a tick apart two ticks were, of those that ended in the time given (µs)."""
        found = []
        with self._lock:
            for times in self.ticks.values():
                for before, after in itertools.pairwise(times):
                    if since <= after < until:
                        found.append(max(0, after - before - tick) / 1e6)
        return found

    def unheard(self, until: int, tick: int) -> list[float]:
        """How long after its time the next tick of those is outstanding whose last one is long ago (seconds)."""
        with self._lock:
            lasts = [times[-1] for key, times in self.ticks.items() if times and self._progress[key] == "Running"]
        return [late / 1e6 for last in lasts if (late := until - last - tick) > 0]

    def close(self) -> None:
        self._end.set()

    def _run(self) -> None:
        follow(self._list, lambda since: self._access.watch(ROLLOUTS, None, since, SELECTOR), self._changed, self._end)

    def _list(self) -> str:
        listed = self._access.list(ROLLOUTS, None, SELECTOR)
        for item in listed.items:
            self._changed("ADDED", item)
        return listed.version

    def _changed(self, kind: str, found: Node) -> None:
        status, meta = found.get("status") or {}, found["metadata"]
        if kind == "DELETED" or not status.get("uid"):
            return
        key, clock = f"{meta['namespace']}/{meta['name']}", int(status["clock"])
        confirmed = status["observed"]["confirmed"]
        with self._lock:
            times = self.ticks.setdefault(key, [])
            if not times or times[-1] != clock:
                times.append(clock)
            self._progress[key] = status["progress"]
            self._confirmed[key] = status["table"] is not None and confirmed >= status["table"]["generation"]


def wall() -> int:
    """Now, in µs."""
    return time.time_ns() // 1000
