"""An HTTPRoute of the Gateway API as the one who splits the traffic, in place of routers of ours.

What was decided, and why:

- **What it cannot do follows from what a route is.** The gateway draws for each request anew and tells nobody what came
  of it. So the unit is the request, evidence is how many requests of either Service failed (``gauges.requests``), and
  there is no fallback, no breaker, no mirror, no journal: ``LIMITS`` says so in the status of every such rollout. What
  needs more is refused when the rollout is read (``controller.spec``), not left to hold for ever.
- **The route is somebody's; only the weights are ours.** ``spec.rules`` is one atomic list for server-side apply:
  who applies a weight owns all rules, and would have to repeat them. So the rules are patched as they were read, with
  other weights, onto the resource version that was read: whoever writes in between (its own controller does, whenever
  it says something) is the first, and it is read again. The field manager is ours. What the table was stands beside it
  in an annotation, of the same write.
- **Confirmed** is a table when the route says what we wrote, and each parent's ``Accepted`` and ``ResolvedRefs`` are
  True for the route's generation. That is the gateway controller's word, not its proxies': ``Programmed`` belongs to
  Gateways, whose generation has nothing to do with the route's, and some implementations never say it. Requests count
  only some seconds after it, and a gateway that is slower still shows as a sample-ratio mismatch.
- A route that somebody edits is not confirmed, nothing counts meanwhile, and the next tick writes the weights again.
- **The way back needs no route that can be split**: whatever else a rule has by then, and whatever is declared, the
  Services that were last written, and those of the attempt, give their share to the champion.
"""

import json
from collections.abc import Callable
from typing import Any, NamedTuple

from controller.core import places, serving
from controller.core.record import digest
from controller.edges.cluster import http_route
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.http_route import Backend
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.resources import ROUTES
from controller.edges.gauges.requests import Serving
from controller.errors import Conflict, EdgeError, NotFound
from controller.ports import FARTHEST, Stored, TrafficObservation
from controller.status import Attempt, Place
from router.assignment import POINTS, Arm
from router.table import RouterState, RouteTable, WorkerState

WRITES = 5  # how often, at most, it is read and written in one tick
ANNOTATION = "understudy.dev/table"
LIMITS = (
    "a gateway draws an arm for each request: no unit sticks to it, and only requests that failed are evidence",
    "a request that the challenger fails is not answered by the champion, and no breaker cuts it off",
    "nothing is mirrored, and no request or answer is written down",
)


class Held(NamedTuple):
    """What the route says it is: which table of which rollout, and the weights that go with it."""

    uid: str
    generation: int
    attempt: int
    epoch: int
    digest: str
    weights: dict[str, int]


class Overtaken(Conflict):
    """Somebody wrote the route after it was read."""


