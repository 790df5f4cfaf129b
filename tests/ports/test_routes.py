"""The routers' control API, spoken to real routers: processes with workers of their own."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from controller.edges.routes import RouterTraffic
from controller.errors import EdgeError, SpecError
from controller.ports import TrafficProvider
from router.certificates import Files
from tests.ports.contracts.traffic import TrafficContract, table
from tests.ports.tracking_server import free_port
from tests.router.authorities import CLIENT, SERVER, Authority

ROOT = Path(__file__).resolve().parents[2]
TOKEN = "a-token-for-tests"


class Router:
    """``python -m router`` on free ports."""

    def __init__(self, folder: Path, name: str, workers: int = 1, **other: Any) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        ready = folder / "ready.json"
        flags = {"name": name, "port": 0, "control-port": 0, "workers": workers, "journal-dir": folder / "journal"}
        flags |= {"table-file": folder / "table.json", "ready-file": ready, "drain-s": 1} | other
        self._log = (folder / "log").open("wb")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "router", *(f"--{flag}={value}" for flag, value in flags.items())],
            cwd=ROOT,
            env=os.environ | {"UNDERSTUDY_ROUTER_TOKEN": TOKEN},
            stdout=self._log,
            stderr=subprocess.STDOUT,
        )
        end = time.monotonic() + 60
        while not ready.exists():
            assert self.process.poll() is None, (folder / "log").read_text()
            assert time.monotonic() < end, (folder / "log").read_text()
            time.sleep(0.02)
        self.url = str(json.loads(ready.read_text())["control"]).rstrip("/")

    def close(self) -> None:
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(signal.SIGCONT)
            self.process.terminate()
        try:
            self.process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(timeout=20)
        self._log.close()


Start = Callable[..., Router]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    started: list[Router] = []

    def begin(name: str, workers: int = 1, **other: Any) -> Router:
        started.append(Router(tmp_path / name, name, workers, **other))
        return started[-1]

    yield begin
    for router in started:
        router.close()


@pytest.fixture
def traffic_of() -> Iterator[Callable[..., RouterTraffic]]:
    made: list[RouterTraffic] = []

    def make(*urls: str, **settings: Any) -> RouterTraffic:
        made.append(RouterTraffic(urls, **({"token": TOKEN} | settings)))
        return made[-1]

    yield make
    for traffic in made:
        traffic.close()


class TestRouterTraffic(TrafficContract):
    @pytest.fixture
    def provider(self, start: Start, traffic_of: Callable[..., RouterTraffic]) -> TrafficProvider:
        return traffic_of(start("a", workers=2).url)

    @pytest.fixture
    def confirmed_within(self, provider: RouterTraffic) -> Callable[[int, float], object]:
        return provider.wait_confirmed


def test_a_dead_router_makes_the_observation_incomplete_and_does_not_hold_up_the_other(
    start: Start, traffic_of: Callable[..., RouterTraffic]
) -> None:
    a, b = start("a"), start("b")
    traffic = traffic_of(a.url, b.url + "/")
    traffic.apply(table(1))
    assert [s.router for s in traffic.wait_confirmed(1, 20.0).routers] == ["a", "b"]
    b.process.kill()
    b.process.wait(timeout=20)
    with pytest.raises(EdgeError) as raised:
        traffic.apply(table(2))
    assert str(raised.value).startswith(f"router {b.url}: not reachable")
    assert a.url not in str(raised.value)
    end = time.monotonic() + 20
    while (seen := traffic.observe()).routers[0].confirmed < 2:
        assert time.monotonic() < end
    assert (len(seen.routers), seen.complete, seen.confirmed) == (1, False, -1)
    with pytest.raises(EdgeError, match=r"table 2 is not confirmed after 0\.1 s: 1 without an answer"):
        traffic.wait_confirmed(2, 0.1)


def test_a_router_that_hangs_costs_one_deadline(start: Start, traffic_of: Callable[..., RouterTraffic]) -> None:
    a, b = start("a"), start("b")
    traffic = traffic_of(a.url, b.url, deadline_s=0.5)
    traffic.apply(table(1))
    traffic.wait_confirmed(1, 20.0)
    b.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    seen = traffic.observe()
    assert (seen.complete, [s.router for s in seen.routers]) == (False, ["a"])
    with pytest.raises(EdgeError, match=f"^router {b.url}: no answer"):
        traffic.apply(table(2))
    assert time.monotonic() - began < 3.0
    b.process.send_signal(signal.SIGCONT)
    traffic.apply(table(2))
    assert traffic.wait_confirmed(2, 20.0).confirmed == 2


def test_a_router_that_starts_again_serves_the_table_it_had(
    start: Start, traffic_of: Callable[..., RouterTraffic]
) -> None:
    first = start("a")
    traffic = traffic_of(first.url)
    traffic.apply(table(5))
    traffic.wait_confirmed(5, 20.0)
    first.close()
    again = traffic_of(start("a").url)
    assert again.wait_confirmed(5, 20.0).confirmed == 5
    with pytest.raises(EdgeError, match=r"refuses table 4: .*\b4\b.*\b5\b"):
        again.apply(table(4))


@pytest.mark.parametrize("token", ["another-token", None])
def test_a_wrong_token_is_an_error_that_says_so(
    start: Start, traffic_of: Callable[..., RouterTraffic], token: str | None
) -> None:
    router = start("a")
    traffic = traffic_of(router.url, token=token)
    for act in (traffic.observe, lambda: traffic.apply(table(1))):
        with pytest.raises(EdgeError, match=f"router {router.url}: refuses the token"):
            act()


@pytest.mark.parametrize("body", [b'{"router": "a"}', b"<html>", b"[1]"])
def test_what_answers_but_is_no_router_is_an_error_that_names_it(
    traffic_of: Callable[..., RouterTraffic], body: bytes
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"

        def serve() -> None:
            near, _ = listener.accept()
            near.recv(65536)
            near.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n" + body)
            near.close()

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(EdgeError, match=f"router {url}: its state cannot be read"):
            traffic_of(url).observe()
        thread.join(10)


def test_a_router_that_asks_for_certificates_is_shown_ours(
    start: Start, traffic_of: Callable[..., RouterTraffic], tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "ours")
    cert, key = authority.sign("router", (SERVER,))
    ours = authority.sign("controller", (CLIENT,))
    router = start("a", **{"control-cert": cert, "control-key": key, "client-ca": authority.cert})
    assert router.url.startswith("https://127.0.0.1:")
    traffic = traffic_of(router.url, token=None, files=Files(*ours, authority.cert))
    traffic.apply(table(1))
    assert traffic.wait_confirmed(1, 20.0).confirmed == 1
    # The token is enough as well.
    assert traffic_of(router.url, files=Files(ca=authority.cert)).observe().complete
    theirs = Authority(tmp_path / "theirs", "authority")
    for files, says in [
        (Files(ca=authority.cert), r"refuses the token .*, or a certificate of --client-ca"),
        (Files(*ours, theirs.cert), "its certificate is not trusted: "),
        (Files(*ours), "its certificate is not trusted: "),
    ]:
        traffic = traffic_of(router.url, token=None, files=files, deadline_s=20.0)
        for act in (traffic.observe, lambda traffic=traffic: traffic.apply(table(2))):
            with pytest.raises(EdgeError, match=f"router {router.url}: {says}"):
                act()
    # It says so after it has seen our certificate, and may be gone before we have read that.
    traffic = traffic_of(router.url, token=None, files=Files(*theirs.sign("b", (CLIENT,)), authority.cert))
    with pytest.raises(EdgeError, match=f"router {router.url}: (does not take our certificate|not reachable) "):
        traffic.apply(table(2))


def test_certificates_that_cannot_be_used_are_refused_at_the_start(
    traffic_of: Callable[..., RouterTraffic], tmp_path: Path
) -> None:
    old = Authority(tmp_path).sign("old", (CLIENT,), begins=-9, ends=-1)
    with pytest.raises(SpecError, match=f"--control-cert {old.cert}: certificate has expired"):
        traffic_of("https://127.0.0.1:1", files=Files(*old))
    with pytest.raises(SpecError, match="--control-ca is for a control address with https://, not http://127"):
        traffic_of("http://127.0.0.1:1", files=Files(ca=tmp_path / "authority.pem"))


def test_errors_do_not_show_the_token(traffic_of: Callable[..., RouterTraffic]) -> None:
    with pytest.raises(EdgeError) as raised:
        traffic_of(f"http://127.0.0.1:{free_port()}").apply(table(1))
    assert TOKEN not in str(raised.value)


@pytest.mark.parametrize("urls", [[], ["127.0.0.1:8081"], ["http://a:1", "ftp://b"]])
def test_control_addresses_must_be_web_addresses(urls: list[str]) -> None:
    with pytest.raises(SpecError, match="each control address must begin with http:// or https://"):
        RouterTraffic(urls)


def test_a_table_that_takes_all_weight_away_is_the_one_that_every_worker_confirms(
    start: Start, traffic_of: Callable[..., RouterTraffic]
) -> None:
    router = start("a", workers=2)
    traffic = traffic_of(router.url)
    for generation, weight in ((1, 500), (2, 0)):
        traffic.apply(table(generation, weight_bp=weight))
        seen = traffic.wait_confirmed(generation, 20.0)
        assert [w.generation for r in seen.routers for w in r.workers] == [generation] * 2
    held = httpx.get(f"{router.url}/v1/table", headers={"authorization": f"Bearer {TOKEN}"}, timeout=5.0)
    assert held.json()["weight_bp"] == 0
