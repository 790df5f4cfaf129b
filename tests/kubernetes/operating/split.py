"""Two Services with a model server at the address of each, and a route of a real Gateway that splits between them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.http_route import GROUP
from controller.edges.cluster.resources import ROUTES, SERVICES, SLICES, Resource
from tests.kubernetes.gateways import CLASS
from tests.kubernetes.operating.machines import own_address
from tests.kubernetes.operating.theatre import SPEC
from tests.router.models import Model

GATEWAYS = Resource(f"{GROUP}/v1", "gateways", "Gateway")
ROUTE, PORT = "flights", 8080
NAMES = {"champion": "flights-a", "challenger": "flights-b"}
BODY = b'{"inputs": [[1.0]]}'
# A Service behind a rule of the route, as Traefik names it in its counters.
SERVICE = "httproute-$namespace-flights-.*-svc-$namespace-$service-[0-9]+@kubernetesgateway"
REQUESTS = f'traefik_service_requests_total{{service=~"{SERVICE}"}}'


def backends(champion: int = 100, challenger: int = 0) -> list[Node]:
    weights = {"champion": champion, "challenger": challenger}
    return [{"name": name, "port": PORT, "weight": weights[arm]} for arm, name in NAMES.items()]


class Split:
    """The objects in one namespace, for a Gateway at ``url``. Requests go by the namespace's own host name."""

    def __init__(self, access: Access, namespace: str, url: str, models: tuple[Model, Model]) -> None:
        self.access, self.namespace, self.models, self._url = access, namespace, models, url
        self._client = httpx.Client(timeout=10.0, trust_env=False)
        for model, name in zip(models, NAMES.values(), strict=True):
            access.create(
                SLICES,
                {
                    "metadata": {**self._meta(f"{name}-1"), "labels": {"kubernetes.io/service-name": name}},
                    "addressType": "IPv4",
                    "ports": [{"name": "http", "port": model.second_port}],
                    "endpoints": [{"addresses": [own_address()], "conditions": {"ready": True}}],
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


def served_at(access: Access, namespace: str, name: str) -> str:
    """A new Service's address, where somebody has to listen. Users' requests come there, on loopback: Traefik does not
    look at the endpoints, which only the controller asks."""
    meta = {"namespace": namespace, "name": name, "annotations": {"traefik.io/service.nativelb": "true"}}
    made = access.create(SERVICES, {"metadata": meta, "spec": {"ports": [{"name": "http", "port": PORT}]}})
    return str(made["spec"]["clusterIP"])


@contextmanager
def splitting(access: Access, namespace: str, url: str) -> Iterator[Split]:
    """With a model server at each Service's address, until the end of the block."""
    a, b = (served_at(access, namespace, name) for name in NAMES.values())
    with (
        Model("champion", host=a, port=PORT, second=own_address()) as champion,
        Model("challenger", host=b, port=PORT, second=own_address()) as challenger,
    ):
        made = Split(access, namespace, url, (champion, challenger))
        yield made
        made.close()
