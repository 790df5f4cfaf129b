"""Bad input is refused with 400, the column and what is allowed; nothing is coerced, ignored or guessed."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.serving.conftest import COLUMNS, Server, secret_in

ROW = dict.fromkeys(COLUMNS, 0.5)


def refused(answer: httpx.Response, *parts: str, status: int = 400) -> None:
    assert answer.status_code == status, answer.text
    document = answer.json()
    assert set(document) == {"error_code", "message", "request_id"}
    assert document["request_id"] == answer.headers["x-request-id"]
    for part in parts:
        assert part in document["message"], document["message"]
    assert secret_in(answer.text) is None


CASES: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("missing column", {"x0": 1, "x1": 1, "x2": 1}, ("column 'x3' is missing", "required")),
    ("unknown column", ROW | {"x9": 1}, ("unknown column", "'x9'", "x0")),
    ("numeric string", ROW | {"x1": "1.5"}, ("column 'x1'", "the string '1.5'", "double")),
    ("boolean", ROW | {"x2": True}, ("column 'x2'", "boolean true", "double")),
    ("null", ROW | {"x3": None}, ("column 'x3'", "null", "finite JSON number")),
    ("list", ROW | {"x0": [1.0]}, ("column 'x0'", "a list", "double")),
    ("object", ROW | {"x0": {"v": 1.0}}, ("column 'x0'", "an object", "double")),
]


@pytest.mark.parametrize("form", ["dataframe_records", "dataframe_split", "inputs", "instances"])
@pytest.mark.parametrize(("name", "row", "parts"), CASES, ids=[case[0] for case in CASES])
def test_a_wrong_value_is_refused_with_its_column_and_what_is_allowed(
    lr: Server, form: str, name: str, row: dict[str, Any], parts: tuple[str, ...]
) -> None:
    table = {"columns": list(row), "data": [list(row.values())]}
    refused(lr.post({form: table if form == "dataframe_split" else [row]}), *parts)


def test_the_row_of_a_wrong_value_is_named(lr: Server) -> None:
    refused(lr.post({"dataframe_records": [ROW, ROW, ROW | {"x1": "a"}]}), "column 'x1' (row 2)")
    refused(lr.post({"dataframe_records": [ROW, {"x0": 1, "x1": 1, "x2": 1}]}), "column 'x3' (row 1) is missing")
    refused(
        lr.post({"dataframe_split": {"columns": COLUMNS, "data": [[1, 2, 3, 4], [1, 2]]}}),
        "row 1 has 2 values",
    )


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "1" * 400])
def test_a_number_that_json_or_a_double_cannot_hold_is_refused(lr: Server, number: str) -> None:
    body = '{"dataframe_records": [{"x0": %s, "x1": 1, "x2": 1, "x3": 1}]}' % number  # noqa: UP031
    headers = {"content-type": "application/json"}
    refused(httpx.post(f"{lr.url}/invocations", content=body, headers=headers), "not valid JSON", "column")


@pytest.mark.parametrize(
    ("body", "part"),
    [
        (b"", "not valid JSON"),
        (b"[1, 2]", "a list; allowed: a JSON object"),
        (b"{}", "none of the input keys"),
        (b'{"dataframe_records": [], "inputs": []}', "dataframe_records, inputs"),
        (b'{"dataframe_records": [], "extra": 1}', "unknown key the string 'extra'"),
        (b'{"dataframe_records": []}', "no rows"),
        (b'{"dataframe_records": {}}', "a list of JSON objects"),
        (b'{"dataframe_split": {"data": [[1, 2, 3, 4]]}}', "dataframe_split.columns is missing"),
        (b'{"dataframe_split": {"columns": ["x0", "x0", "x1", "x2"], "data": []}}', "'x0' is there twice"),
        (b'{"dataframe_split": {"columns": [[1]], "data": []}}', "unknown column a list"),
        (b'{"inputs": {"x0": [1, 2], "x1": [1], "x2": [1], "x3": [1]}}', "column 'x1' has 1 values"),
        (b'{"inputs": [[1, 2, 3, 4]]}', "without column names"),
        (b'{"inputs": 5}', "allowed: a list of rows"),
        (b'{"inputs": [{"x0": 1, "x1": 1, "x2": 1, "x3": 1}], "params": {"top": 1}}', "unknown param 'top'"),
        (b'{"inputs": [{"x0": 1, "x1": 1, "x2": 1, "x3": 1}], "params": 3}', "params is the number 3"),
        (b'{"inputs": "\xff"}', "not valid JSON"),
        (b"[" * 100_000, "not valid JSON"),
    ],
)
def test_a_malformed_body_is_refused_with_the_reason(lr: Server, body: bytes, part: str) -> None:
    headers = {"content-type": "application/json"}
    refused(httpx.post(f"{lr.url}/invocations", content=body, headers=headers), part)


def test_an_echo_of_a_long_wrong_value_is_bounded(lr: Server) -> None:
    answer = lr.post({"dataframe_records": [ROW | {"x0": "y" * 100_000}]})
    refused(answer, "column 'x0'")
    assert len(answer.content) < 1000


def test_other_content_types_are_refused_with_415(lr: Server) -> None:
    for kind in ("text/csv", "application/xml", "application/json; charset=latin-1", None):
        headers = {"content-type": kind} if kind else {}
        answer = httpx.post(f"{lr.url}/invocations", content=b"{}", headers=headers)
        refused(answer, "application/json", status=415)
    utf8 = {"content-type": "application/json; charset=UTF-8"}
    body = b'{"inputs": {"x0": 1, "x1": 1, "x2": 1, "x3": 1}}'
    assert httpx.post(f"{lr.url}/invocations", content=body, headers=utf8).status_code == 200


def test_unknown_paths_and_wrong_methods_are_told_apart(lr: Server) -> None:
    refused(lr.get("/nothing"), "no such path", status=404)
    answer = lr.get("/invocations")
    refused(answer, "allowed: POST", status=405)
    assert answer.headers["allow"] == "POST"


def test_a_body_over_the_limit_is_answered_413_announced_or_chunked(acting: Server) -> None:
    large = b" " * 4_000_000
    headers = {"content-type": "application/json"}
    refused(httpx.post(f"{acting.url}/invocations", content=large, headers=headers), "50000 bytes", status=413)
    pieces = (large[:10_000] for _ in range(100))
    refused(httpx.post(f"{acting.url}/invocations", content=pieces, headers=headers), "50000 bytes", status=413)
    assert acting.post({"inputs": {"act": "go", "x": 1.0}}).json() == {"predictions": [1.0]}
