"""Model servers that exist already, each behind a Service of the rollout's namespace.

Their pods are looked at in a tick, by the EndpointSlices; ``slice_watch`` says when one is due before its time. An
address is refused: the controller would ask it in its own name, from its own place in the network, wherever it is.
"""

from collections.abc import Callable

from controller.edges.cluster import pods
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.questions import HEALTH, Questions, Server, sent, usable
from controller.edges.cluster.resources import PODS, SERVICE_NAME, SERVICES, SLICES, selector
from controller.errors import NotFound
from controller.ports import ServerObservation
from controller.spec import Server as Declared

FAMILIES = ("IPv4", "IPv6")
NO_ADDRESS = (
    "an address is for one machine, as the controller would ask it in its own name; on a cluster allowed are "
    "service, a Service of the rollout's namespace, and servers.template"
)


class AdoptedServers:
    """Looks at servers that others start and end. A Service is its ready endpoints, not its own address: the routers
    choose among pods and drop the one that fails."""

    def __init__(self, access: Access, namespace: str, questions: Questions) -> None:
        self._access, self._namespace, self._questions = access, namespace, questions

    def observe(
        self, declared: Declared, version: str, kept: Callable[[str], bool] = lambda _: False
    ) -> ServerObservation:
        """Where ``version`` is served, and whether servers that are ready there answer their probe. Upstreams that are
        to be ``kept`` need not have been asked yet."""
        servers, waiting, said = self._found(declared)
        faults = self._questions.faults(version, servers, declared.probe or HEALTH) if servers else {}
        said = said or next((f"{upstream}: {fault.text}" for upstream, fault in faults.items()), "")
        upstreams = sent(servers, faults, kept)
        known = any(server.upstream not in faults for server in servers)
        if not known and not (upstreams and all(fault.unasked for fault in faults.values())):
            # Those that are there and not ready: with a version that serves, the routers judge them.
            there = usable((s.upstream for s in (*servers, *waiting)), faults)
            return ServerObservation(version, there, False, said)
        return ServerObservation(version, upstreams, True, said)

    def _found(self, declared: Declared) -> tuple[tuple[Server, ...], tuple[Server, ...], str]:
        """Servers that are ready, those that are not, and why there are none that are."""
        if declared.service is None:
            return (), (), f"url: {NO_ADDRESS}"
        name = declared.service
        try:
            service = self._access.get(SERVICES, self._namespace, name)
        except NotFound:
            return (), (), f"there is no Service {name} in {self._namespace}"
        ports = {p["port"]: p.get("name", "") for p in service["spec"].get("ports") or () if _tcp(p)}
        if declared.port not in ports:
            listed = ", ".join(map(str, ports)) or "none"
            return (), (), f"Service {name} has no port {declared.port}; it has {listed}"
        slices = self._access.list(SLICES, self._namespace, selector({SERVICE_NAME: name})).items
        ready, waiting = _endpoints(slices, ports[declared.port])
        if ready:
            return ready, waiting, ""
        return (), waiting, f"Service {name} has no endpoint that is ready{self._why(service)}"

    def _why(self, service: Node) -> str:
        labels = service["spec"].get("selector")
        if not labels:
            return ""
        found = self._access.list(PODS, self._namespace, selector(labels)).items
        said = pods.fault(found) if found else "no pod has the labels of its selector"
        return f": {said}" if said else ""


def _endpoints(slices: list[Node], port: str) -> tuple[tuple[Server, ...], tuple[Server, ...]]:
    """Ready servers and others that stay, of one family of addresses: a pod of two stacks is one server. So is one that
    two slices name, as while it moves from one to the other; it is ready where either says so."""
    for family in FAMILIES:
        ready: dict[str, str] = {}
        waiting: dict[str, str] = {}
        for piece in slices:
            number = _number(piece, port)
            if piece["addressType"] != family or number is None:
                continue
            for endpoint in piece.get("endpoints") or ():
                conditions = endpoint.get("conditions") or {}
                upstream = pods.at(endpoint["addresses"][0], number)
                uid = (endpoint.get("targetRef") or {}).get("uid", "")
                if conditions.get("ready", True):  # unknown means ready (EndpointConditions of discovery.k8s.io/v1)
                    ready[upstream] = uid or ready.get(upstream, "")
                elif not conditions.get("terminating"):
                    waiting[upstream] = uid or waiting.get(upstream, "")
        if ready or waiting:
            left = {upstream: uid for upstream, uid in waiting.items() if upstream not in ready}
            return _sorted(ready), _sorted(left)
    return (), ()


def _number(piece: Node, port: str) -> int | None:
    """Where the endpoints of a slice have the port of that name. One without a number stands for every port, which is
    no place to send to."""
    found = (p.get("port") for p in piece.get("ports") or () if (p.get("name") or "") == port and _tcp(p))
    return next((int(number) for number in found if number is not None), None)


def _tcp(port: Node) -> bool:
    """Whether HTTP can be spoken on it: a Service may have the same number for UDP."""
    return bool(port.get("protocol", "TCP") == "TCP")


def _sorted(uids: dict[str, str]) -> tuple[Server, ...]:
    return tuple(sorted(Server(upstream, uid) for upstream, uid in uids.items()))
