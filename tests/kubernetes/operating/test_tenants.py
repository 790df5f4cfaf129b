"""Several teams on one cluster: a rollout reaches what is in its own namespace, and nothing else."""

import copy
from collections.abc import Iterator

import pytest
import yaml
from kubernetes import client

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS
from controller.errors import EdgeError
from controller.operator.claims import Claims
from controller.schema import CRD
from controller.schema.rules import ON_A_CLUSTER
from controller.status import Condition, PersonRequest, Progress, Reason, RolloutStatus
from tests.kubernetes.control_plane import ControlPlane
from tests.kubernetes.operating.conftest import ROOT
from tests.kubernetes.operating.real import RealTheatre, serving
from tests.kubernetes.operating.theatre import NAMESPACES, SPEC, STAY, Theatre, gone, until
from tests.kubernetes.rollouts import Rollouts, refused
from tests.router.models import Model

ROUTED: Node = {
    "unit": {"request": True},
    "servers": {"champion": {"service": "a"}, "challenger": {"service": "b"}},
    "traffic": {"gatewayAPI": {"httpRoute": "other/r", "requests": 'c{a="$arm"}'}},
}


@pytest.fixture
def other(access: Access, namespace: str) -> str:
    """Somebody else's namespace."""
    name = f"other-{namespace[-8:]}"
    access.create(NAMESPACES, {"metadata": {"name": name}})
    return name


def stalled(theatre: Theatre, name: str = "late") -> Condition:
    """Why the rollout is not ticked, once that is told."""

    def look() -> Condition | None:
        return next((c for c in theatre.status(name).conditions if (c.type, c.status) == ("Stalled", "True")), None)

    found = until(look, "it is told why it stalls")
    assert isinstance(found, Condition)
    return found


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"servers": {"champion": {"service": "other/a"}}}, "spec.servers.champion.service"),
        ({"servers": {"champion": {"service": "a", "namespace": "other"}}}, "spec.servers.champion.namespace"),
        ({"servers": {"champion": {"url": "http://a.other.svc:80"}}}, "spec.servers.champion"),
        (ROUTED, "spec.traffic.gatewayAPI.httpRoute"),
        ({"notify": {"slack": {"secretRef": {"name": "other/slack", "key": "k"}}}}, "spec.notify.slack.secretRef.name"),
        (
            {"notify": {"slack": {"secretRef": {"name": "slack", "key": "k", "namespace": "other"}}}},
            "spec.notify.slack.secretRef.namespace",
        ),
    ],
    ids=["service", "service of a namespace", "address", "route", "secret", "secret of a namespace"],
)
def test_what_is_in_another_namespace_has_no_name_in_a_rollout(
    api: client.ApiClient, crd: str, namespace: str, spec: Node, field: str
) -> None:
    with refused(400 if field.endswith(".namespace") else 422) as said:  # there is no such field
        Rollouts(api, namespace).create({"metadata": {"name": "late"}, "spec": {**SPEC, **spec}}, dry_run="All")
    assert field in said[0]


def test_a_service_of_another_namespace_is_looked_for_in_the_own(tenant: RealTheatre, other: str) -> None:
    """A name with a dot leads to another namespace for a resolver, and the controller is none."""
    tenant.operator()
    with serving(tenant.access, other) as models:
        servers = {
            arm: {"service": f"{name}.{other}"} for arm, name in (("champion", "model-a"), ("challenger", "model-b"))
        }
        tenant.apply(servers=servers)
        status = tenant.until("it is told", lambda s: "there is no Service" in s.message)
        assert f"there is no Service model-a.{other} in {tenant.namespace}" in status.message
        assert [model.connections for model in models] == [0, 0]


