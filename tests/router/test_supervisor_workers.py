"""Workers are kept alive, told every table, replaced without a lost request, and never left behind."""

import json
import os
import random
import signal
import threading
import time
from contextlib import suppress
from pathlib import Path

import httpx
import psutil
import pytest

from router.journal_reader import journals
from tests.router.journals import assert_sound, read_all, until
from tests.router.routers import Router, started, table


def test_ready_means_that_every_worker_answers(tmp_path: Path) -> None:
    with started(tmp_path, workers=2) as router:
        assert len(router.workers()) == 2
        assert router.generations() == [-1, -1]
        assert {router.get()["worker"] for _ in range(60)} == {"w0", "w1"}
        ready = f"router ready: traffic {router.ready['traffic']} control {router.ready['control']} workers 2"
        assert ready in router.log()
        assert router.ready["pid"] == router.process.pid


def test_a_table_reaches_every_worker_and_each_confirms(tmp_path: Path) -> None:
    with started(tmp_path, workers=3) as router:
        for generation in range(1, 20):
            answer = router.put(table(generation))
            assert answer.status_code == 200
            assert [worker["generation"] for worker in answer.json()["workers"]] == [generation] * 3
            assert router.get()["generation"] == generation


def test_a_killed_worker_is_replaced_and_serves_the_newest_table(tmp_path: Path) -> None:
    with started(tmp_path, workers=2) as router:
        router.put(table(7))
        before = set(router.workers())
        os.kill(min(before), signal.SIGKILL)
        until(lambda: set(router.workers()) != before and router.generations() == [7, 7], "replaced")
        assert {router.get()["generation"] for _ in range(40)} == {7}
        metrics = router.control.get("/metrics").text
        assert "understudy_router_worker_restarts_total 1.0" in metrics


def _lives(journal: Path) -> set[int]:
    """When the writers of the worker's journal started, as its marks say."""
    return {event["started"] for event in read_all(journal, "router-w0") if event["type"] == "mark"}


def test_the_journal_of_a_killed_worker_is_continued_by_its_successor(tmp_path: Path) -> None:
    with started(tmp_path) as router:
        router.put(table(1))
        journal = tmp_path / "journal"
        for life in range(1, 4):
            (pid,) = router.workers()
            until(lambda life=life: len(_lives(journal)) == life, "this worker writes")
            os.kill(pid, signal.SIGKILL)
            until(lambda pid=pid: set(router.workers()) - {pid} and router.generations() == [1], "replaced")
        assert router.end() == 0
        events = read_all(journal, "router-w0")
        assert_sound(events)
        assert len(_lives(journal)) >= 3
        assert events[-1]["closed"]
        assert set(journals(journal)) == {"router-outcomes", "router-w0"}


def test_counters_do_not_go_back_when_a_worker_is_replaced(tmp_path: Path) -> None:
    def requests() -> float:
        lines = router.control.get("/metrics").text.splitlines()
        named = 'understudy_router_requests_total{arm="champion"} '
        return sum(float(line.removeprefix(named)) for line in lines if line.startswith(named))

    with started(tmp_path) as router:
        router.put(table(1))
        for _ in range(10):
            router.get()
        until(lambda: requests() == 10, "the worker told its count")
        (pid,) = router.workers()
        os.kill(pid, signal.SIGKILL)
        until(lambda: set(router.workers()) not in (set(), {pid}) and router.generations() == [1], "replaced")
        router.get()
        until(lambda: requests() == 11, "the old worker's count is kept")
        # A gauge is of the living alone: one worker and the outcomes journal.
        assert "understudy_router_journal_queued 1.0" in router.control.get("/metrics").text


def test_a_worker_that_hangs_is_replaced(tmp_path: Path) -> None:
    with started(tmp_path, workers=2, silence_s=3) as router:
        before = set(router.workers())
        hung = min(before)
        os.kill(hung, signal.SIGSTOP)
        until(lambda: hung not in router.workers() and len(router.workers()) == 2, "the hung one is replaced", 15)
        until(lambda: router.generations() == [-1, -1], "both speak")


def test_a_rolling_restart_replaces_every_worker_without_losing_a_request(tmp_path: Path) -> None:
    with started(tmp_path, workers=2) as router:
        router.put(table(3))
        before = set(router.workers())
        outcomes: list[int | str] = []
        stop = threading.Event()

        def load() -> None:
            while not stop.is_set():
                try:
                    outcomes.append(router.traffic.get(router.ready["traffic"] + "/slow").status_code)
                except httpx.HTTPError as error:
                    outcomes.append(repr(error))

        threads = [threading.Thread(target=load) for _ in range(8)]
        for thread in threads:
            thread.start()
        router.process.send_signal(signal.SIGHUP)
        try:
            until(lambda: len(router.workers()) == 2 and not before & set(router.workers()), "replaced", 30)
        finally:
            stop.set()
            for thread in threads:
                thread.join(15)
        assert set(outcomes) == {200}
        assert router.generations() == [3, 3]
        assert {worker["worker"] for worker in router.state()["workers"]} == {"w0b", "w1b"}
        assert "all workers were replaced" in router.log()


def test_a_rolling_restart_comes_back_to_the_first_names(tmp_path: Path) -> None:
    with started(tmp_path) as router:
        for expected in ("w0b", "w0"):
            router.process.send_signal(signal.SIGHUP)
            until(
                lambda expected=expected: [w["worker"] for w in router.state()["workers"]] == [expected],
                f"rolled to {expected}",
            )


def _rolls(router: Router) -> int:
    """Rolling restarts that were asked for and have not ended."""
    log = router.log()
    ended = log.count("all workers were replaced") + log.count("rolling restart stopped")
    return log.count("rolling restart asked for") - ended


