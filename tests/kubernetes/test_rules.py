"""The rules across fields, as the API server tells them: each has a document that breaks it and nothing else."""

import copy
from typing import Any

import pytest
from kubernetes import client

from controller.schema.rules import ON_A_CLUSTER, RULES
from tests.kubernetes.rollouts import Rollouts, Tree, refused
from tests.schema.models import refusals
from tests.schema.mutations import SMALL

BRIER = SMALL["spec"]["metrics"][0]
MIRROR = [{"mirror": 100}, {"weight": 50}]
ROUTE = {"httpRoute": "r", "requests": 'c{a="$arm"}'}


def _metric(**fields: Any) -> Tree:
    return {"metrics": [{"name": "m", "margin": "1%"} | fields]}


# Rule, by the head of its message (where two say the same: after its model) → fields of the plan in place of SMALL's.
BREAKS: dict[str, Tree] = {
    "exactly one of header, cookie, json": {"unit": {"cookie": "a", "header": "b"}},
    "Segment: exactly one of": {"segments": [{"name": "s", "feature": "f", "json": "/a"}]},
    "Covariate: exactly one of": _metric(
        kind="Proportion", outcome="o", window="1d", covariate={"feature": "f", "header": "h"}
    ),
    "exactly one of service, url": {"servers": {"champion": {"service": "s", "url": "http://s:1"}}},
    "replicas and probe are": {"servers": {"replicas": 2}},
    "template is for both": {"servers": {"template": {}, "challenger": {"service": "s"}}},
    "router and gatewayAPI": {"traffic": {"router": {}, "gatewayAPI": ROUTE}},
    "championTimeout has to be": {"traffic": {"router": {"timeout": "31s"}}},
    "exactly one of mirror, weight": {"steps": [{"mirror": 1, "weight": 1}]},
    "0.01 is the smallest": {"steps": [{"weight": 0.125}]},
    "kind Proportion takes": _metric(kind="Proportion", outcome="o"),
    "kind Mean takes": _metric(kind="Mean", outcome="o", window="1d", query="q"),
    "kind Ratio takes": _metric(kind="Ratio", numerator="n", window="1d"),
    "kind ActiveUnits takes": _metric(kind="ActiveUnits", window="1d", outcome="o"),
    "kind Accuracy, ": _metric(kind="Recall", outcome="o"),
    "kind AbsoluteError, ": _metric(kind="SquaredError", window="1d"),
    "kind ErrorRate, ": _metric(kind="ErrorRate", outcome="o"),
    "kind Latency takes": _metric(kind="Latency", window="1d"),
    "kind Resource takes": _metric(kind="Resource", limit=1),
    "only kind Latency, Resource takes limit": _metric(kind="ErrorRate", limit=1),
    "only kind Mean, ": _metric(kind="Proportion", outcome="o", window="1d", cap=5),
    "a Success or Guardrail needs a margin": {"metrics": [{k: v for k, v in BRIER.items() if k != "margin"}]},
    "a margin of a share is": _metric(kind="ErrorRate", margin=1),
    "a relative margin is below": _metric(kind="Latency", margin="1pp"),
    "a margin of Auc, Disagreement is": _metric(kind="Auc", outcome="o", window="1d", margin="1%"),
    "a margin of Throughput": _metric(kind="Throughput", margin=0.5),
    "a limit of a Latency": _metric(kind="Latency", limit="2Gi"),
    "a harmMargin needs": {"metrics": [BRIER, {"name": "m", "kind": "Latency", "limit": 250, "harmMargin": "1%"}]},
    "a Resource is never": _metric(kind="Resource", query="memory", role="Success"),
    "the mean of a share": _metric(kind="ErrorRate", baseline={"mean": 2}),
    "numerator and denominator": _metric(kind="Ratio", numerator="n", denominator="n", window="1d"),
    "Disagreement is only seen in a mirror and cannot": {
        "steps": MIRROR,
        "metrics": [BRIER, {"name": "d", "kind": "Disagreement", "role": "Success", "margin": 0.1}],
    },
    "at least one step needs a weight": {"steps": [{"mirror": 100}]},
    "weights must not decrease": {"steps": [{"weight": 50}, {"weight": 20}]},
    "mirror steps come before": {"steps": MIRROR[::-1]},
    "at least one metric that weights show": {"metrics": [BRIER | {"role": "Observe"}]},
    "Disagreement is only seen in a mirror, and": {
        "metrics": [BRIER, {"name": "d", "kind": "Disagreement", "margin": 0.1}]
    },
    "mode Superior needs": {"decision": {"mode": "Superior"}},
    "in mode Superior a Success": {
        "decision": {"mode": "Superior"},
        "metrics": [
            BRIER | {"role": "Success"},
            {"name": "e", "kind": "ErrorRate", "role": "Success", "margin": "1pp"},
        ],
    },
    "champion and challenger are the same": {"model": {"name": "m", "champion": 3, "challenger": "3"}},
    "only a champion may be external": {"servers": {"challenger": {"service": "s", "external": True}}},
    "afterPromotion.holdback": {"afterPromotion": {"holdback": 60}},
}
HELD = [r for r in RULES if r.cel is not None or r.structural is not None]
# Validations that need no type have no message of their own.
SILENT = {r.message for r in HELD if r.structural is not None}


