"""Services of a rollout's namespace with model servers behind them, and who of these is sent users."""

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import SERVICE_NAME, SERVICES, SLICES
from tests.kubernetes.operating.machines import ModelServer, own_address
from tests.kubernetes.operating.theatre import Theatre

PORT = 8080


class Behind:
    """Model servers of one version behind a Service, each in a slice of its own."""

    def __init__(self, access: Access, namespace: str, service: str, version: str, *, silent: bool = False) -> None:
        """``silent``: they do not tell their version."""
        self._access, self._namespace, self._service, self._version = access, namespace, service, version
        self._made, self._silent = 0, silent
        self.servers: dict[str, tuple[str, ModelServer]] = {}  # by upstream, with the slice's name
        ports = [{"name": "http", "port": PORT}]
        access.create(SERVICES, {"metadata": {"namespace": namespace, "name": service}, "spec": {"ports": ports}})

    def more(self) -> str:
        """Another one; its upstream."""
        server = ModelServer(own_address(), 0, self._version, silent=self._silent)
        self._made += 1
        name, upstream = f"{self._service}-{self._made}", f"{own_address()}:{server.port}"
        self.servers[upstream] = name, server
        self._access.create(SLICES, piece(self._namespace, name, self._service, server.port))
        return upstream

    def ready(self, upstream: str, ready: bool) -> None:
        name, _ = self.servers[upstream]
        change(self._access, self._namespace, name, endpoints=[endpoint(ready=ready)])

    def less(self, upstream: str) -> None:
        name, server = self.servers.pop(upstream)
        server.stop()
        self._access.delete(SLICES, self._namespace, name)

    @property
    def upstreams(self) -> set[str]:
        return set(self.servers)

    def close(self) -> None:
        for _, server in self.servers.values():
            server.stop()


def endpoint(address: str = "", **conditions: bool) -> Node:
    return {"addresses": [address or own_address()], "conditions": {"ready": True, **conditions}}


def piece(namespace: str, name: str, service: str, port: int) -> Node:
    meta = {"namespace": namespace, "name": name, "labels": {SERVICE_NAME: service}}
    ports = [{"name": "http", "port": port}]
    return {"metadata": meta, "addressType": "IPv4", "endpoints": [endpoint()], "ports": ports}


def change(access: Access, namespace: str, name: str, meta: Node | None = None, **fields: object) -> None:
    access.patch(SLICES, {"metadata": {"namespace": namespace, "name": name, **(meta or {})}, **fields})


def adopting(champion: str, challenger: str) -> Node:
    return {"champion": {"service": champion, "port": PORT}, "challenger": {"service": challenger, "port": PORT}}


def served(theatre: Theatre, arm: str, name: str = "late") -> set[str]:
    """The servers that routers send to."""
    table = theatre.scene(name).traffic.routers[0].workers[0].table
    target = getattr(table, arm) if table is not None else None
    return set(target.upstreams) if target is not None else set()
