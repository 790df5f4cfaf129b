"""Model servers that others run: a Service is the ready endpoints behind it."""

from collections.abc import Iterator

import pytest

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.adopted import AdoptedServers
from controller.edges.cluster.questions import AT_ONCE, HEALTH, Questions
from controller.edges.cluster.questions import Server as Asked
from controller.edges.cluster.resources import PODS, SERVICES, SLICES, Resource
from controller.spec import Server
from tests.kubernetes.operating.machines import FREE, ModelServer, own_address
from tests.router.models import Model

ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")


@pytest.fixture
def adopted(access: Access, namespace: str) -> Iterator[AdoptedServers]:
    questions = Questions(patience_s=2.0)
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
    ports += [{"name": "quic", "port": 8080, "protocol": "UDP", "targetPort": 9}]
    spec = {"ports": ports, **({"selector": selector} if selector else {})}
    access.create(SERVICES, {"metadata": {"namespace": namespace, "name": "a"}, "spec": spec})


def endpoints(access: Access, namespace: str, name: str, port: int, *found: Node) -> None:
    meta = {"namespace": namespace, "name": name, "labels": {"kubernetes.io/service-name": "a"}}
    ports = [{"name": "other", "port": 9}, {"name": "http", "port": port}]
    ports += [{"name": "quic", "port": 9, "protocol": "UDP"}]
    access.create(SLICES, {"metadata": meta, "addressType": "IPv4", "endpoints": list(found), "ports": ports})


def test_a_service_is_the_ready_endpoints_of_its_named_port(
    access: Access, namespace: str, adopted: AdoptedServers, host: str, server: ModelServer
) -> None:
    service(access, namespace)
    away: Node = {"addresses": [FREE], "conditions": {"ready": False}}
    endpoints(access, namespace, "a-1", server.port, {"addresses": [host]}, away)
    seen = adopted.observe(Server(service="a"), "1")
    assert (seen.version, seen.upstreams, seen.ready) == ("1", (f"{host}:{server.port}",), True)


def test_a_server_is_one_in_however_many_slices_and_a_port_without_number_is_none(
    access: Access, namespace: str, adopted: AdoptedServers, host: str, server: ModelServer
) -> None:
    service(access, namespace)
    meta = {"namespace": namespace, "name": "a-0", "labels": {"kubernetes.io/service-name": "a"}}
    every = {"addressType": "IPv4", "endpoints": [{"addresses": [FREE]}], "ports": [{"name": "http"}]}
    access.create(SLICES, {"metadata": meta, **every})
    endpoints(access, namespace, "a-1", server.port, {"addresses": [host]})
    pod = {"kind": "Pod", "name": "a", "uid": "0123"}
    endpoints(access, namespace, "a-2", server.port, {"addresses": [host], "targetRef": pod})
    endpoints(access, namespace, "a-3", server.port, {"addresses": [host], "conditions": {"ready": False}})
    assert adopted.observe(Server(service="a"), "1").upstreams == (f"{host}:{server.port}",)
    server.fails = True
    assert adopted.observe(Server(service="a"), "2").upstreams == ()
    server.version = "2"
    assert adopted.observe(Server(service="a"), "2").upstreams == (f"{host}:{server.port}",)


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


def test_servers_that_are_no_pods_are_remembered_and_asked_in_turn(
    access: Access, namespace: str, adopted: AdoptedServers, host: str
) -> None:
    service(access, namespace)
    servers = [ModelServer(host, 0, "1") for _ in range(AT_ONCE + 4)]
    for number, server in enumerate(servers):
        endpoints(access, namespace, f"a-{number}", server.port, {"addresses": [host]})
    seen = adopted.observe(Server(service="a"), "1")
    assert (len(seen.upstreams), seen.ready) == (AT_ONCE, True)
    seen = adopted.observe(Server(service="a"), "1")
    assert (len(seen.upstreams), seen.ready) == (len(servers), True)
    for server in servers:
        server.fails = True
    left = [len(adopted.observe(Server(service="a"), "1").upstreams) for _ in range(2)]
    assert left[0] == len(servers) - AT_ONCE
    seen = adopted.observe(Server(service="a"), "1")
    assert not seen.ready
    for server in servers:
        server.fails = False
        server.asked = 0
    adopted.observe(Server(service="a"), "1")
    adopted.observe(Server(service="a"), "1")
    assert all(server.asked for server in servers)  # those that fail do not keep the others from being asked
    for server in servers:
        server.stop()


SECRET = b"db_password=hunter2"
FAILING = b"HTTP/1.1 403 Forbidden\r\nContent-Length: %d\r\n\r\n%s" % (len(SECRET), SECRET)
OTHER = b'{"model_version": "hunter2"}'


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (FAILING, "/health: status 403"),
        (SECRET + b"\r\n", "/health: not reachable (what it answers is no HTTP, or was cut off)"),
        (b"HTTP/1.1 200 %s\r\nbad header\r\n\r\n" % SECRET, "no HTTP"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(OTHER), OTHER), "another version, wanted is 1"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://hunter2.other.svc/\r\nContent-Length: 0\r\n\r\n", "status 302"),
    ],
    ids=["a failure", "another protocol", "a wrong header", "another version", "a redirect"],
)  # fmt: skip
def test_nothing_of_an_answer_is_told_but_its_status(raw: bytes, said: str) -> None:
    """Where it comes from is for others to choose, and who reads the status may not see that place."""
    questions = Questions(patience_s=2.0)
    with Model("champion") as model:
        model.mode = model.health = "raw"
        model.raw = raw
        found = questions.faults("1", (Asked(model.address, ""),), HEALTH)[model.address]
    questions.close()
    assert said in found.text
    assert "hunter2" not in found.text


def test_an_address_is_not_asked(access: Access, namespace: str, adopted: AdoptedServers) -> None:
    with Model("champion") as model:
        seen = adopted.observe(Server(url=f"http://{model.address}"), "1")
        assert (seen.upstreams, seen.ready, model.connections) == ((), False, 0)
    assert "url: an address is for one machine" in seen.message


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
