"""The soak's claims fail where they should: what each is for is done to its figures, and it names what is wrong."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.router.soak import claims
from tests.router.soak.claims import Look
from tests.router.soak.ledger import Ledger, Note, Windows
from tests.router.soak.reading import Reading


def ledger() -> Ledger:
    return Ledger(Windows(time.monotonic(), 60.0))


def asked(book: Ledger, request_id: str = "s1", kind: str = "plain", **end: Any) -> None:
    """A request that was sent and answered, unless ``end`` says otherwise."""
    book.notes.append(Note(request_id, kind))
    book.notes.append(Note(request_id, kind, True, **{"status": 200, "whole": True, "arm": "champion"} | end))


def exposed(request_id: str = "s1", **fields: Any) -> dict[str, Any]:
    plain = {
        "request_id": request_id, "mirror": False, "arm": "champion", "served_by": "champion", "usable": True,
        "answer_status": 200, "mirrored": False, "fallback_reason": None,
    }  # fmt: skip
    return plain | fields


def said(book: Ledger, directory: Path, *events: dict[str, Any], dropped: int = 0, closed: bool = True) -> list[str]:
    """What the claims say of these events in one journal."""
    mark = {"type": "mark", "dropped": dropped, "started": 1, "closed": closed}
    lines = [{"type": "exposure", **event} for event in events] + [mark]
    text = "".join(json.dumps(line | {"seq": seq}) + "\n" for seq, line in enumerate(lines, 1))
    (directory / "r-w0.00000001.jsonl").write_text(text)
    reading = Reading(directory, book)
    reading.read()
    book.close()
    return claims.unmatched(book, reading)


def test_an_answer_with_its_exposure_is_right(tmp_path: Path) -> None:
    book = ledger()
    asked(book)
    assert said(book, tmp_path, exposed()) == []
    assert book.open == 0


@pytest.mark.parametrize("end", [{}, {"whole": False, "left": True}])
def test_an_answer_without_an_exposure_is_missing_unless_it_was_counted(end: dict[str, Any], tmp_path: Path) -> None:
    for dropped in (0, 1):
        book = ledger()
        asked(book, **end)
        assert (said(book, tmp_path, dropped=dropped) == []) is bool(dropped)


def test_a_drop_that_was_counted_and_did_not_happen_is_told(tmp_path: Path) -> None:
    book = ledger()
    asked(book)
    assert "1 counted as dropped" in said(book, tmp_path, exposed(), dropped=1)[0]


@pytest.mark.parametrize(
    ("end", "event", "what"),
    [
        ({}, {"request_id": "s2"}, "nobody sent"),
        ({}, {"answer_status": 499}, "another status"),
        ({"arm": "challenger"}, {}, "another arm"),
        ({}, {"mirrored": True}, "1 mirrors without one"),
        ({"status": 502}, {"answer_status": 502}, "requests that failed"),
        ({"status": 0, "whole": False}, {}, "requests that failed"),
        ({"whole": False}, {"usable": False}, "requests that failed"),
        ({"status": 502, "kind": "upload"}, {"answer_status": 502, "usable": False}, "requests that failed"),
        ({"status": 500, "left": True, "whole": False}, {"answer_status": 500}, "requests that failed"),
    ],
)
def test_what_does_not_agree_is_told(end: dict[str, Any], event: dict[str, Any], what: str, tmp_path: Path) -> None:
    book = ledger()
    asked(book, **end)
    assert any(what in line for line in said(book, tmp_path, exposed(**event)))


def test_an_event_that_is_there_twice_and_a_mirror_that_nobody_asked_for_are_told(tmp_path: Path) -> None:
    book = ledger()
    asked(book)
    found = said(book, tmp_path, exposed(), exposed(), exposed(mirror=True), exposed(mirror=True))
    assert [line.split(": ")[1] for line in found] == [
        "1 requests that are recorded twice",
        "1 mirrors that are recorded twice",
        "1 mirrors that their request does not know of",
    ]


def test_nobody_can_step_in_for_a_challenger_that_breaks_what_is_passed_on(tmp_path: Path) -> None:
    book = ledger()
    broken = {"served_by": "challenger", "arm": "challenger", "usable": False}
    asked(book, "s1", "upload", status=502, arm="")
    asked(book, "s2", "stream", whole=False, arm="")
    asked(book, "s3", "plain", status=0, whole=False, left=True, arm="")
    events = exposed("s1", answer_status=502, **broken), exposed("s2", **broken)
    assert said(book, tmp_path, *events) == []


def test_a_request_that_never_ends_and_a_journal_that_is_not_closed_are_told(tmp_path: Path) -> None:
    book = ledger()
    book.notes.append(Note("s1", "plain"))
    found = said(book, tmp_path, closed=False)
    assert "1 requests that never ended" in found[0]
    assert "not closed: ['r-w0']" in found[1]


def test_a_minute_without_one_kind_of_load_is_told() -> None:
    windows = Windows(time.monotonic(), 60.0)
    for name, wanted in claims.least(60.0, 10.0).items():
        windows.add(name, wanted)
    assert claims.idle(windows, 1, 10.0) == []
    # Of the second minute nothing is known.
    assert len(claims.idle(windows, 2, 10.0)) == len(claims.LEAST) + 1


def looks(field: str, numbers: list[float]) -> list[Look]:
    plain = Look(80.0, 70, 60.0, 15)
    return [plain._replace(**{field: number}) for number in numbers]


@pytest.mark.parametrize("field", claims.FLAT)
def test_growth_is_told_and_warming_up_is_not(field: str) -> None:
    assert claims.grown(looks(field, [1.0] * 25 + [70.0] * 75)) == []
    assert claims.grown(looks(field, [70.0] * 99 + [999.0])) == []
    assert "in the second quarter" in claims.grown(looks(field, [50.0 + n for n in range(100)]))[0]
    assert "too few" in claims.grown(looks(field, [1.0]))[0]
    # Of a part of a turn of faults more is allowed, but not everything.
    bound = claims.FLAT[field]
    some = [50.0] * 50 + [50.0 * (1 + bound.part) + 2 * bound.more] * 50
    assert claims.grown(looks(field, some)) != []
    assert claims.grown(looks(field, some), turns=False) == []
    assert claims.grown(looks(field, [50.0] * 50 + [500.0] * 50), turns=False) != []
