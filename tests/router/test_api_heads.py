"""Heads of requests to the control API are bounded: they are read before it is known who asks."""

import json
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from router.gate import MOST_FIELDS, MOST_HEAD_BYTES, MOST_HEADS_BYTES
from tests.router.raw import Answer, Raw
from tests.router.routers import Router, started

TOKEN = "correct horse battery"
BEGIN = b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n"
CHUNKED = b"PUT /v1/table HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n"
KNOWN = BEGIN + f"Authorization: Bearer {TOKEN}\r\n".encode()


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with started(tmp_path_factory.mktemp("guarded"), token=TOKEN) as running:
        yield running


def fields(number: int, size: int = 0) -> bytes:
    return b"".join(b"X-%d: %s\r\n" % (at, b"x" * size) for at in range(number))


def last_answer(raw: Raw) -> Answer:
    """What is said before the connection is closed; of an upload, that nobody was let in is said first."""
    answer = raw.answer()
    return raw.answer() if answer.status == 401 else answer


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (BEGIN + fields(MOST_FIELDS + 1), f"there are more than {MOST_FIELDS} fields"),
        (BEGIN + fields(100, 1_000), f"the head has more than {MOST_HEAD_BYTES} bytes"),
        (BEGIN + b"X: " + b"x" * 100_000, f"the head has more than {MOST_HEAD_BYTES} bytes"),
        (b"GET /" + b"x" * 100_000, f"the head has more than {MOST_HEAD_BYTES} bytes"),
        (CHUNKED + fields(MOST_FIELDS + 1), f"there are more than {MOST_FIELDS} fields"),
        (CHUNKED + b"X: " + b"x" * 100_000, f"the head has more than {MOST_HEAD_BYTES} bytes"),
    ],
    ids=["fields", "bytes", "one field", "path", "trailers", "one trailer"],
)
def test_a_head_without_an_end_is_refused_in_the_form_of_all_faults(guarded: Router, sent: bytes, said: str) -> None:
    with Raw(guarded.ready["control_port"]) as raw:
        raw.send(sent)
        answer = last_answer(raw)
        assert (answer.status, answer.closes) == (431, True)
        assert json.loads(answer.body) == {"error": said, "problems": []}
        assert raw.ended()


def test_a_large_head_within_the_limits_is_read_and_so_is_the_next(guarded: Router) -> None:
    with Raw(guarded.ready["control_port"]) as raw:
        for _ in range(3):
            raw.send(KNOWN + fields(60, 900) + b"\r\n")
            assert raw.answer().status == 200


def test_all_heads_of_strangers_together_are_bounded_and_the_controller_gets_through(guarded: Router) -> None:
    port = guarded.ready["control_port"]
    with Raw(port) as controller, ExitStack() as stack:
        controller.send(KNOWN + b"\r\n")
        assert controller.answer().status == 200
        # Each well within its own limit; the connections of other tests may have gone or not.
        strangers = [stack.enter_context(Raw(port)) for _ in range(MOST_HEADS_BYTES // 50_000 + 2)]
        for stranger in strangers:
            stranger.send(BEGIN + b"X: " + b"x" * 50_000)
        answer = strangers[-1].answer()
        assert (answer.status, answer.closes, answer.fields[b"retry-after"]) == (503, True, b"1")
        assert json.loads(answer.body) == {"error": "too many heads are under way", "problems": []}
        with Raw(port) as other:
            for raw in (controller, other):
                raw.send(KNOWN + b"\r\n")
                assert raw.answer().status == 200
            controller.send(KNOWN + fields(60, 900) + b"\r\n")
            assert controller.answer().status == 200
