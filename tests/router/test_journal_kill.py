"""kill -9 at any moment: every acknowledged event is readable, none is there twice, nothing is torn."""

import contextlib
import os
import random
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx

from router import tally
from router.journal import Writer
from tests.router.journals import assert_sound, ids, outcome, read_all, until
from tests.router.models import Model
from tests.router.raw import Raw, post
from tests.router.routers import Router, started, table

_PROGRAM = """
    import os, sys
    from pathlib import Path
    from router.journal import Writer
    from tests.router.journals import exposure, outcome

    number = int(sys.argv[2])
    writer = Writer(Path(sys.argv[1]), "j", flush_ms=1, rotate_bytes=50_000)
    while True:
        for _ in range(20):
            writer.offer(exposure(number))
            number += 1
        writer.append([outcome(number), outcome(number + 1)])
        os.write(1, f"{number} {number + 1}\\n".encode())
        number += 2
"""


def _killed_after(directory: Path, first: int, acknowledged: int) -> list[int]:
    """Let a writer work from number ``first`` on, kill it at an acknowledgement; all that it acknowledged."""
    child = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM), str(directory), str(first)], stdout=subprocess.PIPE
    )
    assert child.stdout is not None
    lines = []
    try:
        for line in child.stdout:
            lines.append(line)
            if len(lines) == acknowledged:
                child.send_signal(signal.SIGKILL)
        assert child.wait(10) == -signal.SIGKILL
    finally:
        child.kill()
        child.wait(10)
        child.stdout.close()
    return [int(number) for line in lines if line.endswith(b"\n") for number in line.split()]


def test_no_acknowledged_event_is_lost_or_doubled_by_a_kill(tmp_path: Path) -> None:
    chance = random.Random(20)
    acknowledged: list[int] = []
    for _ in range(10):
        first = acknowledged[-1] + 10_000 if acknowledged else 0
        acknowledged += _killed_after(tmp_path, first, chance.randrange(1, 120))
        assert_sound(read_all(tmp_path, "j"))
    Writer(tmp_path, "j").close()
    events = read_all(tmp_path, "j")
    assert_sound(events)
    found = ids(events)
    assert len(found) == len(set(found))
    assert {f"o{number}" for number in acknowledged} <= set(found)
    assert len(acknowledged) >= 20


_OFFERING = """
    import os, sys
    from pathlib import Path
    from router import tally
    from router.journal import Writer
    from tests.router.journals import exposure, outcome

    writer = Writer(Path(sys.argv[1]), "j", capacity=300, flush_ms=3, rotate_bytes=50_000, tally=tally.inherited())
    for burst in range(int(sys.argv[2])):
        for number in range(25):
            writer.offer(exposure(burst * 25 + number))
        if burst % 7 == 3:
            writer.append([outcome(burst)])
    os.write(1, b"offered")
    while True:
        os.read(0, 1)
"""


def test_what_a_killed_writer_had_taken_and_not_written_is_counted_by_the_next(tmp_path: Path) -> None:
    chance = random.Random(4)
    counted, offered = tally.made(), 0
    program = [sys.executable, "-c", textwrap.dedent(_OFFERING), str(tmp_path)]
    try:
        for _ in range(12):
            bursts = chance.randrange(1, 60)
            child = subprocess.Popen(
                [*program, str(bursts)],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, pass_fds=[counted], env=os.environ | tally.said(counted),
            )  # fmt: skip
            assert child.stdout is not None
            assert child.stdout.read(7) == b"offered"
            child.kill()
            child.communicate()
            offered += 25 * bursts
        last = Writer(tmp_path, "j", tally=tally.Tally(counted))
        last.close()
        # In good order, and none of it twice: nothing more is counted.
        again = Writer(tmp_path, "j", tally=tally.Tally(counted))
        assert again.dropped == 0
        again.close()
    finally:
        os.close(counted)
    events = read_all(tmp_path, "j")
    assert_sound(events)
    lost = {event["started"]: event["dropped"] for event in events if event["type"] == "mark"}
    written = sum(event["type"] == "exposure" for event in events)
    assert 0 < sum(lost.values()) < offered
    assert written + sum(lost.values()) == offered


