"""``memory`` and ``cpu`` of our own model servers, read off their processes."""

import time
from collections.abc import Mapping
from typing import NamedTuple

import psutil

from controller.edges.servers import LocalServers
from controller.errors import EdgeError

_THOUSANDTHS = 1_000


class _Spent(NamedTuple):
    """CPU seconds of each process of a tree, by (pid, when it was created), at a moment of the monotonic clock."""

    at: float
    seconds: Mapping[tuple[int, float], float]


class ProcessGauges:
    """Measures the server of an arm with all its children. ``memory`` is their resident memory (pages that several
    share count in each), ``cpu`` the cores that they kept busy since the last time they were asked for."""

    def __init__(self, servers: LocalServers) -> None:
        self._servers = servers
        self._spent: dict[tuple[str, str], _Spent] = {}

    def measure(self, metric: str, query: str, arm: str) -> int | None:
        """Thousandths of a byte or core; None where nothing can be said yet. EdgeError where there is no process."""
        version = self._servers.wanted().get(arm)
        known = self._servers.processes().get(version) if version is not None else None
        if known is None:
            raise EdgeError(f"no process of ours serves the {arm}")
        try:
            tree = _tree(*known)
            if query == "memory":
                return _THOUSANDTHS * sum(process.memory_info().rss for process in tree)
            return self._cores(metric, arm, tree)
        except psutil.Error as error:
            raise EdgeError(f"the server of version {version} cannot be measured: {error}") from error

    def _cores(self, metric: str, arm: str, tree: list[psutil.Process]) -> int | None:
        now = _Spent(time.monotonic(), {(p.pid, p.create_time()): sum(p.cpu_times()[:2]) for p in tree})
        last = self._spent.get((metric, arm))
        self._spent[metric, arm] = now
        if last is None or now.at <= last.at or not last.seconds.keys() & now.seconds.keys():
            return None  # of a server that was started again nothing is known of the time before
        used = sum(max(0.0, seconds - last.seconds.get(who, 0.0)) for who, seconds in now.seconds.items())
        return round(_THOUSANDTHS * used / (now.at - last.at))


def _tree(pid: int, created: float) -> list[psutil.Process]:
    """The process and its children. psutil.Error where it is gone, or another one has its number now."""
    root = psutil.Process(pid)
    if abs(root.create_time() - created) > 1.0:
        raise psutil.NoSuchProcess(pid)
    return [root, *(child for child in root.children(recursive=True) if child.is_running())]
