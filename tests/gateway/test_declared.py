"""What a plan may ask of an HTTPRoute: what cannot hold there is refused by its field, with what is allowed."""

import copy
import json
from typing import Any

import pytest
import yaml

from controller import specfile
from controller.core.allocation import open_holdback, open_step, with_table
from controller.core.evolve import plan_digest
from controller.core.fold import EMPTY
from controller.specfile import parse
from controller.status import Attempt, Observed, RolloutStatus
from tests.spec.documents import refusals

TREE: dict[str, Any] = yaml.safe_load("""
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {name: late}
spec:
  model: {name: flight-delay}
  unit: {request: true}
  servers: {champion: {service: a}, challenger: {service: b}}
  traffic: {gatewayAPI: {httpRoute: flights, requests: 'requests_total{service="$namespace/$service"}'}}
  steps: [{weight: 1, hold: 10m}, {weight: 25, hold: 10m}]
  metrics: [{name: errors, kind: ErrorRate, margin: 0.5pp}]
  decision: {maxDuration: 2h}
  afterPromotion: {holdback: 5, hold: 1d}
""")


def changed(**spec: Any) -> str:
    tree = copy.deepcopy(TREE)
    tree["spec"] |= spec
    return json.dumps(tree)


def gateway(**fields: Any) -> dict[str, Any]:
    return {"traffic": {"gatewayAPI": {**TREE["spec"]["traffic"]["gatewayAPI"], **fields}}}


def metric(**fields: Any) -> dict[str, Any]:
    return {"metrics": [*TREE["spec"]["metrics"], {"name": "m", "margin": "5%", **fields}]}


def test_a_plan_that_can_hold_is_taken_and_needs_a_prometheus() -> None:
    spec = parse(changed()).spec
    assert specfile.unsupported(spec) == []
    (needed,) = specfile.of_prometheus(spec)
    assert needed.startswith("spec.traffic.gatewayAPI.requests: is PromQL")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            {"unit": {"header": "x-unit"}},
            "spec.unit: with traffic.gatewayAPI no unit sticks to an arm; allowed is requ",
        ),
        ({"unit": {"request": False}}, "spec.unit.request"),
        (
            {"traffic": {"router": {}}},
            "spec.unit.request: needs traffic.gatewayAPI; the router takes one of header, co",
        ),
        (
            {"segments": [{"name": "s", "header": "x-s"}]},
            "spec.segments: with traffic.gatewayAPI nothing is known of a",
        ),
        (
            {"steps": [{"mirror": 100}, {"weight": 5}], "decision": {}},
            "spec.steps[0].mirror: with traffic.gatewayAPI no two answers can be compared; allowed is weight",
        ),
        (
            metric(kind="Latency"),
            "spec.metrics[1].kind (m): with traffic.gatewayAPI there is no journal for Latency to b",
        ),
        (
            metric(kind="Resource", query="memory"),
            "spec.metrics[1].kind (m): with traffic.gatewayAPI there is no journ",
        ),
        (
            metric(kind="Mean", outcome="o", window="1h", covariate={"feature": "f"}),
            "spec.metrics[1].kind (m): with traffic.gatewayAPI there is no journal for Mean to be read from;",
        ),
        (
            {"servers": {"template": {}}},
            "spec.servers.template: with traffic.gatewayAPI the two servers are Services t",
        ),
        (
            {"servers": {"champion": {"service": "a"}}},
            "spec.servers.challenger.service: is missing; with traffic.gatew",
        ),
        (
            {"servers": {"champion": {"service": "a"}, "challenger": {"url": "http://b:1"}}},
            "spec.servers.challenger.service: is missing; with traffic.gatewayAPI it is a Service that the route names",
        ),
        (
            {"servers": {"champion": {"service": "a"}, "challenger": {"service": "a"}}, "allowSameVersion": True},
            "spec.servers.challenger.service: a is the champion's too; with traffic.gatewayAPI each arm needs its own",
        ),
        (gateway(requests="requests_total"), "spec.traffic.gatewayAPI: the selector says the same of both arms; $serv"),
        (gateway(requests='r{a="$arm",v="$version"}'), "spec.traffic.gatewayAPI: $version stands for nothing; allowed"),
        (gateway(statusLabel="http-code"), "spec.traffic.gatewayAPI.statusLabel: 'http-code'"),
        (gateway(httpRoute="Flights"), "spec.traffic.gatewayAPI.httpRoute: 'Flights'"),
    ],
)
def test_what_cannot_hold_is_refused_by_its_field(spec: dict[str, Any], said: str) -> None:
    found = refusals(changed(**spec))
    assert any(line.startswith(said) for line in found), found


def begun(**fields: Any) -> RolloutStatus:
    attempt = Attempt(number=1, champion="1", challenger="2", salt="u/1", started_at=1)
    observed = Observed(champion_upstreams=("a:1",), challenger_upstreams=("b:1",))
    return RolloutStatus(uid="u", rollout="late", attempt=attempt, observed=observed, **fields)


def test_all_requests_of_either_arm_are_evidence() -> None:
    """Nothing is reserved: a request that is drawn anew cannot change its arm."""
    spec = parse(changed()).spec
    first = open_step(spec, begun(), EMPTY, 0, 1)
    second = open_step(spec, first, EMPTY, 1, 2)
    assert [(e.weight_bp, e.control_from_bp, e.pi_ppm) for e in second.epochs] == [
        (100, 100, 10_000),
        (2500, 2500, 250_000),
    ]
    held = open_holdback(spec, second, EMPTY, 3).current_epoch
    assert held is not None
    assert (held.weight_bp, held.control_from_bp, held.counted_bp, held.pi_ppm) == (9500, 9500, 9500, 950_000)
    table = with_table(spec, second).table
    assert table is not None
    assert (table.weight_bp, table.control_from_bp) == (2500, 2500)


def test_who_counts_the_requests_is_part_of_the_plan() -> None:
    other = parse(changed(**gateway(statusLabel="status"))).spec
    assert plan_digest(parse(changed()).spec) != plan_digest(other)
