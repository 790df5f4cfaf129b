"""The journal takes events without making anybody wait, and what it acknowledged is on disk."""

import os
import stat
import threading
from pathlib import Path

import pytest

from router.events import Header, Mark
from router.journal import JournalLocked, Writer
from router.journal_reader import files_of
from tests.router.journals import assert_sound, exposure, ids, newest, outcome, read_all, until


def test_what_was_offered_is_in_the_journal_in_order_after_close(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0")
    assert all(writer.offer(exposure(number)) for number in range(5_000))
    writer.close()
    events = read_all(tmp_path, "r-w0")
    assert_sound(events)
    assert ids(events) == [f"r{number}" for number in range(5_000)]


def test_an_offered_event_reaches_the_file_without_any_further_call(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0", flush_ms=20)
    writer.offer(exposure(1))
    until(lambda: ids(read_all(tmp_path, "r-w0")) == ["r1"], "the event is readable")
    writer.close()


def test_an_event_whose_line_nobody_could_read_is_written_without_its_bodies(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0")
    writer.offer(exposure(1) | {"inputs": "\x01" * (12 << 20)})  # 72 MiB, escaped
    writer.offer(exposure(2))
    writer.close()
    events = read_all(tmp_path, "r-w0")
    assert_sound(events)
    assert ids(events) == ["r1", "r2"]
    first = next(event for event in events if event["type"] == "exposure")
    assert [first[name] for name in ("inputs", "answer", "cut", "answer_cut")] == [None, None, True, True]


def test_append_returns_only_when_its_events_can_be_read(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-outcomes", flush_ms=10_000)
    writer.append([outcome(1), outcome(2)])
    assert ids(read_all(tmp_path, "r-outcomes")) == ["o1", "o2"]
    writer.close()


def test_many_threads_may_append_at_once(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-outcomes")

    def append_some(first: int) -> None:
        for number in range(first, first + 50):
            writer.append([outcome(number)])

    threads = [threading.Thread(target=append_some, args=(first,)) for first in range(0, 400, 50)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    writer.close()
    events = read_all(tmp_path, "r-outcomes")
    assert_sound(events)
    assert sorted(ids(events)) == sorted(f"o{number}" for number in range(400))


def test_append_takes_any_number_where_nothing_waits(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-outcomes", capacity=10)
    for first in (0, 25):
        writer.append([outcome(number) for number in range(first, first + 25)])
    writer.close()
    assert ids(read_all(tmp_path, "r-outcomes")) == [f"o{number}" for number in range(50)]


def test_a_full_queue_refuses_and_counts_and_the_next_mark_says_so(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0", capacity=100, flush_ms=10_000)
    taken = sum(writer.offer(exposure(number)) for number in range(100_000))
    assert taken < 100_000
    assert writer.dropped == 100_000 - taken
    writer.close()
    events = read_all(tmp_path, "r-w0")
    assert len(ids(events)) == taken
    assert events[-1]["dropped"] == 100_000 - taken


def test_the_queue_is_bounded_in_bytes_too(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0", capacity_bytes=1 << 20, flush_ms=10_000)
    # One event larger than everything that may wait is refused whatever the thread does meanwhile.
    assert not writer.offer(exposure(1) | {"inputs": "x" * (1 << 20)})
    assert writer.offer(exposure(2) | {"inputs": "x" * 1_000})
    writer.close()
    assert ids(read_all(tmp_path, "r-w0")) == ["r2"]


def test_an_event_that_is_no_json_is_lost_alone_and_counted(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0")
    writer.offer(exposure(1))
    writer.offer(exposure(2) | {"inputs": "\ud800"})
    writer.offer({"type": "exposure"})
    writer.offer(exposure(3))
    writer.close()
    events = read_all(tmp_path, "r-w0")
    assert_sound(events)
    assert ids(events) == ["r1", "r3"]
    assert events[-1]["dropped"] == 2


def test_append_of_an_event_that_is_no_json_raises_and_writes_nothing(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-outcomes")
    with pytest.raises(TypeError):
        writer.append([outcome(1), outcome(2) | {"name": object()}])
    writer.close()
    assert ids(read_all(tmp_path, "r-outcomes")) == []


def test_after_close_nothing_is_taken(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0")
    writer.close()
    assert not writer.offer(exposure(1))
    assert writer.dropped == 1
    with pytest.raises(OSError, match="closed"):
        writer.append([outcome(1)])


def test_an_idle_journal_still_moves_its_watermark(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0")
    writer.no_unit = 7
    until(lambda: len(read_all(tmp_path, "r-w0")) >= 4, "three marks without any event", 5)
    writer.close()
    marks = [Mark.model_validate(event) for event in read_all(tmp_path, "r-w0")[1:]]
    assert len({mark.t for mark in marks}) == len(marks)
    assert marks[-1].no_unit == 7
    assert marks[-1].started > 0
    assert [mark.closed for mark in marks] == [False] * (len(marks) - 1) + [True]


def test_time_never_goes_back_though_the_clock_does(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0")
    ahead = exposure(1)["t"] + 3_600_000_000
    writer.offer(exposure(1, ahead))
    writer.offer(exposure(2, ahead - 1))
    writer.offer(exposure(3, 5))
    writer.close()
    again = Writer(tmp_path, "r-w0")
    again.offer(exposure(4))
    again.close()
    events = read_all(tmp_path, "r-w0")
    assert_sound(events)
    assert [event["t"] for event in events if event["type"] == "exposure"] == [ahead] * 4


def test_an_outcome_keeps_the_time_when_it_happened(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-outcomes")
    writer.append([outcome(1, t=2_000), outcome(2, t=1_000)])
    writer.close()
    events = read_all(tmp_path, "r-outcomes")
    assert_sound(events)
    assert [event["t"] for event in events if event["type"] == "outcome"] == [2_000, 1_000]


def test_seq_goes_on_over_restarts_and_rotations(tmp_path: Path) -> None:
    number = 0
    for _ in range(4):
        writer = Writer(tmp_path, "r-w0", rotate_bytes=2_000, flush_ms=1)
        for _ in range(20):
            writer.append([outcome(number := number + 1) for _ in range(5)])
        writer.close()
    assert len(files_of(tmp_path, "r-w0")) > 10
    events = read_all(tmp_path, "r-w0", limit_bytes=700)
    assert_sound(events)
    assert ids(events) == [f"o{n}" for n in range(1, number + 1)]
    headers = [Header.model_validate(event) for event in events if event["type"] == "journal"]
    assert [header.file for header in headers] == files_of(tmp_path, "r-w0")


def test_a_file_is_finished_by_age(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0", rotate_s=0.05, flush_ms=5)
    until(lambda: len(files_of(tmp_path, "r-w0")) >= 3, "an idle journal rotates")
    writer.close()
    assert_sound(read_all(tmp_path, "r-w0"))


def test_a_second_writer_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "r-w0")
    with pytest.raises(JournalLocked, match="r-w0"):
        Writer(tmp_path, "r-w0")
    Writer(tmp_path, "r-w1").close()
    writer.close()
    Writer(tmp_path, "r-w0").close()


def test_nobody_else_may_read_the_files(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        directory = tmp_path / "journal"
        writer = Writer(directory, "r-w0")
        writer.close()
        newest(directory, "r-w0").chmod(0o644)
        Writer(directory, "r-w0", rotate_s=0).close()
    finally:
        os.umask(before)
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


@pytest.mark.parametrize("name", ["", "../r", "a/b", ".hidden", "a b", "x" * 129])
def test_a_journal_name_that_could_leave_its_directory_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ValueError, match="names no journal"):
        Writer(tmp_path, name)
