"""Journals over HTTP: the same lines as on the disk, from any position, and word of what was read."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from router.journal_reader import acknowledged
from tests.router.journals import assert_sound, now, until
from tests.router.routers import Router, started


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with started(tmp_path_factory.mktemp("router"), journal_rotate_bytes=4_096, journal_flush_ms=5) as running:
        for number in range(40):
            outcome = {"outcome_id": f"o{number}", "t": now(), "unit": "u" * 200, "name": "click"}
            assert running.control.post("/v1/outcomes", json=[outcome]).status_code == 202
        yield running


def _all(router: Router, journal: str, limit: int) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    at = {"file": 0, "offset": 0}
    while True:
        answer = router.control.get(f"/v1/journals/{journal}", params=at | {"limit": limit})
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "application/octet-stream"
        if not answer.content:
            return events
        assert answer.content.endswith(b"\n")
        events += map(json.loads, answer.content.splitlines())
        at = {"file": int(answer.headers["x-journal-file"]), "offset": int(answer.headers["x-journal-offset"])}


def test_the_listing_names_journals_and_files(router: Router) -> None:
    listed = {item["journal"]: item["files"] for item in router.control.get("/v1/journals").json()}
    assert set(listed) == {"router-outcomes", "router-w0"}
    assert len(listed["router-outcomes"]) >= 2
    directory = Path(router.settings["journal_dir"])
    first = listed["router-outcomes"][0]
    assert (directory / f"router-outcomes.{first['file']:08d}.jsonl").stat().st_size == first["size"]


@pytest.mark.parametrize("limit", [1, 700, 1 << 20])
def test_a_journal_reads_the_same_in_pieces_of_any_size(router: Router, limit: int) -> None:
    events = _all(router, "router-outcomes", limit)
    assert_sound(events)
    assert [e["outcome_id"] for e in events if e["type"] == "outcome"] == [f"o{n}" for n in range(40)]


@pytest.mark.parametrize("journal", ["absent", "..%2F..%2Fetc%2Fpasswd", "router-outcomes.00000000"])
def test_what_is_no_journal_is_not_found(router: Router, journal: str) -> None:
    assert router.control.get(f"/v1/journals/{journal}").status_code == 404


@pytest.mark.parametrize(
    ("at", "status"),
    [
        ({"file": 0, "offset": 10**9}, 416),
        ({"file": -1}, 400),
        ({"offset": -1}, 400),
        ({"limit": 0}, 400),
        ({"limit": 1 << 30}, 400),
        ({"file": "x"}, 400),
    ],
)
def test_an_impossible_position_is_refused(router: Router, at: dict[str, Any], status: int) -> None:
    answer = router.control.get("/v1/journals/router-outcomes", params=at)
    assert answer.status_code == status
    assert answer.json()["error"]


def test_a_position_after_the_last_file_waits_there(router: Router) -> None:
    answer = router.control.get("/v1/journals/router-outcomes", params={"file": 99, "offset": 0})
    assert (answer.status_code, answer.content, answer.headers["x-journal-file"]) == (200, b"", "99")


def test_a_reader_can_say_what_it_has(router: Router) -> None:
    said = {"router-outcomes": {"file": 1, "offset": 17}}
    assert router.control.put("/v1/readers/controller-0", json=said).status_code == 204
    directory = Path(router.settings["journal_dir"])
    assert acknowledged(directory) == {"controller-0": {"router-outcomes": (1, 17)}}


def test_a_reader_can_leave(router: Router) -> None:
    readers = Path(router.settings["journal_dir"]) / "readers"
    assert router.control.put("/v1/readers/leaving", json={}).status_code == 204
    assert (readers / "leaving.json").exists()
    for _ in range(2):
        assert router.control.delete("/v1/readers/leaving").status_code == 204
    assert not (readers / "leaving.json").exists()
    assert router.control.delete("/v1/readers/a%20b").status_code == 400


@pytest.mark.parametrize(
    ("reader", "said"),
    [
        ("a b", {}),
        ("..", {}),
        ("r", {"../x": {"file": 0, "offset": 0}}),
        ("r", {"j": {"file": -1, "offset": 0}}),
        ("r", {"j": {"file": 0}}),
    ],
)
def test_an_impossible_word_of_a_reader_is_refused(router: Router, reader: str, said: dict[str, Any]) -> None:
    answer = router.control.put(f"/v1/readers/{reader}", json=said)
    assert answer.status_code in (400, 404)
    assert not (Path(router.settings["journal_dir"]) / "readers" / f"{reader}.json").exists()


def test_acknowledged_files_are_deleted_by_the_router(tmp_path: Path) -> None:
    settings = {"journal_rotate_bytes": 4_096, "journal_flush_ms": 5}
    with started(tmp_path, **settings) as router:
        for number in range(40):
            outcome = {"outcome_id": f"o{number}", "t": now(), "unit": "u" * 400, "name": "click"}
            router.control.post("/v1/outcomes", json=[outcome])
        last = router.control.get("/v1/journals").json()[0]["files"][-1]["file"]
        router.control.put("/v1/readers/a", json={"router-outcomes": {"file": last, "offset": 0}})
        router.end()
    directory = tmp_path / "journal"
    with started(tmp_path, **settings):  # cleans when it starts, and every minute
        until(
            lambda: min(int(path.name.split(".")[1]) for path in directory.glob("router-outcomes.*.jsonl")) >= last,
            "acknowledged files are gone",
        )
