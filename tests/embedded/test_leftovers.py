"""What a state folder still holds of a rollout that nobody remembers is not taken for that of a new one."""

from pathlib import Path

import pytest

from tests.cli.states import understudy

FILE = """
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: late}
spec:
  model: {name: flights}
  unit: {header: x-unit}
  steps: [{weight: 5, hold: 1m}]
  metrics: [{name: errors, kind: ErrorRate, margin: 1pp}]
"""


@pytest.mark.parametrize("left", ["engine.duckdb", "table.json", "journal/w0-1.jsonl"])
def test_a_folder_whose_store_was_moved_away_is_refused(tmp_path: Path, left: str) -> None:
    file, state = tmp_path / "late.yaml", tmp_path / "state"
    file.write_text(FILE)
    (state / left).parent.mkdir(parents=True)
    (state / left).touch()
    outcome = understudy("run", str(file), "--state-dir", str(state))
    assert outcome.returncode == 2
    name = left.partition("/")[0]
    assert outcome.stderr.strip() == (
        f"error: --state-dir {state}: {name} of an earlier rollout is there, and rollouts.sqlite is not; restore that,"
        " or name another folder"
    )
    assert not (state / "rollouts.sqlite").exists()