@pytest.fixture
def rollouts(crd: str, api: client.ApiClient, namespace: str) -> Rollouts:
    return Rollouts(api, namespace)


def told(head: str) -> list[str]:
    """The messages of the rules that ``head`` names."""
    return [r.message for r in HELD if r.message.startswith(head) or f"{r.on}: {r.message}".startswith(head)]


def broken(fields: Tree) -> Tree:
    return copy.deepcopy(SMALL) | {"spec": copy.deepcopy(SMALL["spec"]) | fields}


def test_every_rule_that_the_server_holds_is_broken_once() -> None:
    assert [head for head in BREAKS if len(told(head)) != 1] == []
    assert sorted(message for head in BREAKS for message in told(head)) == sorted(r.message for r in HELD)


@pytest.mark.parametrize("head", BREAKS)
def test_the_server_refuses_what_breaks_the_rule_and_says_which(rollouts: Rollouts, head: str) -> None:
    tree = broken(BREAKS[head])
    with refused(422) as said:
        rollouts.create(tree, dry_run="All")
    [message] = told(head)
    assert message in said[0] or (message in SILENT and " spec.metrics[" in said[0]), said
    assert refusals(tree)


@pytest.mark.parametrize(
    ("timeout", "champion", "kept"),
    [
        ("1m30s", "90s", True),
        ("0.5s", "500ms", True),
        (None, "1s", True),
        ("1m30s", "1m29s", False),
        (None, "999ms", False),
        # The server knows no days; the controller does.
        ("0.01d", "0.02d", True),
    ],
)
def test_the_server_compares_durations_as_the_models_do(
    rollouts: Rollouts, timeout: str | None, champion: str, kept: bool
) -> None:
    router = {"championTimeout": champion} | ({} if timeout is None else {"timeout": timeout})
    tree = broken({"traffic": {"router": router}})
    assert (refusals(tree) == []) == kept
    if kept:
        rollouts.create(tree, dry_run="All")
        return
    with refused(422) as said:
        rollouts.create(tree, dry_run="All")
    assert "championTimeout has to be at least timeout" in said[0]


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_an_address_of_a_server_is_refused_though_it_is_right_on_one_machine(rollouts: Rollouts, arm: str) -> None:
    tree = broken({"servers": {arm: {"url": "http://a.other.svc:80"}}})
    with refused(422) as said:
        rollouts.create(tree, dry_run="All")
    assert f"spec.servers.{arm}: Invalid value" in said[0]
    assert ON_A_CLUSTER[0].message in said[0]
    assert refusals(tree) == []


@pytest.mark.parametrize("weight", [0.001, 1e-20, 33.333])
def test_a_weight_finer_than_the_smallest_difference_is_refused(rollouts: Rollouts, weight: float) -> None:
    tree = broken({"steps": [{"weight": weight}]})
    with refused(422) as said:
        rollouts.create(tree, dry_run="All")
    assert "0.01 is the smallest difference in weight" in said[0]
    assert refusals(tree)


@pytest.mark.parametrize("list_of", ["metrics", "segments"])
def test_a_name_that_stands_twice_is_refused(rollouts: Rollouts, list_of: str) -> None:
    twice = {"metrics": [BRIER, BRIER], "segments": [{"name": "s", "header": "a"}, {"name": "s", "header": "b"}]}
    with refused(422) as said:
        rollouts.create(broken({list_of: twice[list_of]}), dry_run="All")
    assert f"spec.{list_of}[1]: Duplicate value" in said[0]


def test_an_unknown_field_is_refused_and_not_dropped(rollouts: Rollouts) -> None:
    with refused(400) as said:
        rollouts.create(broken({"stepps": []}), dry_run="All")
    assert 'unknown field "spec.stepps"' in said[0]


@pytest.mark.parametrize("name", ["Late", "late.model", "a" * 64, "-late"])
def test_a_name_that_no_label_or_host_could_carry_is_refused(rollouts: Rollouts, name: str) -> None:
    tree = copy.deepcopy(SMALL) | {"metadata": {"name": name}}
    with refused(422) as said:
        rollouts.create(tree, dry_run="All")
    assert "metadata.name" in said[0]
    assert refusals(tree)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ({}, {"gatewayAPI": ROUTE}),
        ({"router": {}}, {"gatewayAPI": ROUTE}),
        ({"gatewayAPI": ROUTE}, {}),
        ({"gatewayAPI": ROUTE}, {"gatewayAPI": {**ROUTE, "httpRoute": "s"}}),
    ],
)
def test_who_splits_the_traffic_stays(rollouts: Rollouts, before: Tree, after: Tree) -> None:
    made = rollouts.create(broken({"traffic": before}))
    for same in (before, {"gatewayAPI": {**ROUTE, "statusLabel": "s"}} if "gatewayAPI" in before else {"router": {}}):
        made = rollouts.replace({**made, "spec": {**made["spec"], "traffic": same}})
    with refused(422) as said:
        rollouts.replace({**made, "spec": {**made["spec"], "traffic": after}})
    assert "who splits the traffic, a router or which HTTPRoute, cannot be changed" in said[0]
