"""Router processes for tests: the real supervisor and API, over channel workers or over the real ones."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil

from router.main import BadUse, run, worker_command
from router.settings import RouterSettings
from router.supervisor import WorkerCommand
from tests.router.journals import until


def table(generation: int, **other: Any) -> dict[str, Any]:
    """A valid route table in JSON; without upstreams that anybody listens on, unless given."""
    return {
        "generation": generation,
        "rollout": "flights",
        "salt": "s/1",
        "champion": {"version": "1", "upstreams": ["127.0.0.1:1"]},
        "unit": {"header": "x-unit"},
    } | other


def channel_workers(mode: str) -> Any:
    """A worker_command whose workers are tests.router.channel_worker in the given mode."""

    def command_for(settings: RouterSettings, port: int) -> WorkerCommand:
        real = worker_command(settings, port)

        def command(worker: str, channel: int) -> list[str]:
            _, _, _, *arguments = real(worker, channel)
            return [sys.executable, "-m", "tests.router.channel_worker", mode, *arguments]

        return command

    return command_for


class Router:
    """A router process under test."""

    def __init__(self, process: subprocess.Popen[str], settings: dict[str, Any], log: Path) -> None:
        self.process = process
        self.settings = settings
        self._log = log
        self.ready: dict[str, Any] = {}
        self.control = httpx.Client(timeout=20)
        # A connection of its own for each request. (A client for each would read all certificates each time.)
        self.traffic = httpx.Client(timeout=20, limits=httpx.Limits(max_keepalive_connections=0))

    def log(self) -> str:
        return self._log.read_text()

    def await_ready(self) -> None:
        ready = Path(self.settings["ready_file"])
        until(lambda: ready.exists() or self.process.poll() is not None, f"ready:\n{self.log()}", 40)
        assert ready.exists(), self.log()
        self.ready = json.loads(ready.read_text())
        self.control.base_url = httpx.URL(self.ready["control"])

    def workers(self) -> dict[int, str]:
        """The living worker processes, by pid, with their command lines."""
        try:
            children = psutil.Process(self.process.pid).children()
        except psutil.NoSuchProcess:
            return {}
        found = {}
        for child in children:
            try:
                if child.status() != psutil.STATUS_ZOMBIE and "--channel-fd" in (line := child.cmdline()):
                    found[child.pid] = " ".join(line)
            except (psutil.NoSuchProcess, psutil.ZombieProcess):
                continue
        return found

    def state(self) -> dict[str, Any]:
        answer = self.control.get("/v1/state")
        assert answer.status_code == 200, answer.text
        state: dict[str, Any] = answer.json()
        return state

    def generations(self) -> list[int]:
        return [worker["generation"] for worker in self.state()["workers"]]

    def put(self, content: dict[str, Any], wait: float = 10) -> httpx.Response:
        return self.control.put("/v1/table", json=content, params={"wait": wait})

    def get(self, path: str = "/") -> dict[str, Any]:
        """What one request to the traffic port is answered, over a connection of its own."""
        answer = self.traffic.get(self.ready["traffic"] + path)
        assert answer.status_code == 200, answer.text
        said: dict[str, Any] = answer.json()
        return said

    def lift_file_limit(self) -> None:
        """The disk has space again."""
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.prlimit(self.process.pid, resource.RLIMIT_FSIZE, unlimited)

    def end(self, number: int = signal.SIGTERM, seconds: float = 30) -> int:
        self.process.send_signal(number)
        return self.process.wait(seconds)


@contextmanager
def started(
    directory: Path, mode: str = "good", *, ready: bool = True, file_limit: int | None = None, **settings: Any
) -> Iterator[Router]:
    """A router on free ports, its files below ``directory``; ended, with all its workers, afterwards.

    With ``file_limit`` no file of it grows beyond so many bytes: its disk is full.
    """
    directory.mkdir(parents=True, exist_ok=True)
    given = {
        "port": 0,
        "control_port": 0,
        "journal_dir": str(directory / "journal"),
        "ready_file": str(directory / "ready.json"),
        "drain_s": 5.0,
    } | settings
    Path(given["ready_file"]).unlink(missing_ok=True)
    log = directory / f"log.{time.monotonic_ns()}"
    with log.open("w") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.router.routers", mode, json.dumps(given), str(file_limit or "")],
            stderr=errors,
            stdout=subprocess.DEVNULL,
            text=True,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])},
        )
    router = Router(process, given, log)
    workers: set[int] = set()
    try:
        if ready:
            router.await_ready()
        yield router
    finally:
        workers |= set(router.workers())
        process.kill()
        process.wait(10)
        router.control.close()
        router.traffic.close()
        until(lambda: not any(map(psutil.pid_exists, workers)), "the workers ended with their supervisor", 30)


if __name__ == "__main__":
    chosen = RouterSettings.model_validate_json(sys.argv[2])
    if sys.argv[3]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), resource.RLIM_INFINITY))
    try:
        sys.exit(run(chosen) if sys.argv[1] == "real" else run(chosen, channel_workers(sys.argv[1])))
    except BadUse as bad:
        sys.stderr.write(f"{bad}\n")
        sys.exit(2)
