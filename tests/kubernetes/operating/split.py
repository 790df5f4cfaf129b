"""Two Services with a model server behind each, and a route of a real Gateway that splits between them."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.http_route import GROUP
from controller.edges.cluster.resources import ROUTES, SERVICES, SLICES, Resource
from tests.kubernetes.gateways import CLASS
from tests.kubernetes.operating.theatre import SPEC
from tests.router.models import Model

GATEWAYS = Resource(f"{GROUP}/v1", "gateways", "Gateway")
ROUTE, PORT = "flights", 8080
NAMES = {"champion": "flights-a", "challenger": "flights-b"}
UNASKED = "192.0.2.200"  # nobody's (RFC 5737)
BODY = b'{"inputs": [[1.0]]}'
# A Service behind a rule of the route, as Traefik names it in its counters.
SERVICE = "httproute-$namespace-flights-.*-svc-$namespace-$service-[0-9]+@kubernetesgateway"
REQUESTS = f'traefik_service_requests_total{{service=~"{SERVICE}"}}'


def host() -> str:
    """An address of this machine: the API server takes none on loopback for an endpoint."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probing:
        probing.connect((UNASKED, 9))  # sends nothing
        return str(probing.getsockname()[0])


def backends(champion: int = 100, challenger: int = 0) -> list[Node]:
    weights = {"champion": champion, "challenger": challenger}
    return [{"name": name, "port": PORT, "weight": weights[arm]} for arm, name in NAMES.items()]


class Split:
    """The objects in one namespace, for a Gateway at ``url``. Requests go by the namespace's own host name."""

    def __init__(self, access: Access, namespace: str, url: str, models: tuple[Model, Model]) -> None:
        self.access, self.namespace, self.models, self._url = access, namespace, models, url
        self._client = httpx.Client(timeout=10.0, trust_env=False)
        for model, name in zip(models, NAMES.values(), strict=True):
            ports = [{"name": "http", "port": PORT}]
            access.create(SERVICES, {"metadata": self._meta(name), "spec": {"ports": ports}})
            address, port = model.address.rsplit(":", 1)
            labels = {"kubernetes.io/service-name": name}
            endpoints = [{"addresses": [address], "conditions": {"ready": True}}]
            access.create(
                SLICES,
                {
                    "metadata": {**self._meta(f"{name}-1"), "labels": labels},
                    "addressType": "IPv4",
                    "ports": [{"name": "http", "port": int(port)}],
                    "endpoints": endpoints,
                },
            )
        listener = {"name": "web", "port": int(url.rpartition(":")[2]), "protocol": "HTTP"}
        access.create(
            GATEWAYS, {"metadata": self._meta("web"), "spec": {"gatewayClassName": CLASS, "listeners": [listener]}}
        )

    def route(self, *rules: Node, name: str = ROUTE, **spec: Any) -> Node:
        """Made as people make it: by another field manager than ours."""
        body = {"hostnames": [self.host], "parentRefs": [{"name": "web"}], "rules": list(rules), **spec}
        return self.access.create(ROUTES, {"metadata": self._meta(name), "spec": body})

    def found(self) -> Node:
        return self.access.get(ROUTES, self.namespace, ROUTE)

    @property
    def host(self) -> str:
        return f"{self.namespace}.test"

    def arm(self, path: str = "/invocations") -> str:
        """Who answers a request; a failure by its status, one that nobody was there for by what Traefik says."""
        headers = {"host": self.host, "content-type": "application/json"}
        answer = self._client.post(self._url + path, content=BODY, headers=headers)
        return str(answer.json()["arm"]) if answer.headers.get("content-type") == "application/json" else answer.text

    def challengers(self, requests: int) -> int:
        """How many of ``requests`` the challenger answers; all others have to be the champion's."""
        arms = [self.arm() for _ in range(requests)]
        assert set(arms) <= {"champion", "challenger"}, set(arms)
        return arms.count("challenger")

    def close(self) -> None:
        self._client.close()

    def _meta(self, name: str) -> Node:
        return {"namespace": self.namespace, "name": name}


def declared(**changes: Any) -> Node:
    """A plan whose traffic the route splits."""
    spec = {
        **SPEC,
        "unit": {"request": True},
        "servers": {arm: {"service": name, "port": PORT} for arm, name in NAMES.items()},
        "traffic": {"gatewayAPI": {"httpRoute": ROUTE, "requests": REQUESTS}},
    }
    return {**spec, **changes}


@contextmanager
def splitting(access: Access, namespace: str, url: str) -> Iterator[Split]:
    """With a model server behind each Service, until the end of the block."""
    with Model("champion", host=host()) as champion, Model("challenger", host=host()) as challenger:
        made = Split(access, namespace, url, (champion, challenger))
        yield made
        made.close()
