"""State folders as `understudy run` leaves them: a store filled by the same core, and the command line in a process."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from controller.core.cells import Block, EpochCounts, Losses, ScoreCell
from controller.core.evolve import evolve
from controller.core.fold import EMPTY, Fold, Statistics, fold
from controller.core.plans import query
from controller.edges.store import SqliteStore
from controller.spec import ModelRollout
from tests.decide.rollouts import ready, rollout
from tests.evidence.drawn import once

ROOT = Path(__file__).resolve().parents[2]
MINUTE = 60_000_000
METRICS = [
    {
        "name": "ctr", "kind": "Proportion", "outcome": "click", "window": "1m", "margin": "5%",
        "baseline": {"mean": 0.05},
    },
    {"name": "errors", "kind": "ErrorRate", "margin": "0.5pp", "baseline": {"mean": 0.001}},
]  # fmt: skip


def understudy(*arguments: str | bytes, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line as a process of its own."""
    code = [sys.executable, "-m", "controller", *arguments]
    return subprocess.run(
        code, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False, env={"PATH": "", **environment}
    )


def declared(name: str) -> ModelRollout:
    """A rollout whose baselines are declared, so that evidence counts from its first block."""
    made = rollout(metrics=METRICS)
    return made.model_copy(update={"metadata": made.metadata.model_copy(update={"name": name})})


def begun(folder: Path, name: str = "late") -> SqliteStore:
    """A store with a rollout in its first step."""
    store = SqliteStore(folder / "rollouts.sqlite")
    store.put(declared(name))
    for now in (MINUTE, 2 * MINUTE):
        go_on(store, name, EMPTY, now)
    return store


def go_on(store: SqliteStore, name: str, statistics: Statistics, now: int) -> None:
    """One tick of rollout ``name``, in a world in which everything is there."""
    stored = store.load(name)
    moved_to = {f"{m.alias}_alias": m.version for m in stored.status.alias_moves}
    seen = ready(requests=stored.requests, **moved_to)
    status = stored.status.model_copy(update={"rollout": name, "observed": seen})
    moved = evolve(stored.rollout.spec, status, statistics, now)
    store.commit(name, moved.status, stored.version, moved.record)


def harmed(store: SqliteStore, name: str = "late") -> Statistics:
    """Statistics in which 30 % of the challenger's units met an error, and all clicks are alike."""
    stored = store.load(name)
    asked = query(name, stored.rollout.spec, stored.status)
    folds: dict[tuple[str, str], Fold] = {}
    for plan in asked.metrics:
        state: Fold | None = None
        for block in range(10):
            if plan.family == "failures":
                cells = Block(plan.name, "", 1, block, *once(asked.epochs[0].pi_ppm, (500, 1), (100, 30)))
            else:
                one, other = (
                    ScoreCell(n, n, 50_000 * n, 5 * 10**10 * n, 50_000 * n, n, n // 20, 10**25) for n in (500, 100)
                )
                cells = Block(plan.name, "", 1, block, one, other)
            state = fold(plan, asked.epochs[0], state, cells)
        assert state is not None
        folds[plan.name, ""] = state
    counts = {1: EpochCounts(1, 5000, 1000, 5000, 1000, 0, 5000, 1000)}
    return Statistics(folds, {}, {}, counts, Losses(10_000), 3 * MINUTE)


def rolled_back(folder: Path) -> SqliteStore:
    """A store with a rollout that errors ended."""
    store = begun(folder)
    statistics = harmed(store)
    for minute in range(3, 8):
        go_on(store, "late", statistics, minute * MINUTE)
    return store


def answer(outcome: subprocess.CompletedProcess[str]) -> Any:
    """What a command printed as JSON."""
    return json.loads(outcome.stdout)
