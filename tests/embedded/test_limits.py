"""A challenger whose server needs more memory than its limit is rolled back by what was measured at its process."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from mlflow import MlflowClient

from controller.core.replay import differs
from controller.edges.gauges.journal import NAME
from controller.edges.store import SqliteStore
from tests.embedded import registered, rollouts
from tests.embedded.machine import Machine
from tests.embedded.traffic import Traffic

pytestmark = pytest.mark.timeout(500)


def test_a_challenger_above_its_memory_limit_is_rolled_back(
    machine: Callable[..., Machine], tracking: str, tmp_path: Path
) -> None:
    client = MlflowClient(tracking)
    for alias in ("champion", "challenger"):
        client.set_registered_model_alias("hungry", alias, registered.register(tracking, "hungry"))
    limit = {"name": "memory", "kind": "Resource", "query": "memory", "limit": "1Mi", "window": "1s"}
    errors = {"name": "errors", "kind": "ErrorRate", "margin": "5pp"}
    plan = rollouts.plan(model={"name": "hungry"}, steps=[{"weight": 50, "hold": "300s"}], metrics=[errors, limit])
    run = machine(plan, "--tracking-uri", tracking, "--until-end", "--output", "json")
    traffic, control = run.addresses()
    run.served(200)
    with Traffic(traffic, control, 1, rate=20.0) as users:
        run.until("the rollback", lambda s: s.status.progress in ("RollingBack", "RolledBack"), 120)
    assert run.ended(120) == 1
    (said,) = json.loads(run.out.read_text().splitlines()[-1])["rollouts"]
    assert (said["result"], said["reason"], said["metric"]) == ("RolledBack", "LimitBreached", "memory")
    assert "MiB of 1 MiB, breached in 3 of " in said["message"]
    assert users.troubles == []
    assert list((run.state / "journal").glob(f"{NAME}.*.jsonl"))
    store = SqliteStore(run.state / "rollouts.sqlite")
    assert [differs(record) for record in store.records(run.name)] == [None] * len(store.records(run.name))
    store.close()


def test_promql_without_an_address_is_refused_at_the_start(tmp_path: Path, machine: Callable[..., Machine]) -> None:
    metric = {"name": "queue", "kind": "Resource", "query": 'max(queue{version="$version"})', "limit": 5}
    plan = rollouts.plan()
    plan["spec"]["metrics"].append(metric)
    run = machine(plan)
    assert run.ended(60) == 2
    assert "spec.metrics[2].query (queue): is PromQL, which needs the address of a Prometheus: --prometheus-url" in (
        run.said()
    )
