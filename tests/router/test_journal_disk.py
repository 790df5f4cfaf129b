"""A full disk costs events, counted, and nothing else; the journal goes on when there is space again."""

import json
import os
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from router.journal import Writer
from router.journal_file import JournalFiles
from router.line import Line
from tests.router.journals import assert_sound, exposure, ids, outcome, read_all, until

# The file size limit makes a write end in the middle of a line and the next one fail, as a full disk does.
_PROGRAM = """
    import json, resource, sys, time
    from pathlib import Path
    from router.journal import Writer
    from tests.router.journals import exposure, newest, outcome, until

    directory, limit = Path(sys.argv[1]), int(sys.argv[2])
    writer = Writer(directory, "j", capacity=200, flush_ms=5)
    writer.append([outcome(0)])
    full = newest(directory, "j").stat().st_size + limit
    resource.setrlimit(resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
    offered, slowest = 0, 0.0
    deadline = time.monotonic() + 20
    while writer.dropped < 500 and time.monotonic() < deadline:
        began = time.perf_counter()
        writer.offer(exposure(offered))
        slowest = max(slowest, time.perf_counter() - began)
        offered += 1
        if offered % 100 == 0:
            time.sleep(0.001)
    refused = []
    for number in (1, 2):
        try:
            writer.append([outcome(number)], timeout=5)
        except OSError as error:
            refused.append(type(error).__name__)
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    until(lambda: writer.counters()["journal_queued"] == 0, "what waited is written")
    writer.append([outcome(3)])
    writer.close()
    print(json.dumps({"offered": offered, "dropped": writer.dropped, "refused": refused, "slowest": slowest}))
"""


def _run(directory: Path, limit: int) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(_PROGRAM), str(directory), str(limit)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    said: dict[str, Any] = json.loads(done.stdout)
    return said


@pytest.mark.parametrize("limit", [0, 1, 500, 4_000, 100_003])
def test_a_full_disk_loses_events_and_says_how_many(tmp_path: Path, limit: int) -> None:
    said = _run(tmp_path, limit)
    events = read_all(tmp_path, "j")
    assert_sound(events)
    written = [name for name in ids(events) if name.startswith("r")]
    assert said["dropped"] >= 500
    assert len(written) == len(set(written)) == said["offered"] - said["dropped"]
    assert events[-1]["dropped"] == said["dropped"]


def test_on_a_full_disk_append_raises_and_offer_still_returns_at_once(tmp_path: Path) -> None:
    said = _run(tmp_path, 0)
    assert said["refused"] == ["OSError", "OSError"]
    assert said["slowest"] < 0.5
    # A refused outcome may not be there; those acknowledged before and after are.
    assert {"o0", "o3"} <= set(ids(read_all(tmp_path, "j")))


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("needs-root: mounts a small file system")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], check=False, capture_output=True, timeout=10
    )
    if mounted.returncode != 0:
        pytest.skip(f"needs-root: may not mount here: {mounted.stderr.decode().strip()}")
    yield disk
    subprocess.run(["umount", "-l", disk], check=True, timeout=10)


def test_a_really_full_disk_is_survived_and_its_freed_space_is_used(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 200_000)
    writer = Writer(small_disk, "j", capacity=100, flush_ms=5)
    offered = 0

    def dropping() -> bool:
        nonlocal offered
        for _ in range(50):
            writer.offer(exposure(offered))
            offered += 1
        return writer.dropped > 300

    until(dropping, "the disk is full")
    with pytest.raises(OSError, match="No space left"):
        writer.append([outcome(number) | {"note": "x" * 5_000} for number in range(2)])
    ballast.unlink()
    until(lambda: writer.counters()["journal_queued"] == 0, "what waited is written")
    writer.append([outcome(9)])
    writer.close()
    events = read_all(small_disk, "j")
    assert_sound(events)
    assert len([name for name in ids(events) if name.startswith("r")]) == offered - writer.dropped
    assert events[-1]["dropped"] == writer.dropped


def test_of_a_long_batch_whole_lines_stay_however_far_it_came(small_disk: Path) -> None:
    """It is written in pieces, and the disk may be full in any of them."""
    files = JournalFiles(small_disk, "j")
    header = files.size
    lines = [b"x" * (900 + number * 7) + b"\n" for number in range(300)]
    count, kept, error = files.append(lines)
    assert isinstance(error, OSError)
    assert 180_000 < kept < 256 << 10
    assert kept == sum(map(len, lines[:count]))
    assert (small_disk / "j.00000000.jsonl").read_bytes()[header:] == b"".join(lines[:count])
    files.close()


class Slow:
    """An event that the journal's thread makes."""

    weight = 1_500

    def __init__(self, number: int) -> None:
        self._number = number

    def event(self) -> dict[str, Any]:
        return exposure(self._number)


def _offered(number: int) -> Line | Slow | dict[str, Any]:
    """Mostly lines, in runs of different lengths, with times that go back."""
    place = number % 325
    if place in (0, 64, 129, 195):
        return Slow(number) if place % 2 else exposure(number)
    said = exposure(number)
    rest = {key: value for key, value in said.items() if key not in ("type", "seq", "t")}
    return Line(said["t"] - number % 30, orjson.dumps(rest, option=orjson.OPT_APPEND_NEWLINE)[1:])


def test_lines_that_were_made_already_are_kept_in_order_where_the_disk_is_full_meanwhile(small_disk: Path) -> None:
    ballast = small_disk / "ballast"
    ballast.write_bytes(b"x" * 100_000)
    writer = Writer(small_disk, "j", capacity=400, capacity_bytes=150_000, flush_ms=5)
    offered, taken = 0, []

    def offer(count: int) -> None:
        nonlocal offered
        for _ in range(count):
            if writer.offer(_offered(offered)):
                taken.append(f"r{offered}")
            offered += 1

    def dropping() -> bool:
        offer(130)
        return writer.dropped > 300

    until(dropping, "the disk is full")
    assert writer.counters()["journal_queued"] <= 400
    ballast.unlink()
    until(lambda: writer.counters()["journal_queued"] == 0, "what waited is written")
    # What was taken, refused by the disk and taken again makes room once: more than may wait goes through in turn.
    lost = writer.dropped
    for _ in range(6):
        offer(65)
        until(lambda: writer.counters()["journal_queued"] == 0, "what waited is written")
    assert writer.dropped == lost
    assert not writer.offer(Line(1, b"x" * 150_000))
    writer.close()
    events = read_all(small_disk, "j")
    assert_sound(events)
    assert [name for name in ids(events) if name.startswith("r")] == taken
    assert events[-1]["dropped"] == writer.dropped == offered + 1 - len(taken)


def test_a_file_that_cannot_be_rotated_goes_on(tmp_path: Path) -> None:
    # The next file's name is taken by a folder: creating it fails until the folder is gone.
    writer = Writer(tmp_path, "j", rotate_bytes=200, flush_ms=5)
    writer.append([outcome(1)])
    (tmp_path / "j.00000001.jsonl").mkdir()
    writer.append([outcome(2)])
    writer.append([outcome(3)])
    (tmp_path / "j.00000001.jsonl").rmdir()
    until((tmp_path / "j.00000001.jsonl").is_file, "the rotation is tried again")
    writer.append([outcome(4)])
    writer.close()
    events = read_all(tmp_path, "j")
    assert_sound(events)
    assert ids(events) == ["o1", "o2", "o3", "o4"]
