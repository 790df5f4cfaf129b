"""The whole router as a process: supervisor, API and real workers before real model servers."""

import contextlib
import json
import os
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.telemetry import METRICS, PREFIX
from tests.router.journals import assert_sound, now, read_all, until
from tests.router.models import Model
from tests.router.routers import Router, started, table

_ASKED = {"inputs": [[1.0]]}


def _two_arms(champion: Model, challenger: Model, generation: int, weight_bp: int = 5_000) -> dict[str, Any]:
    return table(
        generation,
        champion={"version": "1", "upstreams": [champion.address]},
        challenger={"version": "2", "upstreams": [challenger.address]},
        weight_bp=weight_bp,
        control_from_bp=5_000,
    )


@contextmanager
def _whole(directory: Path, **settings: Any) -> Iterator[tuple[Router, Model, Model]]:
    with (
        Model("champion") as champion,
        Model("challenger") as challenger,
        started(directory, "real", **settings) as router,
    ):
        yield router, champion, challenger


def _ask(router: Router, unit: str, client: httpx.Client | None = None) -> httpx.Response:
    client = client or router.traffic
    return client.post(router.ready["traffic"] + "/invocations", json=_ASKED, headers={"X-Unit": unit})


@contextmanager
def _load(router: Router, *, keep: bool, threads: int = 6) -> Iterator[Counter[str]]:
    """Requests without pause; what became of them. With ``keep`` over kept connections, else a new one for each."""
    seen: Counter[str] = Counter()
    stop = threading.Event()

    def ask(thread: int) -> None:
        number = 0
        with httpx.Client(timeout=20) as client:
            while not stop.is_set():
                number += 1
                try:
                    answer = _ask(router, f"{thread}-{number}", client if keep else None)
                    seen[str(answer.status_code)] += 1
                except httpx.HTTPError as error:
                    seen[repr(error)] += 1

    running = [threading.Thread(target=ask, args=(thread,)) for thread in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield seen
    finally:
        stop.set()
        for thread in running:
            thread.join(30)


def test_before_there_is_a_table_requests_are_asked_to_come_again(tmp_path: Path) -> None:
    with _whole(tmp_path) as (router, champion, challenger):
        answer = _ask(router, "u")
        assert answer.status_code == 503
        assert "retry-after" in answer.headers
        router.put(_two_arms(champion, challenger, 1))
        assert _ask(router, "u").status_code == 200


def test_what_was_served_is_in_the_journals_and_outcomes_beside_it(tmp_path: Path) -> None:
    with _whole(tmp_path, workers=2) as (router, champion, challenger):
        assert router.put(_two_arms(champion, challenger, 1)).status_code == 200
        for number in range(60):
            assert _ask(router, f"u{number}").status_code == 200
        outcome = {"outcome_id": "o1", "t": now(), "unit": "u1", "name": "click"}
        assert router.control.post("/v1/outcomes", json=[outcome]).status_code == 202
        assert router.end() == 0
    journal = tmp_path / "journal"
    written = {name: read_all(journal, name) for name in ("router-w0", "router-w1", "router-outcomes")}
    for events in written.values():
        assert_sound(events)
        assert events[-1]["closed"]
    exposures = [e for name in ("router-w0", "router-w1") for e in written[name] if e["type"] == "exposure"]
    assert sorted(e["unit"] for e in exposures) == sorted(f"u{number}" for number in range(60))
    assert {e["arm"] for e in exposures} == {"champion", "challenger"}


def test_every_number_a_worker_tells_is_in_the_table_of_metrics(tmp_path: Path) -> None:
    with _whole(tmp_path) as (router, champion, challenger):
        router.put(_two_arms(champion, challenger, 1))
        for number in range(30):
            _ask(router, f"u{number}")

        def told() -> dict[str, float]:
            families = text_string_to_metric_families(router.control.get("/metrics").text)
            samples = [sample for family in families for sample in family.samples]
            return {f"{s.name}{sorted(s.labels.items()) or ''}": s.value for s in samples}

        arms = [f"{PREFIX}requests_total[('arm', '{arm}')]" for arm in ("champion", "challenger")]
        until(lambda: sum(told().get(arm, 0) for arm in arms) == 30, "the worker has told its counts")
        assert all(told()[arm] > 0 for arm in arms)
        assert told()[f"{PREFIX}journal_dropped_total"] == 0
        assert "nobody knows" not in router.log()
        names = {name.partition("[")[0].removeprefix(PREFIX) for name in told()}
        assert names <= METRICS.keys()
        assert METRICS.keys() - names <= {"outcome_requests_total"}


@pytest.mark.parametrize("keep", [True, False])
def test_a_rolling_restart_under_load_loses_no_request(tmp_path: Path, keep: bool) -> None:
    with _whole(tmp_path, workers=2) as (router, champion, challenger):
        router.put(_two_arms(champion, challenger, 1))
        with _load(router, keep=keep) as seen:
            for _ in range(3):
                before = set(router.workers())
                router.process.send_signal(signal.SIGHUP)
                until(lambda b=before: len(router.workers()) == 2 and not b & set(router.workers()), "rolled", 60)
            rolled = seen.total()
        assert set(seen) == {"200"}
        assert rolled > 100
        until(lambda: router.generations() == [1, 1], "nothing is left of the workers that were replaced", 10)


def test_who_waits_to_be_taken_in_by_a_worker_that_is_replaced_is_served_by_the_next(tmp_path: Path) -> None:
    with _whole(tmp_path, workers=1) as (router, champion, challenger):
        router.put(_two_arms(champion, challenger, 1))
        (old,), at = router.workers(), httpx.URL(router.ready["traffic"])
        os.kill(old, signal.SIGSTOP)
        waiting: list[socket.socket] = []
        try:
            waiting += [socket.create_connection((at.host, at.port), timeout=30) for _ in range(20)]
            for each in waiting:
                each.sendall(b"GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
            router.process.send_signal(signal.SIGHUP)
            answers = [each.recv(4096) for each in waiting]
        finally:
            os.kill(old, signal.SIGKILL)
            for each in waiting:
                each.close()
        assert [answer.split(b" ", 2)[1] for answer in answers] == [b"200"] * 20


def test_weight_changes_under_load_lose_no_request_and_are_confirmed_by_every_worker(tmp_path: Path) -> None:
    with _whole(tmp_path, workers=2) as (router, champion, challenger):
        router.put(_two_arms(champion, challenger, 1))
        with _load(router, keep=True, threads=3) as seen:
            for generation in range(2, 102):
                content = _two_arms(champion, challenger, generation, 5_000 * (generation % 2))
                state = router.put(content).json()
                assert [worker["generation"] for worker in state["workers"]] == [generation] * 2
        assert set(seen) == {"200"}


def test_after_a_confirmed_rollback_the_challenger_gets_no_request(tmp_path: Path) -> None:
    with _whole(tmp_path, workers=2) as (router, champion, challenger):
        for generation in range(1, 21, 2):
            router.put(_two_arms(champion, challenger, generation))
            assert {json.loads(_ask(router, f"u{n}").content)["arm"] for n in range(20)} >= {"challenger"}
            state = router.put(_two_arms(champion, challenger, generation + 1, 0)).json()
            assert min(worker["generation"] for worker in state["workers"]) == generation + 1
            asked = challenger.count
            for number in range(20):
                _ask(router, f"u{number}")
            assert challenger.count == asked


def _ends(router: Router, act: Callable[[], None]) -> None:
    workers = set(router.workers())
    act()
    until(lambda: not any(map(psutil.pid_exists, workers)), "all workers ended", 20)


def test_nothing_is_left_when_the_supervisor_is_killed(tmp_path: Path) -> None:
    with _whole(tmp_path, workers=2) as (router, champion, challenger):
        router.put(_two_arms(champion, challenger, 1))
        with _load(router, keep=True, threads=2):
            _ends(router, router.process.kill)


def test_a_router_killed_under_load_starts_again_at_once_on_the_same_port(tmp_path: Path) -> None:
    with _whole(tmp_path, workers=2) as (router, champion, challenger):
        router.put(_two_arms(champion, challenger, 1))
        port = router.ready["port"]
        with _load(router, keep=True, threads=2):
            router.process.kill()
            router.process.wait(10)
            began = time.monotonic()
            with started(tmp_path, "real", workers=2, port=port) as again:
                assert time.monotonic() - began < 20
                assert again.generations() == [1, 1]
                assert _ask(again, "u").status_code == 200


@pytest.mark.parametrize(("host", "reached"), [("*", {4, 6}), ("::", {6}), ("0.0.0.0", {4}), ("::1", {6})])
def test_traffic_is_served_on_every_address_of_its_host_and_on_no_other(
    tmp_path: Path, host: str, reached: set[int]
) -> None:
    with Model("champion") as champion, started(tmp_path, "real", workers=2, host=host) as router:
        router.put(table(1, champion={"version": "1", "upstreams": [champion.address]}))
        found = set()
        for family, name in ((4, "127.0.0.1"), (6, "[::1]")):
            with contextlib.suppress(httpx.ConnectError):
                assert httpx.get(f"http://{name}:{router.ready['port']}/").status_code == 200
                found.add(family)
        assert found == reached


def test_a_killed_worker_costs_at_most_the_events_of_the_last_batch(tmp_path: Path) -> None:
    with _whole(tmp_path, journal_flush_ms=20) as (router, champion, challenger):
        router.put(_two_arms(champion, challenger, 1))
        for number in range(40):
            assert _ask(router, f"u{number}").status_code == 200
        journal = tmp_path / "journal"

        def written() -> int:
            return sum(event["type"] == "exposure" for event in read_all(journal, "router-w0"))

        until(lambda: written() == 40, "all are written")
        (pid,) = router.workers()
        os.kill(pid, signal.SIGKILL)
        until(lambda: set(router.workers()) not in (set(), {pid}) and router.generations() == [1], "replaced")
        until(lambda: _ask_or_none(router) == 200, "it serves again")
        router.end()
        events = read_all(journal, "router-w0")
        assert_sound(events)
        assert written() == 41


def _ask_or_none(router: Router) -> int:
    try:
        return _ask(router, "again").status_code
    except httpx.HTTPError:
        return 0


@pytest.mark.parametrize(("level", "said"), [("info", [True, True]), ("error", [False, False])])
def test_the_log_level_is_that_of_the_workers_too(tmp_path: Path, level: str, said: list[bool]) -> None:
    with started(tmp_path, "real", log_level=level) as router:
        assert router.put(table(1)).status_code == 200
        assert [line in router.log() for line in ("table of generation 1", "worker w0 serves")] == said
