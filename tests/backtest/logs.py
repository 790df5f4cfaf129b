"""Seeded logs of rollouts that happened elsewhere, and the plans they are judged by."""

import csv
import random
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from controller.spec import ModelRollout
from controller.specfile import parse

START = 1_700_000_000
HEAD = """
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: ctr}
"""
PLAN = """
spec:
  model: {name: ranking}
  unit: {header: x-unit-id}
  steps: [{weight: 1, hold: 2m}, {weight: 5, hold: 2m}, {weight: 50, hold: 2m}]
  metrics:
    - {name: ctr, kind: Proportion, outcome: click, window: 20s, goal: Increase, role: Success, margin: 10%}
    - {name: errors, kind: ErrorRate, margin: 0.5pp}
  decision: {tick: 10s, block: 10s, grace: 0s, minUnits: 50, maxDuration: 14d}
"""


def declared(plan: str = PLAN) -> ModelRollout:
    """A rollout from the text of its spec."""
    return parse(HEAD + plan)


class World(NamedTuple):
    """What is true of the arms. Rates per unit; ``stretches``: (weight in percent, minutes, units a minute)."""

    champion: float = 0.5
    challenger: float = 0.5
    champion_errors: float = 0.0
    challenger_errors: float = 0.0
    stretches: tuple[tuple[float, int, int], ...] = ((1, 2, 3000), (5, 2, 3000), (50, 4, 3000))
    labels: bool = False
    challenger_accuracy: float = 0.8


class Log(NamedTuple):
    """Rows of the two files, as mappings of columns."""

    exposures: list[dict[str, Any]]
    outcomes: list[dict[str, Any]]


def drawn(world: World, seed: int = 1, reserved: bool = False, largest: float = 50) -> Log:
    """A log of ``world``: a new unit with every request, arms by the weight. ``reserved``: with a control column."""
    rng = random.Random(seed)
    exposures: list[dict[str, Any]] = []
    outcomes: list[dict[str, Any]] = []
    begin = float(START)
    for weight, minutes, rate in world.stretches:
        for i in range(minutes * rate):
            t = round(begin + i * 60 / rate + rng.random() * 30 / rate, 3)
            place = rng.random() * 100
            _request(rng, world, exposures, outcomes, t, weight, place)
            if reserved:
                exposures[-1]["control"] = place >= largest
        begin += minutes * 60
    return Log(exposures, outcomes)


def _request(
    rng: random.Random,
    world: World,
    exposures: list[dict[str, Any]],
    outcomes: list[dict[str, Any]],
    t: float,
    weight: float,
    place: float,
) -> None:
    challenger = place < weight
    number = len(exposures)
    failed = rng.random() < (world.challenger_errors if challenger else world.champion_errors)
    row = {
        "unit": f"u{number}",
        "arm": "challenger" if challenger else "champion",
        "ts": t,
        "weight": weight,
        "request_id": f"r{number}",
        "latency_ms": round(rng.lognormvariate(2, 0.5), 3),
        "status": 500 if failed else 200,
        "segment": rng.choice(["AA", "UA"]),
    }
    if world.labels:
        accuracy = world.challenger_accuracy if challenger else 0.8
        label = float(rng.random() < 0.3)
        right = rng.random() < accuracy
        row["prediction"] = 0.9 if (label == 1) == right else 0.1
        outcomes.append({"request_id": f"r{number}", "name": "late", "value": label, "ts": round(t + 5, 3)})
    elif rng.random() < (world.challenger if challenger else world.champion):
        later = round(t + 1 + rng.random() * 8, 3)
        outcomes.append({"unit": f"u{number}", "name": "click", "value": 1, "ts": later})
    exposures.append(row)


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    """``rows`` as CSV with a header."""
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_parquet(path: Path, rows: Path) -> Path:
    """The rows of a CSV file as Parquet, with the types that its values look like."""
    con = duckdb.connect()
    con.execute(f"COPY (SELECT * FROM read_csv('{rows}')) TO '{path}' (FORMAT parquet)")
    con.close()
    return path


def write(folder: Path, log: Log) -> tuple[Path, Path]:
    """Both files as CSV."""
    folder.mkdir(parents=True, exist_ok=True)
    return write_csv(folder / "exposures.csv", log.exposures), write_csv(folder / "outcomes.csv", log.outcomes)
