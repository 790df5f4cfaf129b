"""The errors that a newcomer makes: each ends at once, with a line that says what is wrong and what is allowed."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.embedded import rollouts
from tests.embedded.machine import COMMAND, Machine, of_the_folder
from tests.embedded.registered import free_port
from tests.router.authorities import SERVER, Authority

Start = Callable[..., Machine]


def refused(machine: Machine, code: int, *parts: str) -> None:
    assert machine.ended(90) == code, machine.said()
    said = machine.err.read_text()
    lines = [line for line in said.splitlines() if line.startswith(("error: ", "Error: "))]
    assert lines, said
    for part in parts:
        assert any(part in line for line in lines), said
    assert "Traceback" not in said
    assert of_the_folder(machine.state) == []


@pytest.mark.parametrize(
    ("model", "parts"),
    [
        ({"name": "tyni"}, ["spec.model.name", "'tyni' is not registered", "registered: tiny"]),
        (
            {"name": "tiny", "challenger": "next"},
            ["spec.model.challenger", "no alias 'next'", "challenger → 2, champion → 1"],
        ),
        ({"name": "tiny", "challenger": "17"}, ["spec.model.challenger", "no ready version 17"]),
        ({"name": "tiny", "challenger": "1"}, ["spec.model", "both version 1", "allowSameVersion"]),
        ({"name": "tiny", "challenger": "unsigned"}, ["spec.model.challenger: version 4", "no signature"]),
    ],
    ids=["unknown model", "missing alias", "missing version", "the same version twice", "no signature"],
)
def test_what_the_registry_cannot_do_for_a_rollout_ends_the_run_with_its_reason(
    machine: Start, tracking: str, model: dict[str, Any], parts: list[str]
) -> None:
    refused(machine(rollouts.plan(model=model), "--tracking-uri", tracking), 1, *parts)


def test_an_mlflow_that_cannot_be_reached_is_named_with_its_address(machine: Start) -> None:
    port = free_port()
    started = machine(rollouts.plan(), "--tracking-uri", f"http://user:secret@127.0.0.1:{port}")
    refused(started, 1, f"--tracking-uri: MLflow at http://127.0.0.1:{port} cannot be reached")
    assert "secret" not in started.said()


def test_a_port_in_use_is_named_with_its_flag(machine: Start, tracking: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        started = machine(rollouts.plan(), "--tracking-uri", tracking, "--port", str(port))
        refused(started, 1, f"--port {port}", "in use")


def test_bad_weights_are_told_line_by_line(machine: Start) -> None:
    steps = [{"weight": 0.001, "hold": "1s"}, {"weight": 50, "hold": "soon"}]
    refused(machine(rollouts.plan(steps=steps)), 2, "spec.steps[0]", "finer than 0.01", "spec.steps[1].hold", "'soon'")


def test_decreasing_weights_are_refused(machine: Start) -> None:
    steps = [{"weight": 50, "hold": "1s"}, {"weight": 5, "hold": "1s"}]
    refused(machine(rollouts.plan(steps=steps)), 2, "weights must not decrease, got [50.0, 5.0]")


def test_what_has_no_engine_yet_is_refused_with_a_line_each(machine: Start) -> None:
    watch = {"holdback": 5, "watch": {"alerts": []}}
    plan = rollouts.plan(onRollback={"diagnose": True, "remedy": "Build"}, afterPromotion=watch)
    refused(machine(plan), 2, "onRollback.diagnose", "onRollback.remedy", "afterPromotion.watch")


def test_an_http_route_is_refused_on_one_machine(machine: Start) -> None:
    plan = rollouts.plan(
        unit={"request": True},
        servers={"champion": {"service": "a"}, "challenger": {"service": "b"}},
        traffic={"gatewayAPI": {"httpRoute": "r", "requests": 'c{service="$service"}'}},
        steps=[{"weight": 20, "hold": "4s"}],
        metrics=[{"name": "errors", "kind": "ErrorRate", "margin": "5pp"}],
    )
    refused(machine(plan), 2, "spec.traffic.gatewayAPI: needs a cluster", "spec.traffic.gatewayAPI.requests: is PromQL")


def test_a_service_of_kubernetes_is_refused_on_one_machine(machine: Start) -> None:
    servers = {"champion": {"service": "tiny-a"}, "challenger": {"url": "http://127.0.0.1:9/deep/path"}}
    refused(machine(rollouts.plan(servers=servers)), 2, "servers.champion.service", "servers.challenger.url")


def test_an_address_of_mlflow_that_is_none_is_refused(machine: Start) -> None:
    refused(machine(rollouts.plan(), "--tracking-uri", "sqlite:///mlflow.db"), 2, "--tracking-uri sqlite:///mlflow.db")


def test_a_missing_secret_is_named_by_its_variable(machine: Start) -> None:
    notify = {"slack": {"secretRef": {"name": "slack-hook", "key": "url"}}}
    refused(machine(rollouts.plan(notify=notify)), 2, "UNDERSTUDY_SECRET_SLACK_HOOK_URL")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    command = [*COMMAND, str(tmp_path / "b.yaml"), "--state-dir", str(tmp_path / "state")]
    ended = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == f"error: {tmp_path / 'b.yaml'}: No such file or directory\n"
    assert not (tmp_path / "state").exists()


def test_certificates_that_the_two_ends_cannot_use_are_refused_at_once(machine: Start, tmp_path: Path) -> None:
    authority = Authority(tmp_path / "authority")
    cert, key = authority.sign("server", (SERVER,))
    ca, both = ["--control-ca", str(authority.cert)], ["--control-cert", str(cert), "--control-key", str(key)]
    refused(machine(rollouts.plan(), *ca), 2, "--control-ca, --control-cert and --control-key are needed together")
    refused(machine(rollouts.plan(), *ca, *both), 2, f"--control-cert {cert}: un")
