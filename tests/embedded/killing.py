"""Kills processes of a run with SIGKILL, and knows when all of it is back."""

import contextlib
import json
import os
import random
import signal
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import NamedTuple

from controller.edges.servers import LocalServers
from controller.embedded import latest
from tests.embedded.machine import Machine, alive, wait_for
from tests.embedded.traffic import Trouble

KINDS = ("worker", "router", "controller", "champion", "challenger", "mlflow", "run")
# While one of these is away, a request may find nobody. Nothing excuses an error while any other is.
EXCUSED = {"worker", "router", "champion", "run"}
BACK_S = 240.0


class Kill(NamedTuple):
    """What was killed when, and when everything was there again (seconds since the epoch)."""

    kind: str
    at: float
    back: float


class Killer:
    """Kills processes of ``machine``; ``kills`` in their order."""

    def __init__(self, machine: Machine, seed: int) -> None:
        self._machine, self._chance = machine, random.Random(seed)
        self.kills: list[Kill] = []

    def kill(self, kind: str, champion: str, challenger: str) -> None:
        """One of the processes of ``kind``; returns when all of the run is back."""
        name = {"worker": "router", "champion": f"server-{champion}", "challenger": f"server-{challenger}"}.get(
            kind, kind
        )
        top = self._machine.process.pid if kind == "run" else self._machine.pid(name)
        victims = children(top) if kind == "worker" else [top]
        if kind in ("champion", "challenger", "mlflow"):  # parent and worker are both its processes
            victims += children(top)
        at = time.time()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._chance.choice(victims), signal.SIGKILL)
        if kind == "run":
            self._machine.process.wait(10)
            self._machine.start()
        wait_for(f"everything after the kill of {kind}", lambda: self.all_there(at), BACK_S)
        self.kills.append(Kill(kind, at, time.time()))

    def all_there(self, since: float) -> bool:
        """Every process lives and does its work: the newest tick, and the router's table, are younger than that."""
        machine, processes = self._machine, self._machine.processes()
        assert machine.process.poll() is None, machine.said()
        if processes.get("run") != machine.process.pid or not all(map(alive, processes.values())):
            return False
        if not {"mlflow", "router", "controller"} <= processes.keys():
            return False
        tick = latest.read(machine.state / "latest.json")
        if tick is None or tick.pid != processes["controller"] or tick.clock / 1e6 < since:
            return False
        table = LocalServers(machine.state / "servers.sqlite")
        try:
            rows, wanted = table.rows(), set(table.wanted().values())
        finally:
            table.close()
        ready = all(version in rows and rows[version].ready for version in wanted)
        return ready and self._router_serves() and answers(f"{self.tracking()}/health")

    def _router_serves(self) -> bool:
        with contextlib.suppress(OSError, ValueError, KeyError):
            control = json.loads((self._machine.state / "router.json").read_text())["control"]
            with urllib.request.urlopen(f"{control}/v1/state", timeout=2) as answer:
                state = json.loads(answer.read())
            workers = state["workers"]
            return bool(workers) and all(w["generation"] == state["generation"] for w in workers)
        return False

    def tracking(self) -> str:
        ports = json.loads((self._machine.state / "ports.json").read_text())
        return f"http://127.0.0.1:{ports['mlflow']}"

    def inexcusable(self, troubles: list[Trouble]) -> list[Trouble]:
        """Errors that users saw while router and champion were there, from the request to its end: one that was sent
        to a server that was away may wait for its deadline when that is back."""
        windows = [(kill.at - 0.1, kill.back + 1.0) for kill in self.kills if kill.kind in EXCUSED]
        return [t for t in troubles if not any(start <= t.at and t.began <= end for start, end in windows)]

    def around(self, trouble: Trouble) -> list[Kill]:
        """The kills of the minute before and after an error."""
        return [kill for kill in self.kills if kill.at - 60 <= trouble.at and trouble.began <= kill.back + 60]


def children(pid: int) -> list[int]:
    """Living direct children."""
    found = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += [int(child) for child in (task / "children").read_text().split()]
    return [child for child in found if alive(child)]


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False
