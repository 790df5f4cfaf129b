"""A rollout survives SIGKILL to each of its processes; `make kill-test` does the same twenty times each."""

from pathlib import Path

import pytest

from tests.embedded.kill_test import trial


@pytest.mark.timeout(900)
def test_a_rollout_survives_the_death_of_each_of_its_processes(store: Path, tmp_path: Path) -> None:
    counts, faults = trial(tmp_path, store, rounds=1, seed=7, per_round=1)
    assert faults == [], counts
