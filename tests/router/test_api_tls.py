"""The control API over TLS: who shows a certificate of the authority may, as may the bearer of the token."""

import os
import resource
import shutil
import signal
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from router.acceptor import HANDSHAKE_S
from router.gate import MOST_CONNECTIONS, MOST_HANDSHAKES
from tests.router.authorities import CLIENT, SERVER, Authority, Signed
from tests.router.journals import now, until
from tests.router.raw import Raw
from tests.router.routers import Router, started, table

TOKEN = "correct horse battery"
BEARER = {"Authorization": f"Bearer {TOKEN}"}


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def served(authority: Authority) -> dict[str, Any]:
    """Settings of a router with a certificate."""
    cert, key = authority.sign("router", (SERVER,))
    return {"control_cert": str(cert), "control_key": str(key)}


@pytest.fixture(scope="module")
def controller(authority: Authority) -> Signed:
    return authority.sign("controller", (CLIENT,))


def client(authority: Authority, router: Router, shown: Signed | None = None) -> httpx.Client:
    """A client of a router's API that trusts the authority and may show a certificate."""
    context = ssl.create_default_context(cafile=authority.cert)
    if shown is not None:
        context.load_cert_chain(*shown)
    return httpx.Client(verify=context, base_url=router.ready["control"], timeout=20)


@pytest.fixture(scope="module")
def mutual(tmp_path_factory: pytest.TempPathFactory, authority: Authority, served: dict[str, Any]) -> Iterator[Router]:
    """A router that asks for certificates and has no token; it can be reached from everywhere."""
    asks = served | {"client_ca": str(authority.cert), "control_host": "0.0.0.0"}
    with started(tmp_path_factory.mktemp("mutual"), **asks) as running:
        running.ready["control"] = f"https://127.0.0.1:{running.ready['control_port']}"
        yield running


def test_who_shows_a_certificate_may_do_everything(authority: Authority, mutual: Router, controller: Signed) -> None:
    with client(authority, mutual, controller) as http:
        assert http.put("/v1/table", json=table(1), params={"wait": 10}).json()["generation"] == 1
        assert http.get("/v1/state").status_code == 200
        outcome = {"outcome_id": "o1", "t": now(), "unit": "u", "name": "click"}
        assert http.post("/v1/outcomes", json=[outcome]).status_code == 202
        assert http.get("/v1/journals").status_code == 200
        assert http.get("/metrics").status_code == 200


def test_who_shows_none_sees_the_probes_only(authority: Authority, mutual: Router) -> None:
    with client(authority, mutual) as http:
        for path in ("/v1/state", "/v1/table", "/v1/journals", "/metrics", "/openapi.json", "/nothing"):
            answer = http.get(path, headers=BEARER)
            assert answer.status_code == 403
            assert answer.json()["error"] == "a certificate of --client-ca is needed"
        assert http.put("/v1/table", json=table(9)).status_code == 403
        assert http.post("/v1/outcomes", json=[]).status_code == 403
        assert http.get("/healthz").status_code == 200
        assert http.get("/readyz").status_code in (200, 503)


def test_a_certificate_of_another_authority_does_not_even_connect(
    authority: Authority, mutual: Router, tmp_path: Path
) -> None:
    foreign = Authority(tmp_path, "authority").sign("controller", (CLIENT,))
    with client(authority, mutual, foreign) as http, pytest.raises(httpx.TransportError):
        http.get("/healthz")
    old = authority.sign("old", (CLIENT,), begins=-9, ends=-1)
    with client(authority, mutual, old) as http, pytest.raises(httpx.TransportError):
        http.get("/healthz")
    servers = authority.sign("no-client", (SERVER,))
    with client(authority, mutual, servers) as http, pytest.raises(httpx.TransportError):
        http.get("/healthz")


def test_plain_http_is_not_spoken_beside_tls(mutual: Router) -> None:
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{mutual.ready['control_port']}/healthz", timeout=20)


def test_who_does_not_begin_the_handshake_is_not_waited_for_long(mutual: Router) -> None:
    port = mutual.ready["control_port"]
    with Raw(port, timeout=4 * HANDSHAKE_S) as silent, Raw(port, timeout=4 * HANDSHAKE_S) as begun:
        begun.send(b"\x16\x03\x01\x02\x00\x01")
        assert silent.ended()
        begun.rest()


