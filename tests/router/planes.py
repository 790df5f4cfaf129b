"""A router worker under test: the real process on a real channel, without a supervisor."""

import json
import os
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from router.events import Exposure
from router.table import WorkerState
from router.worker_config import WorkerConfig
from tests.router.models import Model

ROOT = Path(__file__).resolve().parents[2]
# All tests of a worker can be run on the other loop.
LOOP = os.environ.get("UNDERSTUDY_ROUTER_LOOP", "auto")


class Plane:
    """A worker process, and the supervisor's end of its channel."""

    def __init__(self, process: subprocess.Popen[bytes], channel: socket.socket, config: WorkerConfig) -> None:
        self.process = process
        self.config = config
        self.port = 0
        self.state: WorkerState | None = None
        self.counters: dict[str, float] = {}
        self._channel = channel
        self._part = b""
        self._selector = selectors.DefaultSelector()
        self._selector.register(channel, selectors.EVENT_READ)

    @property
    def url(self) -> str:
        return f"http://{self.config.host}:{self.port}"

    def send(self, message: dict[str, Any]) -> None:
        self._channel.sendall(json.dumps(message).encode() + b"\n")

    def put(self, table: dict[str, Any], seconds: float = 10) -> float:
        """Give it a table and wait until it serves by it; the seconds that took."""
        began = time.monotonic()
        self.send({"type": "table", "table": table})
        self.until(lambda: self.state is not None and self.state.generation >= table["generation"], seconds)
        return time.monotonic() - began

    def poll(self) -> dict[str, float]:
        """Its counters as they are now."""
        while self._selector.select(0):
            self._listen()
        self.counters = {}
        self.send({"type": "poll"})
        self.until(lambda: bool(self.counters))
        return self.counters

    def until(self, condition: Callable[[], bool], seconds: float = 10) -> None:
        """Listen to the channel until the condition holds."""
        deadline = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < deadline, f"not within {seconds} s; state {self.state}"
            assert self.process.poll() is None or condition(), f"the worker ended: {self.process.returncode}"
            if self._selector.select(0.02):
                self._listen()

    def _listen(self) -> None:
        data = self._channel.recv(1 << 20)
        *lines, self._part = (self._part + data).split(b"\n")
        for line in lines:
            said = json.loads(line)
            self.state = WorkerState.model_validate(said["state"])
            self.counters = said["counters"]
            self.port = said["port"]

    def drain(self, seconds: float = 30) -> int:
        """Have it end in good order; its exit code."""
        self.send({"type": "drain"})
        return self.process.wait(seconds)

    def lines(self) -> list[dict[str, Any]]:
        """The journal as it is on disk."""
        found = []
        for path in sorted(self.config.journal_dir.glob("*.jsonl")):
            text = path.read_bytes()
            found += [json.loads(line) for line in text[: text.rfind(b"\n") + 1].splitlines()]
        return found

    def exposures(self, number: int = 0, seconds: float = 5) -> list[Exposure]:
        """All exposures, once there are at least ``number`` on disk; each valid as the wire type has it."""
        deadline = time.monotonic() + seconds
        while True:
            found = [line for line in self.lines() if line["type"] == "exposure"]
            if len(found) >= number:
                return [Exposure.model_validate_json(json.dumps(line), strict=True) for line in found]
            assert time.monotonic() < deadline, f"{len(found)} exposures of {number} after {seconds} s"
            time.sleep(0.02)


def table(generation: int, champion: str, challenger: str | None = None, **other: Any) -> dict[str, Any]:
    """A route table in JSON: champion version 1, challenger version 2."""
    arms: dict[str, Any] = {"champion": {"version": "1", "upstreams": [champion]}}
    if challenger is not None:
        arms["challenger"] = {"version": "2", "upstreams": [challenger]}
    return {
        "generation": generation,
        "rollout": "flights",
        "salt": "s/1",
        "unit": {"header": "X-Unit"},
        **arms,
        **other,
    }


@contextmanager
def running(directory: Path, first: dict[str, Any] | None = None, **config: Any) -> Iterator[Plane]:
    """A worker that serves by ``first``; killed afterwards, whatever happened."""
    settings = WorkerConfig(
        **{"router": "r", "worker": "w0", "journal_dir": directory, "journal_flush_ms": 20, "drain_s": 5, "loop": LOOP}
        | config
    )
    ours, theirs = socket.socketpair()
    process = subprocess.Popen(
        [
            sys.executable, "-m", "router.worker", "--config", settings.model_dump_json(),
            "--channel-fd", str(theirs.fileno()),
        ],
        pass_fds=[theirs.fileno()],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    theirs.close()
    plane = Plane(process, ours, settings)
    try:
        if first is None:
            plane.send({"type": "poll"})
            plane.until(lambda: plane.state is not None, 30)
        else:
            plane.put(first, 30)
        yield plane
    finally:
        ours.close()
        process.kill()
        process.wait(10)


@contextmanager
def serving(directory: Path, mode: str = "good", **other: Any) -> Iterator[tuple[Plane, Model, Model]]:
    """A worker between a client and two model servers, the challenger's in the given mode.

    Keywords that a worker's configuration has go there, all others into the table.
    """
    config = {name: other.pop(name) for name in list(other) if name in WorkerConfig.model_fields}
    with Model("champion") as champion, Model("challenger", mode) as challenger:
        first = table(1, champion.address, challenger.address, **other)
        with running(directory, first, **config) as plane:
            yield plane, champion, challenger
