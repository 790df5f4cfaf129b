"""A fault of the model is a 500 with a short reason, never a lie, a NaN, or a look into the server."""

from __future__ import annotations

import json
import socket
from urllib.parse import urlsplit

import pytest

from tests.serving.conftest import Server, secret_in, until


@pytest.mark.parametrize(
    ("act", "reason"),
    [
        ("raise", "the model failed on this request"),
        ("nan", "NaN or Infinity"),
        ("inf", "NaN or Infinity"),
        ("nested-nan", "NaN or Infinity"),
        ("frame-nan", "NaN or Infinity"),
        ("nat", "NaN or Infinity"),
        ("extra-row", "3 rows to a request of 2"),
        ("no-rows", "0 rows to a request of 2"),
        ("scalar", "one value to a request of 2"),
        ("unserialisable", "cannot be written as JSON"),
        ("big", "more than the limit of 100000"),
    ],
)
def test_a_broken_answer_of_the_model_is_a_500_that_tells_nothing_of_the_server(
    acting: Server, act: str, reason: str
) -> None:
    answer = acting.post({"inputs": {"act": [act, act], "x": [1.0, 2.0]}}, headers={"x-request-id": f"id-{act}"})
    assert answer.status_code == 500
    document = answer.json()
    assert set(document) == {"error_code", "message", "request_id"}
    assert (document["error_code"], document["request_id"]) == ("MODEL_ERROR", f"id-{act}")
    assert reason in document["message"]
    assert secret_in(answer.text) is None
    assert len(answer.content) < 300
    until(lambda: f"request id-{act}: " in acting.log, seconds=10.0, what="the line in the log")


def test_the_stack_trace_of_the_model_is_in_the_log_under_the_request_id(acting: Server) -> None:
    acting.post({"inputs": {"act": "raise", "x": 1.0}}, headers={"x-request-id": "look-here"})
    until(lambda: "request look-here: the model failed" in acting.log, seconds=10.0, what="the line in the log")
    until(lambda: "ZeroDivisionError: secret detail of the model" in acting.log, seconds=10.0, what="the trace")


def test_an_input_fault_after_a_model_fault_is_still_the_clients(acting: Server) -> None:
    assert acting.post({"inputs": {"act": "raise", "x": 1.0}}).status_code == 500
    assert acting.post({"inputs": {"act": 5, "x": 1.0}}).status_code == 400
    assert acting.post({"inputs": {"act": "go", "x": 2.0}}).json() == {"predictions": [2.0]}


def test_a_hostile_request_id_is_not_echoed(acting: Server) -> None:
    answer = acting.post({"inputs": {"act": "go", "x": 2.0}}, headers={"x-request-id": "x" * 5000})
    assert len(answer.headers["x-request-id"]) < 64


def raw(server: Server, data: bytes) -> bytes:
    """Everything the server says to these bytes, until it closes."""
    parts = urlsplit(server.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=20.0) as connection:
        connection.sendall(data)
        received = b""
        while piece := connection.recv(65536):
            received += piece
    return received


def request(x: float, *headers: str) -> bytes:
    body = json.dumps({"inputs": {"act": "go", "x": x}}).encode()
    lines = ["POST /invocations HTTP/1.1", "host: a", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(body)}", "", ""]).encode() + body


def test_pipelined_requests_are_answered_in_order(acting: Server) -> None:
    data = b"".join(request(float(number)) for number in range(50)) + request(50.0, "connection: close")
    received = raw(acting, data)
    values = [json.loads(part.split(b"\r\n\r\n")[1])["predictions"] for part in received.split(b"HTTP/1.1 ")[1:]]
    assert values == [[float(number)] for number in range(51)]


def test_bytes_that_are_not_http_get_a_400_after_the_answers_before_them(acting: Server) -> None:
    received = raw(acting, request(1.0) + b"\x16\x03\x01nonsense\r\n\r\n")
    assert received.count(b"HTTP/1.1 ") == 2
    assert b'"predictions":[1.0]' in received
    assert b"HTTP/1.1 400 Bad Request" in received


def test_an_upgrade_is_declined_and_the_request_answered(acting: Server) -> None:
    offer = ("connection: Upgrade, HTTP2-Settings", "upgrade: h2c", "http2-settings: AA")
    received = raw(acting, request(3.0, *offer) + request(4.0, *offer) + request(5.0, "connection: close"))
    assert received.count(b"HTTP/1.1 200") == 3
    assert [received.count(b'"predictions":[%d.0]' % number) for number in (3, 4, 5)] == [1, 1, 1]
    assert raw(acting, b"CONNECT a:1 HTTP/1.1\r\nhost: a\r\n\r\n").startswith(b"HTTP/1.1 405")


def test_expect_continue_is_honoured_and_a_too_large_announcement_refused(acting: Server) -> None:
    received = raw(acting, request(3.0, "expect: 100-continue", "connection: close"))
    assert received.startswith(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200")
    head = b"POST /invocations HTTP/1.1\r\nhost: a\r\nexpect: 100-continue\r\ncontent-length: 60000\r\n\r\n"
    assert raw(acting, head).startswith(b"HTTP/1.1 413")


def test_a_client_that_sends_all_before_it_reads_still_gets_its_refusal(acting: Server) -> None:
    body = b" " * 4_000_000
    head = b"POST /invocations HTTP/1.1\r\nhost: a\r\ncontent-length: %d\r\n\r\n" % len(body)
    received = raw(acting, head + body)
    assert received.startswith(b"HTTP/1.1 413")
    assert b"REQUEST_TOO_LARGE" in received


def test_endless_headers_are_cut_off(acting: Server) -> None:
    data = b"GET /ping HTTP/1.1\r\n" + b"".join(b"x-%d: %s\r\n" % (n, b"y" * 1000) for n in range(60)) + b"\r\n"
    assert raw(acting, data).startswith(b"HTTP/1.1 431")
