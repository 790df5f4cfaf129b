"""What a leader that is killed has decided and not shown in MLflow yet, others show, and it itself when it is back."""

import json
import tempfile
from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from controller.edges.registry import MlflowRegistry
from controller.edges.run_writer import DECISION_LOG
from controller.ports import TickEntry
from controller.spec import ModelRollout
from controller.status import Progress, RolloutStatus
from tests.kubernetes.operating.theatre import STAY, until
from tests.kubernetes.operating.wired import SERVED, WiredTheatre
from tests.ports.tracking_server import TrackingServer, register_pair


class Shown(MlflowRegistry):
    """``aliases`` as a theatre asks for them."""

    all_aliases = MlflowRegistry.aliases


class Unshown(Shown):
    """Its process is killed before it has written anything of the run."""

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        return None

    def catch_up(self, rollout: ModelRollout, status: RolloutStatus, records: object) -> None:
        """Nor of what was before."""


def only_run(mlflow: MlflowClient, model: str) -> Run | None:
    experiment = mlflow.get_experiment_by_name(f"rollouts/{model}")
    runs = [] if experiment is None else mlflow.search_runs([experiment.experiment_id])
    return runs[0] if runs else None


def decisions(mlflow: MlflowClient, run: Run) -> list[int]:
    """Their numbers."""
    if DECISION_LOG not in [each.path for each in mlflow.list_artifacts(run.info.run_id)]:
        return []
    with tempfile.TemporaryDirectory() as folder:
        text = Path(mlflow.download_artifacts(run.info.run_id, DECISION_LOG, folder)).read_text("utf-8")
    return [json.loads(line)["sequence"] for line in text.splitlines()]


@pytest.mark.timeout(180)
def test_an_end_that_a_killed_leader_did_not_live_to_show_is_shown_by_the_next_and_its_decisions_by_itself(
    wired: WiredTheatre, server: TrackingServer, tmp_path: Path
) -> None:
    mlflow = MlflowClient(server.uri, registry_uri=server.uri)
    flights = register_pair(mlflow, "flights")
    unshown = Unshown(server.uri)
    wired.registry = unshown  # type: ignore[assignment]
    killed = wired.operator(state_dir=tmp_path / "killed")
    wired.apply(model={"name": flights}, servers=SERVED, steps=STAY)
    wired.reaches(Progress.RUNNING, step=1)
    wired.ask("promote")
    status = wired.reaches(Progress.PROMOTED)
    killed.stop()
    assert only_run(mlflow, flights) is None

    def ended() -> bool:
        run = only_run(mlflow, flights)
        return run is not None and run.info.status == "FINISHED"

    shown = Shown(server.uri)
    wired.registry = shown  # type: ignore[assignment]
    following = wired.operator()
    until(ended, "the end is shown")
    run = only_run(mlflow, flights)
    assert run is not None
    assert (run.data.tags["understudy.state"], run.data.tags["understudy.reason"]) == ("Promoted", "ByHand")
    assert mlflow.get_model_version(flights, "2").tags["understudy.verdict"] == "Promoted: ByHand"
    following.stop()
    wired.operator(state_dir=tmp_path / "killed")
    until(lambda: decisions(mlflow, run) == list(range(1, status.sequence + 1)), "its decisions are shown")
    for registry in (unshown, shown):
        registry.close(10)
