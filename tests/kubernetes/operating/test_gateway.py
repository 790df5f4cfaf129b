"""An HTTPRoute splits the traffic: through a real API server, served by a real Traefik, asked by real requests."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from scipy.stats import binom

from controller.edges.cluster.access import MANAGER, Access, Node
from controller.edges.cluster.gateway import LIMITS, GatewayTraffic
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.resources import ROLLOUTS, ROUTES, Resource
from controller.edges.cluster.store import ClusterStore
from controller.edges.cluster.watch import Watched
from controller.errors import Conflict, EdgeError, NotFound
from tests.kubernetes.gateways import Traefik
from tests.kubernetes.operating.split import NAMES, ROUTE, Split, backends, declared, splitting
from tests.kubernetes.operating.theatre import until
from tests.ports.contracts.traffic import TrafficContract, table

REQUESTS = 600
# Of a share that is right, a count lies outside of its bounds once in a million times at most.
FALSE_ALARM = 1e-6
RULE: Node = {"backendRefs": backends()}


@pytest.fixture
def split(access: Access, namespace: str, traefik: Traefik) -> Iterator[Split]:
    with splitting(access, namespace, traefik.url) as made:
        yield made


def owner(access: Access, namespace: str, name: str = "late") -> Owner:
    """A rollout, which is made here."""
    body = {"metadata": {"namespace": namespace, "name": name}, "spec": declared()}
    return Owner(namespace, name, access.create(ROLLOUTS, body)["metadata"]["uid"])


def traffic_of(access: Access, whose: Owner, folder: Path) -> GatewayTraffic:
    """By somebody who has just begun."""
    store = ClusterStore(access, Watched(access, whose.namespace), folder)
    return GatewayTraffic(access, whose, ROUTE, lambda: store.load(f"{whose.namespace}/{whose.name}"))


@pytest.fixture
def late(access: Access, namespace: str) -> Iterator[Owner]:
    yield owner(access, namespace)
    # An operator for all namespaces, in another test, would take it for an older rival.
    for made in access.list(ROLLOUTS, namespace).items:
        access.delete(ROLLOUTS, namespace, made["metadata"]["name"])


@pytest.fixture
def provider(access: Access, late: Owner, tmp_path: Path) -> GatewayTraffic:
    return traffic_of(access, late, tmp_path)


@pytest.fixture
def confirmed_within(provider: GatewayTraffic) -> Callable[[int, float], object]:
    return lambda generation, within: until(
        lambda: provider.observe().confirmed >= generation, f"{generation} is confirmed", within
    )


class TestGatewayTraffic(TrafficContract):
    @pytest.fixture(autouse=True)
    def routed(self, split: Split) -> None:
        split.route(RULE)


def weighs(provider: GatewayTraffic, generation: int, weight_bp: int, **changes: Any) -> None:
    """Apply a table, and wait until the gateway has said that it took it."""
    provider.apply(table(generation, weight_bp=weight_bp, control_from_bp=10_000, **changes))
    until(lambda: provider.observe().confirmed == generation, f"table {generation} is confirmed")


def share(split: Split, part: float) -> None:
    """The proxy may follow its controller's word a moment later; from then on the share is what the weights say."""
    low, high = binom.ppf(FALSE_ALARM / 2, REQUESTS, part), binom.ppf(1 - FALSE_ALARM / 2, REQUESTS, part)
    until(lambda: split.arm() in NAMES, "the route is served")
    until(lambda: low <= split.challengers(REQUESTS) <= high, f"{part:.0%} of the requests are the challenger's")
    seen = split.challengers(REQUESTS)
    assert low <= seen <= high, f"{seen} of {REQUESTS}"


def test_the_shares_of_the_requests_follow_the_weights_and_go_back_to_none(
    split: Split, provider: GatewayTraffic
) -> None:
    split.route(RULE)
    for generation, weight_bp in enumerate((0, 1000, 5000, 0), start=1):
        weighs(provider, generation, weight_bp)
        share(split, weight_bp / 10_000)
    weighs(provider, 5, 5000)
    share(split, 0.5)
    weighs(provider, 6, 0, challenger=None)
    share(split, 0.0)


