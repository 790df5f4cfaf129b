"""What a request costs behind each proxy: ``python -m tests.bench_router``, see ``--help``.

The proxy has one core of its own; the load (wrk) and the servers behind it share the others. All peers run at the same
time and are measured in turn, round by round, so that a slow minute of the machine meets them all; figures are medians
over the rounds, and what is added to a median, or two workers do, is compared within each round. Peers that are missing
are installed (Debian packages by root only, wheels into ``build/``), or reported as null. Writes
``build/bench-router.json``, the rows in ``build/bench-router-rows.json``, a table and a plot.

The exit code is 1 where a promised ratio (``promises``) does not hold, and 2 where a peer died or answered anything but
200: then nothing is written, as the others were measured beside it.
"""

import argparse
import contextlib
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.bench_router import budget, promises, report, upstreams
from tests.bench_router.load import BODY, FEATURES, Load, Measured, status
from tests.bench_router.peers import Place, aiohttp_proxy, envoy, fastapi_proxy, haproxy, nginx, understudy
from tests.bench_router.processes import ROOT, Missing, Running
from tests.ending import as_by_keyboard

Start = Callable[[Place], Running]
PEERS: dict[str, Start | None] = {
    "direct": None,
    "nginx": nginx.start,
    "haproxy": haproxy.start,
    "envoy": envoy.start,
    "envoy+capture": envoy.start_capturing,
    "aiohttp": aiohttp_proxy.start,
    "fastapi+httpx": fastapi_proxy.start,
    "understudy": understudy.start,
    "understudy+capture": understudy.start_capturing,
    "understudy+capture on asyncio": understudy.start_on_asyncio,
    "understudy+capture interpreted": understudy.start_interpreted,
}
WORKERS: dict[str, Start] = {
    "1 workers": understudy.start_capturing,
    "2 workers": lambda place: understudy.start_capturing(place._replace(workers=2)),
}
BEFORE_MODELS = ("direct", "nginx", "envoy+capture", "understudy", "understudy+capture")


class Cores(NamedTuple):
    """Which cores the proxy has, and which the rest."""

    proxy: str
    rest: str
    all: str

    @property
    def numbers(self) -> list[int]:
        """All of them."""
        return [int(number) for number in self.all.split(",")]


class Void(Exception):
    """A peer did not do what was measured; the run says nothing."""


def assert_sound(name: str, port: int, body: bytes, server: Running | None, when: str) -> None:
    """The peer is as it was started, and answers the load's request with 200. Raises Void."""
    if server is not None and (lost := server.lost()):
        raise Void(f"{name}: {lost} ({when})")
    if (said := status(port, body)) != 200:
        raise Void(f"{name}: its answer is {said} and not 200 ({when})")


