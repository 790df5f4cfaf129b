"""Model servers as they are declared: whose they are, and how they are asked."""

import re
from typing import Any

import pytest
from pydantic import ValidationError

from controller.core.allocation import with_table
from controller.edges.cluster import deployments
from controller.status import Attempt, Observed, Progress, RolloutStatus
from router.table import Probe
from tests.ports.contracts.rollouts import rollout

TEMPLATE = {"spec": {"containers": [{"name": "model", "image": "i"}]}}


@pytest.mark.parametrize("field", [{"replicas": 2}, {"probe": {"path": "/health"}}])
def test_what_is_about_the_servers_of_a_template_needs_one(field: dict[str, Any]) -> None:
    with pytest.raises(ValidationError, match=f"{next(iter(field))} is about the servers of template"):
        rollout(servers=field)
    rollout(servers={"template": TEMPLATE, **field})


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_a_template_is_for_both_servers(arm: str) -> None:
    """A version that was promoted from the one would be looked for at the other."""
    with pytest.raises(ValidationError, match=f"template is for both servers, so {arm} has to go; or adopt both"):
        rollout(servers={"template": TEMPLATE, arm: {"service": "a"}})


@pytest.mark.parametrize(
    ("servers", "probe"),
    [
        ({"template": TEMPLATE}, Probe(path="/health")),
        ({"template": TEMPLATE, "probe": {"body": "{}"}}, Probe(path="/invocations", body="{}")),
        ({"champion": {"service": "a"}, "challenger": {"service": "b"}}, None),
        ({"champion": {"service": "a", "probe": {"body": "{}"}}}, Probe(path="/invocations", body="{}")),
    ],
)
def test_routers_ask_a_server_as_it_is_declared(servers: dict[str, Any], probe: Probe | None) -> None:
    spec = rollout(servers=servers).spec
    status = RolloutStatus(
        uid="u",
        progress=Progress.PENDING,
        attempt=Attempt(number=1, champion="1", challenger="2", salt="u/1", started_at=1),
        observed=Observed(champion_upstreams=("a:80",)),
    )
    table = with_table(spec, status).table
    assert table is not None
    assert table.champion.probe == probe


@pytest.mark.parametrize(
    ("template", "said"),
    [
        ({}, "template.spec.containers: a list of containers is needed"),
        ({"spec": {"containers": []}}, "template.spec.containers: a list of containers is needed"),
        (
            {"spec": {"containers": [{"env": [{"name": "MODEL_URI", "value": "x"}]}]}},
            r"containers\[0\].env: MODEL_URI is given by the controller",
        ),
        ({"spec": {"containers": [{"ports": [{"port": 80}]}]}}, r"containers\[0\].ports: a list with containerPort"),
        *(
            (
                {"spec": {"containers": [{"ports": ports}]}},
                r"ports: a list with containerPort, from 1 to 65535, is needed",
            )
            for ports in (5, [5], *([{"containerPort": port}] for port in (70000, 65536, 0, -1, True, "80", 80.0)))
        ),
        *(
            (
                {"spec": {**TEMPLATE["spec"], "initContainers": listed}},
                "spec.initContainers: a list of containers is needed",
            )
            for listed in (5, "abc", [None], [1], {"a": 1})
        ),
        *(
            ({"spec": {"containers": listed}}, "spec.containers: a list of containers is needed")
            for listed in (5, "abc", [None], {"a": 1})
        ),
        (
            {"spec": {**TEMPLATE["spec"], "initContainers": [{"env": [1]}]}},
            r"initContainers\[0\].env: a list of name and value",
        ),
        ({"metadata": {"labels": []}, **TEMPLATE}, "metadata.labels: a mapping is needed"),
    ],
)
def test_what_is_wrong_with_a_template_is_told_by_its_path(template: dict[str, Any], said: str) -> None:
    (line,) = deployments.faults(template)
    assert line.startswith("spec.servers.template")
    assert re.search(said, line)


@pytest.mark.parametrize("ports", [5, [5], [None], [{}], [{"containerPort": 70000}], {"a": 1}])
def test_what_is_no_port_of_a_template_is_the_default_port(ports: Any) -> None:
    """An attempt ends by it, where no other is known. What else is wrong with it changes no port."""
    assert deployments.port_of({"spec": {"containers": [{"ports": ports}]}}) == deployments.DEFAULT_PORT
    assert deployments.port_of({"spec": ports}) == deployments.DEFAULT_PORT
    container = {"ports": [{"containerPort": 9000}], "env": [{"name": "MODEL_URI"}]}
    assert deployments.port_of({"spec": {"containers": [container], "initContainers": ports}}) == 9000