def test_a_weight_of_a_ten_thousandth_is_written_as_it_is(split: Split, provider: GatewayTraffic) -> None:
    split.route(RULE)
    weighs(provider, 1, 1)
    assert [ref["weight"] for ref in split.found()["spec"]["rules"][0]["backendRefs"]] == [9999, 1]


def test_only_weights_change_and_other_rules_are_left_alone(split: Split, provider: GatewayTraffic) -> None:
    path = [{"path": {"type": "PathPrefix", "value": "/about"}}]
    said = {"type": "ResponseHeaderModifier", "responseHeaderModifier": {"set": [{"name": "x-ours", "value": "1"}]}}
    other = {"name": "about", "matches": path, "filters": [said], "backendRefs": [{"name": "about", "port": 80}]}
    ours = {"timeouts": {"request": "7s"}, "filters": [said], **RULE}
    before = split.route(other, ours)
    provider.apply(table(1, weight_bp=2500, control_from_bp=10_000))
    after = split.found()
    changed = after["spec"]["rules"][1]["backendRefs"]
    assert [ref["weight"] for ref in changed] == [7500, 2500]
    for ref in changed:
        del ref["weight"]
    for ref in before["spec"]["rules"][1]["backendRefs"]:
        del ref["weight"]
    assert after["spec"] == before["spec"]
    assert MANAGER in {each["manager"] for each in after["metadata"]["managedFields"]}


def test_every_rule_with_both_services_has_the_same_share(split: Split, provider: GatewayTraffic) -> None:
    path = [{"path": {"type": "PathPrefix", "value": "/v2"}}]
    split.route({"matches": path, **RULE}, RULE)
    weighs(provider, 1, 10_000)
    until(lambda: {split.arm("/v2/x"), split.arm()} == {"challenger"}, "both rules send all to the challenger")


def test_a_route_that_somebody_edits_is_told_not_confirmed_and_written_again(
    split: Split, provider: GatewayTraffic, kubeconfig: Path
) -> None:
    split.route(RULE)
    weighs(provider, 1, 1000)
    meta = {"namespace": split.namespace, "name": ROUTE}
    people = Access(kubeconfig, manager="people")
    people.patch(ROUTES, {"metadata": meta, "spec": {"rules": [{"backendRefs": backends(0, 1)}]}})
    seen = provider.observe()
    assert (seen.confirmed, provider.serving) == (-1, None)
    assert f"has other weights than were written: {NAMES['champion']}:8080 90 %" in seen.trouble
    weighs(provider, 1, 1000)
    share(split, 0.1)
    people.close()


class Overtaken(Access):
    """Between its reading and its writing somebody else writes, the first ``times``."""

    times = 0

    def patch(self, resource: Resource, body: Node, subresource: str = "") -> Node:
        if self.times:
            self.times -= 1
            meta = {k: body["metadata"][k] for k in ("namespace", "name")} | {
                "annotations": {"theirs": str(self.times)}
            }
            super().patch(ROUTES, {"metadata": meta})
        return super().patch(resource, body, subresource)


def test_whoever_writes_at_the_same_moment_is_the_first(
    split: Split, late: Owner, kubeconfig: Path, tmp_path: Path
) -> None:
    split.route(RULE)
    access = Overtaken(kubeconfig)
    overtaken = traffic_of(access, late, tmp_path / "other")
    access.times = 99
    with pytest.raises(Conflict, match="has been modified"):
        overtaken.apply(table(1))
    access.times = 2
    weighs(overtaken, 1, 500)
    found = split.found()
    assert found["metadata"]["annotations"]["theirs"] == "0"
    assert [ref["weight"] for ref in found["spec"]["rules"][0]["backendRefs"]] == [9500, 500]
    access.close()


def test_a_route_that_is_not_there_is_named_with_its_field(split: Split, provider: GatewayTraffic) -> None:
    for call in (provider.observe, lambda: provider.apply(table(1))):
        with pytest.raises(NotFound, match=rf"gatewayAPI\.httpRoute: there is no HTTPRoute {split.namespace}/{ROUTE}"):
            call()


