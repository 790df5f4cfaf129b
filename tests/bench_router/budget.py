"""What each part of a request costs: processor time of routers with parts of their work switched off, and of the
steps of one request by themselves.

Processor time is steadier than requests a second where the machine is shared; all routers run at the same time and
are measured in turn.
"""

import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path

from tests import compiled
from tests.bench_router.load import BODY, Load
from tests.bench_router.peers import Place, nginx, passing, understudy
from tests.bench_router.processes import ROOT, Missing, Running
from tests.kubernetes.binaries import Unavailable

# Each has what the one above it lacks, as far as the one that is judged; what follows is the router as others run it.
ROWS: dict[str, Callable[[Place], Running]] = {
    "nginx": nginx.start,
    "bytes passed on unread (asyncio)": passing.start,
    "the router, no bodies captured": partial(understudy.start_with, name="plain", **understudy.NO_BODIES),
    "bodies captured, nothing redacted": partial(understudy.start_with, name="unredacted", redact_defaults=False),
    "bodies captured and redacted": partial(understudy.start_with, name="capture"),
    "the same, all of it judged (weight 100 %)": partial(understudy.start_with, name="judged", weight_bp=10_000),
    "captured and redacted, on asyncio": understudy.start_on_asyncio,
    "captured and redacted, not compiled": understudy.start_interpreted,
    "the same on asyncio": partial(understudy.start_with, name="plain-python", loop="asyncio", interpreted=True),
}
CONNECTIONS = 16


def measured(directory: Path, proxy: str, rest: str, rounds: int, seconds: int) -> dict[str, dict[str, float]]:
    """Medians for each row, microseconds of processor time per request: all, main threads, the journal's thread."""
    upstream = nginx.fixed(directory / "upstream", rest)
    running: dict[str, Running] = {}
    found: dict[str, list[tuple[float, float]]] = {}
    try:
        place = Place(directory, proxy, upstream.address, upstream.address)
        load = Load(directory, rest, BODY)
        for name, start in ROWS.items():
            try:
                running[name] = start(place)
            except Missing as missing:
                print(f"{name} is left out: {missing}", file=sys.stderr)
                continue
            load.run(running[name].port, CONNECTIONS, 1)
        for turn in range(rounds):
            names = list(running)
            for name in names[turn % len(names) :] + names[: turn % len(names)]:
                server = running[name]
                before = server.threads_s()
                requests = load.run(server.port, CONNECTIONS, seconds).requests
                after = server.threads_s()
                main, journal = (1e6 * (b - a) / requests for a, b in zip(before, after, strict=True))
                found.setdefault(name, []).append((main, journal))
    finally:
        for server in running.values():
            server.stop()
        upstream.stop()
    return {
        name: {
            "cpu_us": statistics.median(main + journal for main, journal in turns),
            "loop_us": statistics.median(main for main, _ in turns),
            "journal_us": statistics.median(journal for _, journal in turns),
        }
        for name, turns in found.items()
    }


def _of_steps() -> dict[str, dict[str, float]]:
    """Microseconds for each step, interpreted, and compiled where that can be."""
    places = {"interpreted": ROOT}
    with suppress(Unavailable):  # which the rows have told
        places["compiled"] = compiled.tree()
    found = {}
    for name, place in places.items():
        command = [sys.executable, "-m", "tests.bench_router.steps"]
        done = subprocess.run(command, cwd=place, capture_output=True, text=True, timeout=600, check=True)
        found[name] = json.loads(done.stdout)
    return found


def _table(rows: dict[str, dict[str, float]], of_steps: dict[str, dict[str, float]]) -> str:
    lines = ["| CPU µs/request | all | of nginx | loop | journal |", "|---|---|---|---|---|"]
    for name, row in rows.items():
        lines.append(
            f"| {name} | {row['cpu_us']:.1f} | {row['cpu_us'] / rows['nginx']['cpu_us']:.2f} "
            f"| {row['loop_us']:.1f} | {row['journal_us']:.1f} |"
        )
    lines += ["", f"| a step by itself, µs | {' | '.join(of_steps)} |", "|---" * (1 + len(of_steps)) + "|"]
    lines += [
        f"| {name} | {' | '.join(f'{step[name]:.2f}' for step in of_steps.values())} |"
        for name in of_steps["interpreted"]
    ]
    return "\n".join(lines)


def write(directory: Path, proxy: str, rest: str, rounds: int, seconds: int, output: Path) -> None:
    """Measure, and write the tables into a folder and to the terminal."""
    rows = measured(directory, proxy, rest, rounds, seconds)
    of_steps = _of_steps()
    heading = (
        f"Python {platform.python_version()}, {CONNECTIONS} connections, {len(BODY)} bytes of JSON; "
        f"medians of {rounds} rounds of {seconds} s, steps as the least of many"
    )
    text = f"{heading}\n\n{_table(rows, of_steps)}\n"
    output.mkdir(parents=True, exist_ok=True)
    (output / "bench-router-budget.md").write_text(text)
    (output / "bench-router-budget.json").write_text(json.dumps({"cpu_us": rows, "steps_us": of_steps}, indent=1))
    print(text)
