"""Journals of routers, copied over their control API: every line once, whatever becomes of router and volume."""

import json
import os
import shutil
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from controller.edges.cluster import copies as module
from controller.edges.cluster.copies import Copies
from controller.edges.cluster.routers import Replica
from controller.edges.exchange import Exchange
from router.journal_reader import files_of
from tests.router.journals import now
from tests.router.routers import Router, started


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Exchange(2.0)
    yield made
    made.close()


def replica(router: Router, uid: str = "pod-1", name: str = "late-router-0") -> Replica:
    return Replica(name, uid, router.ready["control"], True)


def router_in(folder: Path):  # type: ignore[no-untyped-def]
    return started(folder, name="late-router-0", journal_rotate_bytes=4_096, journal_flush_ms=5)


def post(router: Router, *names: str) -> None:
    for name in names:
        outcome = {"outcome_id": name, "t": now(), "unit": "u" * 300, "name": "click"}
        assert router.control.post("/v1/outcomes", json=[outcome]).status_code == 202


def lines(folder: Path, journal: str) -> list[str]:
    """Ids of the outcomes in a journal's files."""
    found = []
    for number in files_of(folder, journal):
        for line in (folder / f"{journal}.{number:08d}.jsonl").read_bytes().splitlines():
            event = json.loads(line)
            if event["type"] == "outcome":
                found.append(event["outcome_id"])
    return found


OUTCOMES = "late-router-0-outcomes"


def test_a_copy_goes_on_where_it_ended_and_has_every_line_once(tmp_path: Path, exchange: Exchange) -> None:
    with router_in(tmp_path / "pod") as router:
        post(router, *(f"a{n}" for n in range(20)))
        first = Copies(tmp_path / "copy")
        assert first.fetch([replica(router)], exchange) == {}
        size = first.copied
        newest = tmp_path / "copy" / f"{OUTCOMES}.{files_of(tmp_path / 'copy', OUTCOMES)[-1]:08d}.jsonl"
        newest.write_bytes(newest.read_bytes() + b'{"type":"outc')  # torn by a loss of power
        post(router, *(f"b{n}" for n in range(20)))
        again = Copies(tmp_path / "copy")
        assert again.fetch([replica(router)], exchange) == {}
        assert lines(tmp_path / "copy", OUTCOMES) == [f"{x}{n}" for x in "ab" for n in range(20)]
        assert len(files_of(tmp_path / "copy", OUTCOMES)) > 2
        assert 0 < again.copied < 2 * size
        copied = again.copied
        again.fetch([replica(router)], exchange)
        assert again.copied - copied < 1_000  # a mark at most


def test_another_volume_under_the_same_name_is_another_copy(tmp_path: Path, exchange: Exchange) -> None:
    copies = Copies(tmp_path / "copy")
    with router_in(tmp_path / "pod") as router:
        post(router, *(f"a{n}" for n in range(20)))
        copies.fetch([replica(router)], exchange)
    shutil.rmtree(tmp_path / "pod")
    with router_in(tmp_path / "pod") as router:
        post(router, *(f"b{n}" for n in range(40)))
        assert copies.fetch([replica(router, "pod-2")], exchange) == {}
    assert lines(tmp_path / "copy", OUTCOMES) == [f"a{n}" for n in range(20)]
    assert lines(tmp_path / "copy", f"{OUTCOMES}.again-1") == [f"b{n}" for n in range(40)]


def test_a_file_that_lost_its_end_is_copied_again(tmp_path: Path, exchange: Exchange) -> None:
    copies = Copies(tmp_path / "copy")
    with router_in(tmp_path / "pod") as router:
        post(router, "a0", "a1", "a2")
        copies.fetch([replica(router)], exchange)
    path = tmp_path / "pod" / "journal" / f"{OUTCOMES}.00000000.jsonl"
    kept = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join(kept[:3]))  # the header and two lines
    with router_in(tmp_path / "pod") as router:
        copies.fetch([replica(router)], exchange)
        assert lines(tmp_path / "copy", f"{OUTCOMES}.again-1") == lines(tmp_path / "pod" / "journal", OUTCOMES)


