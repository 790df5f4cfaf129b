"""A reader sees whole lines only, once each, in order, whatever the writer and retention do meanwhile."""

import os
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from router.journal import Writer
from router.journal_reader import acknowledge, acknowledged, files_of, journals, read_from
from router.retention import delete_old
from tests.router.journals import assert_sound, ids, newest, outcome, read_all


def _journal(directory: Path, name: str, files: int) -> None:
    """A journal whose outcomes o0, o1 … lie one in each file, the last of which holds only marks."""
    for number in range(files):
        writer = Writer(directory, name, rotate_bytes=1, flush_ms=1)
        writer.append([outcome(number)])
        writer.close()


def test_a_line_that_is_still_being_written_is_not_read(tmp_path: Path) -> None:
    Writer(tmp_path, "j").close()
    chunk = read_from(tmp_path, "j", 0, 0)
    path = newest(tmp_path, "j")
    with path.open("ab") as log:
        log.write(b'{"half":')
    assert read_from(tmp_path, "j", chunk.file, chunk.offset) == ([], chunk.file, chunk.offset)
    with path.open("ab") as log:
        log.write(b"1}\n")
    assert read_from(tmp_path, "j", chunk.file, chunk.offset).lines == [b'{"half":1}']


@pytest.mark.parametrize("limit", [1, 7, 100, 1_000, 1 << 20])
def test_any_limit_reads_the_same_lines(tmp_path: Path, limit: int) -> None:
    writer = Writer(tmp_path, "j", rotate_bytes=1_500)
    writer.append([outcome(number) | {"note": "x" * (number * 37 % 400)} for number in range(50)])
    writer.close()
    assert read_all(tmp_path, "j", limit) == read_all(tmp_path, "j")
    assert ids(read_all(tmp_path, "j", limit)) == [f"o{number}" for number in range(50)]


def test_a_reader_keeps_up_with_a_writer_that_rotates(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "j", rotate_bytes=3_000, flush_ms=1)

    def write() -> None:
        for number in range(300):
            writer.append([outcome(number)])
        writer.close()

    thread = threading.Thread(target=write)
    thread.start()
    lines: list[bytes] = []
    file = offset = 0
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        alive = thread.is_alive()
        chunk = read_from(tmp_path, "j", file, offset, 512)
        lines += chunk.lines
        file, offset = chunk.file, chunk.offset
        if not alive and not chunk.lines:
            break
    thread.join(10)
    assert len(files_of(tmp_path, "j")) > 5
    assert [line for line in lines if b'"outcome"' in line] != []
    assert b"\n".join(lines) == b"".join(path.read_bytes() for path in sorted(tmp_path.glob("j.*.jsonl"))).rstrip(b"\n")


def test_where_nothing_is_yet_the_position_stays(tmp_path: Path) -> None:
    assert read_from(tmp_path, "j", 0, 0) == ([], 0, 0)
    assert read_from(tmp_path / "absent", "j", 3, 5) == ([], 3, 5)
    assert journals(tmp_path / "absent") == {}


def test_a_position_beyond_the_end_is_an_error(tmp_path: Path) -> None:
    Writer(tmp_path, "j").close()
    with pytest.raises(ValueError, match="beyond its end"):
        read_from(tmp_path, "j", 0, 10_000)


@pytest.mark.parametrize(("file", "offset", "limit"), [(-1, 0, 1), (0, -1, 1), (0, 0, 0)])
def test_an_impossible_position_is_an_error(tmp_path: Path, file: int, offset: int, limit: int) -> None:
    with pytest.raises(ValueError, match="no position"):
        read_from(tmp_path, "j", file, offset, limit)


def test_the_listing_names_every_journal_with_its_files(tmp_path: Path) -> None:
    _journal(tmp_path, "r-w0", 3)
    _journal(tmp_path, "r-w0.b", 1)
    listed = journals(tmp_path)
    assert {name: [file for file, _ in files] for name, files in listed.items()} == {
        "r-w0": files_of(tmp_path, "r-w0"),
        "r-w0.b": files_of(tmp_path, "r-w0.b"),
    }
    assert sum(size for files in listed.values() for _, size in files) == sum(
        path.stat().st_size for path in tmp_path.glob("*.jsonl")
    )


def test_only_what_every_known_reader_acknowledged_is_deleted(tmp_path: Path) -> None:
    _journal(tmp_path, "j", 4)
    numbers = files_of(tmp_path, "j")
    assert delete_old(tmp_path, 3_600) == 0  # nobody has read
    acknowledge(tmp_path, "a", {"j": (numbers[-1], 5)})
    acknowledge(tmp_path, "b", {"j": (numbers[1], 5)})
    assert delete_old(tmp_path, 3_600) == 1
    assert files_of(tmp_path, "j") == numbers[1:]
    acknowledge(tmp_path, "b", {"j": (numbers[-1], 0)})
    delete_old(tmp_path, 3_600)
    assert files_of(tmp_path, "j") == numbers[-1:]


@pytest.mark.parametrize("said", [b"", b"[]", b'{"j": 3}', b'{"other": {"file": 9, "offset": 0}}'])
def test_a_reader_that_says_nothing_clear_keeps_everything(tmp_path: Path, said: bytes) -> None:
    _journal(tmp_path, "j", 2)
    numbers = files_of(tmp_path, "j")
    acknowledge(tmp_path, "a", {"j": (numbers[-1], 0)})
    (tmp_path / "readers" / "b.json").write_bytes(said)
    assert delete_old(tmp_path, 3_600) == 0


def test_old_files_go_though_nobody_read_them_but_the_newest_stays(tmp_path: Path) -> None:
    _journal(tmp_path, "j", 3)
    numbers = files_of(tmp_path, "j")
    for path in tmp_path.glob("*.jsonl"):
        os.utime(path, (1, 1))
    assert delete_old(tmp_path, 3_600) == len(numbers) - 1
    writer = Writer(tmp_path, "j")
    writer.append([outcome(99)])
    writer.close()
    events = read_all(tmp_path, "j")
    assert ids(events)[-1] == "o99"
    assert [event["seq"] for event in events[1:]] == list(range(events[0]["seq"] + 1, events[-1]["seq"] + 1))


def test_a_reader_goes_on_after_the_files_that_retention_deleted(tmp_path: Path) -> None:
    _journal(tmp_path, "j", 3)
    numbers = files_of(tmp_path, "j")
    (tmp_path / f"j.{numbers[0]:08d}.jsonl").unlink()
    chunk = read_from(tmp_path, "j", numbers[0], 17)
    assert chunk.file == numbers[1]
    assert chunk.lines[0].startswith(b'{"type":"journal"')


def test_the_files_of_a_whole_life_are_one_sound_journal(tmp_path: Path) -> None:
    _journal(tmp_path, "j", 6)
    events = read_all(tmp_path, "j")
    assert_sound(events)
    assert ids(events) == [f"o{number}" for number in range(6)]


def test_a_reader_that_says_several_things_at_once_is_heard_and_what_it_said_is_whole(tmp_path: Path) -> None:
    """As when a controller asks again before it has its answer: each request is a thread of the API."""

    def says(thread: int) -> None:
        for file in range(60):
            acknowledge(tmp_path, "controller", {f"journal-{n}": (file, thread) for n in range(1 + 20 * thread)})
            assert "journal-0" in acknowledged(tmp_path)["controller"]

    with ThreadPoolExecutor(4) as threads:
        assert list(threads.map(says, range(4))) == [None] * 4
    assert [path.name for path in (tmp_path / "readers").iterdir()] == ["controller.json"]
