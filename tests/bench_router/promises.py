"""What the project promises of the router's speed, held against what a run has measured; docs/speed.md has the same.

A promise that does not hold, or cannot be judged though its part of the run was asked for, fails the run.
"""

from typing import TYPE_CHECKING, NamedTuple

from tests.bench_router.report import BASE, FEATURES, OURS, added_p50_ratio, ratio, two_workers

if TYPE_CHECKING:
    from tests.bench_router.__main__ import Bench

ENVOY = "envoy+capture"


class Promise(NamedTuple):
    """One figure and its bound; ``seen`` is None where it could not be measured."""

    what: str
    seen: float | None
    least: float | None = None
    most: float | None = None

    @property
    def holds(self) -> bool:
        if self.seen is None:
            return False
        return (self.least is None or self.seen >= self.least) and (self.most is None or self.seen <= self.most)

    def __str__(self) -> str:
        bound = f"at least {self.least:.2f}" if self.least is not None else f"at most {self.most:.2f}"
        if self.seen is None:
            return (
                f"not judged: {self.what}, {bound}: a peer is missing, or the difference was too small to be measured"
            )
        return f"{'holds' if self.holds else 'does not hold'}: {self.what}, {bound}: seen {self.seen:.3f}"


def promises(bench: "Bench", *, models: bool) -> list[Promise]:
    """All of them; ``models``: the part with model servers was asked for."""
    ours, base, envoy = (bench.median("fixed", name, 16, "per_s") for name in (OURS, BASE, ENVOY))
    found = [
        Promise("requests a second with capture by nginx's, 16 connections", ratio(ours, base), least=0.50),
        Promise("requests a second by those of Envoy with capture, 16 connections", ratio(ours, envoy), least=2.0),
        Promise("requests a second of two workers by those of one", two_workers(bench, "workers", "per_s"), least=1.25),
        Promise(f"requests a second of two by one ({FEATURES})", two_workers(bench, FEATURES, "per_s"), least=1.25),
        Promise("CPU per request of two workers by that of one", two_workers(bench, "workers", "cpu_us"), most=1.15),
    ]
    if models:
        added = added_p50_ratio(bench)
        found.append(Promise("added to the median before MLflow's server, by what nginx adds", added, most=3.0))
    return found


def room(bench: "Bench") -> str:
    """How many times one worker's small requests these cores have room for: load and server take nearly as much of them
    as a worker does, so on two cores it is less than what is promised of two workers.
    """
    idle = bench.median("workers", "1 workers", 64, "idle")
    most = "?" if idle is None or idle >= 1 else f"{1 / (1 - idle):.3f}"
    return f"these cores have room for {most} times the requests of one worker"
