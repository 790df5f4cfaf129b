"""Processes on cores of their own, what they cost, and peers that are installed where they are missing."""

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[2]
# Wheels that only the benchmark needs.
SITE = ROOT / "build" / "bench-peers"
_START_S = 60.0


class Missing(Exception):
    """A peer that is not here and cannot be installed."""


def debian(program: str, package: str) -> str:
    """The path of a program; its package is installed where it is missing, which only root can."""
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if found:
        return found
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        raise Missing(f"{program} is not here: apt-get install {package}")
    # Nothing it brings may start on its own, or take the place of what is here.
    command = ["apt-get", "install", "-y", "-q", "--no-install-recommends", "--no-remove", package]
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)
    found = shutil.which(program) or shutil.which(program, path="/usr/sbin:/usr/local/sbin")
    if not found:
        raise Missing(f"{package} could not be installed: {(done.stdout + done.stderr)[-300:]}")
    return found


def pypi(module: str, requirement: str) -> None:
    """Have a module to import; raises Missing."""
    if str(SITE) not in sys.path:
        sys.path.append(str(SITE))
    if importlib.util.find_spec(module):
        return
    SITE.mkdir(parents=True, exist_ok=True)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--target", str(SITE)]
    done = subprocess.run([*pip, requirement], capture_output=True, text=True, timeout=600, check=False)
    importlib.invalidate_caches()
    if not importlib.util.find_spec(module):
        raise Missing(f"{requirement} could not be installed: {done.stderr[-300:]}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Running:
    """A server on the given cores; it listens at ``port``, and has made ``ready``, once this is made."""

    def __init__(
        self, command: Sequence[str], cores: str, port: int, log: Path, ready: Path | None = None, **environment: str
    ) -> None:
        self.port = port
        self._log = log
        self._ready = ready
        paths = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH"), str(SITE)]))
        with log.open("wb") as out:
            self.process = subprocess.Popen(
                ["taskset", "-c", cores, *command],
                stdout=out,
                stderr=out,
                env=os.environ | {"PYTHONPATH": paths} | environment,
                start_new_session=True,
            )
        self._await_port()
        self.pids = {process.pid for process in self._family()}

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    def _await_port(self) -> None:
        deadline = time.monotonic() + _START_S
        while True:
            try:
                if self._ready is None or self._ready.exists():
                    socket.create_connection(("127.0.0.1", self.port), 1).close()
                    return
                raise FileNotFoundError(self._ready)
            except OSError:
                if self.process.poll() is not None or time.monotonic() > deadline:
                    self.stop()
                    raise Missing(f"does not start: {self.said()}") from None
                time.sleep(0.05)

    def _family(self) -> list[psutil.Process]:
        try:
            parent = psutil.Process(self.process.pid)
            return [parent, *parent.children(recursive=True)]
        except psutil.NoSuchProcess:
            return []

    def said(self) -> str:
        """The end of its log."""
        return self._log.read_text(errors="replace")[-500:]

    def lost(self) -> str:
        """What has become of those of its processes that are there no more; empty where all are."""
        if (code := self.process.poll()) is not None:
            return f"it ended with {code}: {self.said()}"
        living = {process.pid for process in self._family() if process.status() != psutil.STATUS_ZOMBIE}
        lost = self.pids - living
        return f"{len(lost)} of its processes ended" if lost else ""

    def cpu_s(self) -> float:
        """Seconds of processor time of the server and its children so far."""
        times = [process.cpu_times() for process in self._family()]
        return sum(each.user + each.system for each in times)

    def threads_s(self) -> tuple[float, float]:
        """The same of main threads, and of all others."""
        main = rest = 0.0
        for process in self._family():
            for thread in process.threads():
                if thread.id == process.pid:
                    main += thread.user_time + thread.system_time
                else:
                    rest += thread.user_time + thread.system_time
        return main, rest

    def rss_mb(self) -> float:
        return sum(process.memory_info().rss for process in self._family()) / 2**20

    def stop(self) -> None:
        family = self._family()
        self.process.terminate()
        psutil.wait_procs(family, timeout=5)
        for process in family:
            if process.is_running():
                process.kill()
        self.process.wait(10)