def test_handshakes_that_never_end_keep_out_neither_controller_nor_workers(
    authority: Authority, served: dict[str, Any], controller: Signed, tmp_path: Path
) -> None:
    with (
        started(tmp_path, **served, client_ca=str(authority.cert)) as router,
        client(authority, router, controller) as early,
        ExitStack() as stack,
    ):
        assert early.get("/v1/state").status_code == 200
        resource.prlimit(router.process.pid, resource.RLIMIT_NOFILE, (1_024, 1_024))
        process = psutil.Process(router.process.pid)
        for _ in range(200 + MOST_CONNECTIONS):
            stack.enter_context(Raw(router.ready["control_port"]))
        # Also while all of them are within the time for a handshake.
        with client(authority, router, controller) as late:
            assert late.put("/v1/table", json=table(1), params={"wait": 10}).json()["generation"] == 1
        until(lambda: process.num_fds() < 2 * MOST_HANDSHAKES, "room", HANDSHAKE_S / 2)
        (first,) = router.workers()
        os.kill(first, signal.SIGKILL)
        until(lambda: router.workers() and first not in router.workers(), "another worker", 20)
        # One that was let in went on.
        assert early.get("/v1/state").status_code == 200


def test_token_or_certificate_is_enough_where_both_are_set_up(
    authority: Authority, served: dict[str, Any], controller: Signed, tmp_path: Path
) -> None:
    with started(tmp_path, **served, client_ca=str(authority.cert), token=TOKEN) as router:
        assert router.ready["control"].startswith("https://127.0.0.1:")
        with client(authority, router) as http:
            assert http.get("/v1/state", headers=BEARER).status_code == 200
            answer = http.get("/v1/state")
            assert answer.status_code == 401
            assert "or a certificate of --client-ca" in answer.json()["error"]
        with client(authority, router, controller) as http:
            assert http.get("/v1/state").status_code == 200


def test_without_an_authority_of_clients_tls_alone_lets_nobody_in_from_elsewhere(
    authority: Authority, served: dict[str, Any], controller: Signed, tmp_path: Path
) -> None:
    with started(tmp_path / "a", **served, control_host="0.0.0.0", ready=False) as router:
        assert router.process.wait(20) == 2
        assert "--control-host 0.0.0.0 can be reached from other machines" in router.log()
        assert "--client-ca" in router.log()
    with started(tmp_path / "b", **served, token=TOKEN) as router, client(authority, router, controller) as http:
        # Nobody asked for the certificate, so it proves nothing.
        assert http.get("/v1/state").status_code == 401
        assert http.get("/v1/state", headers=BEARER).status_code == 200


def test_files_that_cannot_be_used_end_the_start_with_their_setting(
    authority: Authority, served: dict[str, Any], tmp_path: Path
) -> None:
    old = authority.sign("old-router", (SERVER,), begins=-9, ends=-1)
    for number, (settings, says) in enumerate(
        [
            ({"control_cert": str(old.cert), "control_key": str(old.key)}, f"{old.cert}: certificate has expired"),
            (served | {"control_key": str(old.key)}, f"--control-key {old.key}: is not the key of"),
            (served | {"client_ca": str(tmp_path / "absent")}, "absent: No such file or directory"),
            ({"client_ca": str(authority.cert)}, "--client-ca needs --control-cert and --control-key as well"),
        ]
    ):
        with started(tmp_path / str(number), **settings, ready=False) as router:
            assert router.process.wait(20) == 2
            assert says in router.log()
            assert "Traceback" not in router.log()


def test_a_renewed_certificate_is_shown_without_a_restart(authority: Authority, tmp_path: Path) -> None:
    def put(name: str) -> None:
        signed = authority.sign(name, (SERVER,))
        for source, target in zip(signed, ("crt", "key"), strict=True):
            shutil.copy(source, tmp_path / f"{target}.new")
        for target in ("key", "crt"):
            (tmp_path / f"{target}.new").replace(tmp_path / target)

    def shown() -> str:
        with client(authority, router) as http, http.stream("GET", "/healthz") as answer:
            tls = answer.extensions["network_stream"].get_extra_info("ssl_object")
            return str(dict(pair for part in tls.getpeercert()["subject"] for pair in part)["commonName"])

    put("first")
    settings = {"control_cert": str(tmp_path / "crt"), "control_key": str(tmp_path / "key")}
    with started(tmp_path / "r", **settings) as router:
        assert shown() == "first"
        put("second")
        until(lambda: shown() == "second", "the new certificate", 20)
        (tmp_path / "crt").write_text("nothing")
        until(lambda: "the new certificates are not used: --control-cert" in router.log(), "a complaint", 20)
        assert shown() == "second"