class Bench:
    """The measurements of one run."""

    def __init__(self, directory: Path, cores: Cores, rounds: int, seconds: int) -> None:
        self.directory = directory
        self.cores = cores
        self.rounds = rounds
        self.seconds = seconds
        self.rows: list[dict[str, Any]] = []

    def compare(
        self,
        upstream: str,
        running: dict[str, tuple[int, Running | None]],
        load: Load,
        counts: tuple[int, ...],
        finer: int = 1,
    ) -> None:
        """Measure all of them at each number of connections. ``finer``: in so many times as many rounds, which are as
        much shorter (a second at the least).
        """
        rounds, seconds = self.rounds * finer, max(1, self.seconds // finer)
        for name, (port, server) in running.items():
            load.run(port, 2, 1)
            assert_sound(name, port, load.body, server, "at the beginning")
        for turn in range(rounds):
            names = list(running)
            # Nobody is always the one that follows the slowest.
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                port, server = running[name]
                for connections in counts:
                    row = {"upstream": upstream, "peer": name, "round": turn, "connections": connections}
                    row |= self._measure(load, port, server, connections, seconds)
                    when = f"{upstream}, round {turn + 1}, {connections} connections"
                    if row["errors"] or not row["requests"]:
                        raise Void(f"{name}: {row['errors']} errors in {row['requests']} requests ({when})")
                    assert_sound(name, port, load.body, server, when)
                    self.rows.append(row)
            print(f"{upstream}: round {turn + 1} of {rounds}", file=sys.stderr, flush=True)

    def _measure(self, load: Load, port: int, server: Running | None, connections: int, seconds: int) -> dict[str, Any]:
        before, began, idle = server.cpu_s() if server else 0.0, time.monotonic(), self._idle_s()
        found: Measured = load.run(port, connections, seconds)
        spent = server.cpu_s() - before if server else 0.0
        return {
            **found._asdict(),
            "cpu_us": spent * 1e6 / found.requests if server and found.requests else None,
            "rss_mb": round(server.rss_mb(), 1) if server else None,
            "idle": (self._idle_s() - idle) / (time.monotonic() - began) / len(self.cores.numbers),
        }

    def _idle_s(self) -> float:
        """Seconds in which our cores had nothing to do, all of them together."""
        times = psutil.cpu_times(percpu=True)
        return float(sum(times[number].idle for number in self.cores.numbers))

    def median(self, upstream: str, peer: str, connections: int, field: str) -> float | None:
        """Over the rounds; None where it was not measured."""
        found = [
            row[field]
            for row in self.rows
            if (row["upstream"], row["peer"], row["connections"]) == (upstream, peer, connections)
            and row[field] is not None
        ]
        return statistics.median(found) if found else None

    def paired(
        self, upstream: str, one: str, other: str, connections: int, field: str, by: Callable[[float, float], float]
    ) -> float | None:
        """The median over the rounds of what ``by`` makes of both in the same round, which is steadier than what it
        would make of two medians; None where they were not measured.
        """
        rounds: dict[int, dict[str, float]] = {}
        for row in self.rows:
            if (row["upstream"], row["connections"]) == (upstream, connections) and row[field] is not None:
                rounds.setdefault(row["round"], {})[row["peer"]] = row[field]
        found = [by(row[one], row[other]) for row in rounds.values() if one in row and other in row]
        return statistics.median(found) if found else None


@contextlib.contextmanager
def started(
    peers: Mapping[str, Start | None], place: Place, direct: int
) -> Iterator[dict[str, tuple[int, Running | None]]]:
    """Those peers that can be had, before one upstream."""
    with contextlib.ExitStack() as stack:
        running: dict[str, tuple[int, Running | None]] = {}
        for name, start in peers.items():
            if start is None:
                running[name] = direct, None
                continue
            try:
                server = start(place)
            except Missing as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
                continue
            stack.callback(server.stop)
            running[name] = server.port, server
        yield running


def before_a_fixed_answer(bench: Bench) -> None:
    """How many requests a second, and at what cost, where the model takes no time."""
    cores, directory = bench.cores, bench.directory / "fixed"
    directory.mkdir()
    upstream = nginx.fixed(directory / "upstream", cores.rest)
    try:
        place = Place(directory, cores.proxy, upstream.address, upstream.address)
        load = Load(directory, cores.rest, BODY)
        with started(PEERS, place, upstream.port) as running:
            bench.compare("fixed", running, load, (1, 16, 64))
        # One worker and two, on the cores that are there; each alone would have the better of idle cores.
        with started(WORKERS, place._replace(cores=cores.all), upstream.port) as running:
            for name, body in (("workers", BODY), (report.FEATURES, FEATURES)):
                bench.compare(name, running, Load(directory, cores.all, body), (64,), finer=2)
    finally:
        upstream.stop()


def before_models(bench: Bench) -> None:
    """What a proxy adds to the time that a model takes."""
    for name, serve in (("mlflow", upstreams.mlflow_server), ("understudy serve", upstreams.understudy_serve)):
        directory = bench.directory / name.replace(" ", "-")
        directory.mkdir()
        upstream = serve(directory, bench.cores.rest)
        try:
            place = Place(directory, bench.cores.proxy, upstream.address, upstream.address)
            with started({peer: PEERS[peer] for peer in BEFORE_MODELS}, place, upstream.port) as running:
                load = Load(directory, bench.cores.rest, upstreams.BODY)
                bench.compare(name, running, load, (1,), finer=3)
                bench.compare(name, running, load, (4,))
        finally:
            upstream.stop()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=2, help="of one measurement")
    parser.add_argument("--no-models", action="store_true", help="leave out MLflow's server and understudy serve")
    parser.add_argument("--budget", action="store_true", help="only what each part of a request costs")
    parser.add_argument("--output", type=Path, default=ROOT / "build")
    given = parser.parse_args()
    as_by_keyboard()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        print("two cores are needed: one for the proxy, one for load and servers", file=sys.stderr)
        return 1
    chosen = Cores(str(cores[0]), ",".join(map(str, cores[1:])), ",".join(map(str, cores)))
    with tempfile.TemporaryDirectory() as folder:
        if given.budget:
            budget.write(Path(folder), chosen.proxy, chosen.rest, given.rounds, given.seconds, given.output)
            return 0
        bench = Bench(Path(folder), chosen, given.rounds, given.seconds)
        try:
            before_a_fixed_answer(bench)
            if not given.no_models:
                before_models(bench)
        except Void as void:
            print(f"the run is void: {void}", file=sys.stderr)
            return 2
    judged = promises.promises(bench, models=not given.no_models)
    report.write(bench, list(PEERS), given.output, [*map(str, judged), promises.room(bench)])
    return 0 if all(promise.holds for promise in judged) else 1


if __name__ == "__main__":
    sys.exit(main())
