"""Challengers that die or misbehave under load at 50 % weight: ``python -m tests.router.bad_challengers``.

For each way to misbehave so many requests through a real worker: each is answered by a model's own whole answer, and
has its exposure. Further attempts begin while it misbehaves, each with a closed breaker: else it would hardly be asked.
Prints what became of them as JSON, one line a way; the exit code is 1 where a request failed or has no exposure, or
where the challenger was asked too rarely for that to mean anything.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from tests.ending import as_by_keyboard
from tests.router.load import Got, Load
from tests.router.models import Model, ModelProcess
from tests.router.planes import Plane, running, table
from tests.router.raw import await_until, post

WAYS = ("killed", "hang", "garbage", "nan", "slow", "cut", "twice", "reset", "500")
TIMEOUT_MS = 200
# Answers between one attempt and the next.
EVERY = 500


def misbehave(directory: Path, way: str, number: int) -> dict[str, Any]:
    """So many requests, of which the challenger answers the first quarter well; what became of them."""
    with ModelProcess("champion") as champion:
        if way == "killed":
            with ModelProcess("challenger") as victim:
                return _under_load(directory, way, number, champion.address, victim.address, victim.kill)
        with Model("challenger") as challenger:

            def worsen() -> None:
                challenger.mode = way

            return _under_load(directory, way, number, champion.address, challenger.address, worsen)


def _under_load(directory: Path, way: str, number: int, champion: str, challenger: str, worsen: Any) -> dict[str, Any]:
    first = table(1, champion, challenger, weight_bp=5_000, limits={"challenger_timeout_ms": TIMEOUT_MS})
    with running(directory, first, journal_capacity=100_000) as plane:
        load = Load(plane.port, lambda n: post(f"u{n}"), 16, number)
        load.start()
        await_until(lambda: len(load.got) > number / 4, 120, "a quarter of the load")
        worsen()
        generation = 2
        while load.runs:
            plane.put(first | {"generation": generation, "attempt": generation})
            generation += 1
            await_until(partial(_further, load, len(load.got) + EVERY), 60, "more answers")
        load.join(300)
        return _figures(plane, load, way, number, generation - 1)


def _further(load: Load, number: int) -> bool:
    return not load.runs or len(load.got) > number


def _figures(plane: Plane, load: Load, way: str, number: int, attempts: int) -> dict[str, Any]:
    ended = plane.drain()
    dropped = next(line["dropped"] for line in reversed(plane.lines()) if line["type"] == "mark")
    found = plane.exposures()
    failed = number - sum(_answered(got) for got in load.got)
    reasons = Counter(str(e.fallback_reason) for e in found if e.fallback_reason)
    met = sum(n for reason, n in reasons.items() if reason != "BreakerOpen")
    requests = {exposure.request_id for exposure in found}
    failures = {
        "requests that failed": failed,
        "the worker's exit code": ended,
        "requests without an exposure or a counted drop": number - dropped - len(requests),
        "requests with more than one": len(found) - len(requests),
        # Every attempt after the first begins while the challenger misbehaves, with a closed breaker.
        "attempts whose challenger was hardly asked": max(0, attempts - 1 - met),
    }
    return {
        "challenger": way, "requests": number, "failed": failed,
        "exposures": len(found), "dropped": dropped,
        "fallbacks": dict(sorted(reasons.items())),
        "met": met, "attempts": attempts,
        "failures": {what: count for what, count in failures.items() if count},
    }  # fmt: skip


def _answered(got: Got) -> bool:
    """Whether this is the whole answer of one of the two models."""
    try:
        return got.status == 200 and got.arm() in ("champion", "challenger")
    except (ValueError, TypeError, KeyError):
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=20_000)
    given = parser.parse_args()
    as_by_keyboard()
    failed = []
    for each in WAYS:
        with tempfile.TemporaryDirectory() as folder:
            result = misbehave(Path(folder), each, given.requests)
        print(json.dumps(result), flush=True)
        if result["failures"]:
            failed.append(each)
    sys.exit(f"does not hold: {', '.join(failed)}" if failed else 0)