def test_a_route_that_is_not_understood_is_refused_and_left_as_it_is(split: Split, provider: GatewayTraffic) -> None:
    before = split.route({"backendRefs": [*backends(), {"name": "third", "port": 80}]})
    with pytest.raises(EdgeError, match=r"spec\.rules\[0\]\.backendRefs: names 3 backends"):
        provider.apply(table(1))
    seen = provider.observe()
    assert "spec.rules[0].backendRefs: names 3 backends" in seen.trouble
    assert seen.confirmed == -1
    assert split.found()["spec"] == before["spec"]


def test_the_way_back_works_by_a_route_that_cannot_be_split(split: Split, provider: GatewayTraffic) -> None:
    split.route(RULE)
    weighs(provider, 1, 4000)
    third = {"name": "third", "port": 80, "weight": 500}
    rules = [{"backendRefs": [*backends(6000, 4000), third], "timeouts": {"request": "7s"}}]
    split.access.patch(ROUTES, {"metadata": {"namespace": split.namespace, "name": ROUTE}, "spec": {"rules": rules}})
    with pytest.raises(EdgeError, match="names 3 backends"):
        provider.apply(table(2, weight_bp=0, challenger=None))
    (rule,) = split.found()["spec"]["rules"]
    assert [ref["weight"] for ref in rule["backendRefs"]] == [10_000, 0, 500]
    assert rule["timeouts"] == {"request": "7s"}


def test_the_way_back_works_whatever_somebody_made_of_our_word(split: Split, provider: GatewayTraffic) -> None:
    split.route(RULE)
    weighs(provider, 1, 4000)
    ((name, said),) = (pair for pair in split.found()["metadata"]["annotations"].items() if pair[0].endswith(".late"))
    edited = json.dumps(json.loads(said) | {"weights": {"flights-a": 10_000, "flights-c:http": 0}})
    where = {"namespace": split.namespace, "name": ROUTE, "annotations": {name: edited}}
    rules = [{"backendRefs": [*backends(6000, 4000), {"name": "third", "port": 80, "weight": 500}]}]
    split.access.patch(ROUTES, {"metadata": where, "spec": {"rules": rules}})
    with pytest.raises(EdgeError, match="names 3 backends"):
        provider.apply(table(2, weight_bp=0, challenger=None))
    (rule,) = split.found()["spec"]["rules"]
    assert [ref["weight"] for ref in rule["backendRefs"]] == [10_000, 0, 500]


def test_what_the_gateway_says_against_the_route_is_told(split: Split, provider: GatewayTraffic) -> None:
    split.route(RULE, parentRefs=[{"name": "web"}, {"name": "nobody"}])
    provider.apply(table(1))
    until(lambda: "web" not in provider.observe().trouble, "the one that is there has taken it")
    seen = provider.observe()
    assert seen.confirmed == -1
    assert seen.trouble == f"{split.namespace}/nobody: no controller has said anything of the route"
    assert {w.generation for r in seen.routers for w in r.workers} == {1, -1}


def test_two_rollouts_may_share_a_route_and_a_new_one_of_the_same_name_begins_anew(
    split: Split, provider: GatewayTraffic, tmp_path: Path
) -> None:
    split.route(RULE)
    weighs(provider, 7, 1000)
    other = traffic_of(split.access, owner(split.access, split.namespace, "early"), tmp_path / "other")
    assert [router.generation for router in other.observe().routers] == [-1]
    split.access.delete(ROLLOUTS, split.namespace, "late")
    again = traffic_of(split.access, owner(split.access, split.namespace), tmp_path / "again")
    weighs(again, 1, 500)
    assert again.observe().limits == LIMITS


def test_a_number_that_no_table_of_ours_can_have_is_an_edit_and_written_over(
    split: Split, provider: GatewayTraffic
) -> None:
    split.route(RULE)
    weighs(provider, 1, 5000)
    ((name, said),) = (pair for pair in split.found()["metadata"]["annotations"].items() if pair[0].endswith(".late"))
    edited = json.dumps({**json.loads(said), "generation": 2**40})
    where = {"namespace": split.namespace, "name": ROUTE, "annotations": {name: edited}}
    split.access.patch(ROUTES, {"metadata": where})
    assert provider.observe().overtakes(1) == 0
    weighs(provider, 2, 0)
