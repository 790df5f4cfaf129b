"""Of rollouts that are gone nothing is kept for ever, and of others everything."""

import os
import time
from pathlib import Path

import pytest

from controller.edges.cluster.leftovers import KEPT_S, RECORDS_KEPT_S, Leftovers
from tests.kubernetes.operating.theatre import Theatre, until


def kept(state: Path, uid: str, days: float) -> tuple[Path, Path]:
    """Statistics and records of ``uid``, changed for the last time so many days ago."""
    statistics, records = state / "rollouts" / uid / "journal" / "a.jsonl", state / "records" / f"{uid}.jsonl"
    then = time.time() - days * 86_400
    for path in (statistics, records):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    for path in (statistics, statistics.parent, statistics.parent.parent, records):
        os.utime(path, (then, then))
    return statistics, records


def test_what_nobody_can_ask_for_any_more_goes_the_statistics_first(tmp_path: Path) -> None:
    days = {"living": 400.0, "just-gone": 0.5, "gone": KEPT_S / 86_400 + 1, "long-gone": RECORDS_KEPT_S / 86_400 + 1}
    made = {uid: kept(tmp_path, uid, ago) for uid, ago in days.items()}
    leftovers = Leftovers(tmp_path / "rollouts", tmp_path / "records", of_all=True)
    assert leftovers.sweep({"living"}) == ["gone", "long-gone"]
    there = {uid: tuple(path.exists() for path in paths) for uid, paths in made.items()}
    assert there == {
        "living": (True, True), "just-gone": (True, True), "gone": (False, True), "long-gone": (False, False),
    }  # fmt: skip
    assert Leftovers(tmp_path / "none", tmp_path / "none", of_all=True).sweep(set()) == []


@pytest.mark.parametrize("namespaced", [False, True])
def test_a_controller_knows_whose_rollouts_are_gone(theatre: Theatre, tmp_path: Path, namespaced: bool) -> None:
    """One of a single namespace does not know of those that it has never seen."""
    uid = theatre.apply()["metadata"]["uid"]
    gone, living = kept(tmp_path, "gone", 400), kept(tmp_path, uid, 400)
    operator = theatre.operator(state_dir=tmp_path) if namespaced else theatre.operator_for_all(state_dir=tmp_path)
    until(lambda: operator.leftovers.sweeps, "it has swept")
    assert [path.exists() for path in (*gone, *living)] == [namespaced, namespaced, True, True]
