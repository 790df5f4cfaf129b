"""Messages that different readers would read differently are refused, and their connection ends."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.router.fuzz import fuzz_sockets
from tests.router.models import Model
from tests.router.planes import Plane, running, serving, table
from tests.router.raw import Raw, ask, await_until, post

NEXT = b"GET /smuggled HTTP/1.1\r\nHost: r\r\n\r\n"
H = b"Host: r\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nHost: r\r\nTransfer-Encoding: chunked\r\n\r\n"
# What is wrong → the message, complete with what would follow it for another reader.
CORPUS = {
    "CL beside TE": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "TE beside CL": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "two different CL": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 0\r\n\r\nabcde",
    "the same CL twice": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nabcde",
    "a list of CL": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5, 5\r\n\r\nabcde",
    "CL with a sign": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: +5\r\n\r\nabcde",
    "negative CL": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: -1\r\n\r\n",
    "CL in hex": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 0x5\r\n\r\nabcde",
    "CL with a fraction": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5.0\r\n\r\nabcde",
    "CL with an underscore": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 1_0\r\n\r\nabcde",
    "CL that overflows": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 18446744073709551621\r\n\r\nabcde",
    "empty CL": b"POST / HTTP/1.1\r\n" + H + b"Content-Length:\r\n\r\nabcde",
    "CL with a blank inside": b"POST / HTTP/1.1\r\n" + H + b"Content-Length: 5 0\r\n\r\nabcde",
    "blank before the colon": b"POST / HTTP/1.1\r\n" + H + b"Content-Length : 5\r\n\r\nabcde",
    "tab before the colon": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n",
    "TE with VT": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "TE that only ends so": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "TE with identity": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: identity\r\n\r\nabc",
    "two TE in one": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "gzip before chunked": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "two TE": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x\r\n\r\n0\r\n\r\n",
    "the same TE twice": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding: chunked\r\n" * 2 + b"\r\n0\r\n\r\n",
    "quoted TE": b"POST / HTTP/1.1\r\n" + H + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n',
    "empty TE": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding:\r\n\r\n0\r\n\r\n",
    "TE in HTTP/1.0": b"POST / HTTP/1.0\r\n" + H + b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "folded TE": b"POST / HTTP/1.1\r\n" + H + b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "folded field": b"GET / HTTP/1.1\r\n" + H + b"X-A: 1\r\n 2\r\n\r\n",
    "field folded by a tab": b"GET / HTTP/1.1\r\n" + H + b"X-A: 1\r\n\t2\r\n\r\n",
    "blank before the first field": b"GET / HTTP/1.1\r\n " + H + b"\r\n",
    "underscores for CL": b"POST / HTTP/1.1\r\n" + H + b"Content_Length: 5\r\n\r\nabcde",
    "underscores for TE": b"POST / HTTP/1.1\r\n" + H + b"Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
    "bare LF after the line": b"GET / HTTP/1.1\n" + H + b"\r\n",
    "bare LF after a field": b"GET / HTTP/1.1\r\nHost: r\nX: 1\r\n\r\n",
    "bare LF at the end": b"GET / HTTP/1.1\r\nHost: r\r\n\n\r\n\r\n",
    "bare CR in a field": b"GET / HTTP/1.1\r\nHost: r\rX: 1\r\n\r\n",
    "bare CR for CRLF": b"GET / HTTP/1.1\rHost: r\r\r\r\n\r\n",
    "CR before CRLF": b"GET / HTTP/1.1\r\nHost: r\r\r\n\r\n",
    "NUL in a value": b"GET / HTTP/1.1\r\n" + H + b"X: a\x00b\r\n\r\n",
    "NUL in a name": b"GET / HTTP/1.1\r\n" + H + b"X\x00: a\r\n\r\n",
    "NUL in the target": b"GET /\x00 HTTP/1.1\r\n" + H + b"\r\n",
    "DEL in a value": b"GET / HTTP/1.1\r\n" + H + b"X: a\x7fb\r\n\r\n",
    "control in a value": b"GET / HTTP/1.1\r\n" + H + b"X: a\x08b\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\n" + H + b"X\r\n\r\n",
    "no name": b"GET / HTTP/1.1\r\n" + H + b": 1\r\n\r\n",
    "odd name": b"GET / HTTP/1.1\r\n" + H + b"X(y): 1\r\n\r\n",
    "name beyond ASCII": b"GET / HTTP/1.1\r\n" + H + b"X\xc3\xbc: 1\r\n\r\n",
    "no Host": b"GET / HTTP/1.1\r\n\r\n",
    "a Host of a user": b"GET / HTTP/1.1\r\nHost: a@r\r\n\r\n",
    "a Host with a space": b"GET / HTTP/1.1\r\nHost: a r\r\n\r\n",
    "a Host with a path": b"GET / HTTP/1.1\r\nHost: r/a\r\n\r\n",
    "a Host whose port is no number": b"GET / HTTP/1.1\r\nHost: r:80a\r\n\r\n",
    "a Host with half an address": b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
    "an old client's Host with a space": b"GET / HTTP/1.0\r\nHost: a r\r\n\r\n",
    "two Hosts": b"GET / HTTP/1.1\r\n" + H + b"Host: other\r\n\r\n",
    "target with a scheme": b"GET http://other/ HTTP/1.1\r\n" + H + b"\r\n",
    "target of CONNECT": b"CONNECT other:443 HTTP/1.1\r\n" + H + b"\r\n",
    "CONNECT to a path": b"CONNECT /x:443 HTTP/1.1\r\n" + H + b"\r\n",
    "target without a slash": b"GET x HTTP/1.1\r\n" + H + b"\r\n",
    "no target": b"GET HTTP/1.1\r\n" + H + b"\r\n",
    "fragment in the target": b"GET /#x HTTP/1.1\r\n" + H + b"\r\n",
    "asterisk for GET": b"GET * HTTP/1.1\r\n" + H + b"\r\n",
    "target beyond ASCII": b"GET /\xff HTTP/1.1\r\n" + H + b"\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\n" + H + b"\r\n",
    "tab for a blank": b"GET\t/\tHTTP/1.1\r\n" + H + b"\r\n",
    "blank after the version": b"GET / HTTP/1.1 \r\n" + H + b"\r\n",
    "four words": b"GET / x HTTP/1.1\r\n" + H + b"\r\n",
    "HTTP/0.9": b"GET /\r\n\r\n",
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "HTTP/1.2": b"GET / HTTP/1.2\r\n" + H + b"\r\n",
    "HTTP/1.10": b"GET / HTTP/1.10\r\n" + H + b"\r\n",
    "version in lower case": b"GET / http/1.1\r\n" + H + b"\r\n",
    "method in lower case": b"get / HTTP/1.1\r\n" + H + b"\r\n",
    "unknown method": b"SMUGGLE / HTTP/1.1\r\n" + H + b"\r\n",
    "TRACE": b"TRACE / HTTP/1.1\r\n" + H + b"\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    "chunk size too large": CHUNKED + b"100000000000\r\nabc",
    "chunk size of nine digits": CHUNKED + b"000000005\r\nabcde\r\n0\r\n\r\n",
    "chunk size with 0x": CHUNKED + b"0x5\r\nabcde\r\n0\r\n\r\n",
    "negative chunk size": CHUNKED + b"-5\r\nabcde\r\n0\r\n\r\n",
    "chunk size with a sign": CHUNKED + b"+5\r\nabcde\r\n0\r\n\r\n",
    "chunk size with an underscore": CHUNKED + b"1_0\r\nabcdeabcdeabcdef\r\n0\r\n\r\n",
    "empty chunk size": CHUNKED + b"\r\nabcde\r\n0\r\n\r\n",
    "blank before a chunk size": CHUNKED + b" 5\r\nabcde\r\n0\r\n\r\n",
    "blank before a chunk extension": CHUNKED + b"5 ;a=b\r\nabcde\r\n0\r\n\r\n",
    "LF after a chunk size": CHUNKED + b"5\nabcde\r\n0\r\n\r\n",
    "LF in a chunk extension": CHUNKED + b"5;a\nb\r\nabcde\r\n0\r\n\r\n",
    "CR in a chunk extension": CHUNKED + b"5;a\rb\r\nabcde\r\n0\r\n\r\n",
    "endless chunk extension": CHUNKED + b"5;" + b"a" * 20_000,
    "chunk longer than said": CHUNKED + b"5\r\nabcdefg\r\n0\r\n\r\n",
    "chunk shorter than said": CHUNKED + b"5\r\nabc\r\n0\r\n\r\n",
    "LF after a chunk": CHUNKED + b"5\r\nabcde\n0\r\n\r\n",
    "trailer without a colon": CHUNKED + b"0\r\nabc\r\n\r\n",
    "trailer with a bare LF": CHUNKED + b"0\r\nX: 1\n\r\n\r\n",
    "CL in the trailers": CHUNKED + b"0\r\nContent-Length: 5\r\n\r\nabcde",
    "TE in the trailers": CHUNKED + b"0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "endless trailers": CHUNKED + b"0\r\n" + b"X: 1\r\n" * 5_000,
}  # fmt: skip


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def plane_and_champion(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Plane, Model]]:
    with (
        Model("champion") as champion,
        running(tmp_path_factory.mktemp("plane"), table(1, champion.address), loop=request.param) as plane,
    ):
        yield plane, champion


@pytest.mark.parametrize("wrong", CORPUS)
def test_is_refused(plane_and_champion: tuple[Plane, Model], wrong: str) -> None:
    plane, champion = plane_and_champion
    before = champion.count
    with Raw(plane.port) as raw:
        raw.send(CORPUS[wrong] + NEXT)
        answer = raw.answer()
        assert answer.status in {400, 431, 501, 505}
        assert answer.closes
        # Nothing behind it is read as a request.
        assert raw.ended()
    assert champion.count == before


def test_nothing_of_the_corpus_is_recorded_as_a_request(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _):
        for message in list(CORPUS.values())[:10]:
            ask(plane.port, message)
        ask(plane.port, post("u"))
        assert [e.unit for e in plane.exposures(1)] == ["u"]
        assert plane.poll()["client_errors_total"] == 10


def test_an_empty_line_before_a_request_is_forgiven(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _), Raw(plane.port) as raw:
        raw.send(post("u") + b"\r\n" + post("v") + b"\r\n")
        assert raw.answer().status == 200
        assert raw.answer().status == 200


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\nContent-Length: 2\n\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: -2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX: a\x00b\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nX : a\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
        b"HTTP/2 200\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 20 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"ICY 200 OK\r\nContent-Length: 2\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"a" * 100_000 + b"\r\n\r\n",
    ],
)
def test_a_response_that_could_be_read_in_two_ways_is_no_answer(tmp_path: Path, head: bytes) -> None:
    with serving(tmp_path, "raw", weight_bp=10_000) as (plane, champion, challenger):
        challenger.raw = head
        answer = ask(plane.port, post("u"))
        assert (answer.status, b'"champion"' in answer.body) == (200, True)
        assert plane.exposures(1)[0].fallback_reason == "Error"
        champion.mode, champion.raw = "raw", head
        challenger.mode = "good"
        assert ask(plane.port, post(None)).status == 502


def test_random_damage_never_makes_router_and_server_read_differently(tmp_path: Path) -> None:
    counts = fuzz_sockets(tmp_path, 1_500, seed=5)
    assert counts["served"] > 100
    assert counts["refused"] > 100


@pytest.mark.parametrize(
    "host", ["", "r", "model_a.shop.:8080", "10.0.0.1:", "[::1]:8080", "[fe80::1%25eth0]", "a%20b"]
)
def test_a_host_is_taken(plane_and_champion: tuple[Plane, Model], host: str) -> None:
    plane, _ = plane_and_champion
    with Raw(plane.port) as raw:
        raw.send(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        assert raw.answer().status == 200


class Unread(BaseHTTPRequestHandler):
    """A server that looks for no body where methods define none: its reader takes one for the next request."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        length = int(self.headers["Content-Length"] or 0) if self.command == "POST" else 0
        said = {"path": self.path, "unit": self.headers["X-Unit"]}
        body = json.dumps(said).encode()
        if len(self.rfile.read(length)) < length:
            return  # the connection ended
        self.server.seen.append(said)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None: ...


