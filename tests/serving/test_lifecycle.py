"""Workers are replaced without losing a request, restarted when they die, and never outlive their parent."""

from __future__ import annotations

import os
import pathlib
import signal
import threading
from collections.abc import Callable

import httpx
import pytest

from tests.serving.conftest import Server, Store, alive, until

ROWS = {"inputs": {"act": "pid", "x": 1.0}}


def hammer(server: Server, stop: threading.Event, seen: list[tuple[int, int]], *, keep_alive: bool) -> None:
    """Requests one after the other; (status, worker's pid), status 0 for a request that got no answer."""
    limits = httpx.Limits(max_keepalive_connections=1 if keep_alive else 0)
    with httpx.Client(limits=limits, timeout=30.0) as client:
        while not stop.is_set():
            try:
                answer = client.post(f"{server.url}/invocations", json=ROWS)
                pid = answer.json()["predictions"][0] if answer.status_code == 200 else 0
                seen.append((answer.status_code, pid))
            except httpx.HTTPError:
                seen.append((0, 0))


def test_recycling_replaces_the_worker_under_load_and_loses_no_request(
    store: Store, serve: Callable[..., Server]
) -> None:
    server = serve(store.path("acting"), "--max-requests", "300")
    (first,) = server.workers()
    stop, seen = threading.Event(), list[tuple[int, int]]()
    threads = [
        threading.Thread(target=hammer, args=(server, stop, seen), kwargs={"keep_alive": number % 2 == 0})
        for number in range(4)
    ]
    for thread in threads:
        thread.start()
    try:
        until(lambda: len({pid for _, pid in list(seen)} - {0}) >= 2, seconds=60.0, what="a second worker")
        # Every client is moved over by its next answer: the old worker need not be cut off.
        until(lambda: not alive(first), seconds=20.0, what="the first worker's end, under load")
        until(lambda: len({pid for _, pid in list(seen)} - {0}) >= 3, seconds=90.0, what="a third worker")
    finally:
        stop.set()
        for thread in threads:
            thread.join(30.0)
    assert [status for status, _ in seen if status != 200] == []
    assert len(seen) > 600
    until(lambda: len(server.workers()) == 1, seconds=90.0, what="the replaced workers' end")


def test_an_idle_connection_to_a_replaced_worker_still_gets_its_next_answer(
    store: Store, serve: Callable[..., Server]
) -> None:
    server = serve(store.path("acting"), "--max-requests", "2")
    with httpx.Client(timeout=30.0, limits=httpx.Limits(keepalive_expiry=300.0)) as idle:
        old = idle.post(f"{server.url}/invocations", json=ROWS).json()["predictions"]
        until(lambda: server.post(ROWS).json()["predictions"] != old, seconds=60.0, what="the successor's answer")
        answer = idle.post(f"{server.url}/invocations", json=ROWS)
        assert (answer.status_code, answer.json()["predictions"]) == (200, old)
        assert answer.headers["connection"] == "close"
        assert idle.post(f"{server.url}/invocations", json=ROWS).json()["predictions"] != old


def test_a_killed_worker_is_replaced_and_new_connections_wait_for_it(
    store: Store, serve: Callable[..., Server]
) -> None:
    server = serve(store.path("acting"))
    for _ in range(2):
        (worker,) = server.workers()
        os.kill(worker, signal.SIGKILL)
        until(lambda pid=worker: not alive(pid), what="the worker's end")
        answer = server.post(ROWS)
        assert answer.status_code == 200
        assert answer.json()["predictions"] != [worker]
    assert "starting another in" in server.log


def test_a_model_that_ends_the_process_does_not_end_the_server(store: Store, serve: Callable[..., Server]) -> None:
    server = serve(store.path("acting"))
    with pytest.raises(httpx.HTTPError):
        server.post({"inputs": {"act": "exit", "x": 1.0}})
    assert server.post(ROWS).status_code == 200
    assert "the worker ended with code 7" in server.log


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_answers_the_request_in_flight_and_leaves_no_process(
    store: Store, serve: Callable[..., Server], number: signal.Signals
) -> None:
    server = serve(store.path("acting"))
    (worker,) = server.workers()
    answers: list[httpx.Response] = []
    body = {"inputs": {"act": "sleep", "x": 2.0}}
    thread = threading.Thread(target=lambda: answers.append(server.post(body)))
    thread.start()
    until(lambda: "understudy_serve_pending 1" in server.get("/metrics").text, what="the request in flight")
    server.process.send_signal(number)
    thread.join(20.0)
    assert server.exit_code(10.0) == 0
    assert [answer.json() for answer in answers] == [{"predictions": [2.0]}]
    assert not alive(worker)


