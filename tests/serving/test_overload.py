"""Too much work is refused at once, too slow work is cut off, and a stuck worker is replaced."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import urlsplit

import httpx

from tests.serving.conftest import Server, Store, alive, until


def body(seconds: float) -> dict[str, Any]:
    return {"inputs": {"act": "sleep", "x": seconds}}


def test_more_than_the_line_holds_is_answered_503_with_retry_after_and_the_rest_is_served(
    store: Store, serve: Callable[..., Server]
) -> None:
    server = serve(store.path("acting"), "--threads", "1", "--max-waiting", "2", "--timeout", "30")
    with ThreadPoolExecutor(12) as clients:
        answers = list(clients.map(lambda _: server.post(body(1.5)), range(12)))
    served = [answer for answer in answers if answer.status_code == 200]
    refused = [answer for answer in answers if answer.status_code == 503]
    assert len(served) + len(refused) == 12
    assert len(served) >= 3
    assert refused
    for answer in refused:
        assert answer.headers["retry-after"] == "1"
        assert answer.json()["error_code"] == "TEMPORARILY_UNAVAILABLE"
        assert answer.elapsed.total_seconds() < 1.4


def test_a_slow_prediction_is_504_and_a_request_that_never_got_a_thread_503(
    store: Store, serve: Callable[..., Server]
) -> None:
    server = serve(store.path("acting"), "--threads", "1", "--max-waiting", "4", "--timeout", "1")
    with ThreadPoolExecutor(2) as clients:
        first = clients.submit(server.post, body(2.5))
        until(lambda: "understudy_serve_pending 1" in server.get("/metrics").text, what="the request in flight")
        second = clients.submit(server.post, body(0.0))
        slow, waited = first.result(), second.result()
    assert (slow.status_code, slow.json()["error_code"]) == (504, "DEADLINE_EXCEEDED")
    assert (waited.status_code, waited.headers["retry-after"]) == (503, "1")


def test_a_worker_whose_threads_are_all_overdue_is_replaced(store: Store, serve: Callable[..., Server]) -> None:
    server = serve(store.path("acting"), "--threads", "1", "--timeout", "0.5")
    (worker,) = server.workers()
    assert server.post(body(300.0)).status_code == 504
    until(lambda: not alive(worker), seconds=90.0, what="the stuck worker's end")
    assert server.post(body(0.0)).json() == {"predictions": [0.0]}
    assert "every thread is held by an overdue prediction" in server.log


def test_health_and_ping_answer_while_every_thread_works(store: Store, serve: Callable[..., Server]) -> None:
    server = serve(store.path("acting"), "--threads", "2")
    with ThreadPoolExecutor(1) as clients:
        busy = clients.submit(server.post, body(1.5))
        until(lambda: "understudy_serve_pending 1" in server.get("/metrics").text, what="the request in flight")
        assert server.get("/ping").status_code == 200
        assert server.get("/health").status_code == 200
        assert busy.result().status_code == 200


def test_clients_that_go_away_give_back_the_bytes_they_held(acting: Server) -> None:
    text = json.dumps(body(0.2)) + " " * 45_000
    lines = ["POST /invocations HTTP/1.1", "host: a", "content-type: application/json", f"content-length: {len(text)}"]
    head = "\r\n".join([*lines, "", ""])
    parts = urlsplit(acting.url)
    for _ in range(30):  # 30 × 45 kB is three times what may be held at once (8 × 50 kB)
        with socket.create_connection((parts.hostname, parts.port), timeout=10.0) as connection:
            connection.sendall((head + text).encode())
    whole = (json.dumps(body(0.0)) + " " * 45_000).encode()

    def send() -> int:
        headers = {"content-type": "application/json"}
        return httpx.post(f"{acting.url}/invocations", content=whole, headers=headers, timeout=30.0).status_code

    until(lambda: send() == 200, seconds=20.0, what="a normal answer")
    assert [send() for _ in range(20)] == [200] * 20