class GatewayTraffic:
    """``TrafficProvider`` of the rollout ``owner``, which ``read`` reads, by the weights of an HTTPRoute."""

    def __init__(self, access: Access, owner: Owner, route: str, read: Callable[[], Stored]) -> None:
        self._access, self._owner, self._route, self._read = access, owner, route, read
        self.serving: Serving | None = None

    def apply(self, table: RouteTable) -> None:
        """Write the weights of ``table`` where the route has others. Conflict where it holds a newer one, or another of
        that generation, or others keep writing; EdgeError where it is none that we understand."""
        stored = self._read()
        for left in reversed(range(WRITES)):
            try:
                self._write(stored, table)
                return
            except Overtaken:
                if not left:
                    raise

    def _write(self, stored: Stored, table: RouteTable) -> None:
        backends, route = _backends(stored), self._found()
        held, new = self._held(route), self._wanted(stored, table)
        # The number is our own note: one that is too far away to be ours is somebody's edit, and written over.
        if held is not None and table.generation < held.generation <= table.generation + FARTHEST:
            raise Conflict(f"{self._name} holds table {held.generation}, which is newer than {table.generation}")
        if held is not None and held.generation == table.generation and held.digest != new.digest:
            raise Conflict(f"{self._name} holds another table {table.generation}")
        try:
            if held == new and all(each == new.weights for each in http_route.weights(route, backends)):
                return
            rules = http_route.weighted(route, backends, new.weights)
        except EdgeError:
            if table.challenger is None:
                self._withdraw(stored, table, route)
            raise
        self._patch(route, rules, {self._annotation: json.dumps(new._asdict(), sort_keys=True)})

    def _withdraw(self, stored: Stored, table: RouteTable, route: Node) -> None:
        """Send everybody to the champion of ``table`` by a route that no split is possible with."""
        champion = _backend(stored, "champion", table.champion.version)
        rules = http_route.withdrawn(route, champion, self._others(stored, route, champion))
        if rules != route["spec"].get("rules"):
            self._patch(route, rules, {})

    def _patch(self, route: Node, rules: list[Node], annotations: dict[str, str]) -> None:
        """Write onto what was read."""
        meta = route["metadata"]
        here = {"namespace": meta["namespace"], "name": meta["name"], "resourceVersion": meta["resourceVersion"]}
        try:
            self._access.patch(ROUTES, {"metadata": {**here, "annotations": annotations}, "spec": {"rules": rules}})
        except Conflict as error:
            raise Overtaken(str(error)) from error

    def observe(self) -> TrafficObservation:
        """What the route says, and which of its parents have taken it. EdgeError where there is none."""
        self.serving = None
        stored, route = self._read(), self._found()
        held = self._held(route)
        generation = held.generation if held is not None else -1
        sent, trouble = self._sent(stored, route), ""
        try:
            found = http_route.weights(route, _backends(stored))
        except EdgeError as error:
            trouble = f"{error}; {sent / 100:g} % of the requests of a rule are not the champion's"
        else:
            if held is not None and any(each != held.weights for each in found):
                trouble = f"{self._name} has other weights than were written: {_shown(held.weights)} come again"
        parents = http_route.parents(route)
        if not trouble and not parents:
            trouble = f"{self._name} has no parentRefs: no Gateway serves it"
        said = [f"{parent.name}: {parent.fault}" for parent in parents if parent.fault]
        workers = tuple(
            WorkerState(worker=p.name, generation=-1 if trouble or p.fault else generation) for p in parents
        )
        if held is not None and not trouble and not said and held.epoch:
            self.serving = Serving(held.generation, route["metadata"]["generation"], held.attempt, held.epoch)
        state = RouterState(router=self._name, generation=generation, workers=workers)
        return TrafficObservation((state,), True, limits=LIMITS, trouble=trouble or "; ".join(said), sent_bp=sent)

    def close(self) -> None:
        """There is nothing to let go of. The route goes on."""

    @property
    def _name(self) -> str:
        return f"HTTPRoute {self._owner.namespace}/{self._route}"

    @property
    def _annotation(self) -> str:
        return f"{ANNOTATION}.{self._owner.name}"

    def _found(self) -> Node:
        try:
            return self._access.get(ROUTES, self._owner.namespace, self._route)
        except NotFound as error:
            raise NotFound(f"spec.traffic.gatewayAPI.httpRoute: there is no {self._name} ({error})") from error

    def _held(self, route: Node) -> Held | None:
        """Our own word on the route; another object's of the same name, or one that nobody understands, is none."""
        try:
            said: dict[str, Any] = json.loads(route["metadata"].get("annotations", {})[self._annotation])
            held = Held(**said)
        except (KeyError, ValueError, TypeError):
            return None
        return held if held.uid == self._owner.uid else None

    def _others(self, stored: Stored, route: Node, champion: Backend) -> set[Backend]:
        """The Services that are not the ``champion``'s, of this attempt and of what was last written."""
        held = self._held(route)
        written = [name.rpartition(":") for name in (held.weights if held is not None else ())]
        known = (Backend(name, int(port)) for name, _, port in written if port.isdecimal())
        return {*_backends(stored), *known} - {champion}

    def _sent(self, stored: Stored, route: Node) -> int:
        """The most, in basis points, that the route sends to others than the champion, as long as somebody is on trial;
        0 without a table."""
        table = stored.status.table
        if table is None:
            return 0
        champion = _backend(stored, "champion", table.champion.version)
        return http_route.share(route, self._others(stored, route, champion))

    def _wanted(self, stored: Stored, table: RouteTable) -> Held:
        """The weights that ``table`` means, by Service."""
        champion = _backend(stored, "champion", table.champion.version)
        split = dict.fromkeys(map(str, _backends(stored)), 0)
        if table.challenger is not None:
            challenger = _backend(stored, "challenger", table.challenger.version)
            split[str(challenger)] = table.weight_bp
        split[str(champion)] = POINTS - table.weight_bp
        return Held(self._owner.uid, table.generation, table.attempt, table.epoch, digest(table), split)


def _backends(stored: Stored) -> tuple[Backend, Backend]:
    """The champion's Service and the challenger's, as they were when the attempt began."""
    found = places.of(stored.rollout.spec, _attempt(stored))
    assert found.champion is not None
    assert found.challenger is not None
    return _at(found.champion), _at(found.challenger)


def _backend(stored: Stored, arm: Arm, version: str) -> Backend:
    """The Service in which ``version`` is served: a promoted one stays where it was on trial."""
    place = places.of_version(stored.rollout.spec, _attempt(stored), arm, version)
    if place is None:
        raise EdgeError(f"spec.servers.{arm}.service: is missing")
    return _at(place)


def _attempt(stored: Stored) -> Attempt | None:
    """The one whose table is in force, and without a table the one that begins."""
    served = serving.in_force(stored.status)
    return served.attempt if served is not None else stored.status.attempt


def _at(place: Place) -> Backend:
    return Backend(place.service, place.port)


def _shown(weights: dict[str, int]) -> str:
    return " and ".join(f"{name} {weight / 100:g} %" for name, weight in weights.items())