@pytest.fixture
def lenient(control_plane: ControlPlane, access: Access, crd: str, namespace: str) -> Iterator[None]:
    """The definition as it was before it refused addresses, until the end of the test."""
    now = yaml.safe_load((ROOT / CRD).read_text(encoding="utf-8"))
    before = copy.deepcopy(now)
    spec = before["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    for arm in ("champion", "challenger"):
        server = spec["properties"]["servers"]["properties"][arm]
        rules = server["x-kubernetes-validations"]
        server["x-kubernetes-validations"] = [r for r in rules if r["message"] != ON_A_CLUSTER[0].message]
    probe = {"metadata": {"namespace": namespace, "name": "probe"}, "spec": addressed("127.0.0.1:9")}

    def allowed() -> bool:
        try:
            access.create(ROLLOUTS, probe)
        except EdgeError:
            return False
        access.delete(ROLLOUTS, namespace, "probe")
        return True

    control_plane.define(before)
    until(allowed, "addresses are allowed")
    yield
    control_plane.define(now)
    until(lambda: not allowed(), "addresses are refused again")


def addressed(place: str) -> Node:
    probe = {"path": "/delete", "body": "{}"}
    return {**SPEC, "servers": {arm: {"url": f"http://{place}", "probe": probe} for arm in ("champion", "challenger")},
            "allowSameVersion": True}  # fmt: skip


def test_an_address_that_is_stored_already_is_refused_by_the_controller_and_not_asked(
    lenient: None, tenant: RealTheatre
) -> None:
    with Model("internal") as internal:
        tenant.operator()
        tenant.apply(**addressed(internal.address))
        found = stalled(tenant)
        assert found.reason == "InvalidSpec"
        assert "spec.servers.champion.url: an address is for one machine" in found.message
        assert "allowed are service, a Service of the rollout's namespace, and servers.template" in found.message
        assert (internal.connections, internal.count) == (0, 0)


@pytest.mark.parametrize(
    ("rules", "namespace", "model", "allowed"),
    [
        (None, "shop", "flights", True),
        ((), "shop", "flights", False),
        (("shop=flights",), "shop", "flights", True),
        (("shop=flights",), "shop", "flights-2", False),
        (("shop=flights",), "shop-2", "flights", False),
        (("shop=fl?ght*",), "shop", "flights-2", True),
        (("shop=[ab]",), "shop", "c", False),
        (("other=*", "shop=Flights"), "shop", "flights", False),
        (("*=shared-*",), "any", "shared-model", True),
        (("*=shared-*", "shop=*"), "any", "flights", False),
        (("shop=a=b",), "shop", "a=b", True),
    ],
)
def test_which_namespace_may_release_which_model(
    rules: tuple[str, ...] | None, namespace: str, model: str, allowed: bool
) -> None:
    assert Claims(rules).allows(f"{namespace}/late", model) is allowed
    refusal = Claims(rules).refusal(f"{namespace}/late", model, {})
    assert refusal is None if allowed else refusal is not None and refusal[0] is Reason.MODEL_NOT_ALLOWED


def declared_by(theatre: Theatre, namespace: str, **annotations: str) -> Node:
    """The rollout ``squat`` of somebody else, for the model of ``theatre``."""
    meta = {"namespace": namespace, "name": "squat", "annotations": annotations}
    return Access(theatre.kubeconfig, manager="people").apply(
        ROLLOUTS, {"metadata": meta, "spec": {**SPEC, "model": {"name": theatre.namespace}, "steps": STAY}}
    )


def test_who_may_not_release_a_model_is_told_and_keeps_nobody_from_it(theatre: Theatre, other: str) -> None:
    """He came first, and asks for a promotion."""
    theatre.operator_for_all(allow_models=(f"{theatre.namespace}={theatre.namespace[:20]}*", f"{other}=mine"))
    asked = '{"verb":"promote","who":"b","why":"","at":1}'
    declared_by(theatre, other, **{"understudy.dev/request.x": asked})

    def squat() -> RolloutStatus:
        found = theatre.access.get(ROLLOUTS, other, "squat")["status"]
        return RolloutStatus.model_validate(found) if found["uid"] else RolloutStatus(uid="")

    status = until(lambda: squat().conditions and squat(), "he is told")
    said = {c.type: c for c in status.conditions}["Stalled"]
    assert (said.status, said.reason, status.reason) == ("True", "ModelNotAllowed", Reason.MODEL_NOT_ALLOWED)
    assert f"namespace {other} may not release {theatre.namespace}" in said.message
    assert f"--allow-models {other}={theatre.namespace}" in said.message
    theatre.apply(model={"name": theatre.namespace})
    theatre.reaches(Progress.PROMOTED)
    assert (squat().attempt, squat().reason) == (None, Reason.MODEL_NOT_ALLOWED)
    theatre.access.delete(ROLLOUTS, other, "squat")
    until(lambda: gone(theatre.access, ROLLOUTS, other, "squat"), "it may be deleted")


def test_one_that_is_at_work_when_the_rules_come_is_acted_on_no_more(theatre: Theatre, other: str) -> None:
    theatre.operator_for_all()
    declared_by(theatre, other)
    key = f"{other}/squat"
    until(lambda: theatre.access.get(ROLLOUTS, other, "squat")["status"].get("progress") == "Running", "it runs")
    theatre.operators[0].stop()
    theatre.operator_for_all(allow_models=(f"{theatre.namespace}=*",))
    store = theatre.store()
    until(lambda: any(c.reason == "ModelNotAllowed" for c in store.load(key).status.conditions), "it is told")
    before = store.load(key).status
    store.submit(key, PersonRequest(id="x", verb="promote", who="b", at=1))
    theatre.apply(model={"name": theatre.namespace})
    theatre.reaches(Progress.PROMOTED)
    assert (before.progress, store.load(key).status.sequence) == (Progress.RUNNING, before.sequence)
    theatre.access.delete(ROLLOUTS, other, "squat")
    until(lambda: gone(theatre.access, ROLLOUTS, other, "squat"), "it may be deleted")


@pytest.mark.parametrize("progress", [Progress.RUNNING, Progress.HOLDBACK])
def test_an_edit_to_a_model_that_is_not_allowed_is_told_at_once_and_the_attempt_goes_on(
    theatre: Theatre, progress: Progress
) -> None:
    held = {"steps": STAY, "afterPromotion": {"holdback": 5, "hold": "1h"}}
    rules = (f"{theatre.namespace}=flights",)
    one = theatre.operator(allow_models=rules)
    theatre.apply(**held)
    theatre.reaches(Progress.RUNNING, step=1)
    if progress is Progress.HOLDBACK:
        theatre.ask("promote")
    before = theatre.reaches(progress)
    theatre.apply(**held, model={"name": "others"})
    found = stalled(theatre)
    assert found.reason == "ModelNotAllowed"
    assert (
        f"may not release others; whoever runs the controller allows it by --allow-models {theatre.namespace}=others"
        in found.message
    )
    one.stop()
    two = theatre.operator(allow_models=rules)  # it has read no spec but this one
    until(two.leader.leads, "another one leads")
    clock = theatre.status().clock
    until(lambda: theatre.status().clock > clock, "it ticks")
    status = theatre.status()
    assert (status.progress, status.attempt) == (progress, before.attempt)
    assert stalled(theatre).reason == "ModelNotAllowed"
    assert [e["reason"] for e in theatre.events()].count("ModelNotAllowed") == 1
    theatre.apply(**held)
    until(lambda: not any(c.reason == "ModelNotAllowed" for c in theatre.status().conditions), "it is mended")
    assert (theatre.status().progress, theatre.status().attempt) == (progress, before.attempt)