def test_who_does_not_answer_is_awaited_and_who_has_served_nobody_is_not(tmp_path: Path, exchange: Exchange) -> None:
    copies = Copies(tmp_path / "copy")
    with router_in(tmp_path / "pod") as router:
        copies.fetch([replica(router)], exchange)
        router.process.send_signal(signal.SIGSTOP)
        said = copies.fetch([replica(router)], exchange)
        router.process.send_signal(signal.SIGCONT)
    assert set(said) == {OUTCOMES, "late-router-0-w0"}
    assert set(said.values()) == {"late-router-0: no answer within 2 s"}
    nowhere = Replica("late-router-1", "pod-3", "http://127.0.0.1:9", False)
    assert copies.fetch([nowhere], exchange) == {}
    assert set(copies.fetch([nowhere._replace(ready=True)], exchange)) == {"late-router-1"}
    assert copies.failures == 3


def test_journals_of_another_name_than_the_pods_are_none_of_its(tmp_path: Path, exchange: Exchange) -> None:
    copies = Copies(tmp_path / "copy")
    with router_in(tmp_path / "pod") as router:
        post(router, "a0")
        assert copies.fetch([replica(router, name="late-router-1")], exchange) == {}
    assert list((tmp_path / "copy").iterdir()) == []


@contextmanager
def lying(journals: list[str], line: bytes = b"{}\n", files: int = 1) -> Iterator[tuple[Replica, list[str]]]:
    """A router with these journals, each of ``files`` files of one ``line``; and what it was asked for."""
    asked: list[str] = []

    class Liar(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            sizes = [{"file": number, "size": len(line)} for number in range(files)]
            listing = json.dumps([{"journal": name, "files": sizes} for name in journals]).encode()
            self.send_response(200)
            body = listing if self.path == "/v1/journals" else line
            for key, value in {"content-length": len(body), "x-journal-file": 0, "x-journal-offset": len(line)}.items():
                self.send_header(key, str(value))
            self.end_headers()
            with suppress(OSError):  # who has read enough goes
                self.wfile.write(body)

        def log_message(self, *_: object) -> None: ...

    with HTTPServer(("127.0.0.1", 0), Liar) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Replica("late-router-0", "pod-1", f"http://127.0.0.1:{server.server_address[1]}", True), asked
        server.shutdown()


@pytest.mark.parametrize(
    ("journals", "files", "said"),
    [
        (257, 1, "late-router-0: it lists 257 journals, and 256 at most are read"),
        (1, 100_000, "late-router-0: an answer of more than 2097152 bytes"),
    ],
)
def test_a_router_that_lists_very_much_costs_one_call(
    tmp_path: Path, exchange: Exchange, journals: int, files: int, said: str
) -> None:
    with lying([f"late-router-0-{number}" for number in range(journals)], files=files) as (liar, asked):
        assert Copies(tmp_path / "copy").fetch([liar], exchange) == {"late-router-0": said}
    assert asked == ["/v1/journals"]


def test_a_line_that_is_longer_than_a_chunk_is_copied_whole(tmp_path: Path, exchange: Exchange) -> None:
    line = b'"' + b"a" * (3 * module.CHUNK) + b'"\n'
    with lying(["late-router-0-w0"], line) as (liar, asked):
        assert Copies(tmp_path / "copy").fetch([liar], exchange) == {}
    assert (tmp_path / "copy" / "late-router-0-w0.00000000.jsonl").read_bytes() == line
    assert [path.partition("?")[0] for path in asked].count("/v1/journals/late-router-0-w0") == 2


def test_a_router_whose_journals_are_asked_for_one_after_the_other_has_no_more_time_than_any(
    tmp_path: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = [f"late-router-0-{number}" for number in range(5)]
    with lying(names) as (liar, _):
        Copies(tmp_path / "copy").fetch([liar], exchange)
    monkeypatch.setattr(module, "BUDGET_S", 0.0)
    with lying(names) as (liar, asked):  # copies of all of them are there: each is compared with what it has now
        said = Copies(tmp_path / "copy").fetch([liar], exchange)
    assert set(said) == set(names)
    assert asked == ["/v1/journals"]
    with lying(names) as (liar, _):  # no copy is there, and by now nobody is sent to it
        said = Copies(tmp_path / "other").fetch([liar._replace(ready=False)], exchange)
    assert set(said) == set(names)


@pytest.mark.parametrize(
    "name", ["late-router-0-/../../../out", "late-router-0-\\x00", "late-router-0-w0?x=1", "../late"]
)
def test_a_router_that_lies_does_not_choose_where_its_journals_are_copied(
    tmp_path: Path, exchange: Exchange, name: str
) -> None:
    with lying([name]) as (liar, _):
        said = Copies(tmp_path / "state" / "copy").fetch([liar], exchange)
    assert list(said) == ["late-router-0"]
    assert "its list of journals cannot be read" in said["late-router-0"]
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


def test_what_is_too_much_for_one_time_is_awaited(
    tmp_path: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies = Copies(tmp_path / "copy")
    with router_in(tmp_path / "pod") as router:
        post(router, "a0")
        monkeypatch.setattr(module, "MOST_BYTES", 0)
        said = copies.fetch([replica(router)], exchange)
        assert said[OUTCOMES] == "0 bytes wait unread"
        monkeypatch.setattr(module, "MOST_BYTES", 1 << 20)
        assert copies.fetch([replica(router)], exchange) == {}
        # What is read and stays here for its file's end takes no room.
        post(router, "a1")
        (number,) = files_of(tmp_path / "copy", OUTCOMES)
        size = (tmp_path / "copy" / f"{OUTCOMES}.{number:08d}.jsonl").stat().st_size
        monkeypatch.setattr(module, "MOST_BYTES", size)
        assert copies.fetch([replica(router)], exchange)[OUTCOMES] == f"{size} bytes wait unread"
        assert copies.fetch([replica(router)], exchange, {OUTCOMES: (number, size)}) == {}
    assert lines(tmp_path / "copy", OUTCOMES) == ["a0", "a1"]


def test_copies_leave_room_on_the_volume_for_the_records_of_decisions(
    tmp_path: Path, exchange: Exchange, monkeypatch: pytest.MonkeyPatch
) -> None:
    copies, volume = Copies(tmp_path / "copy"), os.statvfs(tmp_path)
    with router_in(tmp_path / "pod") as router:
        post(router, "a0")
        # As if an eighth of the volume were all that is left of it.
        full = os.statvfs_result((*volume[:2], 8, 0, 1, *volume[5:]))
        monkeypatch.setattr(os, "statvfs", lambda _: full)
        said = copies.fetch([replica(router)], exchange)
        assert said[OUTCOMES] == f"the volume of the state folder ({8 * volume.f_frsize} bytes) is nearly full"
        monkeypatch.undo()
        assert copies.fetch([replica(router)], exchange) == {}
    assert lines(tmp_path / "copy", OUTCOMES) == ["a0"]


def test_what_is_read_is_acknowledged_by_the_routers_names_and_deleted_here(tmp_path: Path, exchange: Exchange) -> None:
    copies = Copies(tmp_path / "copy")
    with router_in(tmp_path / "pod") as router:
        post(router, *(f"a{n}" for n in range(40)))
        copies.fetch([replica(router)], exchange)
    numbers = files_of(tmp_path / "copy", OUTCOMES)
    read = {OUTCOMES: (numbers[-1], 17)}
    said = copies.positions(replica(router), read)
    copies.prune(read)
    assert said == {OUTCOMES: {"file": numbers[-1], "offset": 17}}
    assert files_of(tmp_path / "copy", OUTCOMES) == numbers[-1:]