METHODS = ("GET", "HEAD", "DELETE", "OPTIONS")
for each in (*METHODS, "POST"):
    setattr(Unread, f"do_{each}", Unread.do_GET)


@contextmanager
def unread() -> Iterator[tuple[str, list[dict[str, str]]]]:
    """Its address, and what it has been asked."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Unread) as server:
        server.daemon_threads = True
        server.seen = seen = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"127.0.0.1:{server.server_port}", seen
        server.shutdown()


BEGUN = b"POST /smuggled HTTP/1.1\r\nX-Unit: attacker\r\nContent-Length: 200\r\n\r\n{"
FRAMINGS = {
    "length": b"Content-Length: %d\r\n\r\n%b" % (len(BEGUN), BEGUN),
    "chunks": b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n\r\n" % (len(BEGUN), BEGUN),
}
ARMS = {"champion": {}, "challenger": {"weight_bp": 10_000}, "mirror": {"mirror_bp": 10_000}}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(
    ("arm", "replay_bytes"),
    [("champion", 1_000), ("champion", 0), ("challenger", 1_000), ("challenger", 0), ("mirror", 1_000)],
)
def test_a_body_that_a_server_does_not_read_is_not_the_beginning_of_the_next_request(
    tmp_path: Path, arm: str, framing: str, replay_bytes: int
) -> None:
    limits = {"replay_bytes": replay_bytes}
    with unread() as (address, seen), Model("champion") as other:
        arms = (address, other.address) if arm == "champion" else (other.address, address)
        with running(tmp_path, table(1, *arms, limits=limits, **ARMS[arm])) as plane:
            for method in METHODS:
                seen.clear()
                head = f"{method} /health HTTP/1.1\r\nHost: r\r\nX-Unit: attacker\r\n".encode()
                assert ask(plane.port, head + FRAMINGS[framing]).status == 200
                await_until(lambda: len(seen) == 1)
                assert ask(plane.port, post("victim", b'{"inputs": [[1]]}'.ljust(300))).status == 200
                await_until(lambda: len(seen) == 2)
                assert [(s["path"], s["unit"]) for s in seen] == [("/health", "attacker"), ("/invocations", "victim")]


@pytest.mark.parametrize("method", METHODS)
def test_a_request_without_a_body_leaves_its_connection_to_the_next(tmp_path: Path, method: str) -> None:
    with serving(tmp_path) as (plane, champion, _):
        for _ in range(3):
            assert ask(plane.port, f"{method} / HTTP/1.1\r\nHost: r\r\n\r\n".encode()).status == 200
            assert ask(plane.port, post("u")).status == 200
        assert champion.connections == 1