def test_a_stop_has_a_deadline_even_for_a_model_that_never_returns(store: Store, serve: Callable[..., Server]) -> None:
    server = serve(store.path("acting"), "--drain-timeout", "1", "--timeout", "600")
    (worker,) = server.workers()

    def stuck() -> None:
        with pytest.raises(httpx.HTTPError):
            server.post({"inputs": {"act": "sleep", "x": 600.0}})

    thread = threading.Thread(target=stuck)
    thread.start()
    until(lambda: "understudy_serve_pending 1" in server.get("/metrics").text, what="the request in flight")
    server.process.terminate()
    assert server.exit_code(15.0) == 0
    assert not alive(worker)
    thread.join(10.0)


def test_a_killed_parent_takes_its_worker_and_its_folder_with_it(
    store: Store, serve: Callable[..., Server], tmp_path: pathlib.Path
) -> None:
    server = serve(store.path("acting"), env={"TMPDIR": str(tmp_path)})
    (worker,) = server.workers()
    assert list(tmp_path.glob("understudy-serve-*"))
    server.process.kill()
    until(lambda: not alive(worker), seconds=10.0, what="the orphan's end")
    until(lambda: not list(tmp_path.glob("understudy-serve-*")), seconds=5.0, what="the folder's end")


def test_the_folder_of_a_server_that_was_killed_whole_goes_at_the_next_start_and_no_other(
    store: Store, serve: Callable[..., Server], tmp_path: pathlib.Path
) -> None:
    where = {"TMPDIR": str(tmp_path)}
    lives, killed = (serve(store.path("acting"), env=where) for _ in range(2))
    before = set(tmp_path.glob("understudy-serve-*"))
    assert len(before) == 2
    (worker,) = killed.workers()
    os.kill(worker, signal.SIGSTOP)  # or it would remove the folder itself
    killed.process.kill()
    os.kill(worker, signal.SIGKILL)
    until(lambda: not alive(worker), seconds=10.0, what="the worker's end")
    until(lambda: not alive(killed.process.pid), seconds=10.0, what="the supervisor's end")
    assert set(tmp_path.glob("understudy-serve-*")) == before
    third = serve(store.path("acting"), env=where)
    after = set(tmp_path.glob("understudy-serve-*"))
    assert (len(after), len(after & before)) == (2, 1)
    assert lives.post({"inputs": {"act": "ok", "x": 1.0}}).status_code == 200
    assert third.get("/health").status_code == 200


def test_a_worker_told_to_end_is_replaced(store: Store, serve: Callable[..., Server]) -> None:
    server = serve(store.path("acting"))
    (worker,) = server.workers()
    os.kill(worker, signal.SIGTERM)
    until(lambda: not alive(worker), seconds=20.0, what="the worker's end")
    assert server.post(ROWS).status_code == 200


def test_recycling_keeps_the_version_when_the_alias_has_moved(store: Store, serve: Callable[..., Server]) -> None:
    first = store.register("moving", "champion", store.model)
    env = {"MLFLOW_TRACKING_URI": store.tracking_uri}
    server = serve("models:/moving@champion", "--max-requests", "1", env=env)
    assert server.get("/version").json()["model_version"] == first
    (worker,) = server.workers()
    assert store.register("moving", "champion", store.model) != first
    assert server.post({"inputs": dict.fromkeys(store.features.columns, 1.0)}).status_code == 200
    until(lambda: not alive(worker), seconds=60.0, what="the first worker's end")
    assert server.get("/version").json()["model_version"] == first
    assert server.get("/version").headers["x-model-version"] == first
