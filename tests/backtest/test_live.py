"""A backtest of what a live rollout left behind says what the rollout decided."""

import json
from pathlib import Path

import pytest

from controller.backtest import replay_journals, run_log
from controller.edges.store import SqliteStore
from controller.errors import SpecError
from controller.metric import Covariate
from controller.status import RolloutStatus
from tests.backtest.live import HEADER, Lived, live
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


def test_a_covariate_counts_the_same_live_from_the_journals_and_from_a_log_and_sharpens(tmp_path: Path) -> None:
    step = ROLLOUT.spec.steps[1].model_copy(update={"hold": 60_000_000})
    one = {"steps": (step,), "metrics": ROLLOUT.spec.metrics[:1]}
    plain = ROLLOUT.model_copy(update={"spec": ROLLOUT.spec.model_copy(update=one)})
    metric = plain.spec.metrics[0].model_copy(update={"covariate": Covariate(header=HEADER)})
    sharp = plain.model_copy(update={"spec": plain.spec.model_copy(update={"metrics": (metric,)})})
    was = live(sharp, tmp_path / "journal", (0.5, 0.5), seed=5)
    assert was.status.epochs[-1].adjustments["ctr"].slope == pytest.approx(400_000, rel=0.05)
    assert RolloutStatus.model_validate_json(was.status.model_dump_json()) == was.status
    replayed = replay_journals(sharp, was.status, tmp_path / "journal", stop_at_decision=True)
    assert (replayed.result, replayed.at, replayed.evidence) == ("Promoted", was.at, was.evidence)
    logged = write(tmp_path, was.log)
    [adjusted], [raw] = (run_log(r, *logged, tick=r.spec.decision.tick).evidence for r in (sharp, plain))
    assert adjusted.se / raw.se == pytest.approx(0.6, abs=0.05)
    assert adjusted.note.startswith("the covariate is known of 100 % of the units and explains 6")
