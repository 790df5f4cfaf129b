"""Many runs: in several processes, with progress, and a summary that says what happened how often."""

import gc
import logging
import os
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, as_completed
from contextlib import nullcontext
from typing import NamedTuple

from tests.sim.faults import Fault
from tests.sim.guards import BY_NAME, without
from tests.sim.run import FAULTS, Result, play

CHUNK = 10
LEAST_SHARE = 0.05  # of the runs in which each kind of fault must have happened
LEAST_RUNS = 400  # for that claim


class Settings(NamedTuple):
    """What a campaign runs: seeds from ``first`` on. ``guard``: taken out of the loop, if any; ``truth``: see there."""

    first: int
    seeds: int
    faults: frozenset[Fault] = FAULTS
    guard: str | None = None
    jobs: int = 1
    truth: str | None = None

    def command(self, seed: int) -> str:
        """What a person types to see run ``seed`` again."""
        chosen = "" if self.faults == FAULTS else f" --faults {','.join(sorted(self.faults))}"
        named = f" --truth {self.truth}" if self.truth else ""
        return f"python -m tests.sim --seed {seed}{chosen}{named}{f' --without {self.guard}' if self.guard else ''}"


class Summary(NamedTuple):
    """Counts over all runs. ``fired``: runs in which a kind of fault happened. ``cpu_s`` over all processes."""

    runs: int
    violations: list[Result]
    fired: Counter[str]
    ends: Counter[tuple[str, str]]
    ticks: int
    virtual_s: int
    cpu_s: float
    wall_s: float

    @property
    def per_minute(self) -> float:
        """Runs per minute and core."""
        return 60 * self.runs / self.cpu_s if self.cpu_s else 0.0

    def rare(self) -> list[str]:
        """Kinds of fault that happened in too few runs."""
        return [str(f) for f in Fault if self.fired[str(f)] < LEAST_SHARE * self.runs]


def chunk(settings: Settings, first: int, count: int) -> tuple[list[Result], float]:
    """Runs ``first`` … ``first + count − 1``, and the CPU seconds they took."""
    logging.disable(logging.CRITICAL)  # the loop warns of every failed call
    began = time.process_time()
    with without(BY_NAME[settings.guard]) if settings.guard else nullcontext():
        results = [play(seed, settings.faults, settings.truth) for seed in range(first, first + count)]
    logging.disable(logging.NOTSET)
    return results, time.process_time() - began


def unhurried_collection() -> None:
    """A run makes many objects that live, and hardly a cycle: the collector is let look seldom (a quarter faster)."""
    gc.freeze()
    gc.set_threshold(50_000, 20, 20)


def chunks(settings: Settings) -> Iterator[tuple[list[Result], float]]:
    """All runs, in pieces, in whatever order they are done."""
    end = settings.first + settings.seeds
    pieces = [(at, min(CHUNK, end - at)) for at in range(settings.first, end, CHUNK)]
    if settings.jobs == 1:
        for at, count in pieces:
            yield chunk(settings, at, count)
        return
    with ProcessPoolExecutor(settings.jobs, initializer=unhurried_collection) as pool:
        waiting = [pool.submit(chunk, settings, at, count) for at, count in pieces]
        try:
            for done in as_completed(waiting):
                yield done.result()
        finally:
            for future in waiting:
                future.cancel()


def campaign(settings: Settings, stop_at: int = 20, quiet: bool = False) -> Summary:
    """Run everything, at most until ``stop_at`` runs were violated. Progress goes to standard error."""
    began, told = time.monotonic(), 0.0
    violations: list[Result] = []
    fired: Counter[str] = Counter()
    ends: Counter[tuple[str, str]] = Counter()
    runs = ticks = virtual = 0
    cpu = 0.0
    for results, seconds in chunks(settings):
        cpu += seconds
        for result in results:
            runs, ticks, virtual = runs + 1, ticks + result.ticks, virtual + result.seconds
            fired.update(result.fired.keys())
            ends[(result.truth, f"{result.end} {result.reason}")] += 1
            if result.rule:
                violations.append(result)
                if not quiet:
                    print(f"seed {result.seed}: {result.text}\n  {settings.command(result.seed)}", flush=True)
        if not quiet and time.monotonic() - told > 5:
            told = time.monotonic()
            rate = 60 * runs / cpu if cpu else 0
            sys.stderr.write(f"{runs} of {settings.seeds} runs, {rate:.0f} a minute and core\n")
            sys.stderr.flush()
        if len(violations) >= stop_at:
            break
    return Summary(runs, violations, fired, ends, ticks, virtual, cpu, time.monotonic() - began)


def cores() -> int:
    """How many processes make sense here."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
