"""What a server may say to a call, what may not be taken for an answer, and which connections are used again."""

import errno
import logging
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from controller.edges.exchange import Answer, Call, Exchange, Untrusted
from controller.errors import EdgeError
from tests.ports.speakers import Peer, speaking
from tests.router.authorities import SERVER, Authority

NO_HTTP = "not reachable (what it answers is no HTTP, or was cut off)"
OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"


@pytest.fixture
def exchange() -> Iterator[Exchange]:
    made = Exchange(20.0, headers={"Authorization": "Bearer secret"})
    yield made
    made.close()


def says(text: bytes) -> Callable[[Peer], None]:
    """Answers each request with ``text``, and leaves the connection open."""

    def speak(peer: Peer) -> None:
        while peer.asked():
            peer.say(text)

    return speak


def once(text: bytes) -> Callable[[Peer], None]:
    """Answers one request, and closes the connection."""

    def speak(peer: Peer) -> None:
        peer.asked()
        peer.say(text)

    return speak


@pytest.mark.parametrize(
    "text",
    [
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\r\n secret\r\ncontent-length: 2\r\n\r\nok", id="a line that goes on"),
        pytest.param(b"HTTP/1.1 200 OK\r\n x: secret\r\ncontent-length: 2\r\n\r\nok", id="one that goes on at once"),
        pytest.param(b"HTTP/1.1 200 OK\ncontent-length: 2\n\nok", id="bare line feeds"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\ncontent-length: 2\r\n\r\nok", id="one bare line feed"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\rcontent-length: 2\r\n\r\nok", id="a bare carriage return"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok!", id="two lengths"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: -2\r\n\r\nok", id="a length below nothing"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length: +2\r\n\r\nok", id="a length with a sign"),
        pytest.param(b"HTTP/1.1 200 OK\r\ncontent-length : 2\r\n\r\nok", id="a space before the colon"),
        pytest.param(b"HTTP/1.1 200 OK\r\nsecret\r\ncontent-length: 2\r\n\r\nok", id="a line that is no field"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: a\0b\r\ncontent-length: 2\r\n\r\nok", id="a zero byte"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: secret\r\n\r\nok", id="an unknown transfer encoding"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nsecret\r\n", id="a chunk without a size"),
        pytest.param(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nokay", id="a chunk with more in it"),
        pytest.param(b"HTTP/1.1 101 Switching Protocols\r\nupgrade: secret\r\n\r\n", id="another protocol"),
        pytest.param(b"HTTP/1.1 99 secret\r\n\r\n", id="a status of two digits"),
        pytest.param(b"HTTP/2 200\r\n\r\n", id="another version"),
        pytest.param(b"SSH-2.0-secret\r\n", id="another protocol's greeting"),
        pytest.param(b"HTTP/1.1 200 OK\r\nx: " + b"secret" * 50_000, id="a head without an end"),
        pytest.param(b"HTTP/1.1 102 Processing\r\n\r\n" * 17 + OK, id="seventeen answers before the answer"),
        pytest.param(
            b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"1\r\na\r\n" * 5_000 + b"0\r\n\r\n",
            id="thousands of chunks of a byte",
        ),
        pytest.param(b"HTTP/1.1 200 OK\r\n" + b"x: secret\r\n" * 20_000 + b"\r\n", id="a head of many fields"),
    ],
)
def test_what_is_not_exactly_http_is_refused_at_once_and_not_quoted(exchange: Exchange, text: bytes) -> None:
    began = time.monotonic()
    with speaking(says(text)) as server:
        (said,) = exchange.all([Call("GET", f"http://{server}/")])
    assert str(said) == NO_HTTP
    assert time.monotonic() - began < 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"HTTP/1.1 103 Early\r\nx: y\r\n\r\n" + OK, "ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n", "ok"),
        (b"HTTP/1.1 200 OK\r\nx: a\r\n b\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 200 OK\r\nx: a\ncontent-length: 0\r\n\r\n", NO_HTTP),
        (b"HTTP/1.1 200 OK\r\n\n\r\n", NO_HTTP),
    ],
)
def test_it_does_not_matter_in_which_pieces_an_answer_comes(exchange: Exchange, text: bytes, expected: str) -> None:
    def speak(peer: Peer) -> None:
        while peer.asked():
            for place in range(len(text)):
                peer.say(text[place : place + 1])
                peer.over.wait(0.001)  # so that it goes alone

    with speaking(speak) as server:
        for _ in range(2):
            (said,) = exchange.all([Call("GET", f"http://{server}/")])
            assert (said.body.decode() if isinstance(said, Answer) else str(said)) == expected


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"HTTP/1.1 200 OK\r\nx: y",
        b"HTTP/1.1 100 Continue\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nok",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
    ],
)
def test_an_answer_that_is_cut_off_is_none(exchange: Exchange, text: bytes) -> None:
    with speaking(once(text)) as server:
        (said,) = exchange.all([Call("GET", f"http://{server}/")])
    assert str(said) == NO_HTTP


