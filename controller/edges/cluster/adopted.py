"""Model servers that exist already: a Service of the rollout's namespace, or an address."""

from controller.edges.cluster import pods
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.questions import HEALTH, UPSTREAMS, Questions, Server, usable
from controller.edges.cluster.resources import PODS, SERVICES, SLICES, selector
from controller.edges.servers import upstream_of
from controller.errors import NotFound
from controller.ports import ServerObservation
from controller.spec import Server as Declared

FAMILIES = ("IPv4", "IPv6")


class AdoptedServers:
    """Looks at servers that others start and end. A Service is its ready endpoints, not its own address: the routers
    choose among pods and drop the one that fails."""

    def __init__(self, access: Access, namespace: str, questions: Questions) -> None:
        self._access, self._namespace, self._questions = access, namespace, questions

    def observe(self, declared: Declared, version: str) -> ServerObservation:
        """Where ``version`` is served, and whether every server that is ready there answers its probe."""
        servers, waiting, said = self._found(declared)
        faults = self._questions.faults(version, servers, declared.probe or HEALTH) if servers else {}
        upstreams = tuple(s.upstream for s in servers if s.upstream not in faults)[:UPSTREAMS]
        said = said or next((f"{upstream}: {fault.text}" for upstream, fault in faults.items()), "")
        if not upstreams:
            # Those that are there and not ready: with a version that serves, the routers judge them.
            there = usable((s.upstream for s in (*servers, *waiting)), faults)
            return ServerObservation(version, there, False, said)
        return ServerObservation(version, upstreams, True, said)

    def _found(self, declared: Declared) -> tuple[tuple[Server, ...], tuple[Server, ...], str]:
        """Servers that are ready, those that are not, and why there are none that are."""
        if declared.service is None:
            return (Server(upstream_of(declared.url or ""), ""),), (), ""
        name = declared.service
        try:
            service = self._access.get(SERVICES, self._namespace, name)
        except NotFound:
            return (), (), f"there is no Service {name} in {self._namespace}"
        ports = {p["port"]: p.get("name", "") for p in service["spec"].get("ports") or ()}
        if declared.port not in ports:
            listed = ", ".join(map(str, ports)) or "none"
            return (), (), f"Service {name} has no port {declared.port}; it has {listed}"
        slices = self._access.list(SLICES, self._namespace, f"kubernetes.io/service-name={name}").items
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
    """Ready servers and others that stay, of one family of addresses: a pod of two stacks is one server."""
    for family in FAMILIES:
        ready, waiting = set(), set()
        for piece in slices:
            number = next((p["port"] for p in piece.get("ports") or () if (p.get("name") or "") == port), None)
            if piece["addressType"] != family or number is None:
                continue
            for endpoint in piece.get("endpoints") or ():
                conditions = endpoint.get("conditions") or {}
                uid = (endpoint.get("targetRef") or {}).get("uid", "")
                server = Server(pods.at(endpoint["addresses"][0], number), uid)
                if conditions.get("ready", True):  # unknown means ready (EndpointConditions of discovery.k8s.io/v1)
                    ready.add(server)
                elif not conditions.get("terminating"):
                    waiting.add(server)
        if ready or waiting:
            return tuple(sorted(ready)), tuple(sorted(waiting))
    return (), ()
