"""The run of a rollout in a real MLflow: what it shows, and that outages, restarts and repeats change nothing."""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from controller.edges.run_log import RunLog
from controller.spec import ModelRollout
from controller.status import Epoch, Progress, Reason, Verb
from tests.ports.contracts.registry import entry
from tests.ports.contracts.rollouts import STARTED, attempt, record, rollout
from tests.ports.tracking_server import TrackingServer, Wire, free_port, new_name, register_version

EPOCH = Epoch(number=0, kind="weight", step=0, weight_bp=500, opened_at=STARTED)


@pytest.fixture
def client(tracking: TrackingServer) -> MlflowClient:
    return MlflowClient(tracking.uri, registry_uri=tracking.uri)


@pytest.fixture
def declared(client: MlflowClient) -> ModelRollout:
    """A rollout of a model that has versions 1 and 2."""
    name = new_name("model")
    client.create_registered_model(name)
    for _ in range(2):
        register_version(client, name, True)
    return rollout(name)


@pytest.fixture
def uid() -> str:
    return new_name("uid")


@pytest.fixture
def log(tracking: TrackingServer) -> Iterator[RunLog]:
    opened = RunLog(tracking.uri)
    yield opened
    opened.close(10)


def _runs(client: MlflowClient, declared: ModelRollout) -> list[Run]:
    experiment = client.get_experiment_by_name(f"rollouts/{declared.spec.model.name}")
    assert experiment is not None
    return list(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time ASC"]))


def _run(client: MlflowClient, declared: ModelRollout) -> Run:
    (run,) = _runs(client, declared)
    return run


def _steps(client: MlflowClient, run: Run, metric: str) -> list[int]:
    return [m.step for m in client.get_metric_history(run.info.run_id, metric)]


def _artefact(client: MlflowClient, run: Run, name: str) -> str:
    with tempfile.TemporaryDirectory() as folder:
        return Path(client.download_artifacts(run.info.run_id, name, folder)).read_text(encoding="utf-8")


def _decisions(client: MlflowClient, run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in _artefact(client, run, "decision_log.jsonl").split("\n") if line]


def test_the_run_shows_ticks_plan_versions_and_decisions(
    log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    for tick in range(3):
        metrics = {"weight": 5.0, "errors/estimate": tick / 7}
        log.log(declared, entry(uid, tick, metrics, record(uid, tick), epochs=(EPOCH,), epoch=0, metric="errors"))
    assert log.flush(30)
    run = _run(client, declared)
    assert run.info.run_name == f"v1→v2 {declared.metadata.name}"
    assert run.info.status == "RUNNING"
    history = client.get_metric_history(run.info.run_id, "errors/estimate")
    assert [(m.step, m.value, m.timestamp) for m in history] == [
        (tick, tick / 7, (STARTED + tick) // 1000) for tick in range(3)
    ]
    params, tags = run.data.params, run.data.tags
    assert (params["champion"], params["challenger"]) == ("1", "2")
    assert params["plan"] == "mirror 100% 1m → 5% 10m"
    assert params["decision/promoteAlpha"] == "0.05"
    assert json.loads(params["metric/errors"])["margin"] == "0.05pp"
    assert len(params["config_digest"]) == 64
    assert (tags["understudy.state"], tags["understudy.weight"], tags["understudy.metric"]) == (
        "Running",
        "5",
        "errors",
    )
    assert "12 of 2,000 units" in tags["mlflow.note.content"]
    assert "errors/estimate | 0.285714 |" in tags["mlflow.note.content"]
    assert _decisions(client, run) == [record(uid, tick)._asdict() for tick in range(3)]
    assert ModelRollout.model_validate(yaml.safe_load(_artefact(client, run, "plan.yaml"))) == declared


def test_the_challengers_version_and_its_own_page_point_to_the_run(
    log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    log.log(declared, entry(uid, 1))
    assert log.flush(30)
    run, version = _run(client, declared), client.get_model_version(declared.spec.model.name, "2")
    assert version.tags == {"understudy.state": "Running", "understudy.rollout_run": run.info.run_id}
    logged = client.get_logged_model(version.source.removeprefix("models:/"))
    assert [(m.key, m.value, m.run_id) for m in logged.metrics] == [("weight", 5.0, run.info.run_id)]
    assert client.get_model_version(declared.spec.model.name, "1").tags == {}


@pytest.mark.parametrize(
    ("progress", "reason", "status"),
    [
        (Progress.PROMOTED, Reason.PROVEN, "FINISHED"),
        (Progress.HELD, Reason.SAME_VERSION_ENDS, "FINISHED"),
        (Progress.ROLLED_BACK, Reason.OUTCOME_HARM, "FAILED"),
        (Progress.ROLLED_BACK, Reason.ABORTED, "KILLED"),
        (Progress.ROLLED_BACK, Reason.ALIAS_MOVED, "KILLED"),
    ],
)
def test_the_end_is_the_runs_status_and_the_versions_verdict(
    log: RunLog,
    client: MlflowClient,
    declared: ModelRollout,
    uid: str,
    progress: Progress,
    reason: Reason,
    status: str,
) -> None:
    log.log(declared, entry(uid, 1))
    assert log.flush(30)
    assert _run(client, declared).info.status == "RUNNING"
    end = {"progress": progress, "reason": reason, "decision": Verb.ROLL_BACK, "metric": "ctr"}
    log.log(declared, entry(uid, 2, {}, record(uid, 2), **end))
    assert log.flush(30)
    run = _run(client, declared)
    assert run.info.status == status
    assert run.info.end_time is not None
    tags = client.get_model_version(declared.spec.model.name, "2").tags
    assert (tags["understudy.state"], tags["understudy.verdict"]) == (progress, f"{progress}: {reason} (ctr)")


def test_a_restarted_controller_finds_its_run_and_repeats_change_nothing(
    tracking: TrackingServer, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    for first in (0, 2):
        process = RunLog(tracking.uri)
        for tick in range(first, first + 4):  # ticks 2 and 3 come twice
            process.log(declared, entry(uid, tick, record=record(uid, tick)))
        assert process.close(30)
    run = _run(client, declared)
    assert _steps(client, run, "weight") == [0, 1, 2, 3, 4, 5]
    assert [d["sequence"] for d in _decisions(client, run)] == [0, 1, 2, 3, 4, 5]


def test_catching_up_shows_what_the_process_before_did_not_live_to_show(
    log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    log.log(declared, entry(uid, 1, record=record(uid, 1)))
    assert log.flush(30)
    ended = entry(uid, 3, progress=Progress.ROLLED_BACK, reason=Reason.SERVICE_HARM).status

    def stored(sequence: int, number: int | None) -> Any:
        before = {"attempt": None if number is None else {"number": number}}
        return record(uid, sequence)._replace(inputs=json.dumps({"status": before}))

    log.catch_up(declared, ended, [stored(0, None), record(uid, 1)._replace(inputs=stored(1, 1).inputs), stored(2, 1)])
    assert log.flush(30)
    run = _run(client, declared)
    assert run.info.status == "FAILED"
    assert [d["sequence"] for d in _decisions(client, run)] == [0, 1, 2]
    # Another replica has decided in the attempt before, and nothing in this one.
    log.catch_up(declared, ended, [stored(-3, 0), stored(-2, 0)])
    assert log.flush(30)
    assert [d["sequence"] for d in _decisions(client, run)] == [0, 1, 2]


def test_each_attempt_has_a_run_of_its_own(log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str) -> None:
    for number in (1, 2):
        log.log(declared, entry(uid, number, attempt=attempt(number)))
    assert log.flush(30)
    assert [r.data.tags["understudy.attempt"] for r in _runs(client, declared)] == ["1", "2"]


def test_the_id_is_known_once_the_run_is_there(
    log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    assert log.log(declared, entry(uid, 1)) is None
    assert log.flush(30)
    assert log.log(declared, entry(uid, 2)) == _run(client, declared).info.run_id


def test_an_outage_blocks_nobody_and_is_made_up_for(
    wire: Wire, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    log = RunLog(wire.uri, pause_s=(0.05, 0.2))
    log.log(declared, entry(uid, 0, record=record(uid, 0)))
    assert log.flush(30)
    wire.cut()
    began = time.monotonic()
    for tick in range(1, 300):
        log.log(declared, entry(uid, tick, record=record(uid, tick)))
    assert time.monotonic() - began < 5.0
    assert not log.flush(0.5)
    assert log.counters()["ticks_waiting"] == 299
    wire.restore()
    assert log.flush(60)
    run = _run(client, declared)
    assert _steps(client, run, "weight") == list(range(300))
    assert [d["sequence"] for d in _decisions(client, run)] == list(range(300))
    assert set(log.counters().values()) == {0}
    assert log.close(10)


def test_what_waits_is_bounded_and_the_oldest_is_dropped_and_counted(
    wire: Wire, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    log = RunLog(wire.uri, ticks_kept=10, records_kept=4, pause_s=(0.05, 0.2))
    wire.cut()
    for tick in range(25):
        log.log(declared, entry(uid, tick, record=record(uid, tick), message=f"tick {tick}"))
    wire.restore()
    assert log.flush(60)
    run, counters = _run(client, declared), log.counters()
    # What was being written while the bound fell on it, one piece from wherever the writer found the queue, may be
    # shown as well, and then is not counted as dropped.
    ticks, records = _steps(client, run, "weight"), [d["sequence"] for d in _decisions(client, run)]
    assert ticks[-10:] == list(range(15, 25))
    assert records[-4:] == [21, 22, 23, 24]
    for early in (ticks[:-10], records[:-4]):
        assert [number - early[0] for number in early] == list(range(len(early)))
    assert counters["ticks_dropped"] == 25 - len(ticks) >= 1
    assert counters["records_dropped"] == 25 - len(records) >= 1
    assert "tick 24" in run.data.tags["mlflow.note.content"]
    assert log.close(10)


def test_hundreds_of_runs_wait_side_by_side(wire: Wire, declared: ModelRollout, uid: str) -> None:
    """None is forgotten to make room while its rollout is at work."""
    log = RunLog(wire.uri, pause_s=(0.05, 0.2))
    wire.cut()
    for number in range(500):
        log.log(declared, entry(f"{uid}-{number}", 0, record=record(f"{uid}-{number}", 0)))
    counters = log.counters()
    assert (counters["ticks_dropped"], counters["records_dropped"]) == (0, 0)
    assert (counters["ticks_waiting"], counters["records_waiting"]) == (500, 500)
    # Or its thread asks a server that is gone for as long as the tests run.
    assert not log.close(0)


def test_a_server_that_never_answers_blocks_neither_the_loop_nor_the_end(
    wire: Wire, declared: ModelRollout, uid: str
) -> None:
    wire.mute()
    log = RunLog(wire.uri)
    began = time.monotonic()
    for tick in range(100):
        log.log(declared, entry(uid, tick))
    assert not log.close(0.2)
    assert time.monotonic() - began < 5.0
    assert log.log(declared, entry(uid, 100)) is None
    assert log.counters()["ticks_dropped"] == 1


def test_names_that_mlflow_refuses_are_rewritten_and_never_merged(
    log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    names = [
        "psi[age]",
        "psi(age)",
        "p@99",
        "../up",
        "/root",
        "a//b",
        "Ärger",
        "x" * 300,
        "",
        "a/ b",
        "plain/na-me.x_y:z",
    ]
    log.log(declared, entry(uid, 1, {name: float(i) for i, name in enumerate(names)} | {"nan": float("nan")}))
    assert log.flush(30)
    shown = _run(client, declared).data.metrics
    assert sorted(shown.values()) == [float(i) for i in range(len(names))]
    assert shown["plain/na-me.x_y:z"] == 10.0
    assert log.counters()["refused"] == 0


def test_more_metrics_than_one_request_takes_are_all_shown(
    log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    log.log(declared, entry(uid, 1, {f"m{i}": float(i) for i in range(1_700)}))
    assert log.flush(30)
    assert len(_run(client, declared).data.metrics) == 1_700


def test_a_version_that_is_not_in_the_registry_costs_only_its_tags(
    log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str, caplog: pytest.LogCaptureFixture
) -> None:
    for tick in range(3):
        log.log(declared, entry(uid, tick, attempt=attempt(1, "external", "99")))
        assert log.flush(30)
    assert _steps(client, _run(client, declared), "weight") == [0, 1, 2]
    assert log.counters()["refused"] == 1
    assert caplog.text.count("could not tag version 99") == 1


def test_a_run_that_somebody_deletes_is_made_anew(
    log: RunLog, client: MlflowClient, declared: ModelRollout, uid: str
) -> None:
    log.log(declared, entry(uid, 1))
    assert log.flush(30)
    first = _run(client, declared).info.run_id
    client.delete_run(first)
    log.log(declared, entry(uid, 2, record=record(uid, 2)))
    assert log.flush(30)
    run = _run(client, declared)
    assert run.info.run_id != first
    assert run.data.params["champion"] == "1"
    assert _steps(client, run, "weight") == [2]


def test_a_deleted_experiment_is_named_and_shown_once_it_is_restored(
    tracking: TrackingServer, client: MlflowClient, declared: ModelRollout, uid: str, caplog: pytest.LogCaptureFixture
) -> None:
    log = RunLog(tracking.uri, pause_s=(0.05, 0.2))
    experiment = client.create_experiment(f"rollouts/{declared.spec.model.name}")
    client.delete_experiment(experiment)
    log.log(declared, entry(uid, 1))
    assert not log.flush(1.0)
    assert "is deleted in MLflow; restore it" in caplog.text
    client.restore_experiment(experiment)
    assert log.flush(30)
    assert _steps(client, _run(client, declared), "weight") == [1]
    assert log.close(10)


def test_many_rollouts_from_many_threads_each_get_their_own_ticks(
    log: RunLog, client: MlflowClient, declared: ModelRollout
) -> None:
    uids = [new_name("uid") for _ in range(4)]

    def rollout_of(uid: str) -> None:
        for tick in range(20):
            log.log(declared, entry(uid, tick, {uid: float(tick)}))

    threads = [threading.Thread(target=rollout_of, args=(uid,)) for uid in uids]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert log.flush(60)
    shown = {r.data.tags["understudy.rollout_uid"]: r for r in _runs(client, declared)}
    assert sorted(shown) == sorted(uids)
    assert all(_steps(client, shown[uid], uid) == list(range(20)) for uid in uids)
    assert all(set(run.data.metrics) == {uid} for uid, run in shown.items())


def test_nothing_is_shown_where_nothing_listens_and_close_says_so(declared: ModelRollout, uid: str) -> None:
    log = RunLog(f"http://127.0.0.1:{free_port()}", pause_s=(0.05, 0.1))
    log.log(declared, entry(uid, 1, record=record(uid, 1)))
    assert not log.close(1.0)
    assert log.counters()["ticks_waiting"] == 1
