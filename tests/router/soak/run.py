"""The run of a soak: a real router of two workers, its clients, and what disturbs them."""

import signal
import sys
import time
from pathlib import Path
from typing import Any, Self

import psutil

from tests.router.models import ModelProcess
from tests.router.planes import table
from tests.router.routers import Router, started
from tests.router.soak import claims
from tests.router.soak.claims import Look
from tests.router.soak.clients import Clients
from tests.router.soak.ledger import Ledger, Windows
from tests.router.soak.reading import Reading

# What the challenger does in turn, and how long each time, in seconds; between two of them it is good.
FAULTS = (
    "killed", "hang", "garbage", "slow", "500", "nan", "cut", "twice", "reset", "gone", "once", "chunked", "second",
)  # fmt: skip
FAULT_S = 2.0
CHANGE_S = 0.5
LOOK_S = 0.5
WINDOW_S = 60.0
ALLOCATIONS: tuple[dict[str, int], ...] = (
    {"weight_bp": 0, "mirror_bp": 10_000},
    {"weight_bp": 100},
    {"weight_bp": 2_500, "mirror_bp": 10_000},
    {"weight_bp": 5_000, "mirror_bp": 0},
    {"weight_bp": 0},
)
_SERVER = "tests.router.soak.server"


class Challenger:
    """The challenger's server, which is told what to do, and comes back at its old address after it was killed."""

    def __init__(self) -> None:
        self._server = ModelProcess("challenger", _SERVER)
        self.address = self._server.address

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self._server.__exit__(None, None, None)

    def become(self, mode: str) -> None:
        if mode == "killed":
            self._server.__exit__(None, None, None)
            return
        if self._server.process.poll() is not None:
            self._server = ModelProcess("challenger", _SERVER, self.address.rpartition(":")[2])
        self._server.tell(mode)


class Soak:
    """The parts of one run, and what goes wrong with them."""

    def __init__(self, router: Router, champion: str, challenger: Challenger, seconds: float, rate: float) -> None:
        self.router = router
        self.champion = champion
        self.challenger = challenger
        self.seconds = seconds
        self.looks: list[Look] = []
        self.failures: list[str] = []
        self.began = time.monotonic()
        self.windows = Windows(self.began, min(WINDOW_S, seconds))
        self.ledger = Ledger(self.windows)
        self.reading = Reading(Path(router.settings["journal_dir"]), self.ledger)
        self.workers = sorted(router.workers())
        self._generation, self._turn = 1, 0

    def disturb(self) -> None:
        """Change tables and the challenger's ways, read the journals and look at the processes until it is time."""
        next_change = next_fault = next_look = 0.0
        next_word = self.began + WINDOW_S
        while (now := time.monotonic()) < self.began + self.seconds:
            if now >= next_change:
                self._change()
                next_change = now + CHANGE_S
            if now >= next_fault:
                self._fault()
                next_fault = now + FAULT_S
            if now >= next_look:
                self.looks.append(look(self.router))
                self.reading.read()
                self.ledger.settle()
                next_look = now + LOOK_S
            if now >= next_word:
                self._say(now - self.began)
                next_word += WINDOW_S
            time.sleep(0.02)

    def _say(self, passed: float) -> None:
        now = self.looks[-1]
        print(
            f"{passed:.0f} of {self.seconds:.0f} s: {self.ledger.exposures} exposures, workers with "
            f"{now.workers_mb:.0f} MB and {now.workers_descriptors} descriptors, {len(self.failures)} failures",
            file=sys.stderr,
            flush=True,
        )

    def _change(self) -> None:
        self._generation += 1
        # A further attempt begins with a closed breaker: else no fault but the first would meet a request.
        attempt = {"attempt": self._turn, "limits": {"challenger_timeout_ms": 200}}
        allocation = ALLOCATIONS[self._generation % len(ALLOCATIONS)]
        new = table(self._generation, self.champion, self.challenger.address, **attempt, **allocation)
        answer = self.router.put(new)
        confirmed = {worker["generation"] for worker in answer.json().get("workers", [])}
        if answer.status_code == 200 and confirmed == {self._generation}:
            self.windows.add("table changes")
        else:
            self.failures.append(f"tables: generation {self._generation}: {answer.status_code} {answer.text}")

    def _fault(self) -> None:
        if self._turn % 2:
            self.challenger.become("good")
        else:
            self.challenger.become(FAULTS[self._turn // 2 % len(FAULTS)])
            self.windows.add("faults")
        self._turn += 1


def look(router: Router) -> Look:
    workers = [psutil.Process(pid) for pid in router.workers()]
    supervisor = psutil.Process(router.process.pid)
    return Look(
        sum(worker.memory_info().rss for worker in workers) / 2**20,
        sum(worker.num_fds() for worker in workers),
        supervisor.memory_info().rss / 2**20,
        supervisor.num_fds(),
    )


def soak(directory: Path, seconds: float, rate: float, seed: int = 1) -> dict[str, Any]:
    """Run it; the figures, with ``failures``: what did not hold."""
    with (
        ModelProcess("champion", _SERVER) as champion,
        Challenger() as challenger,
        started(directory, "real", workers=2, journal_rotate_bytes=8 << 20, journal_rotate_s=20.0) as router,
    ):
        assert router.put(table(1, champion.address, challenger.address)).status_code == 200
        run = Soak(router, champion.address, challenger, seconds, rate)
        clients = Clients(int(router.ready["port"]), rate, run.ledger.notes.append, seed)
        clients.start()
        run.disturb()
        challenger.become("good")
        clients.stop()
        if clients.broken:
            run.failures.append(f"load: {len(clients.broken)} clients ended before their time: {clients.broken[0]}")
        if sorted(router.workers()) != run.workers:
            run.failures.append(f"workers: {run.workers} became {sorted(router.workers())}")
        code = router.end(signal.SIGTERM)
        if code != 0:
            run.failures.append(f"workers: the router ended with {code}")
        run.reading.read()
        run.ledger.close()
    return figures(run, clients, rate)


def figures(run: Soak, clients: Clients, rate: float) -> dict[str, Any]:
    windows, ledger, reading = run.windows, run.ledger, run.reading
    number = max(1, int(run.seconds / windows.length + 1e-6))
    failures = [
        *run.failures,
        *claims.idle(windows, number, rate),
        *claims.grown(run.looks, turns=run.seconds / 4 >= 2 * len(FAULTS) * FAULT_S),
        *claims.unmatched(ledger, reading),
    ]
    return {
        "seconds": run.seconds,
        "requests": clients.sent,
        "ends": dict(sorted(ledger.statuses.items())),
        "window_s": windows.length,
        "total_and_least_in_a_window": {
            name: [windows.total(name), windows.least(name, number), f"at least {wanted}"]
            for name, wanted in claims.least(windows.length, rate).items()
        },
        "exposures": ledger.exposures,
        "mirrors": ledger.mirrors,
        "without_an_event": {
            "answered": ledger.missing, "mirrors": ledger.missing_mirrors, "left_early": ledger.silent,
        },
        "dropped": reading.dropped,
        "rotations": reading.rotations,
        "second_and_last_quarter": {
            field: [round(number, 1) for number in claims.quarters(run.looks, field)] for field in claims.FLAT
        },
        "own_mb": round(psutil.Process().memory_info().rss / 2**20, 1),
        "failures": failures,
    }  # fmt: skip
