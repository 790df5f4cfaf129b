"""Calls to many servers, and to some that never end: whoever answers is heard."""

import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from controller.edges.exchange import HANGING, Answer, Call, Exchange
from controller.errors import EdgeError


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


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server that sends a byte of its headers every twentieth of a second, until the test is over."""
    over = threading.Event()

    def drip(client: socket.socket) -> None:
        with client:
            try:
                client.sendall(b"HTTP/1.1 200 OK\r\nx: ")
                while not over.wait(0.05):
                    client.sendall(b"a")
            except OSError:
                return

    def serve(listening: socket.socket) -> None:
        while True:
            try:
                client, _ = listening.accept()
            except OSError:
                return
            threading.Thread(target=drip, args=(client,), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=serve, args=(listening,), daemon=True).start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        over.set()
        listening.shutdown(socket.SHUT_RDWR)


def test_more_servers_than_are_called_at_once_are_all_heard(honest: str) -> None:
    exchange = Exchange(20.0, at_once=3)
    answers = exchange.all([Call("GET", f"{honest}/{number}") for number in range(40)])
    assert [each.body if isinstance(each, Answer) else each for each in answers] == [
        f"/{n}".encode() for n in range(40)
    ]
    exchange.close()


def test_a_server_whose_headers_never_end_silences_no_other_one_and_is_not_called_for_ever(
    honest: str, dripping: str
) -> None:
    exchange = Exchange(0.5, at_once=3)
    before = threading.active_count()
    for number in range(3 * HANGING):
        late, answer = exchange.all([Call("GET", f"{dripping}/{number}"), Call("GET", f"{honest}/{number}")])
        assert isinstance(late, EdgeError)
        assert str(late) == "no answer within 0.5 s"
        assert isinstance(answer, Answer)
    # Of each that hangs one thread is the exchange's, and one the server's; others end by themselves.
    assert threading.active_count() - before <= 2 * HANGING + 4
    exchange.close()


def test_a_moment_in_which_no_thread_can_be_started_costs_the_calls_of_that_moment(
    honest: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    exchange, calls = Exchange(5.0, at_once=2), [Call("GET", f"{honest}/{number}") for number in range(5)]
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", none_left)
        assert {str(said) for said in exchange.all(calls)} == {"no call could be made: can't start new thread"}
    assert all(isinstance(said, Answer) for said in exchange.all(calls))
    exchange.close()
