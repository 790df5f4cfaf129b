"""A journal goes on after whatever its last writer left behind."""

import json
from pathlib import Path

import pytest

from router.journal import Writer
from router.journal_reader import files_of
from tests.router.journals import assert_sound, exposure, ids, newest, outcome, read_all


def _written(directory: Path, count: int) -> bytes:
    writer = Writer(directory, "j")
    writer.append([outcome(number) for number in range(count)])
    writer.close()
    return newest(directory, "j").read_bytes()


def _goes_on(directory: Path) -> list[str]:
    """Ids in the journal after one more event was written."""
    writer = Writer(directory, "j")
    writer.append([outcome(99)])
    writer.close()
    events = read_all(directory, "j")
    assert_sound(events)
    return ids(events)


def test_a_line_torn_at_any_byte_is_cut_and_nothing_before_it_is_lost(tmp_path: Path) -> None:
    content = _written(tmp_path, 3)
    lines = content.splitlines(keepends=True)
    last = next(index for index, line in enumerate(lines) if b'"o2"' in line)
    before = b"".join(lines[:last])
    path = newest(tmp_path, "j")
    for torn in range(len(lines[last])):
        path.write_bytes(before + lines[last][:torn])
        assert _goes_on(tmp_path) == ["o0", "o1", "o99"], f"torn after {torn} bytes"
    path.write_bytes(before + lines[last])
    assert _goes_on(tmp_path) == ["o0", "o1", "o2", "o99"]


def test_a_header_torn_at_any_byte_leads_to_the_next_file_with_the_right_seq(tmp_path: Path) -> None:
    _written(tmp_path, 2)
    first = newest(tmp_path, "j").read_bytes()
    header = json.dumps({"type": "journal", "journal": "j", "file": 1, "version": 1, "seq": 9, "t": 1}).encode()
    for torn in range(len(header)):
        for path in tmp_path.glob("*.jsonl"):
            path.unlink()
        (tmp_path / "j.00000000.jsonl").write_bytes(first)
        (tmp_path / "j.00000001.jsonl").write_bytes(header[:torn])
        assert _goes_on(tmp_path) == ["o0", "o1", "o99"], f"torn after {torn} bytes"
        assert files_of(tmp_path, "j") == [0, 1, 2]


def test_a_torn_line_longer_than_the_steps_of_the_search_is_cut(tmp_path: Path) -> None:
    content = _written(tmp_path, 2)
    newest(tmp_path, "j").write_bytes(content + b'{"type":"exposure","inputs":"' + b"x" * 300_000)
    assert _goes_on(tmp_path) == ["o0", "o1", "o99"]
    assert len(files_of(tmp_path, "j")) == 1


def test_a_long_last_line_is_kept_whole(tmp_path: Path) -> None:
    writer = Writer(tmp_path, "j")
    writer.append([exposure(1) | {"inputs": "x" * 300_000}])
    writer.close()
    path = newest(tmp_path, "j")
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(line for line in lines if b'"closed":true' not in line))
    assert _goes_on(tmp_path) == ["r1", "o99"]


@pytest.mark.parametrize("garbage", [b"\0" * 4096 + b"\n", b"{}\n", b"[1]\n", b'{"seq":"x","type":"mark","t":1}\n'])
def test_whole_lines_that_are_no_events_stay_and_a_new_file_follows(tmp_path: Path, garbage: bytes) -> None:
    content = _written(tmp_path, 2)
    newest(tmp_path, "j").write_bytes(content + garbage * 2)
    writer = Writer(tmp_path, "j")
    writer.append([outcome(99)])
    writer.close()
    assert (tmp_path / "j.00000000.jsonl").read_bytes() == content + garbage * 2
    header, *events = [json.loads(line) for line in newest(tmp_path, "j").read_bytes().splitlines()]
    assert header["seq"] == json.loads(content.splitlines()[-1])["seq"]
    assert [event["seq"] for event in events] == list(range(header["seq"] + 1, header["seq"] + 1 + len(events)))


@pytest.mark.parametrize(
    "first",
    [
        b'{"type":"journal","journal":"other","file":0,"version":1,"seq":0,"t":1}\n',
        b'{"type":"journal","journal":"j","file":0,"version":2,"seq":0,"t":1}\n',
        b"no json at all\n",
    ],
)
def test_a_file_that_is_not_this_journal_s_is_refused_untouched(tmp_path: Path, first: bytes) -> None:
    path = tmp_path / "j.00000000.jsonl"
    path.write_bytes(first)
    with pytest.raises(ValueError, match=r"j\.00000000\.jsonl.*move the file away"):
        Writer(tmp_path, "j")
    assert path.read_bytes() == first
    path.unlink()
    Writer(tmp_path, "j").close()  # the refused one did not keep the lock
