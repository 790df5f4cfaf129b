"""An HTTPRoute as a split between two Services: which of its rules are ours, their weights, and who has taken them.

Only what is understood is written to. A rule belongs to the split when it names both Services; one that names neither
is none of our business. Anything that would send requests to either Service around the weights, or send them again, is
refused with its field: counts of such a route would not be those of a fair draw.
"""

import copy
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

from controller.edges.cluster.access import Node
from controller.errors import EdgeError
from router.assignment import POINTS

LARGEST_WEIGHT = 1_000_000  # that the API takes
GROUP = "gateway.networking.k8s.io"
CONDITIONS = ("Accepted", "ResolvedRefs")


class Backend(NamedTuple):
    """A Service of the route's namespace, at one port."""

    service: str
    port: int

    def __str__(self) -> str:
        return f"{self.service}:{self.port}"


Weights = Mapping[str, int]  # by Backend, as text


def rules_of(route: Node, backends: Sequence[Backend]) -> list[int]:
    """Places of the rules that split between ``backends``. EdgeError with a line for everything that is in the way."""
    found, said = [], list[str]()
    for i, rule in enumerate(_rules(route)):
        where = f"spec.rules[{i}]"
        named = [_backend(ref, route) for ref in rule.get("backendRefs") or ()]
        ours = [backend for backend in named if backend is not None and backend in backends]
        mirrored = [b for b in _mirrored(rule, route) if b in backends]
        if mirrored:
            said.append(f"{where}.filters: mirrors requests to {mirrored[0]}, whose answers would be counted")
        if not ours:
            continue
        found.append(i)
        said += [f"{where}.{fault}" for fault in _faults(rule, named, ours, backends)]
    if not found:
        both = " and ".join(map(str, backends))
        said.append(f"spec.rules: none has {both} as its backendRefs")
    if said:
        meta = route["metadata"]
        raise EdgeError(f"HTTPRoute {meta['namespace']}/{meta['name']} cannot be split: {'; '.join(said)}")
    return found


def _rules(route: Node) -> list[Node]:
    rules: list[Node] = route["spec"].get("rules") or []
    return rules


def _backend(ref: Node, route: Node) -> Backend | None:
    """The Service that ``ref`` names in the route's own namespace; None for anything else."""
    own = route["metadata"]["namespace"]
    here = ref.get("namespace") in (None, own)
    service = (ref.get("group") or "", ref.get("kind") or "Service") == ("", "Service")
    return Backend(ref["name"], ref.get("port") or 0) if here and service else None


def _mirrored(rule: Node, route: Node) -> Iterator[Backend | None]:
    filters = [
        *(rule.get("filters") or ()),
        *(f for r in rule.get("backendRefs") or () for f in r.get("filters") or ()),
    ]
    for each in filters:
        if each.get("type") == "RequestMirror":
            yield _backend(each["requestMirror"]["backendRef"], route)


def _faults(
    rule: Node, named: Sequence[Backend | None], ours: Sequence[Backend], backends: Sequence[Backend]
) -> Iterator[str]:
    for missing in (b for b in backends if b not in ours):
        yield f"backendRefs: has {ours[0]} and lacks {missing}; add it with weight 0"
    if len(named) != len(set(ours)):
        yield f"backendRefs: names {len(named)} backends; allowed are {' and '.join(map(str, backends))}, each once"
    for field, why in (
        ("sessionPersistence", "keeps clients at the backend that they met first"),
        ("retry", "may send a request of one backend again to the other"),
    ):
        if rule.get(field) is not None:
            yield f"{field}: {why}; leave it out"


def weights(route: Node, backends: Sequence[Backend]) -> list[Weights]:
    """What each rule of the split says now, with the API's default of 1."""
    said = list[Weights]()
    for i in rules_of(route, backends):
        refs = _rules(route)[i]["backendRefs"]
        said.append({str(_backend(ref, route)): ref.get("weight", 1) for ref in refs})
    return said


def weighted(route: Node, backends: Sequence[Backend], wanted: Weights) -> list[Node]:
    """All rules of ``route`` as they were read, but for the weights of the split."""
    rules = copy.deepcopy(_rules(route))
    for i in rules_of(route, backends):
        for ref in rules[i]["backendRefs"]:
            ref["weight"] = wanted[str(_backend(ref, route))]
    return rules


def withdrawn(route: Node, champion: Backend, others: Collection[Backend]) -> list[Node]:
    """All rules of ``route`` as they were read, but with nothing for ``others`` and their share for ``champion`` in
    each rule that has both, whatever else is in it: the way back has to work where a split does not. In a rule without
    the champion they stay, as nobody would be left to send to."""
    rules = copy.deepcopy(_rules(route))
    for rule in rules:
        named = [(_backend(ref, route), ref) for ref in rule.get("backendRefs") or ()]
        back = next((ref for backend, ref in named if backend == champion), None)
        gone = [ref for backend, ref in named if backend in others and ref.get("weight", 1)]
        if back is not None and gone:
            back["weight"] = min(back.get("weight", 1) + sum(ref.get("weight", 1) for ref in gone), LARGEST_WEIGHT)
            for ref in gone:
                ref["weight"] = 0
    return rules


def share(route: Node, backends: Collection[Backend]) -> int:
    """The most, in basis points rounded up, that any rule of ``route`` sends to ``backends``."""
    most = 0
    for rule in _rules(route):
        refs = rule.get("backendRefs") or ()
        whole = sum(ref.get("weight", 1) for ref in refs)
        part = sum(ref.get("weight", 1) for ref in refs if _backend(ref, route) in backends)
        most = max(most, -(-POINTS * part // whole) if whole else 0)
    return most


class Parent(NamedTuple):
    """A Gateway, or part of one, that the route is attached to. ``fault``: why it is not known to have taken the route
    as it is now; empty where it has."""

    name: str
    fault: str


def parents(route: Node) -> tuple[Parent, ...]:
    """Every parent that the route names, and what its controller says."""
    own, now = route["metadata"]["namespace"], route["metadata"]["generation"]
    said = (route.get("status") or {}).get("parents") or []
    found = []
    for ref in route["spec"].get("parentRefs") or ():
        heard = [each for each in said if _parent(each["parentRef"], own) == _parent(ref, own)]
        faults = [_condition(each, name, now) for each in heard for name in CONDITIONS]
        fault = next(filter(None, faults), "") if heard else "no controller has said anything of the route"
        found.append(Parent("/".join(map(str, filter(None, _parent(ref, own)[2:]))), fault))
    return tuple(found)


def _parent(ref: Node, own: str) -> tuple[object, ...]:
    kind = ref.get("group", GROUP), ref.get("kind", "Gateway")
    return (*kind, ref.get("namespace", own), ref["name"], ref.get("sectionName"), ref.get("port"))


def _condition(heard: Node, name: str, generation: int) -> str:
    """Why the condition ``name`` does not confirm ``generation``; empty where it does."""
    for each in heard.get("conditions") or ():
        if each["type"] != name:
            continue
        if each.get("observedGeneration", 0) < generation:
            return f"{name} is said of generation {each.get('observedGeneration', 0)}, the route has {generation}"
        if each["status"] != "True":
            return f"{name} is {each['status']}: {each['reason']}: {each.get('message', '')}".rstrip(": ")
        return ""
    return f"{name} is not said"
