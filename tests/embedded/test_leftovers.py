"""What a state folder still holds of a rollout that nobody remembers is not taken for that of a new one."""

from pathlib import Path

import pytest

from tests.cli.states import begun, understudy

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


@pytest.mark.parametrize("left", ["engine.duckdb", "engine.sqlite", "table.json", "journal/w0-1.jsonl"])
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


@pytest.mark.parametrize(
    ("instead", "held"),
    [("name: flights", "of model 'flight-delay'; name another folder for 'prices'"), ("name: late", "")],
)
def test_a_folder_tells_of_one_rollout_of_one_model(tmp_path: Path, instead: str, held: str) -> None:
    """Versions are numbers: version 1 of another model would be taken for the one whose server runs."""
    file, state = tmp_path / "late.yaml", tmp_path / "state"
    state.mkdir()
    store = begun(state)
    file.write_text(FILE.replace(instead, "name: prices"))
    outcome = understudy("run", str(file), "--state-dir", str(state))
    assert outcome.returncode == 2
    said = f"holds 'late' {held}" if held else "holds rollout 'late'; name another folder for 'prices'"
    assert outcome.stderr.strip() == f"error: --state-dir {said}"
    assert store.load("late").rollout.spec.model.name == "flight-delay"


@pytest.mark.parametrize("instead", ["name: flights", "name: late"])
def test_a_rollout_between_two_attempts_has_begun(tmp_path: Path, instead: str) -> None:
    """One that was superseded while nothing is named for the next attempt: users are served by its table."""
    file, state = tmp_path / "late.yaml", tmp_path / "state"
    state.mkdir()
    store = begun(state)
    stored = store.load("late")
    between = stored.status.model_copy(update={"attempt": None, "former": stored.status.attempt})
    store.commit("late", between, stored.version, None)
    file.write_text(FILE.replace(instead, "name: prices"))
    outcome = understudy("run", str(file), "--state-dir", str(state))
    assert outcome.returncode == 2
    assert outcome.stderr.startswith("error: --state-dir holds ")
    assert store.load("late").rollout.spec.model.name == "flight-delay"