@pytest.mark.parametrize(
    ("text", "status", "body"),
    [
        (OK, 200, b"ok"),
        (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nlink: a\r\n\r\n" + OK, 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
        (b"HTTP/1.1 304 Not Modified\r\ncontent-length: 5\r\n\r\n", 304, b""),
        (b"HTTP/1.1 200\r\ncontent-length: 2, 2\r\n\r\nok", 200, b"ok"),
        (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;a=b\r\no\r\n1\r\nk\r\n0\r\nx: y\r\n\r\n", 200, b"ok"),
        (b"HTTP/1.1 301 Moved\r\nlocation: /a\r\ncontent-length: 0\r\n\r\n", 301, b""),
        (b"HTTP/1.1 500 Oh\r\ncontent-length: 600000\r\n\r\n" + b"x" * 600_000, 500, b"x" * 600_000),
    ],
)
def test_an_answer_is_read_to_its_end_and_its_connection_used_again(
    exchange: Exchange, text: bytes, status: int, body: bytes
) -> None:
    connections = []

    def speak(peer: Peer) -> None:
        connections.append(peer.number)
        says(text)(peer)

    with speaking(speak) as server:
        answers = [exchange.one(Call("GET", f"http://{server}/")) for _ in range(3)]
    assert [(each.status, each.body) for each in answers] == [(status, body)] * 3
    assert connections == [1]


@pytest.mark.parametrize(
    "head", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200 OK\r\n\r\n", b"HTTP/1.0 200\r\nx: y\r\n\r\n"]
)
def test_an_answer_may_end_with_its_connection(exchange: Exchange, head: bytes) -> None:
    with speaking(once(head + b"ok")) as server:
        assert [exchange.one(Call("GET", f"http://{server}/")).body for _ in range(2)] == [b"ok", b"ok"]


def test_the_answer_to_head_has_no_body(exchange: Exchange) -> None:
    with speaking(says(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")) as server:
        assert [exchange.one(Call("HEAD", f"http://{server}/"))[::2] for _ in range(2)] == [(200, b"")] * 2


def test_what_is_asked_arrives_as_it_is_meant(exchange: Exchange) -> None:
    asked: list[bytes] = []

    def speak(peer: Peer) -> None:
        while request := peer.asked():
            asked.append(request)
            peer.say(b"HTTP/1.1 200 OK\r\nX-A: 1\r\ncontent-length: 2\r\nx-a: 2\r\ncontent-encoding: gzip\r\n\r\nok")

    body = b"x" * (8 << 20)
    with speaking(speak) as server:
        answer = exchange.one(Call("PUT", f"http://{server}/a%20b/ü?q=[1 m]#f", body))
        exchange.one(Call("POST", f"http://us%3Aer:pass@{server}?x"))
    assert (answer.headers["x-a"], answer.body) == ("1, 2", b"ok")  # it is not asked for, so not decoded
    head, _, sent = asked[0].partition(b"\r\n\r\n")
    assert sent == body
    line, *fields = head.split(b"\r\n")
    assert line == b"PUT /a%20b/%C3%BC?q=[1%20m] HTTP/1.1"
    assert {b"host: " + server.encode(), b"authorization: Bearer secret", b"accept-encoding: identity"} < set(fields)
    assert {b"content-type: application/json", b"content-length: 8388608"} < set(fields)
    line, *fields = asked[1].split(b"\r\n")
    assert line == b"POST /?x HTTP/1.1"
    assert {b"host: " + server.encode(), b"authorization: Basic dXM6ZXI6cGFzcw==", b"content-length: 0"} < set(fields)
    assert b"authorization: Bearer secret" not in fields


def test_a_kept_connection_that_its_server_has_closed_is_not_used(exchange: Exchange) -> None:
    closed = threading.Event()

    def speak(peer: Peer) -> None:
        once(OK)(peer)
        peer.close()
        closed.set()

    with speaking(speak) as server:
        for _ in range(3):
            closed.clear()
            assert exchange.one(Call("POST", f"http://{server}/", b"{}")).body == b"ok"
            assert closed.wait(20)


@pytest.mark.parametrize(("method", "times"), [("GET", 2), ("PUT", 2), ("DELETE", 2), ("POST", 1), ("PATCH", 1)])
@pytest.mark.parametrize("reset", [False, True])
def test_what_a_kept_connection_does_not_answer_is_asked_again_where_that_does_no_harm(
    exchange: Exchange, method: str, times: int, reset: bool
) -> None:
    asked: list[int] = []

    def speak(peer: Peer) -> None:
        for number in range(2):
            if not peer.asked():
                return
            asked.append(peer.number)
            if (peer.number, number) == (1, 1):
                peer.close(reset=reset)
            peer.say(OK)

    with speaking(speak) as server:
        assert exchange.one(Call("GET", f"http://{server}/")).body == b"ok"
        (said,) = exchange.all([Call(method, f"http://{server}/", b"{}")])
    assert asked == [1, 1, 2][: 1 + times]
    assert (isinstance(said, Answer), isinstance(said, EdgeError)) == (times == 2, times == 1)
    if isinstance(said, EdgeError):
        assert str(said) == (
            f"not reachable ([Errno {errno.ECONNRESET}] Connection reset by peer)" if reset else NO_HTTP
        )


def test_what_was_answered_in_part_is_not_asked_again(exchange: Exchange) -> None:
    asked: list[int] = []

    def speak(peer: Peer) -> None:
        for text in (OK, OK[:20]):
            peer.asked()
            asked.append(peer.number)
            peer.say(text)

    with speaking(speak) as server:
        assert exchange.one(Call("GET", f"http://{server}/")).body == b"ok"
        assert str(exchange.all([Call("GET", f"http://{server}/")])[0]) == NO_HTTP
    assert asked == [1, 1]


@pytest.mark.parametrize("more", [b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged", b"x", b"\r\n"])
def test_what_follows_an_answer_is_not_taken_for_the_next_one(exchange: Exchange, more: bytes) -> None:
    connections = []

    def speak(peer: Peer) -> None:
        connections.append(peer.number)
        says(OK + more)(peer)

    with speaking(speak) as server:
        assert [exchange.one(Call("GET", f"http://{server}/")).body for _ in range(3)] == [b"ok"] * 3
    assert connections == [1, 2, 3]  # still more may be on its way


def test_ipv6_addresses_are_called(exchange: Exchange) -> None:
    with speaking(says(OK), host="::1") as server:
        assert exchange.one(Call("GET", f"http://{server}/")).body == b"ok"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_only_a_server_whose_certificate_is_trusted_is_told_the_token(host: str, tmp_path: Path) -> None:
    authority = Authority(tmp_path)
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(*authority.sign("server", (SERVER,)))
    asked: list[bytes] = []
    connections: set[int] = set()

    def speak(peer: Peer) -> None:
        while request := peer.asked():
            asked.append(request)
            connections.add(peer.number)
            peer.say(b"HTTP/1.1 200 OK\r\ncontent-length: 300000\r\n\r\n" + b"x" * 300_000)

    with speaking(speak, tls=tls) as server:
        url = f"https://{server}/".replace("127.0.0.1", host)
        strange = Exchange(20.0, headers={"authorization": "Bearer secret"})
        (said,) = strange.all([Call("GET", url)])
        assert isinstance(said, Untrusted)
        assert str(said).startswith("its certificate is not trusted: ")
        assert not asked
        trusting = Exchange(20.0, tls=ssl.create_default_context(cafile=authority.cert))
        body = b"y" * (2 << 20)
        assert [len(trusting.one(Call("PUT", url, body)).body) for _ in range(3)] == [300_000] * 3
        assert {len(each.partition(b"\r\n\r\n")[2]) for each in asked} == {len(body)}
        assert len(connections) == 1
        for each in (strange, trusting):
            each.close()


def test_a_server_without_tls_is_no_server_with_it(exchange: Exchange) -> None:
    with speaking(lambda peer: peer.say(b"HTTP/1.1 400 Bad Request\r\n\r\n")) as server:
        (said,) = exchange.all([Call("GET", f"https://{server}/")])
    assert str(said).startswith("not reachable (")


def test_neither_errors_nor_the_log_tell_an_address(exchange: Exchange, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    with socket.socket() as bound:  # nobody listens there
        bound.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{bound.getsockname()[1]}"
        (said,) = exchange.all([Call("GET", f"http://user:secret@{nobody}/secret")])
        assert str(said) == f"not reachable ([Errno {errno.ECONNREFUSED}] Connection refused)"
    with speaking(says(OK)) as server:
        assert exchange.one(Call("GET", f"http://{server}/secret")).status == 200
    assert not caplog.text
