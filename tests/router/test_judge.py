"""Which answers may be shown."""

import json
import sys
from collections.abc import Callable
from itertools import count, product
from types import FrameType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.heads import Request, Response
from router.judge import judge, passes_through, rows_asked

ROWS = b'{"inputs": [[1], [2]]}'


def asked(body: bytes = ROWS, method: bytes = b"POST") -> Request:
    request = Request(method, b"/invocations", False, [], {})
    request.body = body
    return request


def response(status: int = 200, kind: bytes = b"application/json", length: int = -1, **fields: bytes) -> Response:
    named = {name.replace("_", "-").encode(): value for name, value in fields.items()}
    return Response(status, b"", {b"content-type": kind, **named}, length, False)


@pytest.mark.parametrize(
    "body",
    [
        b'{"predictions": [1, 2]}',
        b'{"predictions": [[0.1, 0.9], [0.2, 0.8]]}',
        b'{"predictions": {"a": 1}}',
        b'{"other": 1}',
        b"[1, 2, 3]",
        b'"text"',
        b"null",
    ],
)
def test_json_with_as_many_predictions_as_rows_is_usable(body: bytes) -> None:
    assert judge(response(), body, asked()) is True


@pytest.mark.parametrize(("rows", "usable"), [(65_534, False), (65_535, True)])
def test_of_a_request_of_very_many_small_parts_the_rows_are_not_counted(rows: int, usable: bool) -> None:
    """Neither arm's answer is held to them: that is seen from the request alone."""
    request = asked(b'{"inputs": [%b]}' % b",".join([b"[1]"] * rows))
    assert judge(response(), b'{"predictions": [1]}', request) is usable


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"<html>",
        b'{"predictions": [NaN, 1]}',
        b'{"predictions": [Infinity, 1]}',
        b'{"predictions": [-Infinity, 1]}',
        b'{"predictions": [1e999, 1]}',
        b'{"predictions": [1]}',
        b'{"predictions": []}',
        b'{"predictions": [1, 2, 3]}',
        b'{"predictions": [1, 2]} and more',
        b'{"predictions": ["\xff", 2]}',
        b"\xef\xbb\xbf{}",
    ],
)
def test_what_is_no_json_or_has_other_rows_than_were_asked_for_is_not(body: bytes) -> None:
    assert judge(response(), body, asked()) is False


@pytest.mark.parametrize("status", [199, 301, 304, 400, 404, 429, 500, 503])
def test_no_status_but_2xx_is_usable_whatever_the_body(status: int) -> None:
    assert judge(response(status), b'{"predictions": [1, 2]}', asked()) is False


def test_what_does_not_say_that_it_is_json_is_not_read_as_json() -> None:
    assert judge(response(kind=b"text/csv"), b"NaN", asked()) is True


def test_an_answer_without_a_body_has_nothing_that_could_be_wrong() -> None:
    assert judge(response(), b"", asked(method=b"HEAD")) is True
    assert judge(response(204), b"", asked()) is True


def test_an_encoded_answer_cannot_be_told() -> None:
    assert judge(response(content_encoding=b"gzip"), b"\x1f\x8b", asked()) is None
    assert judge(response(content_encoding=b"identity"), b"\x1f\x8b", asked()) is False


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        (b"application/json", True),
        (b"Application/JSON; charset=utf-8", True),
        (b"application/problem+json", True),
        (b"text/json", True),
        (b"application/jsonlines", False),
        (b"text/plain", False),
        (b"", False),
    ],
)
def test_json_is_recognised_by_its_media_type(kind: bytes, expected: bool) -> None:
    assert response(kind=kind).json is expected
    assert judge(response(kind=kind), b"NaN", asked()) is not expected


@pytest.mark.parametrize(
    ("body", "rows"),
    [
        ({"dataframe_split": {"columns": ["a"], "data": [[1], [2], [3]]}}, 3),
        ({"dataframe_records": [{"a": 1}]}, 1),
        ({"instances": [[1], [2]]}, 2),
        ({"inputs": {"a": [1, 2], "b": [3, 4]}}, 2),
        ({"inputs": {"a": [1, 2], "b": [3]}}, None),
        ({"inputs": {"a": 1}}, None),
        ({"inputs": "text"}, None),
        ({"inputs": {}}, None),
        ({"dataframe_split": [1]}, None),
        ({"messages": [{"role": "user"}]}, None),
        ([1, 2], None),
        (None, None),
    ],
)
def test_rows_are_counted_in_every_format_of_mlflow_and_in_no_other(body: Any, rows: int | None) -> None:
    assert rows_asked(body) == rows


def test_rows_are_not_compared_where_the_request_is_no_json() -> None:
    assert judge(response(), b'{"predictions": [1]}', asked(b"a,b\n1,2\n3,4\n")) is True


def test_event_streams_and_long_answers_are_not_held() -> None:
    assert passes_through(response(kind=b"text/event-stream; charset=utf-8"), 100)
    assert passes_through(response(length=101), 100)
    assert not passes_through(response(length=101), 101)


@given(st.binary(max_size=60), st.binary(max_size=60))
def test_no_bytes_make_it_fail(request_body: bytes, answer: bytes) -> None:
    assert judge(response(), answer, asked(request_body)) in (True, False)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(),
        lambda s: (
            st.lists(s)
            | st.dictionaries(
                st.sampled_from(["inputs", "instances", "dataframe_split", "dataframe_records", "data", "predictions"]),
                s,
            )
        ),
    )
)
def test_no_shape_of_json_makes_it_fail(shape: Any) -> None:
    text = json.dumps(shape).encode()
    assert judge(response(), text, asked(text)) in (True, False)


def meanwhile(request: Request, step: int, act: Callable[[], object]) -> tuple[Any, bool]:
    """The request's JSON, where another thread acts after so many steps of the interpreter that reads it; and whether
    there were as many.
    """
    steps = 0

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal steps
        if frame.f_code is not Request.json.__code__:
            return None
        frame.f_trace_opcodes = True
        steps += 1
        if steps == step:
            act()  # which is not traced itself
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        return request.json(), steps >= step
    finally:
        sys.settrace(before)


@pytest.mark.skipif(not hasattr(Request.json, "__code__"), reason="needs-interpreter: stops between two steps")
def test_two_threads_that_look_at_one_request_both_see_its_rows() -> None:
    """The event loop judges a mirror's answer while the journal's thread judges its original's."""
    for known, forgets in product((False, True), repeat=2):
        for step in count(1):
            request = asked()
            seen: list[int | None] = []
            if known:
                request.json()

            def look(request: Request = request, seen: list[int | None] = seen, forgets: bool = forgets) -> None:
                seen.append(rows_asked(request.json()))
                if forgets:
                    request.forget()

            own, acted = meanwhile(request, step, look)
            assert rows_asked(own) == 2
            if not acted:
                break
            assert seen == [2]
        assert step > 10
