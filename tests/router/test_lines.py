"""A line that is made at once says what the journal's thread would have said, or is left to it."""

import random
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from router.assignment import Arm
from router.breaker import Breaker
from router.capture import Attempt, Record
from router.counters import Findings
from router.events import FallbackReason
from router.heads import Request, Response
from router.pool import Backend
from router.redaction import Redactions
from router.routing import Allotment, Routes
from router.table import RouteTable
from tests.bench_router.load import FEATURES
from tests.router.planes import table

JSON = {b"content-type": b"application/json"}
ALLOTMENTS = (
    Allotment("challenger", False, "override"),
    Allotment("challenger", True, "hash"),
    Allotment("champion", False, "none"),
)
ASKED = b'{"instances": [[1, 2.5], [3, 4]]}'
SAID = b'{"predictions": [0.25, 0.5]}'


def routes_of(**capture: Any) -> Routes:
    attributes = [
        {"name": "country", "source": {"header": "x-country"}},
        {"name": "kind", "source": {"json_pointer": "/kind"}},
    ]
    routed = RouteTable.model_validate(table(7, "127.0.0.1:1", attributes=attributes, capture=capture))
    return Routes(routed, Backend("champion", "1", ()), None, Redactions(), Findings(), Breaker())


def record_of(routes: Routes, body: bytes, answer: bytes, **fields: bytes) -> Record:
    """As of a request that the champion answered."""
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    request = Request(b"POST", b"/", False, [], {b"x-unit": b"u", **named})
    request.body = body
    request.length = len(body)
    unit, allotment = routes.allot(request, stale=False)
    response = Response(200, b"", JSON, len(answer), False)
    first = Attempt(200, 0.0123456, answer, True, to_judge=response)
    return Record(routes, request, b'req"\\1', unit, allotment, first, 200)


def learnt(routes: Routes, *bodies: bytes) -> None:
    """Have the thread see such bodies once."""
    for body in bodies:
        record_of(routes, body, body).event()


def said(record: Record) -> dict[str, Any] | None:
    """What is in its line, in its place; None where there is none."""
    line = record.line()
    if line is None:
        return None
    written = line.written(5, line.t + 1)
    assert written.endswith(b"}\n")
    assert written.count(b"\n") == 1
    found: dict[str, Any] = orjson.loads(written)
    assert (found["type"], found["seq"], found["t"]) == ("exposure", 5, record.t + 1)
    return found | {"seq": 0, "t": record.t}


def test_what_is_like_what_was_read_before_is_said_at_once() -> None:
    routes = routes_of()
    record = record_of(routes, ASKED, SAID)
    assert record.line() is None  # nobody has looked yet whether there is anything to hide
    learnt(routes, ASKED, SAID)
    other = record_of(routes, ASKED.replace(b"2.5", b"7"), SAID.replace(b"0.5", b"11"), x_country=b"NL")
    found = said(other)
    assert found == other.event()
    assert found is not None
    assert found["answer"] == '{"predictions": [0.25, 11]}'
    assert found["attributes"] == {"country": "NL"}


def test_a_hundred_features_are_said_at_once() -> None:
    """Others wait for a few microseconds; the thread would take twice as many, and the interpreter from them."""
    routes = routes_of()
    answer = b'{"predictions": [0.5, 0.25]}'
    learnt(routes, FEATURES, answer)
    record = record_of(routes, FEATURES.replace(b"0.1429", b"7.7"), answer)
    found = said(record)
    assert found is not None
    assert found == record.event()
    assert '"x99"' in found["inputs"]


def test_ends_of_lines_are_kept_within_bounds() -> None:
    routes = routes_of()
    learnt(routes, ASKED, SAID)
    for status in range(2_000):
        record = record_of(routes, ASKED, SAID)
        record.answer_status = status
        found = said(record)
        assert found is not None
        assert found["answer_status"] == status
        assert len(routes.endings) <= 512


@pytest.mark.parametrize("arm", ["champion", "challenger"])
def test_what_is_different_in_one_thing_alone_has_another_end(arm: Arm) -> None:
    """Ends of lines are kept by what they depend on, and all of these are of one table."""
    routes = routes_of()
    learnt(routes, ASKED, SAID)
    base = Allotment(arm, True, "hash")
    other: Arm = "champion" if arm == "challenger" else "challenger"
    allotments = (Allotment(other, True, "hash"), Allotment(arm, False, "hash"), Allotment(arm, True, "none"))
    changes: list[tuple[str, Any]] = [("allotment", allotment) for allotment in allotments]
    changes += [
        ("served_by", other), ("attempts", 2), ("fallback_reason", FallbackReason.ERROR), ("mirror", True),
        ("mirrored", True), ("stale", True), ("withdrawn", True), ("answer_status", 502),
    ]  # fmt: skip
    for change in [None, *changes, None]:
        record = record_of(routes, ASKED, SAID)
        record.allotment, record.served_by = base, arm
        if change is not None:
            setattr(record, *change)
        found = said(record)
        assert found is not None
        assert found == record.event()
        assert found["arm"] == record.allotment.arm
        assert found["evidence"] == (record.allotment.evidence and not record.withdrawn)
    assert len(routes.endings) == len(changes) + 1


