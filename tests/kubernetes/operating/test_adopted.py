"""Model servers that others run: a Service is the ready endpoints behind it."""

from collections.abc import Iterator

import pytest

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.adopted import AdoptedServers
from controller.edges.cluster.questions import Questions
from controller.edges.cluster.resources import PODS, SERVICES, SLICES, Resource
from controller.spec import Server
from tests.kubernetes.operating.machines import FREE, ModelServer, own_address

ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")


@pytest.fixture
def adopted(access: Access, namespace: str) -> Iterator[AdoptedServers]:
    questions = Questions()
    yield AdoptedServers(access, namespace, questions)
    questions.close()


@pytest.fixture
def host() -> str:
    return own_address()


@pytest.fixture
def server(host: str) -> Iterator[ModelServer]:
    made = ModelServer(host, 0, "1")
    yield made
    made.stop()


def service(access: Access, namespace: str, selector: dict[str, str] | None = None) -> None:
    ports = [{"name": "other", "port": 80, "targetPort": 9}, {"name": "http", "port": 8080, "targetPort": "model"}]
    spec = {"ports": ports, **({"selector": selector} if selector else {})}
    access.create(SERVICES, {"metadata": {"namespace": namespace, "name": "a"}, "spec": spec})


def endpoints(access: Access, namespace: str, name: str, port: int, *found: Node) -> None:
    meta = {"namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": "a"}}
    ports = [{"name": "other", "port": 9}, {"name": "http", "port": port}]
    access.create(SLICES, {"metadata": meta, "addressType": "IPv4", "endpoints": list(found), "ports": ports})


def test_a_service_is_the_ready_endpoints_of_its_named_port(
    access: Access, namespace: str, adopted: AdoptedServers, host: str, server: ModelServer
) -> None:
    service(access, namespace)
    away: Node = {"addresses": [FREE], "conditions": {"ready": False}}
    endpoints(access, namespace, "a-1", server.port, {"addresses": [host]}, away)
    seen = adopted.observe(Server(service="a"), "1")
    assert (seen.version, seen.upstreams, seen.ready) == ("1", (f"{host}:{server.port}",), True)


def test_a_server_that_fails_its_probe_or_has_another_version_is_told(
    access: Access, namespace: str, adopted: AdoptedServers, host: str, server: ModelServer
) -> None:
    service(access, namespace)
    endpoints(access, namespace, "a-1", server.port, {"addresses": [host]})
    seen = adopted.observe(Server(service="a"), "2")
    assert not seen.ready
    assert "serves version 1, wanted is 2" in seen.message
    assert seen.upstreams == ()  # nothing that is meant for another version
    server.fails = True
    seen = adopted.observe(Server(service="a"), "1")
    assert not seen.ready
    assert seen.upstreams == (f"{host}:{server.port}",)  # the routers judge it
    assert "/health: status 503" in seen.message
    server.fails = False
    assert adopted.observe(Server(service="a"), "1").ready


def test_why_nobody_is_there_is_told(access: Access, namespace: str, adopted: AdoptedServers) -> None:
    assert adopted.observe(Server(service="a"), "1").message == f"there is no Service a in {namespace}"
    service(access, namespace, {"app": "a"})
    assert "no port 8081; it has 80, 8080" in adopted.observe(Server(service="a", port=8081), "1").message
    assert "no pod has the labels of its selector" in adopted.observe(Server(service="a"), "1").message
    access.create(ACCOUNTS, {"metadata": {"namespace": namespace, "name": "models"}})
    access.create(
        PODS,
        {
            "metadata": {"namespace": namespace, "name": "a-1", "labels": {"app": "a"}},
            "spec": {"containers": [{"name": "model", "image": "i"}], "serviceAccountName": "models"},
        },
    )
    scheduled = {"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": "no node has a GPU"}
    meta = {"namespace": namespace, "name": "a-1"}
    access.patch(PODS, {"metadata": meta, "status": {"conditions": [scheduled]}}, "status")
    seen = adopted.observe(Server(service="a"), "1")
    assert seen.message.endswith("pod a-1: Unschedulable: no node has a GPU")
    assert (seen.upstreams, seen.ready) == ((), False)
