"""Requests on the wire: how they are read, and how they go on to the model server. Real sockets on both sides."""

import contextlib
import json
import socket
import threading
import time
from pathlib import Path

import pytest

from router.redaction import REDACTED
from tests.router.models import Model
from tests.router.planes import running, serving, table
from tests.router.raw import Raw, ask, await_until, post

HEAD = b"POST /invocations HTTP/1.1\r\nHost: router\r\nContent-Type: application/json\r\nX-Unit: u\r\n"
BODY = b'{"inputs": [[1], [2], [3]]}'


def test_one_connection_serves_many_requests_over_one_connection_to_the_server(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        for _ in range(50):
            raw.send(post("u", BODY))
            answer = raw.answer()
            assert (answer.status, answer.closes) == (200, False)
        assert (champion.count, champion.connections) == (50, 1)


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_request_may_come_in_any_pieces(tmp_path: Path, size: int) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        data = post("u", BODY)
        for at in range(0, len(data), size):
            raw.send(data[at : at + size])
            if size == 1:
                time.sleep(0.0005)
        assert raw.answer().status == 200
        assert champion.requests[0].body == BODY


def test_a_chunked_request_goes_on_whole_with_its_length(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        chunks = b"".join(b"%x;note=1\r\n%b\r\n" % (len(part), part) for part in (BODY[:5], BODY[5:6], BODY[6:]))
        message = HEAD + b"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n" + chunks + b"0\r\nX-Sum: 1\r\n\r\n"
        for _ in range(3):
            raw.send(message)
            assert raw.answer().status == 200
        for at in range(len(message)):
            raw.send(message[at : at + 1])
        assert raw.answer().status == 200
        for request in champion.requests:
            assert request.body == BODY
            assert request.values(b"content-length") == [b"%d" % len(BODY)]
            assert request.values(b"transfer-encoding") == []
            assert b"x-sum" not in request.head.lower()


def test_pipelined_requests_are_answered_in_order_one_at_a_time(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        raw.send(b"".join(post("u", BODY, f"X-Request-Id: id-{n}") for n in range(300)))
        for n in range(300):
            assert raw.answer().fields[b"x-request-id"] == b"id-%d" % n
        assert champion.most_open == 1


def test_a_client_that_only_sends_and_never_reads_is_not_read_from_for_ever(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port, timeout=1) as raw:
        champion.mode, champion.size = "large", 200_000
        data = post("u", BODY) * 1_000_000
        with pytest.raises(TimeoutError):
            raw.send(data)
        # Some answers fill the buffers of both sides; hundreds of megabytes they are not.
        assert champion.count < 100
        assert ask(plane.port, post("v")).status == 200


@pytest.mark.parametrize("blank", [1, 1_000, 20_000])
def test_empty_lines_before_a_request_are_skipped_however_many(tmp_path: Path, blank: int) -> None:
    with serving(tmp_path) as (plane, _, _), Raw(plane.port) as raw:
        for _ in range(2):
            raw.send(b"\r\n" * blank + post("u", BODY))
            assert raw.answer().status == 200


def test_a_client_that_ends_with_empty_lines_is_closed(tmp_path: Path) -> None:
    with serving(tmp_path, idle_s=60) as (plane, _, _), Raw(plane.port, timeout=5) as raw:
        raw.send(post("u", BODY) + b"\r\n" * 4)
        raw.socket.shutdown(socket.SHUT_WR)
        assert raw.answer().status == 200
        assert raw.ended()


def test_a_client_that_leaves_before_it_is_told_of_the_end_has_its_exposure(tmp_path: Path) -> None:
    limits = {"challenger_timeout_ms": 60_000, "champion_timeout_ms": 60_000}
    with serving(tmp_path, "hang", weight_bp=10_000, limits=limits) as (plane, _, challenger):
        for n in range(20):
            with Raw(plane.port) as raw:
                # More ahead than is read: the router learns that the client is gone when it writes.
                raw.send(post(f"u{n}", BODY, "Connection: close") + b"GET /" + b"x" * 100_000)
                await_until(lambda n=n: challenger.count == n + 1, 10, "the request at the server")  # type: ignore[misc]
        challenger.release()
        assert len(plane.exposures(20, 10)) == 20


def test_expect_100_continue_is_answered_before_the_body_comes(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        raw.send(HEAD + b"Expect: 100-continue\r\nContent-Length: %d\r\n\r\n" % len(BODY))
        assert raw.answer().status == 100
        raw.send(BODY)
        assert raw.answer().status == 200
        assert champion.requests[0].values(b"expect") == []


def test_another_expectation_is_refused(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _):
        assert ask(plane.port, post("u", BODY, "Expect: miracles")).status == 417


def test_a_client_that_shut_down_its_side_still_gets_every_answer(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "hang"
        raw.send(post("u", BODY) + post("v", BODY))
        raw.socket.shutdown(1)
        plane.until(lambda: plane.poll()["upstream_connections"] == 1)
        champion.release()
        assert raw.answer().status == 200
        assert raw.answer().status == 200
        assert raw.ended()


def test_fields_of_the_connection_do_not_go_on(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _):
        lines = [
            "Connection: keep-alive, X-Private", "X-Private: 1", "Keep-Alive: timeout=5", "TE: trailers",
            "Proxy-Connection: keep-alive", "Upgrade: h2c", "Proxy-Authorization: Basic x", "X-Public: 1",
            "Authorization: Bearer y",
        ]  # fmt: skip
        assert ask(plane.port, post("u", BODY, *lines)).status == 200
        (request,) = champion.requests
        names = {line.partition(b":")[0].lower() for line in request.lines}
        assert names == {
            b"host", b"content-type", b"content-length", b"x-public", b"authorization", b"x-request-id",
            b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-unit",
        }  # fmt: skip


GATEWAYS = {
    b"x-forwarded-for": b"192.0.2.1", b"x-forwarded-proto": b"https", b"x-forwarded-host": b"shop.example",
    b"x-forwarded-user": b"ada", b"forwarded": b"for=192.0.2.1", b"x-real-ip": b"192.0.2.1",
    b"x-request-id": b"r-1", b"traceparent": b"00-" + b"a" * 32 + b"-" + b"b" * 16 + b"-01", b"tracestate": b"t=1",
    b"baggage": b"k=v", b"b3": b"0", b"x-b3-sampled": b"0", b"authorization": b"Bearer y", b"cookie": b"c=1",
    b"x-unit": b"u", b"x-tier": b"gold",
}  # fmt: skip


def test_a_client_cannot_take_back_what_a_gateway_said_or_the_router_has_read(tmp_path: Path) -> None:
    """By naming it in a Connection that the gateway has let through; twice, as the second head is read the fast way."""
    attributes = [{"name": "tier", "source": {"header": "X-Tier"}}]
    with serving(tmp_path, attributes=attributes) as (plane, champion, _), Raw(plane.port) as raw:
        named = b"Connection: keep-alive, X-Private, " + b", ".join(GATEWAYS)
        lines = [named.decode(), "X-Private: 1", *(f"{n.decode()}: {v.decode()}" for n, v in GATEWAYS.items())]
        for _ in range(2):
            raw.send(post(None, BODY, *lines))
            assert raw.answer().status == 200
        for request in champion.requests:
            assert {name: request.values(name) for name in GATEWAYS} == {
                name: [value + b", 127.0.0.1" if name == b"x-forwarded-for" else value]
                for name, value in GATEWAYS.items()
            }
            assert not request.values(b"x-private")
        assert [(e.unit, e.attributes) for e in plane.exposures(2)] == [("u", {"tier": "gold"})] * 2


def test_a_client_that_asks_for_another_protocol_stays_with_this_one(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _), Raw(plane.port) as raw:
        asking = ["Connection: Upgrade", "Upgrade: h2c"]
        bodyless = b"GET / HTTP/1.1\r\nHost: r\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
        for data in (post("u", BODY, *asking), bodyless, post("u", BODY), post("u", BODY, *asking), post("u", BODY)):
            raw.send(data)
            assert raw.answer().status == 200


def test_a_request_id_is_kept_or_made_and_is_the_same_everywhere(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        for given, kept in ((["X-Request-Id: a/b.c"], True), ([], False), (["X-Request-Id: " + "x" * 129], False)):
            raw.send(post("u", BODY, *given))
            answered = raw.answer().fields[b"x-request-id"]
            assert champion.requests[-1].values(b"x-request-id") == [answered]
            assert (given == [f"X-Request-Id: {answered.decode()}"]) == kept
        assert [e.request_id.encode() for e in plane.exposures(3)] == [
            r.values(b"x-request-id")[0] for r in champion.requests
        ]


def test_trace_and_forwarding_fields_say_who_asked(tmp_path: Path) -> None:
    trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        raw.send(post("u", BODY, f"traceparent: {trace}"))
        raw.answer()
        raw.send(post("u", BODY, "X-Forwarded-For: 9.9.9.9", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop"))
        raw.answer()
        one, two = champion.requests
        assert one.values(b"traceparent") == [trace.encode()]
        assert one.values(b"host") == [champion.address.encode()]
        assert one.values(b"x-forwarded-for") == [b"127.0.0.1"]
        assert one.values(b"x-forwarded-proto") == [b"http"]
        assert one.values(b"x-forwarded-host") == [b"router"]
        assert two.values(b"x-forwarded-for") == [b"9.9.9.9, 127.0.0.1"]
        assert two.values(b"x-forwarded-proto") == [b"https"]
        assert two.values(b"x-forwarded-host") == [b"shop"]


@pytest.mark.parametrize("own", ["X-Request-Id", "X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host"])
def test_a_field_that_some_servers_take_for_one_of_the_routers_own_is_left_out(tmp_path: Path, own: str) -> None:
    """Where '_' and '-' are one (WSGI, CGI), the client could say who it is and how it came."""
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        alike = [own.replace("-", "_"), own.upper().replace("-", "_"), own.lower().replace("-", "_", 1)]
        for names in (alike[:1], alike[1:2], alike[2:], alike, [alike[0]] * 2):
            # The second one has a head like the first's.
            for value in ("6.6.6.6", "7.7.7.7"):
                raw.send(post("u", BODY, "X_Mine: 1", *(f"{name}: {value}" for name in names)))
                assert raw.answer().status == 200
                went = [line.partition(b":") for line in champion.requests[-1].lines]
                read = [
                    value.strip() for name, _, value in went if name.lower().replace(b"_", b"-") == own.lower().encode()
                ]
                assert len(read) == 1
                assert b"6.6.6.6" not in read[0]
                assert b"7.7.7.7" not in read[0]
                assert champion.requests[-1].values(b"x_mine") == [b"1"]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_every_method_and_path_goes_on(tmp_path: Path, method: str) -> None:
    with serving(tmp_path) as (plane, champion, _):
        assert ask(plane.port, f"{method} /a/b%20c?d=e&f HTTP/1.1\r\nHost: r\r\n\r\n".encode()).status == 200
        assert champion.requests[0].line == f"{method} /a/b%20c?d=e&f HTTP/1.1".encode()


def test_http_1_0_clients_are_closed_unless_they_ask_to_be_kept(tmp_path: Path) -> None:
    old = b"POST /invocations HTTP/1.0\r\nX-Unit: u\r\nContent-Length: 2\r\n"
    with serving(tmp_path) as (plane, champion, _):
        for mode in ("good", "chunked", "until_close"):
            champion.mode = mode
            with Raw(plane.port) as raw:
                raw.send(old + b"\r\n{}")
                answer = raw.answer()
                assert (answer.status, answer.closes) == (200, True)
                assert b"transfer-encoding" not in answer.fields
                assert b'"champion"' in answer.body
                assert raw.ended()
        champion.mode = "good"
        with Raw(plane.port) as raw:
            for _ in range(2):
                raw.send(old + b"Connection: keep-alive\r\n\r\n{}")
                assert raw.answer().fields[b"connection"] == b"keep-alive"


def test_a_client_that_wants_to_close_is_closed(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, _, _), Raw(plane.port) as raw:
        raw.send(post("u", BODY, "Connection: close"))
        assert raw.answer().closes
        assert raw.ended()


def test_ipv6_on_both_sides(tmp_path: Path) -> None:
    with Model("champion", host="::1") as champion, running(tmp_path, table(1, champion.address), host="::1") as plane:
        with Raw(plane.port, host="::1") as raw:
            raw.send(post("u", BODY))
            assert raw.answer().status == 200
        assert champion.requests[0].values(b"host") == [f"[::1]:{champion.port}".encode()]
        assert champion.requests[0].values(b"x-forwarded-for") == [b"::1"]


def test_a_request_body_beyond_what_is_held_streams_to_the_server(tmp_path: Path) -> None:
    size = 20_000_000
    patient = {"challenger_timeout_ms": 20_000}
    with serving(tmp_path, weight_bp=10_000, limits=patient) as (plane, _, challenger), Raw(plane.port) as raw:
        challenger.mode = "plain"
        piece = b"x" * 50_000
        for framing, sent in (
            (b"Content-Length: %d" % size, piece),
            (b"Transfer-Encoding: chunked", b"c350\r\n%b\r\n" % piece),
        ):
            raw.send(HEAD + framing + b"\r\n\r\n")
            for _ in range(size // len(piece)):
                raw.send(sent)
            if sent is not piece:
                raw.send(b"0\r\n\r\n")
            answer = raw.answer()
            assert (answer.status, answer.body[:8]) == (200, b"20000000")
        for exposure in plane.exposures(2):
            assert (exposure.arm, exposure.cut, exposure.inputs) == ("challenger", True, REDACTED)  # not read
        assert challenger.requests[0].values(b"content-length") == [b"%d" % size]
        assert challenger.requests[1].values(b"transfer-encoding") == [b"chunked"]
        assert plane.poll()["held_bytes"] == 0


def test_a_client_that_pauses_in_a_large_request_is_not_its_servers_fault(tmp_path: Path) -> None:
    limits = {"challenger_timeout_ms": 200, "replay_bytes": 1_000}
    with serving(tmp_path, weight_bp=10_000, limits=limits) as (plane, _, challenger), Raw(plane.port) as raw:
        whole = HEAD + b"Content-Length: 5000\r\n\r\n" + b" " * 4_998 + b"{}"
        raw.send(whole[:3_000])
        await_until(lambda: challenger.begun == 1)
        # What takes the challenger's deadline, twice, is the pause.
        challenger.mode = "hang"
        for unit in ("v", "w"):
            assert ask(plane.port, post(unit)).status == 200
        challenger.mode = "good"
        raw.send(whole[3_000:])
        answer = raw.answer()
        assert (answer.status, json.loads(answer.body)["arm"]) == (200, "challenger")
        last = plane.exposures(3)[-1]
        assert (last.unit, last.usable, last.fallback_reason) == ("u", True, None)


def _push(raw: Raw, data: bytes) -> None:
    with contextlib.suppress(OSError):  # the other side does not want all of it
        raw.send(data)


@pytest.mark.parametrize(("replay_bytes", "status"), [(1_000, 504), (8 << 20, 200)])
def test_a_server_that_does_not_read_a_large_request_is_not_waited_for(
    tmp_path: Path, replay_bytes: int, status: int
) -> None:
    """Where more is held than it takes unread, nothing but that was sent, and the champion can step in."""
    with Model("champion") as champion, socket.create_server(("127.0.0.1", 0)) as deaf:
        address = f"127.0.0.1:{deaf.getsockname()[1]}"
        limits = {"challenger_timeout_ms": 200, "replay_bytes": replay_bytes}
        first = table(1, champion.address, address, weight_bp=10_000, limits=limits)
        with running(tmp_path, first) as plane, Raw(plane.port) as raw:
            body = b"x" * (60 << 20)
            request = HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body
            sending = threading.Thread(target=_push, args=(raw, request))
            sending.start()
            assert raw.answer().status == status
            sending.join(10)


def test_a_large_request_still_falls_back_where_nothing_of_it_was_sent(tmp_path: Path) -> None:
    with Model("champion") as champion:
        champion.mode = "plain"
        with running(tmp_path, table(1, champion.address, "127.0.0.1:1", weight_bp=10_000)) as plane:
            answer = ask(plane.port, post("u", b"x" * 3_000_000))
            assert (answer.status, answer.body[:7]) == (200, b"3000000")


def test_an_answer_before_the_end_of_a_large_request_reaches_the_client(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _), Raw(plane.port) as raw:
        champion.mode = "early"
        raw.send(HEAD + b"Content-Length: 50000000\r\n\r\n" + b"x" * 2_000_000)
        answer = raw.answer()
        assert (answer.status, answer.closes) == (413, True)


def test_a_held_body_that_its_server_takes_slowly_arrives_whole(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """It is written at once, so there is nothing more to write when the server takes more."""
    body = b'{"inputs": [' + b"1, " * 2_000_000 + b"1]}"
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        address = f"127.0.0.1:{server.getsockname()[1]}"
        first = table(1, address, limits={"replay_bytes": 8 << 20, "capture_bytes": 0})
        with running(tmp_path, first) as plane, Raw(plane.port) as raw:
            raw.send(post("u", body))
            taken, _ = server.accept()
            with taken, taken.makefile("rb") as reading:
                while line := reading.readline().strip():
                    length = int(line.partition(b": ")[2]) if line.lower().startswith(b"content-length") else 0
                    if length:
                        due = length
                assert reading.read(due) == body
                taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
                assert raw.answer().status == 200
            assert len(plane.exposures(1)) == 1
    assert "Traceback" not in capfd.readouterr().err
