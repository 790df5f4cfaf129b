"""The real `understudy operator` as a process, seen from outside: memory, processor time, its own metrics."""

import os
import re
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import NamedTuple

import psutil

from tests.bench_router.processes import ROOT, free_port
from tests.kubernetes.leashed import Leashed

_SAMPLE = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')


class Look(NamedTuple):
    """The process at one moment. ``at``: seconds, monotonic."""

    at: float
    cpu_s: float
    rss_mb: float
    threads: int
    descriptors: int


class Metrics:
    """One scrape: samples by name and labels."""

    def __init__(self, text: str) -> None:
        self._samples: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
        for name, labels, value in _SAMPLE.findall(text):
            key = tuple(sorted((k, v) for k, v in _LABEL.findall(labels)))
            self._samples.setdefault(name, {})[key] = float(value)

    def of(self, name: str) -> dict[tuple[tuple[str, str], ...], float]:
        return self._samples.get(name, {})

    def one(self, name: str, **labels: str) -> float:
        """0 where it is not told."""
        return self.of(name).get(tuple(sorted(labels.items())), 0.0)

    def buckets(self, name: str, **labels: str) -> dict[float, float]:
        """A histogram's cumulative counts by upper bound."""
        found = ((dict(key), value) for key, value in self.of(f"{name}_bucket").items())
        return {float(key["le"]): value for key, value in found if labels.items() <= key.items()}


class OperatorProcess:
    """Runs until ``stop``. A look is taken each second; ``peak_mb`` is the most memory that it ever had."""

    def __init__(self, folder: Path, kubeconfig: Path, tracking_uri: str, routers: int, flags: list[str]) -> None:
        self._health = free_port()
        command = [
            sys.executable, "-m", "controller", "operator", "--kubeconfig", str(kubeconfig), "--state-dir",
            str(folder / "state"), "--tracking-uri", tracking_uri, "--router-image", "router:none",
            "--router-replicas", str(routers), "--health-host", "127.0.0.1", "--health-port", str(self._health),
            "--lease-namespace", "understudy", *flags,
        ]  # fmt: skip
        self.log = folder / "operator.log"
        self._leashed = Leashed(command, self.log, os.environ | {"PYTHONPATH": str(ROOT)})
        self._process = psutil.Process(self._leashed.pid)
        self.looks: list[Look] = []
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    @property
    def pid(self) -> int:
        return self._leashed.pid

    @property
    def runs(self) -> bool:
        return self._leashed.exit_code is None

    @property
    def peak_mb(self) -> float:
        """As the kernel keeps it, up to the last look."""
        text = Path(f"/proc/{self.pid}/status").read_text()
        found = re.search(r"VmHWM:\s+(\d+) kB", text)
        return int(found[1]) / 1024 if found else 0.0

    def look(self) -> Look:
        with self._process.oneshot():
            times, memory = self._process.cpu_times(), self._process.memory_info()
            cpu = times.user + times.system
            return Look(time.monotonic(), cpu, memory.rss / 2**20, self._process.num_threads(), self._process.num_fds())

    def metrics(self) -> Metrics:
        """OSError where it does not answer."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/metrics", timeout=60) as answer:
            return Metrics(answer.read().decode())

    def ready(self) -> bool:
        """Whether it could lead. OSError where it does not answer; HTTPError is one, too."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._health}/readyz", timeout=10) as answer:
            return bool(answer.status == 200)

    def stop(self) -> None:
        self._end.set()
        self._leashed.stop(60)
        self._thread.join(5)

    def _watch(self) -> None:
        while not self._end.wait(1.0):
            try:
                self.looks.append(self.look())
            except psutil.Error:
                return