def test_a_rolling_restart_stops_at_a_worker_that_does_not_come_up_and_the_old_ones_serve_on(tmp_path: Path) -> None:
    with started(tmp_path, "rolls-badly", workers=2) as router:
        router.put(table(2))
        before = set(router.workers())
        router.process.send_signal(signal.SIGHUP)
        until(lambda: "rolling restart stopped" in router.log(), "it is told")
        assert set(router.workers()) == before
        assert router.generations() == [2, 2]
        assert router.get()["generation"] == 2


def test_however_workers_die_during_rolling_restarts_there_are_as_many_as_asked_for_in_the_end(
    tmp_path: Path,
) -> None:
    chance = random.Random(7)
    with started(tmp_path, workers=2) as router:
        router.put(table(4))
        for _ in range(6):
            router.process.send_signal(signal.SIGHUP)
            time.sleep(chance.uniform(0, 0.6))  # where in the restart the blow falls
            for pid in chance.sample(sorted(router.workers()), 1):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
        until(lambda: _rolls(router) == 0 and router.generations() == [4, 4], "two workers, none under way", 60)
        before = set(router.workers())
        router.process.send_signal(signal.SIGHUP)
        until(lambda: not before & set(router.workers()) and _rolls(router) == 0, "and they roll", 60)
        assert len(router.workers()) == 2
        assert router.generations() == [4, 4]


def test_sigterm_lets_requests_finish_and_leaves_nothing(tmp_path: Path) -> None:
    with started(tmp_path, workers=2) as router:
        workers = set(router.workers())
        answers: list[int] = []
        asking = threading.Thread(target=lambda: answers.append(len(router.get("/slow"))))
        asking.start()
        until(lambda: any(psutil.Process(pid).net_connections() for pid in workers), "the request is there")
        time.sleep(0.1)
        assert router.end() == 0
        asking.join(10)
        assert len(answers) == 1
        assert not any(map(psutil.pid_exists, workers))
        assert not Path(router.settings["ready_file"]).exists()


def test_a_second_signal_ends_at_once(tmp_path: Path) -> None:
    with started(tmp_path, drain_s=60) as router:
        (pid,) = router.workers()
        os.kill(pid, signal.SIGSTOP)
        router.process.send_signal(signal.SIGTERM)
        until(lambda: router.control.get("/readyz").status_code == 503, "it drains")
        began = time.monotonic()
        assert router.end(signal.SIGINT) == 0
        assert time.monotonic() - began < 20
        assert not psutil.pid_exists(pid)


def test_workers_end_when_their_supervisor_is_killed_and_the_port_is_free_again(tmp_path: Path) -> None:
    with started(tmp_path, workers=2) as router:
        router.put(table(5))
        workers = set(router.workers())
        port, control = router.ready["port"], router.ready["control_port"]
        router.process.kill()
        router.process.wait(10)
        with started(tmp_path, workers=2, port=port, control_port=control) as again:
            assert again.generations() == [5, 5]
        until(lambda: not any(map(psutil.pid_exists, workers)), "the old workers end")


def test_workers_that_end_at_once_stop_the_start_with_their_exit_code(tmp_path: Path) -> None:
    with started(tmp_path, "exits", ready=False) as router:
        assert router.process.wait(30) == 1
        assert "ended with exit code 3" in router.log()
        assert "the workers end as soon as they start" in router.log()


def test_workers_that_never_speak_stop_the_start(tmp_path: Path) -> None:
    with started(tmp_path, "mute", ready=False, start_s=2) as router:
        assert router.process.wait(30) == 1
        assert "not all workers were up after 2 s" in router.log()
        assert not router.workers()


def test_nonsense_in_the_channel_is_told_and_passed_over(tmp_path: Path) -> None:
    with started(tmp_path, "garbles") as router:
        assert router.put(table(1)).json()["workers"][0]["generation"] == 1
        assert router.log().count("said what nobody understands") == 4


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_during_the_start_ends_it_in_good_order(tmp_path: Path, number: int) -> None:
    with started(tmp_path, "mute", ready=False) as router:
        until(lambda: bool(router.workers()), "workers start", 20)
        workers = set(router.workers())
        assert router.end(number) == 0
        assert not any(map(psutil.pid_exists, workers))


def test_the_ready_file_is_whole_json(tmp_path: Path) -> None:
    with started(tmp_path) as router:
        said = json.loads(Path(router.settings["ready_file"]).read_text())
        assert said["traffic"] == f"http://127.0.0.1:{said['port']}"
        assert said["control"] == f"http://127.0.0.1:{said['control_port']}"


def test_a_ready_file_that_cannot_be_written_once_the_workers_are_up_ends_them_with_its_flag(tmp_path: Path) -> None:
    file = tmp_path / "ready" / "ready.json"
    with started(tmp_path, "spoils", ready=False, ready_file=str(file)) as router:
        assert router.process.wait(30) == 2
        assert router.log().splitlines()[-1] == f"--ready-file {file}: No such file or directory"
        assert "Traceback" not in router.log()
        # The router has waited for its worker, which then had finished its journal.
        assert read_all(tmp_path / "journal", "router-w0")[-1]["closed"]


def test_a_ready_file_that_cannot_be_removed_does_not_keep_the_workers_from_their_end(tmp_path: Path) -> None:
    file = tmp_path / "ready" / "ready.json"
    with started(tmp_path, ready_file=str(file)) as router:
        file.unlink()
        file.parent.rmdir()
        file.parent.touch()
        assert router.end() == 0
        assert f"--ready-file {file} is not removed: Not a directory" in router.log()
        assert "Traceback" not in router.log()
        assert read_all(tmp_path / "journal", "router-w0")[-1]["closed"]
