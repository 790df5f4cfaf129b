"""A router under load, faults, mirrors and changing tables for a long time: ``python -m tests.router.soak``.

Two real workers under their supervisor. What has to hold at the end: no request failed, every 2xx answer has its
exposure in the journals or is a counted drop, and memory and descriptors of the workers are flat. Prints the figures
as JSON; the exit code is 1 where a claim does not hold.
"""

import argparse
import asyncio
import json
import random
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import psutil

from router.journal_reader import acknowledge, journals, read_from
from tests.router.load import read_answer
from tests.router.models import Model
from tests.router.planes import table
from tests.router.raw import post
from tests.router.routers import Router, started

# What the challenger does in turn, and how long each time, in seconds; between two of them it is good.
FAULTS = ("500", "nan", "hang", "cut", "twice", "reset", "garbage", "slow", "once", "chunked", "gone", "second")
FAULT_S = 2.0
CHANGE_S = 0.5
LOOK_S = 0.5
ALLOCATIONS: tuple[dict[str, int], ...] = (
    {"weight_bp": 0, "mirror_bp": 10_000},
    {"weight_bp": 100},
    {"weight_bp": 2_500},
    {"weight_bp": 5_000, "mirror_bp": 0},
    {"weight_bp": 0},
)


class Traffic:
    """Requests with numbers, sent by some connections at a given rate in all until told to stop."""

    def __init__(self, port: int, connections: int, rate: float, seed: int) -> None:
        self.sent = 0
        self.answered = bytearray(1 << 16)
        self.statuses: dict[int, int] = {}
        self.failed: list[str] = []
        self._port = port
        self._connections = connections
        self._pause = connections / rate
        self._chance = random.Random(seed)
        self._stopping = False
        self._thread = threading.Thread(target=lambda: asyncio.run(self._run()), daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopping = True
        self._thread.join(60)
        assert not self._thread.is_alive(), "the traffic does not end"

    async def _run(self) -> None:
        await asyncio.gather(*(self._connection() for _ in range(self._connections)))

    async def _connection(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        due = time.monotonic() + self._chance.random() * self._pause
        while not self._stopping:
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            due = max(due + self._pause, time.monotonic() - 1)
            number, self.sent = self.sent, self.sent + 1
            body = b'{"inputs": [[%d]], "email": "u%d@example.org", "pad": "%b"}' % (
                number, number, b"x" * self._chance.choice((0, 0, 100, 2_000)),
            )  # fmt: skip
            try:
                writer.write(post(f"u{number % 20_011}", body, f"X-Request-Id: s{number}"))
                status, _, closes = await asyncio.wait_for(read_answer(reader), 30)
            except (OSError, asyncio.IncompleteReadError, ValueError, TimeoutError) as error:
                self.failed.append(repr(error))
                closes, status = True, 0
            self.statuses[status] = self.statuses.get(status, 0) + 1
            if 200 <= status < 300:
                while number >= len(self.answered):
                    self.answered.extend(bytes(len(self.answered)))
                self.answered[number] = 1
            if closes:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self._port)
        writer.close()


class Reading:
    """A reader of all journals that remembers which requests it met, and lets read files go."""

    def __init__(self, directory: Path) -> None:
        self.seen = bytearray(1 << 16)
        self.exposures = self.mirrors = self.lines = self.gaps = 0
        self.twice = 0
        self.dropped: dict[tuple[str, int], int] = {}
        self.leaks = 0
        self._directory = directory
        self._positions: dict[str, tuple[int, int]] = {}
        self._seq: dict[str, int] = {}

    def read(self) -> None:
        """All that is there by now."""
        for journal in journals(self._directory):
            at = self._positions.get(journal, (0, 0))
            while (chunk := read_from(self._directory, journal, *at)).lines:
                at = chunk.file, chunk.offset
                for line in chunk.lines:
                    self._take(journal, line)
            self._positions[journal] = at
        acknowledge(self._directory, "soak", self._positions)

    def _take(self, journal: str, line: bytes) -> None:
        event: dict[str, Any] = orjson.loads(line)
        self.lines += 1
        if event["type"] == "journal":
            return
        self.gaps += event["seq"] != self._seq.get(journal, 0) + 1
        self._seq[journal] = event["seq"]
        self.leaks += b"@example.org" in line
        if event["type"] == "mark":
            self.dropped[journal, event["started"]] = event["dropped"]
        elif event["type"] == "exposure" and event["mirror"]:
            self.mirrors += 1
        elif event["type"] == "exposure":
            self.exposures += 1
            number = int(event["request_id"][1:])
            while number >= len(self.seen):
                self.seen.extend(bytes(len(self.seen)))
            self.twice += self.seen[number]
            self.seen[number] = 1


class Look(NamedTuple):
    """The workers together at one moment."""

    rss_mb: float
    descriptors: int


def look(router: Router) -> Look:
    workers = [psutil.Process(pid) for pid in router.workers()]
    return Look(
        sum(worker.memory_info().rss for worker in workers) / 2**20, sum(worker.num_fds() for worker in workers)
    )


def disturb(
    router: Router, challenger: Model, champion: Model, traffic: Traffic, reading: Reading, until: float
) -> list[Look]:
    """Change tables and the challenger's ways, read the journals and look at the workers until it is time."""
    looks: list[Look] = []
    generation, turn = 1, 0
    next_change = next_fault = next_look = 0.0
    while (now := time.monotonic()) < until:
        if now >= next_change:
            generation += 1
            allocation = ALLOCATIONS[generation % len(ALLOCATIONS)]
            # A further attempt begins with a closed breaker: else no fault but the first would meet a request.
            attempt = {"attempt": turn, "limits": {"challenger_timeout_ms": 200}}
            new = table(generation, champion.address, challenger.address, **attempt, **allocation)
            assert router.put(new).status_code == 200
            next_change = now + CHANGE_S
        if now >= next_fault:
            challenger.mode = "good" if turn % 2 else FAULTS[turn // 2 % len(FAULTS)]
            if challenger.mode == "good":
                challenger.release_once()
            turn += 1
            next_fault = now + FAULT_S
        if now >= next_look:
            looks.append(look(router))
            reading.read()
            next_look = now + LOOK_S
        time.sleep(0.05)
    return looks


def soak(directory: Path, seconds: float, rate: float, seed: int = 1) -> dict[str, Any]:
    """Run it; the figures, with ``failures``: what did not hold."""
    with (
        Model("champion") as champion,
        Model("challenger") as challenger,
        started(directory, "real", workers=2, journal_rotate_bytes=8 << 20, journal_rotate_s=20.0) as router,
    ):
        assert router.put(table(1, champion.address, challenger.address)).status_code == 200
        traffic = Traffic(int(router.ready["port"]), 16, rate, seed)
        reading = Reading(directory / "journal")
        began = time.monotonic()
        traffic.start()
        looks = disturb(router, challenger, champion, traffic, reading, began + seconds)
        challenger.mode = "good"
        traffic.stop()
        took = time.monotonic() - began
        assert router.end(signal.SIGTERM) == 0
        reading.read()
    return figures(traffic, reading, looks, took)


def figures(traffic: Traffic, reading: Reading, looks: list[Look], took: float) -> dict[str, Any]:
    size = max(len(traffic.answered), len(reading.seen))
    answered, seen = (int.from_bytes(part.ljust(size, b"\0"), "big") for part in (traffic.answered, reading.seen))
    missing = (answered & ~seen).bit_count()
    dropped = sum(reading.dropped.values())
    quarter = max(1, len(looks) // 4)
    early, late = looks[quarter : 2 * quarter], looks[-quarter:]
    rss = [statistics.median(at.rss_mb for at in part) for part in (early, late)]
    descriptors = [max(at.descriptors for at in part) for part in (early, late)]
    failures = []
    if traffic.failed or set(traffic.statuses) != {200}:
        failures.append(f"requests failed: {traffic.statuses} {traffic.failed[:3]}")
    if missing > dropped:
        failures.append(f"{missing} answers without an exposure, {dropped} counted as dropped")
    if reading.gaps or reading.twice or reading.leaks:
        failures.append(f"journals: {reading.gaps} gaps, {reading.twice} twice, {reading.leaks} hidden fields in them")
    if rss[1] > rss[0] * 1.1 + 4:
        failures.append(f"memory grew from {rss[0]:.1f} to {rss[1]:.1f} MB")
    if descriptors[1] > descriptors[0] * 1.2 + 20:
        failures.append(f"descriptors grew from {descriptors[0]} to {descriptors[1]}")
    return {
        "seconds": round(took, 1), "requests": traffic.sent, "statuses": traffic.statuses,
        "exposures": reading.exposures, "mirrors": reading.mirrors, "missing": missing, "dropped": dropped,
        "rss_mb_early_late": [round(mb, 1) for mb in rss], "descriptors_early_late": descriptors,
        "failures": failures,
    }  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3_600)
    parser.add_argument("--rate", type=float, default=1_000, help="requests a second")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = soak(Path(folder), given.seconds, given.rate, given.seed)
    print(json.dumps(result, indent=1))
    sys.exit(bool(result["failures"]))
