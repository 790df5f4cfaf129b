"""The benchmark's figures say what was measured, a promise that was broken is called so, and its world is at rest."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from controller.core import evolve
from controller.core.fold import EMPTY
from controller.spec import RolloutSpec
from tests.bench_controller import audit, objects, registry, report, traffic
from tests.bench_controller.operator_process import Metrics
from tests.bench_controller.places import ACTIVE, IDLE, Rollout, who

BUCKETS = {0.5: 900.0, 5.0: 995.0, 10.0: 1000.0, float("inf"): 1000.0}


def measured(**changed: Any) -> report.Measured:
    calls = Counter({("active", "list", "pods"): 580, ("idle", "get", "services"): 40, ("", "update", "leases"): 24})
    calls["active", "update", "modelrollouts/status"] = 20
    made = {
        "idle": 20, "active": 10, "routers": 2, "tick": 30.0, "block": 60.0, "seconds": 120.0, "start_s": 9.0,
        "peak_mb": 800.0,
        "rss_mb": [600.0, 700.0, 650.0], "cpu_s": 60.0, "passes": 48.0, "threads": 20, "descriptors": 90,
        "lag_buckets": BUCKETS, "lags": [0.1, 0.2, 4.0], "calls": calls,
        "mlflow": Counter({"GET registered-models/alias": 80}), "router_calls": {"GET /v1/state": 80},
        "harm_to_zero": [40.0, 50.0], "machine_cpu": {"etcd": 12.0}, "log_warnings": 0,
    }  # fmt: skip
    return report.Measured(**{**made, **changed})


def test_figures_are_per_rollout_and_minute(tmp_path: Path) -> None:
    output = tmp_path / "build" / "bench.json"
    assert report.write(measured(), output)
    found = json.loads(output.read_text())
    assert (found["api_calls_per_active_per_minute"], found["api_calls_per_idle_per_minute"]) == (30.0, 1.0)
    assert found["api_calls_of_the_process_per_minute"] == 12.0
    assert (found["lag_p50_s_at_most"], found["lag_p99_s_at_most"], found["status_lag_p99_s"]) == (0.5, 5.0, 4.0)
    assert (found["steady_mb"], found["cpu_cores"], found["cpu_ms_per_active_tick"]) == (650.0, 0.5, 3000.0)
    assert found["ticks_made_of_those_due"] == 0.5
    assert found["harm_to_weight_0_max_s"] == 50.0


@pytest.mark.parametrize(
    ("changed", "broken"),
    [
        ({"peak_mb": 1000.0}, "memory"),
        ({"lag_buckets": BUCKETS | {5.0: 980.0}}, "histogram"),
        ({"lag_buckets": {}}, "histogram"),
        ({"lags": [0.1, 0.2, 6.0]}, "statuses"),
        ({"mlflow": Counter({"GET registered-models/alias": 2000})}, "aliases"),
        ({"harm_to_zero": [40.0, None]}, "harm"),
    ],
)
def test_a_promise_that_does_not_hold_is_named(changed: dict[str, Any], broken: str, tmp_path: Path) -> None:
    m = measured(**changed)
    held = report.promises(report.figures(m), m)
    assert [broken in what for what, ok in held.items() if not ok] == [True]
    assert not report.write(m, tmp_path / "bench.json")


def test_an_address_tells_whose_it_is() -> None:
    for kind in (ACTIVE, IDLE):
        for number in (0, 255, 256, 10_499):
            rollout = Rollout(kind, number)
            assert [who(rollout.router(n)) for n in (0, 31)] == [(rollout, 0), (rollout, 31)]
            assert who(rollout.server("1")) is None


def test_a_rollout_that_is_over_is_at_rest() -> None:
    rollout = Rollout(IDLE, 7)
    spec = RolloutSpec.model_validate_json(json.dumps(objects.spec_of(rollout, 9000, objects.Pace(30.0, 60.0))))
    status = objects.ended(rollout, "uid", 9000, spec)
    after = evolve.evolve(spec, status, EMPTY, status.clock + 1)
    assert after.record is None
    assert after.status.model_copy(update={"clock": status.clock}) == status


def test_requests_are_counted_by_whom_they_are_about() -> None:
    def line(verb: str, uri: str, user: str = "me", **what: str) -> bytes:
        return json.dumps({"verb": verb, "requestURI": uri, "objectRef": what, "user": {"username": user}}).encode()

    lines = [
        line("list", "/api/v1/namespaces/a/pods?labelSelector=x%3Dactive-00001", resource="pods"),
        line("update", "/apis/…/active-00001/status", resource="modelrollouts", subresource="status", name="active-1"),
        line("create", "/api/v1/namespaces/a/services", resource="services", name="idle-00001"),
        line("get", "/…/leases/l", resource="leases", name="l"),
        line("get", "/…/leases/l", "another", resource="leases", name="l"),
        b'{"verb": "to',
    ]
    assert audit.counted(lines, "me") == {
        ("active", "list", "pods"): 1, ("active", "update", "modelrollouts/status"): 1,
        ("idle", "create", "services"): 1, ("", "get", "leases"): 1,
    }  # fmt: skip
    log = b'INFO: 127.0.0.1:1 - "GET /api/2.0/mlflow/registered-models/alias?name=x HTTP/1.1" 200\nother\n' * 2
    log += b'INFO: 127.0.0.1:1 - "PUT /api/2.0/mlflow-artifacts/artifacts/5/0a/artifacts/plan.yaml HTTP/1.1" 200\n'
    found = {"GET registered-models/alias": 2, "PUT mlflow-artifacts/artifacts": 1}
    assert registry.requests(log) == found


def test_metrics_are_read_with_their_labels() -> None:
    text = '# HELP a b\na_bucket{le="0.5"} 3.0\na_bucket{le="+Inf"} 4.0\nb{kind="x",verb="get"} 7\nc 1e-05\n'
    found = Metrics(text)
    assert found.buckets("a") == {0.5: 3.0, float("inf"): 4.0}
    of_two = Metrics('a_bucket{le="0.5",of="x"} 3.0\na_bucket{le="0.5",of="y"} 5.0\n')
    assert of_two.buckets("a", of="y") == {0.5: 5.0}
    assert (found.one("b", verb="get", kind="x"), found.one("c"), found.one("none")) == (7.0, 1e-05, 0.0)


def test_journals_are_read_from_where_they_were_acknowledged() -> None:
    journal = traffic.Journal("r-w0")
    journal.mark(1)
    first = journal.read(0, 1 << 20)
    assert first is not None
    journal.mark(2)
    journal.forget(len(first))
    assert journal.read(0, 1 << 20) is None
    assert journal.read(journal.size + 1, 1 << 20) is None
    rest = journal.read(len(first), 1 << 20)
    assert rest is not None
    assert [json.loads(line)["seq"] for line in rest.splitlines()] == [2]