HIDDEN = b'{"instances": [[1, 2.5], [3, 4]], "email": "a@b.example"}'


@pytest.mark.parametrize(
    ("body", "answer", "change"),
    [
        (HIDDEN, SAID, None),
        (ASKED, HIDDEN, None),
        (b'{"instances": [["caf\xc3\xa9"], [3]]}', SAID, None),
        (b'{"instances": [["\\u0065mail"], [3]]}', SAID, None),
        (b"a=%65mail", SAID, None),
        (b'{"instances": [[1, 2, 3]]}', SAID, None),  # one row, two predictions
        (ASKED, b'{"predictions": [NaN, 0.5]}', None),
        (ASKED, b'{"predictions": [0.25, 0.5]', None),
        (b'{"instances": [[%b], [3]]}' % b",".join([b"1"] * 2_100), SAID, None),
        (ASKED, SAID, lambda record: setattr(record.first, "late", True)),
        (ASKED, SAID, lambda record: setattr(record.first, "cut", True)),
        (ASKED, SAID, lambda record: setattr(record.first, "usable", False)),
        (ASKED, SAID, lambda record: setattr(record.first, "coding", b"gzip")),
        (ASKED, SAID, lambda record: setattr(record.request, "whole", False)),
        (ASKED, SAID, lambda record: record.request.fields.update({b"content-encoding": b"gzip"})),
        (ASKED, SAID, lambda record: record.request.fields.update({b"cookie": b"a=b; " * 300})),
    ],
)
def test_what_has_to_be_looked_at_is_left_to_the_thread(
    body: bytes, answer: bytes, change: Callable[[Record], None] | None
) -> None:
    routes = routes_of()
    learnt(routes, ASKED, SAID, body, answer)
    record = record_of(routes, body, answer)
    if change is not None:
        change(record)
    counted = routes.findings.unusable, routes.redactions.counters()
    assert record.line() is None
    # And nothing is counted that the thread will count.
    assert (routes.findings.unusable, routes.redactions.counters()) == counted


@pytest.mark.parametrize("name", ["", "email "])
def test_of_an_answer_that_is_passed_on_the_same_is_kept_in_however_many_parts_it_came(name: str) -> None:
    """In one read all of it is there when it is recorded, which may be too much to be looked through."""
    routes = routes_of()
    limit = routes.capture_bytes
    whole = name.encode() + b"x" * limit * 9
    records = [record_of(routes, ASKED, answer) for answer in (whole, whole[:limit])]
    for record in records:
        record.first.to_judge, record.first.unjudged = None, True
    records[1].first.cut = True
    records[1].t = records[0].t
    events = [record.event() for record in records]
    assert events[0] == events[1]
    assert events[0]["answer_cut"] is True
    assert events[0]["answer"] == ("[redacted]" if name else "x" * limit)


def test_what_cannot_be_written_is_left_to_the_thread_which_counts_it() -> None:
    """Whoever makes a line has a client to tell that its answer is over."""
    routes = routes_of()
    learnt(routes, ASKED, SAID)
    record = record_of(routes, ASKED, SAID)
    record.unit = "\ud800"
    assert record.line() is None


@pytest.mark.parametrize(
    "capture",
    [{}, {"inputs_bp": 0}, {"answers_bp": 0}, {"inputs_bp": 5_000, "answers_bp": 5_000}, {"redact_defaults": False}],
    ids=str,
)
def test_lines_say_what_events_say(capture: dict[str, Any]) -> None:
    chance = random.Random(11)
    routes = routes_of(**capture)
    words = [
        b"carrier",
        b"origin",
        b"UA",
        b"dep_delay",
        b'\\"',
        b"\\n",
        b"kind",
        b"token",
        b"\\u0041",
        b"%65",
        b"\xc3\xa9",
        b" ",
    ]
    made = 0
    for number in range(3_000):
        rows = chance.randrange(1, 4)
        cells = b",".join(b'["%b", %d]' % (chance.choice(words), chance.randrange(99)) for _ in range(rows))
        body = b'{"kind": "%b", "inputs": [%b]}' % (chance.choice(words), cells)
        answer = b'{"predictions": [%b]}' % b",".join(
            [b"%.3f" % chance.random()] * chance.choice((rows, rows, rows, 2))
        )
        record = record_of(routes, body, answer, x_country=chance.choice((b"NL", b"BE")))
        record.request_id = b"r%d" % number
        record.mirrored, record.stale, record.mirror = (chance.random() < 0.3 for _ in range(3))
        record.withdrawn = chance.random() < 0.1
        if chance.random() < 0.3:
            record.first.to_judge, record.first.unjudged = None, chance.random() < 0.5
        record.fallback_reason = chance.choice((None, FallbackReason.TIMEOUT))
        record.served_by = chance.choice(("champion", "challenger"))
        record.attempts = chance.choice((1, 2))
        record.answer_status, record.first.status = chance.choice((200, 201, 502)), chance.choice((200, 203))
        record.allotment = chance.choice((record.allotment, *ALLOTMENTS))
        found = said(record)
        event = record.event()
        if found is not None:
            made += 1
            assert found == event
    assert made > 200
