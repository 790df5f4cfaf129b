"""Calls to many servers, and to some that never end: whoever answers is heard."""

import contextlib
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import psutil
import pytest

from controller.edges.connections import HANGING
from controller.edges.exchange import Answer, Call, Exchange
from controller.errors import EdgeError
from tests.ports.speakers import Peer, speaking

ENDLESS = {
    "a field": (b"HTTP/1.1 200 OK\r\nx: ", b"a"),
    "fields": (b"HTTP/1.1 200 OK\r\n", b"x: y\r\n"),
    "answers before the answer": (b"", b"HTTP/1.1 103 Early Hints\r\n\r\n"),
    "a body of known length": (b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n", b"a"),
    "a body until the end": (b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\n", b"a"),
    "chunks": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", b"1\r\na\r\n"),
    "nothing": (b"", b""),
}


@pytest.fixture
def honest() -> Iterator[str]:
    class Honest(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(self.path.encode())

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Honest) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()


def dripping(begin: bytes, drip: bytes, every_s: float = 0.05) -> Callable[[Peer], None]:
    """Sends ``drip`` for ever."""

    def speak(peer: Peer) -> None:
        peer.say(begin)
        while not peer.over.wait(every_s):
            peer.say(drip)

    return speak


def wait_until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)


@pytest.fixture
def no_names(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """A resolver that does not answer for ``*.test`` before the test is over; what it was asked for there."""
    asked: list[str] = []
    over = threading.Event()
    real = socket.getaddrinfo

    def resolve(host: str, *args: Any, **named: Any) -> Any:
        if host.endswith(".test"):
            asked.append(host)
            over.wait(60)
            raise socket.gaierror(socket.EAI_NONAME, "no such name")
        return real(host, *args, **named)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    yield asked
    over.set()


def test_more_servers_than_are_called_at_once_are_all_heard(honest: str) -> None:
    exchange = Exchange(20.0, at_once=3)
    answers = exchange.all([Call("GET", f"{honest}/{number}") for number in range(40)])
    assert [each.body if isinstance(each, Answer) else each for each in answers] == [
        f"/{n}".encode() for n in range(40)
    ]
    exchange.close()


def test_many_who_ask_at_once_share_the_places(honest: str) -> None:
    exchange = Exchange(20.0, at_once=2)

    def ask(who: int) -> list[bytes]:
        answers = exchange.all([Call("GET", f"{honest}/{who}/{number}") for number in range(5)])
        return [each.body for each in answers if isinstance(each, Answer)]

    with ThreadPoolExecutor(8) as people:
        assert list(people.map(ask, range(8))) == [[f"/{who}/{n}".encode() for n in range(5)] for who in range(8)]
    exchange.close()


@pytest.mark.parametrize("what", ENDLESS)
def test_an_answer_that_never_ends_silences_no_other_one_and_leaves_nothing_behind(honest: str, what: str) -> None:
    exchange = Exchange(0.5, at_once=3)
    with speaking(dripping(*ENDLESS[what])) as server:
        before = psutil.Process().num_fds()
        for number in range(3):
            began = time.monotonic()
            late, answer = exchange.all([Call("GET", f"http://{server}/"), Call("GET", f"{honest}/{number}")])
            assert str(late) == "no answer within 0.5 s"
            assert isinstance(answer, Answer)
            assert 0.45 < time.monotonic() - began < 5
        exchange.close()
        wait_until(lambda: psutil.Process().num_fds() <= before + 3)  # the server notices an end when it says more


@pytest.mark.parametrize("what", ["answers before the answer", "chunks"])
def test_a_server_that_floods_leaves_others_their_turn(honest: str, what: str) -> None:
    exchange = Exchange(2.0, answer_limit=1 << 40)
    begin, drip = ENDLESS[what]
    with speaking(dripping(begin, drip * 10_000, 0.0)) as server:
        began = time.monotonic()
        late, *answers = exchange.all(
            [Call("GET", f"http://{server}/"), *(Call("GET", f"{honest}/{number}") for number in range(5))]
        )
        assert time.monotonic() - began < 10
    assert str(late) == "not reachable (what it answers is no HTTP, or was cut off)"  # long before the deadline
    assert all(isinstance(answer, Answer) for answer in answers)
    exchange.close()


def test_an_answer_that_is_too_long_is_not_read_to_its_end() -> None:
    exchange = Exchange(20.0, answer_limit=1000)
    with speaking(dripping(b"HTTP/1.1 200 OK\r\n\r\n", b"a" * 100_000, 0.0)) as server:
        assert str(exchange.all([Call("GET", f"http://{server}/")])[0]) == "an answer of more than 1000 bytes"
        (said,) = exchange.all([Call("GET", f"http://{server}/", most=5000)])
        assert str(said) == "an answer of more than 5000 bytes"
    exchange.close()


def test_a_server_that_does_not_shake_hands_is_given_up() -> None:
    exchange = Exchange(0.5)
    with speaking(lambda peer: peer.over.wait(60)) as server:
        (said,) = exchange.all([Call("GET", f"https://{server}/")])
    assert str(said) == "no answer within 0.5 s"
    exchange.close()


def test_a_server_that_takes_no_connection_is_given_up(honest: str) -> None:
    if sys.platform != "linux":
        pytest.skip("needs-linux: it does not answer where the queue of a listening socket is full")
    exchange = Exchange(0.5)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(4):
            client = stack.enter_context(socket.socket())
            client.setblocking(False)
            client.connect_ex(listening.getsockname())
        port = listening.getsockname()[1]
        late, answer = exchange.all([Call("GET", f"http://127.0.0.1:{port}/"), Call("GET", f"{honest}/")])
    assert str(late) == "no answer within 0.5 s"
    assert isinstance(answer, Answer)
    exchange.close()


def test_a_name_that_nobody_resolves_holds_up_no_other_server(honest: str, no_names: list[str]) -> None:
    exchange = Exchange(0.5)
    names = [Call("GET", f"http://{name}.test/") for name in ("a", "a", "b")]
    began = time.monotonic()
    *late, answer = exchange.all([*names, Call("GET", f"{honest}/")])
    assert time.monotonic() - began < 5
    assert [str(each) for each in late] == ["no answer within 0.5 s"] * 3
    assert isinstance(answer, Answer)
    assert sorted(no_names) == ["a.test", "b.test"]  # two calls that begin at once share one look-up
    exchange.close()


def test_look_ups_that_hang_are_bounded_for_each_name_and_keep_nothing_open(
    no_names: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.edges.connections.SHARED_S", 0.0)
    exchange = Exchange(0.1)
    threads, files = set(threading.enumerate()), psutil.Process().num_fds()
    for _ in range(3 * HANGING):
        exchange.all([Call("GET", "http://a.test/")])
    assert (len(no_names), len(set(threading.enumerate()) - threads)) == (HANGING, HANGING)
    assert psutil.Process().num_fds() <= files
    exchange.close()


def test_a_name_without_an_address_is_an_error_that_does_not_tell_it() -> None:
    exchange = Exchange(20.0)
    for url in ("http://secret.invalid/", f"http://{'secret' * 20}.invalid/"):
        (said,) = exchange.all([Call("GET", url)])
        assert str(said).startswith("not reachable (")
        assert "secret" not in str(said)
    exchange.close()


def test_a_moment_in_which_no_thread_can_be_started_costs_the_names_of_that_moment(
    honest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    exchange = Exchange(5.0, at_once=2)
    named = [Call("GET", f"{honest}/{number}".replace("127.0.0.1", "localhost")) for number in range(5)]
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        assert {str(said) for said in exchange.all(named)} == {"no call could be made: can't start new thread"}
    assert all(isinstance(said, Answer) for said in exchange.all(named))
    exchange.close()


def test_what_is_no_address_is_an_error_and_no_exception() -> None:
    exchange = Exchange(5.0)
    for url in ("", "secret", "ftp://secret/", "http://secret:port/", "http://[secret/", "http://"):
        (said,) = exchange.all([Call("GET", url)])
        assert isinstance(said, EdgeError), url
        assert "secret" not in str(said)
    exchange.close()