def test_answers_of_a_worker_that_is_killed_are_recorded_or_counted(tmp_path: Path) -> None:
    with Model("champion") as champion, started(tmp_path, "real", workers=1, journal_flush_ms=5_000.0) as router:
        router.put(table(1, champion={"version": "1", "upstreams": [champion.address]}))
        for number in range(40):
            assert router.traffic.get(router.ready["traffic"], headers={"X-Unit": f"u{number}"}).status_code == 200
        kill_worker(router)
        until(lambda: router.generations() == [1], "it serves")
        assert router.traffic.get(router.ready["traffic"], headers={"X-Unit": "u"}).status_code == 200
        assert router.end() == 0
    events = read_all(tmp_path / "journal", "router-w0")
    assert_sound(events)
    lost = {event["started"]: event["dropped"] for event in events if event["type"] == "mark"}
    written = sum(event["type"] == "exposure" for event in events)
    assert written + sum(lost.values()) == 41
    assert sum(lost.values()) > 0


def recorded_or_told(directory: Path) -> int:
    """Exposures in all journals, and losses that they tell of."""
    found = 0
    for path in {path.name.split(".")[0] for path in (directory / "journal").glob("router-w*.jsonl")}:
        events = read_all(directory / "journal", path)
        assert_sound(events)
        lost = {event["started"]: event["dropped"] for event in events if event["type"] == "mark"}
        found += sum(lost.values()) + sum(event["type"] == "exposure" for event in events)
    return found


def asked(router: Router, number: int) -> None:
    for one in range(number):
        assert router.traffic.get(router.ready["traffic"], headers={"X-Unit": f"u{one}"}).status_code == 200


def test_the_same_of_one_that_came_by_a_rolling_restart(tmp_path: Path) -> None:
    """It writes another journal than the one before it, which its successor does not go back to."""
    with Model("champion") as champion, started(tmp_path, "real", workers=1, journal_flush_ms=5_000.0) as router:
        router.put(table(1, champion={"version": "1", "upstreams": [champion.address]}))
        asked(router, 3)
        before = set(router.workers())
        router.process.send_signal(signal.SIGHUP)
        until(lambda: len(now := router.workers()) == 1 and not before & set(now), "the other worker alone")
        until(lambda: router.generations() == [1], "it serves")
        asked(router, 40)
        kill_worker(router)
        until(lambda: router.generations() == [1], "it serves")
        asked(router, 1)
        assert router.end() == 0
    assert recorded_or_told(tmp_path) == 44


def test_what_was_lost_with_one_is_not_counted_again_where_the_next_is_killed_too(tmp_path: Path) -> None:
    """Neither in the journal nor by the router's counter, however soon that is."""
    with Model("champion") as champion, started(tmp_path, "real", workers=1, journal_flush_ms=5_000.0) as router:
        router.put(table(1, champion={"version": "1", "upstreams": [champion.address]}))
        for lost in (10, 20, 30):
            asked(router, 10)
            kill_worker(router)
            until(lambda: router.generations() == [1], "it serves")
            until(lambda lost=lost: told(router) == lost, f"{lost} losses are told")
        assert router.end() == 0
    assert recorded_or_told(tmp_path) == 30


def test_nor_where_the_disk_takes_no_word_of_it(tmp_path: Path) -> None:
    with (
        Model("champion") as champion,
        started(tmp_path, "real", workers=1, file_limit=2_000, journal_flush_ms=20.0) as router,
    ):
        router.put(table(1, champion={"version": "1", "upstreams": [champion.address]}))
        for turn in range(4):
            asked(router, 30)
            if turn == 3:
                router.lift_file_limit()  # of the workers that are to come
            kill_worker(router)
            until(lambda: router.generations() == [1], "it serves")
        asked(router, 1)
        until(lambda: recorded_or_told(tmp_path) == 121, "the losses are told")
        exposures = _exposures(tmp_path)
        assert 0 < len(exposures) < 30
        assert told(router) == 121 - len(exposures)
        assert router.end() == 0
    assert recorded_or_told(tmp_path) == 121


def test_what_is_lost_with_one_that_nobody_has_replaced_yet_is_told_at_the_end(tmp_path: Path) -> None:
    with Model("champion") as champion, started(tmp_path, "real", workers=1, journal_flush_ms=5_000.0) as router:
        router.put(table(1, champion={"version": "1", "upstreams": [champion.address]}))
        for turn in range(4):  # the longer it takes until there is another one
            asked(router, 10)
            (pid,) = router.workers()
            os.kill(pid, signal.SIGKILL)
            if turn < 3:
                until(lambda pid=pid: set(router.workers()) not in ({pid}, set()), "another worker")
                until(lambda: router.generations() == [1], "it serves")
        assert router.end() == 0
    assert recorded_or_told(tmp_path) == 40


