"""Slack against a real HTTP server that fails, hangs and asks for time; the log line; several at once."""

import gzip
import itertools
import json
import logging
import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from controller.edges.exchange import Call
from controller.edges.notifier import Fanout, LogNotifier, SlackNotifier
from controller.edges.proxied import Proxied
from controller.errors import EdgeError, SpecError
from controller.ports import Notifier
from tests.ports.contracts.notifier import NotifierContract, notice
from tests.ports.speakers import Peer, speaking

Answer = tuple[int, dict[str, str], bytes]
OK: Answer = (200, {}, b"ok")


class Webhook:
    """An incoming webhook: answers as ``answers`` say, then with ok, and keeps what it accepted."""

    def __init__(self) -> None:
        self.answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        self.calls = 0
        self.accepted: list[str] = []
        self.dripping = False
        self.ended = threading.Event()
        webhook = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                webhook.calls += 1
                body = self.rfile.read(int(self.headers["content-length"]))
                assert self.headers["content-type"] == "application/json"
                if webhook.dripping:
                    return self._drip()
                try:
                    status, headers, text = webhook.answers.get_nowait()
                except queue.Empty:
                    status, headers, text = OK
                if status == 200:
                    webhook.accepted.append(json.loads(body)["text"])
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(text))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(text)
                return None

            def _drip(self) -> None:
                """Headers without an end: no read ever takes long enough to time out."""
                self.wfile.write(b"HTTP/1.1 200 OK\r\n")
                try:
                    while not webhook.ended.wait(0.02):
                        self.wfile.write(b"x-a: b\r\n")
                except OSError:
                    pass
                self.close_connection = True

            def log_message(self, *args: object) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.server.server_port}/services/T0/B0/secret"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.01})
        self.thread.start()

    def close(self) -> None:
        self.ended.set()
        self.server.shutdown()
        self.server.server_close()
        self.thread.join()


class Clock:
    """Monotonic seconds that pass when a test says so."""

    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    opened = Webhook()
    yield opened
    opened.close()


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def slack(webhook: Webhook, clock: Clock) -> Iterator[SlackNotifier]:
    opened = SlackNotifier(webhook.url, deadline_s=2.0, clock=clock)
    yield opened
    opened.close()


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Callable[[], list[logging.LogRecord]]:
    caplog.set_level(logging.INFO, "understudy.notice")
    return lambda: [r for r in caplog.records if r.name == "understudy.notice"]


class TestSlack(NotifierContract):
    @pytest.fixture
    def notifier(self, slack: SlackNotifier) -> Notifier:
        return slack

    @pytest.fixture
    def received(self, webhook: Webhook) -> Callable[[], list[str]]:
        return lambda: webhook.accepted


class TestLog(NotifierContract):
    @pytest.fixture
    def notifier(self) -> Notifier:
        return LogNotifier()

    @pytest.fixture
    def received(self, logged: Callable[[], list[logging.LogRecord]]) -> Callable[[], list[str]]:
        return lambda: [r.getMessage() for r in logged()]


class TestFanout(NotifierContract):
    @pytest.fixture
    def notifier(self, slack: SlackNotifier) -> Notifier:
        return Fanout({"log": LogNotifier(), "slack": slack})

    @pytest.fixture
    def received(self, webhook: Webhook) -> Callable[[], list[str]]:
        return lambda: webhook.accepted


def test_markup_in_a_notice_cannot_mention_everybody(slack: SlackNotifier, webhook: Webhook) -> None:
    slack.send(notice(text="<!channel> a < b & c"))
    assert "&lt;!channel&gt; a &lt; b &amp; c" in webhook.accepted[0]


def test_a_very_long_text_is_cut_to_what_slack_accepts(slack: SlackNotifier, webhook: Webhook) -> None:
    slack.send(notice(text="x" * 100_000))
    assert 29_000 < len(webhook.accepted[0]) <= 30_000


def test_a_failure_is_raised_and_the_next_attempt_delivers(
    slack: SlackNotifier, webhook: Webhook, clock: Clock
) -> None:
    webhook.answers.put((503, {}, b"rollup_error"))
    with pytest.raises(EdgeError, match="status 503 rollup_error"):
        slack.send(notice())
    clock.now += 1.0
    slack.send(notice())
    assert (webhook.calls, len(webhook.accepted)) == (2, 1)


def test_retry_after_is_kept_without_another_call(slack: SlackNotifier, webhook: Webhook, clock: Clock) -> None:
    webhook.answers.put((429, {"retry-after": "30"}, b"rate_limited"))
    with pytest.raises(EdgeError, match="status 429"):
        slack.send(notice())
    clock.now += 29.0
    with pytest.raises(EdgeError, match="next attempt is in 1 s"):
        slack.send(notice())
    assert webhook.calls == 1
    clock.now += 1.0
    slack.send(notice())
    assert webhook.accepted


def test_an_absurd_retry_after_is_no_longer_than_five_minutes(
    slack: SlackNotifier, webhook: Webhook, clock: Clock
) -> None:
    webhook.answers.put((429, {"retry-after": "1e9"}, b""))
    with pytest.raises(EdgeError):
        slack.send(notice())
    clock.now += 300.0
    slack.send(notice())
    assert webhook.accepted


