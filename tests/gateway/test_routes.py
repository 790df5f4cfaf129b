"""Which rules of an HTTPRoute can be split, and who has taken it, read off the object alone."""

import copy
from typing import Any

import pytest

from controller.edges.cluster.access import Node
from controller.edges.cluster.http_route import Backend, parents, rules_of, weighted, weights, withdrawn
from controller.edges.cluster.http_route import share as share_of
from controller.errors import EdgeError

A, B = Backend("a", 80), Backend("b", 80)
BOTH = [{"name": "a", "port": 80, "weight": 9}, {"name": "b", "port": 80}]


def route(*rules: Node, **status: Any) -> Node:
    meta = {"namespace": "n", "name": "r", "generation": 3}
    return {"metadata": meta, "spec": {"rules": list(rules), "parentRefs": [{"name": "web"}]}, **status}


def test_the_rules_with_both_services_are_the_split() -> None:
    other = {"backendRefs": [{"name": "c", "port": 80}]}
    found = route(other, {"backendRefs": BOTH}, {"filters": [{"type": "RequestRedirect", "requestRedirect": {}}]})
    assert rules_of(found, (A, B)) == [1]
    assert weights(found, (A, B)) == [{"a:80": 9, "b:80": 1}]
    before = copy.deepcopy(found)
    rules = weighted(found, (A, B), {"a:80": 0, "b:80": 7})
    assert found == before
    assert [ref["weight"] for ref in rules[1]["backendRefs"]] == [0, 7]
    assert (rules[0], rules[2]) == (other, found["spec"]["rules"][2])


@pytest.mark.parametrize(
    ("refs", "left", "share"),
    [
        ({"a": 5, "b": 5}, {"a": 10, "b": 0}, 5000),
        ({"a": 1, "b": 2, "c": 3}, {"a": 3, "b": 0, "c": 3}, 3334),
        ({"a": 1, "c": 1}, {"a": 1, "c": 1}, 0),
        ({"b": 1}, {"b": 1}, 10_000),
        ({"a": 0, "b": 0}, {"a": 0, "b": 0}, 0),
        ({"a": 1_000_000, "b": 1_000_000}, {"a": 1_000_000, "b": 0}, 5000),
    ],
)
def test_what_others_get_goes_back_to_the_champion_wherever_it_is(
    refs: dict[str, int], left: dict[str, int], share: int
) -> None:
    found = route({"backendRefs": [{"name": name, "port": 80, "weight": weight} for name, weight in refs.items()]})
    before = copy.deepcopy(found)
    (rule,) = withdrawn(found, A, {B})
    assert {ref["name"]: ref["weight"] for ref in rule["backendRefs"]} == left
    assert (found, share_of(found, {B})) == (before, share)


MIRROR = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "b", "port": 80}}}


@pytest.mark.parametrize(
    ("rules", "said"),
    [
        ([], "spec.rules: none has a:80 and b:80 as its backendRefs"),
        ([{"backendRefs": BOTH[:1]}], r"spec.rules\[0\].backendRefs: has a:80 and lacks b:80; add it with weight 0"),
        ([{"backendRefs": BOTH}, {"backendRefs": BOTH[1:]}], r"spec.rules\[1\].backendRefs: has b:80 and lacks a:80"),
        (
            [{"backendRefs": [*BOTH, {"name": "c", "port": 80}]}],
            "names 3 backends; allowed are a:80 and b:80, each once",
        ),
        ([{"backendRefs": [*BOTH, BOTH[0]]}], "names 3 backends"),
        ([{"backendRefs": [BOTH[0], {**BOTH[1], "namespace": "other"}]}], "has a:80 and lacks b:80"),
        ([{"backendRefs": [BOTH[0], {**BOTH[1], "port": 81}]}], "has a:80 and lacks b:80"),
        ([{"backendRefs": [BOTH[0], {**BOTH[1], "kind": "ServiceImport", "group": "x"}]}], "has a:80 and lacks b:80"),
        ([{"backendRefs": BOTH, "sessionPersistence": {"sessionName": "s"}}], r"rules\[0\].sessionPersistence: keeps"),
        ([{"backendRefs": BOTH, "retry": {"attempts": 2}}], r"rules\[0\].retry: may send a request of one backend"),
        ([{"backendRefs": BOTH, "filters": [MIRROR]}], r"rules\[0\].filters: mirrors requests to b:80"),
        (
            [{"backendRefs": BOTH}, {"backendRefs": [{"name": "c", "port": 80, "filters": [MIRROR]}]}],
            r"\[1\].filters: mir",
        ),
    ],
)
def test_what_is_not_understood_is_refused_with_its_field(rules: list[Node], said: str) -> None:
    with pytest.raises(EdgeError, match=f"HTTPRoute n/r cannot be split: .*{said}"):
        rules_of(route(*rules), (A, B))


def heard(name: str = "web", **conditions: Any) -> Node:
    given = {"Accepted": ("True", 3), "ResolvedRefs": ("True", 3), **conditions}
    made = [
        {"type": kind, "status": said[0], "observedGeneration": said[1], "reason": "Why", "message": "because"}
        for kind, said in given.items()
        if said
    ]
    return {"parentRef": {"name": name, "group": "gateway.networking.k8s.io", "kind": "Gateway"}, "conditions": made}


@pytest.mark.parametrize(
    ("said", "fault"),
    [
        ([heard()], ""),
        ([], "no controller has said anything of the route"),
        ([heard("another")], "no controller has said anything of the route"),
        ([heard(Accepted=("True", 2))], "Accepted is said of generation 2, the route has 3"),
        ([heard(Accepted=("False", 3))], "Accepted is False: Why: because"),
        ([heard(ResolvedRefs=("Unknown", 3))], "ResolvedRefs is Unknown: Why: because"),
        ([heard(ResolvedRefs=None)], "ResolvedRefs is not said"),
        ([heard(), heard(Accepted=("False", 3))], "Accepted is False: Why: because"),
    ],
)
def test_a_parent_has_taken_the_route_when_it_says_so_of_this_generation(said: list[Node], fault: str) -> None:
    (found,) = parents(route({"backendRefs": BOTH}, status={"parents": said}))
    assert found == ("n/web", fault)