def test_the_same_of_one_that_drains(tmp_path: Path) -> None:
    """Nobody takes its place, and its losses are counted all the same, while the router goes on."""
    with Model("champion") as champion, started(tmp_path, "real", workers=1, journal_flush_ms=5_000.0) as router:
        router.put(table(1, champion={"version": "1", "upstreams": [champion.address]}))
        asked(router, 40)
        champion.mode = "hang"
        with Raw(int(httpx.URL(router.ready["traffic"]).port or 0)) as raw:
            raw.send(post("v"))
            until(lambda: champion.count == 41, "a request that the drain waits for")
            (old,) = router.workers()
            router.process.send_signal(signal.SIGHUP)
            until(lambda: len(router.workers()) == 2, "both of them")
            until(lambda: router.generations() == [1, 1], "the new one serves")
            os.kill(old, signal.SIGKILL)
            until(lambda: told(router) > 0, "the losses are told")
            assert recorded_or_told(tmp_path) == 41
        champion.release()
        assert router.end() == 0


def told(router: Router) -> int:
    """The router's counter of events that are lost."""
    lines = router.control.get("/metrics").text.splitlines()
    (line,) = [line for line in lines if line.startswith("understudy_router_journal_dropped_total ")]
    return int(float(line.split()[1]))


def kill_worker(router: Router) -> None:
    """Kill the only one, and wait for another."""
    (pid,) = router.workers()
    os.kill(pid, signal.SIGKILL)
    until(lambda: set(router.workers()) not in ({pid}, set()), "another worker")


def told_as_dropped(directory: Path) -> int:
    """How many events the last writer of the journal says were lost."""
    marks = [event for event in read_all(directory / "journal", "router-w0") if event["type"] == "mark"]
    lost = {event["started"]: event["dropped"] for event in marks}
    return int(lost.popitem()[1])


def test_requests_under_way_in_a_worker_that_is_killed_are_counted(tmp_path: Path) -> None:
    """They are lost to the arm that takes longer more often than to the other one."""
    with Model("champion", "hang") as champion, started(tmp_path, "real", workers=1) as router:
        router.put(table(1, champion={"version": "1", "upstreams": [champion.address]}))
        port = httpx.URL(router.ready["traffic"]).port
        assert port is not None
        with contextlib.ExitStack() as open_ones:
            for number in range(7):
                open_ones.enter_context(Raw(port)).send(post(f"u{number}"))
            until(lambda: champion.count == 7, "all of them are under way")
            kill_worker(router)
        assert router.end() == 0
    assert told_as_dropped(tmp_path) == 7


def test_mirrors_under_way_in_a_worker_that_is_killed_are_counted(tmp_path: Path) -> None:
    """What they shadow is on record; the slower the challenger, the more of its answers would be missing unseen."""
    with (
        Model("champion") as champion,
        Model("challenger", "hang") as challenger,
        started(tmp_path, "real", workers=1, journal_flush_ms=20.0) as router,
    ):
        arms = {
            "champion": {"version": "1", "upstreams": [champion.address]},
            "challenger": {"version": "2", "upstreams": [challenger.address]},
        }
        limits = {"challenger_timeout_ms": 30_000}
        router.put(table(1, mirror_bp=10_000, limits=limits, **arms))
        for number in range(5):
            router.traffic.get(router.ready["traffic"], headers={"X-Unit": f"u{number}"})
        until(lambda: challenger.count == 5, "all of them are mirrored")
        challenger.release_once()
        until(lambda: len(_exposures(tmp_path)) == 10, "the mirrors are answered")
        for number in range(3):
            router.traffic.get(router.ready["traffic"], headers={"X-Unit": f"v{number}"})
        until(lambda: challenger.count == 8 and len(_exposures(tmp_path)) == 13, "three more")
        kill_worker(router)
        assert router.end() == 0
    assert told_as_dropped(tmp_path) == 3


def _exposures(directory: Path) -> list[dict[str, Any]]:
    return [event for event in read_all(directory / "journal", "router-w0") if event["type"] == "exposure"]


def test_a_killed_writer_does_not_keep_the_journal_locked(tmp_path: Path) -> None:
    _killed_after(tmp_path, 0, 1)
    writer = Writer(tmp_path, "j")
    writer.append([outcome(77)])
    writer.close()
    assert ids(read_all(tmp_path, "j"))[-1] == "o77"