def test_attempts_on_a_dead_slack_grow_apart_and_never_stop(clock: Clock) -> None:
    dead = Webhook()
    dead.close()
    slack = SlackNotifier(dead.url, deadline_s=2.0, clock=clock)
    reached: list[float] = []
    while len(reached) < 12:
        try:
            slack.send(notice())
        except EdgeError as error:
            if "not reachable" in str(error):
                reached.append(clock.now)
        clock.now += 0.5
    slack.close()
    pauses = [after - before for before, after in itertools.pairwise(reached)]
    assert pauses == [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]


def test_a_server_that_never_answers_is_given_up_at_the_deadline() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        slack = SlackNotifier(f"http://127.0.0.1:{silent.getsockname()[1]}/x", deadline_s=0.3)
        began = time.monotonic()
        with pytest.raises(EdgeError, match="Slack: not delivered: no answer"):
            slack.send(notice())
        assert time.monotonic() - began < 10.0
        slack.close()


def test_a_server_that_answers_without_end_is_given_up_at_the_deadline(webhook: Webhook) -> None:
    webhook.dripping = True
    slack = SlackNotifier(webhook.url, deadline_s=0.3)
    began = time.monotonic()
    with pytest.raises(EdgeError, match="Slack: not delivered: no answer within"):
        slack.send(notice())
    assert time.monotonic() - began < 10.0


def test_a_notice_that_slack_refuses_is_given_up_after_five_times_and_said_so(
    slack: SlackNotifier, webhook: Webhook, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(5):
        webhook.answers.put((404, {}, b"no_service"))
    for _ in range(4):
        with pytest.raises(EdgeError, match="no_service"):
            slack.send(notice())
        clock.now += 300
    slack.send(notice())
    assert slack.given_up == 1
    assert "refused notice u/1/1 5 times (status 404 no_service): given up" in caplog.text
    clock.now += 300
    slack.send(notice(2))
    assert len(webhook.accepted) == 1


def test_no_error_and_no_log_line_shows_the_address_of_the_webhook(
    slack: SlackNotifier, webhook: Webhook, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    errors: list[str] = []
    for answer in [(500, {}, b""), (302, {"location": webhook.url}, b""), (403, {}, b"invalid_token")]:
        webhook.answers.put(answer)
        with pytest.raises(EdgeError) as raised:
            slack.send(notice())
        errors.append(str(raised.value))
        clock.now += 300
    slack.send(notice())
    gone = Webhook()
    gone.close()
    with pytest.raises(EdgeError) as raised:
        SlackNotifier(gone.url, clock=clock).send(notice())
    assert "secret" not in "".join([*errors, str(raised.value), caplog.text])


def test_what_is_no_web_address_is_refused_without_showing_it() -> None:
    with pytest.raises(SpecError, match=r"notify\.slack") as raised:
        SlackNotifier("xoxb-secret")
    assert "secret-" not in str(raised.value)
    assert "xoxb" not in str(raised.value)


def test_the_log_line_is_one_line_of_json_with_the_level_of_the_notice(
    logged: Callable[[], list[logging.LogRecord]],
) -> None:
    LogNotifier().send(notice(level="error", text="two\nlines"))
    (line,) = logged()
    assert line.levelno == logging.ERROR
    word, _, rest = line.getMessage().partition(" ")
    assert word == "notice"
    assert "\n" not in rest
    assert json.loads(rest) == notice(level="error", text="two\nlines").model_dump()


def test_a_failing_slack_never_stops_the_log_line_nor_repeats_it(
    slack: SlackNotifier,
    webhook: Webhook,
    clock: Clock,
    logged: Callable[[], list[logging.LogRecord]],
) -> None:
    fanout = Fanout({"slack": slack, "log": LogNotifier()})
    for _ in range(3):
        webhook.answers.put((500, {}, b""))
    for _ in range(3):
        with pytest.raises(EdgeError, match=r"^slack: "):
            fanout.send(notice())
        clock.now += 300
    fanout.send(notice())
    fanout.send(notice())
    assert (len(webhook.accepted), len(logged())) == (1, 1)


def test_the_memory_of_delivered_keys_is_bounded(logged: Callable[[], list[logging.LogRecord]]) -> None:
    fanout = Fanout({"log": LogNotifier()}, remembered=3)
    for number in (1, 2, 3, 4, 2, 1):
        fanout.send(notice(number))
    assert ["(1)" in r.getMessage() for r in logged()] == [True, False, False, False, True]


def test_an_answer_that_is_encoded_though_nobody_asked_for_that_is_not_decoded() -> None:
    """A kilobyte may become a gigabyte."""
    small = gzip.compress(bytes(10 << 20))
    head = b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip, gzip\r\ncontent-length: %d\r\n\r\n"
    twice = gzip.compress(small)
    asked: list[bytes] = []

    def speak(peer: Peer) -> None:
        asked.append(peer.asked())
        peer.say(head % len(twice) + twice)

    with speaking(speak) as server:
        assert Proxied(10.0).one(Call("POST", f"http://{server}/", b"{}")).body == twice
    assert b"accept-encoding: identity" in asked[0].lower()
