"""A backtest of what a live rollout left behind says what the rollout decided."""

import json
from pathlib import Path

import pytest

from controller.backtest import replay_journals, run_log
from controller.edges.store import SqliteStore
from controller.errors import SpecError
from controller.status import RolloutStatus
from tests.backtest.live import Lived, live
from tests.backtest.logs import declared, write
from tests.cli.states import understudy

ROLLOUT = declared(
    """
spec:
  model: {name: ranking}
  unit: {header: x-unit-id}
  steps: [{weight: 10, hold: 1m}, {weight: 50, hold: 2m}]
  metrics:
    - {name: ctr, kind: Proportion, outcome: click, window: 5s, goal: Increase, role: Success, margin: 20%}
    - {name: errors, kind: ErrorRate, margin: 2pp}
  decision: {tick: 5s, block: 5s, grace: 0s, minUnits: 30, maxDuration: 1d}
  afterPromotion: {holdback: 0}
"""
)
WORLDS = {"honest": ((0.5, 0.5), "Promoted"), "harmful": ((0.5, 0.25), "RolledBack")}


@pytest.fixture(scope="module", params=sorted(WORLDS))
def lived(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Lived, Path, str]:
    click, end = WORLDS[request.param]
    folder = tmp_path_factory.mktemp(request.param)
    return live(ROLLOUT, folder / "journal", click, seed=5), folder, end


def test_the_journals_replay_to_the_same_decision_on_the_same_numbers(lived: tuple[Lived, Path, str]) -> None:
    was, folder, end = lived
    result = replay_journals(ROLLOUT, was.status, folder / "journal", stop_at_decision=True)
    assert (result.result, result.reason, result.metric) == (end, was.status.reason, was.status.metric)
    assert result.at == was.at
    assert result.evidence == was.evidence


def test_the_log_with_its_weights_alone_leads_to_the_same_result(lived: tuple[Lived, Path, str]) -> None:
    was, folder, end = lived
    result = run_log(ROLLOUT, *write(folder, was.log), tick=ROLLOUT.spec.decision.tick)
    assert (result.result, result.reason, result.metric) == (end, was.status.reason, was.status.metric)


def test_the_command_replays_the_journals_of_a_state_folder(lived: tuple[Lived, Path, str]) -> None:
    was, folder, end = lived
    state = folder / "state"
    if not state.exists():
        store = SqliteStore(state / "rollouts.sqlite")
        store.put(ROLLOUT)
        stored = store.load("ctr")
        store.commit("ctr", was.status.model_copy(update={"uid": stored.status.uid}), stored.version, None)
        store.close()
    outcome = understudy(
        "backtest", "--journals", str(folder / "journal"), "--state-dir", str(state), "-o", "json", "--expect", end
    )
    assert outcome.returncode == 0, outcome.stderr
    said = json.loads(outcome.stdout)
    assert (said["result"], said["reason"], said["metric"]) == (end, was.status.reason, was.status.metric)


def test_without_an_attempt_or_an_exposure_there_is_nothing_to_replay(lived: tuple[Lived, Path, str]) -> None:
    was, folder, _ = lived
    with pytest.raises(SpecError, match="no attempt has begun"):
        replay_journals(ROLLOUT, RolloutStatus(uid="u"), folder / "journal")
    with pytest.raises(SpecError, match="holds no exposure of attempt 1"):
        replay_journals(ROLLOUT, was.status, folder / "elsewhere")
