"""Who may use the control API, and from where."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest

from router.auth import is_loopback
from router.control_server import most_connections
from router.gate import MOST_CONNECTIONS
from tests.router.raw import Raw
from tests.router.routers import Router, started, table

TOKEN = "correct horse battery"


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with started(tmp_path_factory.mktemp("guarded"), token=TOKEN) as running:
        yield running


@pytest.fixture(scope="module")
def unguarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with started(tmp_path_factory.mktemp("unguarded")) as running:
        yield running


@pytest.mark.parametrize("path", ["/v1/table", "/v1/state", "/v1/journals", "/metrics", "/openapi.json", "/nothing"])
@pytest.mark.parametrize(
    "authorization", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", f"Bearer {TOKEN}x", "Bearer caf\u00e9"]
)
def test_without_the_token_nothing_is_told(guarded: Router, path: str, authorization: str | None) -> None:
    headers = {} if authorization is None else {"Authorization": authorization.encode()}
    answer = guarded.control.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert TOKEN not in answer.text


def test_without_the_token_nothing_is_changed(guarded: Router) -> None:
    assert guarded.put(table(1)).status_code == 401
    assert guarded.control.post("/v1/outcomes", json=[]).status_code == 401


@pytest.mark.parametrize("scheme", ["Bearer", "bearer", "BEARER"])
def test_the_bearer_of_the_token_may(guarded: Router, scheme: str) -> None:
    answer = guarded.control.get("/v1/state", headers={"Authorization": f"{scheme} {TOKEN}"})
    assert answer.status_code == 200


@pytest.mark.parametrize("path", ["/healthz", "/readyz"])
def test_probes_need_no_token(guarded: Router, path: str) -> None:
    assert guarded.control.get(path).status_code in (200, 503)


def test_workers_are_not_told_the_token(guarded: Router) -> None:
    for pid, line in guarded.workers().items():
        assert TOKEN not in line
        assert TOKEN.encode() not in Path(f"/proc/{pid}/environ").read_bytes()


def test_metrics_can_be_opened(tmp_path: Path) -> None:
    with started(tmp_path, token=TOKEN, open_metrics=True) as router:
        assert router.control.get("/metrics").status_code == 200
        assert router.control.get("/v1/state").status_code == 401


def test_the_token_can_come_from_a_file(tmp_path: Path) -> None:
    (tmp_path / "token").write_text(TOKEN + "\n")
    with started(tmp_path / "r", token_file=str(tmp_path / "token")) as router:
        answer = router.control.get("/v1/state", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        assert router.control.get("/v1/state").status_code == 401


@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_beyond_loopback_a_token_is_needed(tmp_path: Path, host: str) -> None:
    with started(tmp_path, control_host=host, ready=False) as router:
        assert router.process.wait(20) == 2
        assert f"--control-host {host} can be reached from other machines" in router.log()
        assert "UNDERSTUDY_ROUTER_TOKEN" in router.log()


def test_beyond_loopback_with_a_token_is_fine(tmp_path: Path) -> None:
    with started(tmp_path, control_host="0.0.0.0", token=TOKEN) as router:
        port = router.ready["control_port"]
        answer = httpx.get(f"http://127.0.0.1:{port}/v1/state", headers={"Authorization": f"Bearer {TOKEN}"})
        assert answer.status_code == 200
        assert "the token passes in the clear" in router.log()


def test_connections_without_a_request_do_not_stay(unguarded: Router) -> None:
    # As many as the API serves at once would keep the controller out.
    port = unguarded.ready["control_port"]
    whole = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with Raw(port, timeout=60) as silent, Raw(port, timeout=60) as begun, Raw(port, timeout=60) as again:
        begun.send(whole[:20])
        again.send(whole)
        assert again.answer().status == 200
        again.send(whole[:20])
        assert all(raw.ended() for raw in (silent, begun, again))


def test_strangers_that_keep_connections_do_not_keep_out_the_controller(guarded: Router) -> None:
    # Each of them has asked what everybody may ask.
    port, headers = guarded.ready["control_port"], {"Authorization": f"Bearer {TOKEN}"}
    strange = b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
    known = f"GET /v1/state HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n".encode()
    with Raw(port) as controller, ExitStack() as stack:
        controller.send(known)
        assert controller.answer().status == 200
        strangers = []
        for _ in range(100 + MOST_CONNECTIONS):
            # Nobody is told that there is no room; who came first has to go first, but not one who was let in.
            strangers.append(stack.enter_context(Raw(port)))
            strangers[-1].send(strange)
            assert strangers[-1].answer().status == 200
        controller.send(known)
        assert controller.answer().status == 200
        assert httpx.put(f"{guarded.ready['control']}/v1/table", headers=headers, json=table(1)).status_code == 200
        assert all(stranger.ended() for stranger in strangers[:100])
    assert guarded.log().count("concurrency") == 0


@pytest.mark.parametrize(
    ("descriptors", "workers", "most"), [(1_024, 4, MOST_CONNECTIONS), (512, 1, 412), (1_024, 100, 256), (256, 1, 156)]
)
def test_descriptors_are_kept_for_workers(descriptors: int, workers: int, most: int) -> None:
    assert most_connections(descriptors, workers) == most


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost:1", 200), ("127.0.0.1", 200), ("[::1]:8", 200), ("[::1]", 200), ("evil.example:8081", 403),
        ("10.0.0.1", 403), ("[::1].evil.example", 403), ("localhost:1.evil.example", 403),
    ],
)  # fmt: skip
def test_without_a_token_a_foreign_name_does_not_lead_here(unguarded: Router, host: str, status: int) -> None:
    # A web page whose name is made to mean 127.0.0.1 sends its own name as the host.
    assert unguarded.control.get("/v1/state", headers={"Host": host}).status_code == status


@pytest.mark.parametrize(
    ("host", "own"),
    [
        ("127.0.0.1", True),
        ("127.8.9.1", True),
        ("::1", True),
        ("[::1]", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.1", False),
        ("no.such.host.invalid", False),
    ],
)
def test_loopback_is_recognised(host: str, own: bool) -> None:
    assert is_loopback(host) is own
