"""What the project promises of the router's speed, held against what a run has measured; docs/speed.md has the same.

A promise that does not hold, or cannot be judged though its part of the run was asked for, fails the run. The target is
shown beside them and fails nothing: docs/speed.md says why it is not met.
"""

from typing import TYPE_CHECKING, NamedTuple

from tests.bench_router.report import BASE, OURS, added_p50_ratio, ratio

if TYPE_CHECKING:
    from tests.bench_router.__main__ import Bench

ENVOY = "envoy+capture"
TARGET = 0.50


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
    ours, envoy = (bench.median("fixed", name, 16, "per_s") for name in (OURS, ENVOY))
    one, two = ([bench.median("workers", f"{n} workers", 64, field) for field in ("per_s", "cpu_us")] for n in (1, 2))
    found = [
        Promise("requests a second by those of Envoy with capture, 16 connections", ratio(ours, envoy), least=2.0),
        Promise("requests a second of two workers by those of one", ratio(two[0], one[0]), least=1.25),
        Promise("CPU per request of two workers by that of one", ratio(two[1], one[1]), most=1.15),
    ]
    if models:
        added = added_p50_ratio(bench)
        found.append(Promise("added to the median before MLflow's server, by what nginx adds", added, most=3.0))
    return found


def target(bench: "Bench") -> str:
    """The line of the target."""
    ours, base = (bench.median("fixed", name, 16, "per_s") for name in (OURS, BASE))
    seen = ratio(ours, base)
    said = "not judged" if seen is None else "met" if seen >= TARGET else "not met"
    return f"target, {said}: requests a second with capture by nginx's, {TARGET:.2f}: seen {seen}"
