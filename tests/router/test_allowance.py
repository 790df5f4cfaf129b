"""How much of the interpreter's time goes into reading bodies."""

import json
import unicodedata
from typing import Any

import pytest

from router.allowance import Allowance
from router.breaker import Breaker
from router.capture import Attempt, Record
from router.counters import Findings
from router.heads import Request
from router.hidden_names import HiddenNames, plain
from router.pool import Backend
from router.redacted import REDACTED, UNREAD, Redactions, is_large
from router.redaction import DEFAULT_NAMES, Redactor
from router.routing import Routes
from router.table import RouteTable
from tests.router.planes import table

JSON = "application/json"
FORM = "application/x-www-form-urlencoded"


def test_a_share_of_the_time_that_passes_may_be_worked() -> None:
    now = 100.0
    allowance = Allowance(0.25, 0.5, lambda: now)
    assert allowance.left()
    allowance.took(1.5)  # what has begun is finished
    assert not allowance.left()
    now += 3.9
    assert not allowance.left()
    now += 0.2
    assert allowance.left()
    now += 1_000  # no more than half a second is saved up
    assert allowance.left()
    allowance.took(0.5)
    assert not allowance.left()


def test_what_a_small_body_takes_counts_where_it_is_taken_apart() -> None:
    redactor = Redactor(DEFAULT_NAMES)
    allowance = Allowance(0, 1e-9, lambda: 0.0)
    rows = json.dumps([[n / 7] * 8 for n in range(100)])
    named = json.dumps([{"email": "ada@mail.example", "age": n} for n in range(20)])
    # To look whether a name may be in it is what every body takes.
    for _ in range(2):
        assert redactor.redact(rows, JSON, True, allowance).text == rows
    assert redactor.redact(named, JSON, True, allowance).fields == 20
    assert not allowance.left()
    for body, kind in ((named, JSON), ("a=:&" * 1_000 + "auth=1", FORM), ("a=%41&" * 1_000 + "b=1", FORM)):
        assert redactor.redact(body, kind, True, allowance) is UNREAD
    assert redactor.redact(rows, JSON, True, allowance).text == rows


def events(redactions: Redactions, *bodies: bytes, **limits: int) -> list[dict[str, Any]]:
    """Those of requests with such bodies, one after the other."""
    routed = RouteTable.model_validate(table(1, "127.0.0.1:1", limits=limits))
    routes = Routes(routed, Backend("champion", "1", ()), None, redactions, Findings(), Breaker())
    made = []
    for body in bodies:
        request = Request(b"POST", b"/", False, [], {})
        request.body = body
        unit, allotment = routes.allot(request, stale=False)
        first = Attempt(200, 0.1, b'{"predictions": [1]}', True)
        made.append(Record(routes, request, b"r", unit, allotment, first, 200).event())
    return made


def test_where_the_time_for_reading_is_spent_events_are_made_all_the_same() -> None:
    redactions = Redactions()
    redactions.reading = Allowance(0, 1e-9, lambda: 0.0)
    slow, plain_rows = b"[%b]" % b",".join([b'"auth:a"'] * 1_500), b"[%b]" % b",".join([b"[1.5]"] * 1_000)
    made = events(redactions, slow, slow, plain_rows)
    assert [event["usable"] for event in made] == [True] * 3
    assert made[0]["inputs"] == json.dumps([REDACTED] * 1_500, separators=(",", ":"))
    assert (made[1]["inputs"], made[1]["cut"]) == (REDACTED, True)
    assert (made[2]["inputs"], made[2]["cut"]) == (plain_rows.decode(), False)
    assert [event["answer"] for event in made] == ['{"predictions": [1]}'] * 3
    assert redactions.counters() == {
        "redacted_fields_total": 1_500,
        "withheld_bodies_total": 1,
        "unread_bodies_total": 1,
    }


def test_a_body_that_is_longer_than_what_is_kept_is_looked_through_on_that_time_too() -> None:
    redactions = Redactions()
    redactions.reading = Allowance(0, 1e-9, lambda: 0.0)
    rows = b"[%b]" % b",".join([b"[1.5]"] * 1_000)
    made = events(redactions, rows, rows, capture_bytes=1_024)
    assert [event["inputs"] for event in made] == [rows[:1_024].decode(), REDACTED]
    assert [event["cut"] for event in made] == [True, True]
    assert redactions.counters()["unread_bodies_total"] == 1


def test_the_shortest_bodies_are_read_though_nothing_is_left() -> None:
    redactor = Redactor(DEFAULT_NAMES)
    nothing = Allowance(0, 0, lambda: 0.0)
    assert redactor.redact('{"email": "a", "age": 1}', JSON, True, nothing).fields == 1
    assert redactor.redact("a=1&auth=2", FORM, True, nothing).fields == 1


def test_what_fails_counts_as_well() -> None:
    allowance = Allowance(0, 1e-9, lambda: 0.0)
    with pytest.raises(ZeroDivisionError):
        allowance.spend(lambda: 1 // 0)
    assert allowance.spend(lambda: 1) is None


def test_a_body_is_large_sooner_where_it_is_not_ascii() -> None:
    assert [is_large(b"a" * size) for size in (16_383, 16_384)] == [False, True]
    assert [is_large(b"\xc3\xa9" * size) for size in (511, 512)] == [False, True]


def test_a_letter_has_no_more_marks_than_can_be_sorted_at_once() -> None:
    # CPython takes minutes for as many as a body may hold: U+0F73 is no mark, and is two when it is taken apart.
    for marks in ("\u0301\u0316", "\u0344", "\u0f73"):
        text = plain("a" + marks * 20_000 + "b" + marks * 10)
        longest = run = 0
        for letter in unicodedata.normalize("NFD", text):
            run = run + 1 if unicodedata.combining(letter) else 0
            longest = max(longest, run)
        assert 20 <= longest <= 60
        assert text.endswith(plain("b" + marks * 10))


def test_names_with_marks_are_found_as_before() -> None:
    names = HiddenNames(("pr\u00e9nom",))
    for written in ("pr\u00e9nom", "pre\u0301nom", "PRE\u0301NOM"):
        assert names.has(written)
        assert names.in_text(f'{{"{written}": 1}}')
