"""What a model server does wrong is the same fault in either arm: two servers that behave alike are recorded alike.

The champion's answers are passed on before they are looked at, and the champion has more time; none of that may
show in the evidence. Each test plays one behaviour in both arms and compares what the journal says.
"""

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from router.events import Exposure
from tests.router.load import run
from tests.router.models import Model
from tests.router.planes import Plane, running, serving, table
from tests.router.raw import Raw, await_until, post

ARMS = ("champion", "challenger")
DEADLINE_MS = 400
LIMITS = {"limits": {"challenger_timeout_ms": DEADLINE_MS}}
Client = Callable[[Plane, Model], Any]


class Seen(NamedTuple):
    """What the evidence sees of a request."""

    usable: bool
    unjudged: bool
    evidence: bool
    status: int | None
    # 0 where it was faster than the deadline, in steps of a tenth of a second else.
    latency_ms: int | None


def seen(exposure: Exposure) -> Seen:
    latency_ms = exposure.latency_us / 1_000
    return Seen(
        exposure.usable,
        exposure.unjudged,
        exposure.evidence,
        exposure.status,
        int(latency_ms // 100) * 100 if latency_ms >= DEADLINE_MS else 0,
    )


def once(plane: Plane, model: Model) -> None:
    with Raw(plane.port) as raw:
        raw.send(post("u", b'{"inputs": [[1], [2]]}', "Connection: close"))
        raw.rest()


def in_both(directory: Path, mode: str, client: Client = once, *, unlike: tuple[str, ...] = (), **other: Any) -> Seen:
    """One request to either arm; what was seen, the same of both, but for ``unlike`` (None in the result)."""
    found = []
    for weight in (0, 10_000):
        place = directory / str(weight)
        place.mkdir()
        with serving(place, mode, **({"weight_bp": weight, "control_from_bp": weight} | LIMITS | other)) as servers:
            plane, champion, challenger = servers
            champion.mode = mode
            client(plane, challenger if weight else champion)
            (exposure,) = plane.exposures(1)
            assert exposure.arm == ("challenger" if weight else "champion")
            found.append(seen(exposure)._replace(**dict.fromkeys(unlike)))
    assert found[0] == found[1], f"champion {found[0]}, challenger {found[1]}"
    return found[0]


@pytest.mark.parametrize(
    ("mode", "status"),
    [("rows", 200), ("nan", 200), ("infinity", 200), ("garbage", 200), ("empty", 200), ("large_nan", 200),
     ("500", 500), ("400", 400), ("gone", 0), ("cut", 200), ("late", None)],
)  # fmt: skip
def test_a_fault_is_one_in_both_arms(tmp_path: Path, mode: str, status: int | None) -> None:
    """What came too late has a status in the champion's case alone: it was waited for."""
    unlike = ("status",) if status is None else ()
    assert in_both(tmp_path, mode, unlike=unlike) == Seen(False, False, True, status, DEADLINE_MS)


@pytest.mark.parametrize("mode", ["good", "chunked", "until_close"])
def test_a_good_answer_is_one_in_both_arms(tmp_path: Path, mode: str) -> None:
    assert in_both(tmp_path, mode) == Seen(True, False, True, 200, 0)


def test_a_client_that_reads_slowly_makes_neither_arm_slow(tmp_path: Path) -> None:
    """The answer is no larger than what is held of a challenger's; nothing of it is read."""

    def reader(plane: Plane, model: Model) -> None:
        model.size = 1_000_000
        with socket.socket() as client:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
            client.connect(("127.0.0.1", plane.port))
            client.sendall(post("u"))
            plane.exposures(1)

    assert in_both(tmp_path, "large", reader) == Seen(True, False, True, 200, 0)


def test_a_client_that_leaves_while_it_is_answered_takes_nothing_from_either_arm(tmp_path: Path) -> None:
    def leaver(plane: Plane, model: Model) -> None:
        with Raw(plane.port) as raw:
            raw.send(post("u"))
            await_until(lambda: model.halved == 1)
            raw.reset()
        await_until(lambda: plane.poll()["client_connections"] == 0)
        model.release()

    assert in_both(tmp_path, "halves", leaver, limits={"challenger_timeout_ms": 10_000})[:4] == (True, False, True, 200)


def test_an_upload_that_its_client_gives_up_is_no_evidence(tmp_path: Path) -> None:
    head = b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\n"

    def leaver(plane: Plane, model: Model) -> None:
        with Raw(plane.port) as raw:
            raw.send(head + b"Content-Length: 3000000\r\n\r\n" + b"x" * 1_500_000)
            await_until(lambda: model.open == 1)
            raw.reset()

    def breaker(plane: Plane, model: Model) -> None:
        with Raw(plane.port) as raw:
            raw.send(head + b"Transfer-Encoding: chunked\r\n\r\n" + b"%x\r\n%b\r\n" % (1_500_000, b"x" * 1_500_000))
            await_until(lambda: model.open == 1)
            raw.send(b"zz\r\n")
            raw.rest()

    for number, client in enumerate((leaver, breaker)):
        place = tmp_path / str(number)
        place.mkdir()
        found = in_both(place, "plain", client)
        assert (found.evidence, found.status) == (False, 0)


@contextlib.contextmanager
def by_hand(
    directory: Path, weight: int, *, stall_s: float = 60.0, **other: Any
) -> Iterator[tuple[Plane, Raw, socket.socket]]:
    """A worker whose arms have one address, with a client and a server that do what the test says; all users meet the
    arm of this weight.
    """
    place = directory / str(weight)
    place.mkdir()
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)  # of those that it accepts as well
        address = f"127.0.0.1:{server.getsockname()[1]}"
        first = table(1, address, address, weight_bp=weight, control_from_bp=weight, **other)
        with running(place, first, stall_s=stall_s) as plane, Raw(plane.port) as raw:
            yield plane, raw, server


def test_an_upload_that_its_client_gives_up_in_the_middle_of_an_answer_is_no_evidence(tmp_path: Path) -> None:
    """The server answers while it reads: the champion's answer is on its way to the client, the challenger's held."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    for weight in (0, 10_000):
        with by_hand(tmp_path, weight, limits={"replay_bytes": 1_000}) as (plane, raw, server):
            raw.send(b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: 9000\r\n\r\n" + b"x" * 5_000)
            taken, _ = server.accept()
            with taken:
                while b"x" not in taken.recv(65_536):
                    pass
                taken.sendall(answer)
                # A turn of its loop later the router has read it.
                plane.poll()
                raw.reset()
                (exposure,) = plane.exposures(1)
            found = seen(exposure)
            assert (found.usable, found.unjudged, found.evidence) == (False, False, False), exposure.arm
            assert exposure.answer_status == 499


# More than the kernel takes for a server that does not read (it may hold tens of MB for a router), and less than a
# request may have.
UPLOAD = 60_000_000
UPLOAD_HEAD = b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: %d\r\n\r\n" % UPLOAD


def send_until_stuck(raw: Raw) -> int:
    """Send of an upload until nothing has been read for twice the deadline; how many bytes of it were taken, and fewer
    than all where the connection has ended.
    """
    raw.send(UPLOAD_HEAD)
    raw.socket.settimeout(2 * DEADLINE_MS / 1_000)
    sent, data = 0, memoryview(bytes(UPLOAD))
    with contextlib.suppress(TimeoutError, ConnectionError):
        while sent < UPLOAD:
            sent += raw.socket.send(data[sent:])
    assert sent < UPLOAD
    raw.socket.settimeout(10)
    return sent


def test_a_server_that_does_not_read_an_upload_for_too_long_fails_in_both_arms(tmp_path: Path) -> None:
    """It goes on afterwards, and answers well: the champion's client is given that."""

    def client(plane: Plane, model: Model) -> None:
        with Raw(plane.port) as raw:
            sent = send_until_stuck(raw)
            model.release()
            with contextlib.suppress(ConnectionError):
                raw.send(bytes(UPLOAD - sent))
            assert model.arm == "challenger" or raw.answer().status == 200

    assert in_both(tmp_path, "unread", client, unlike=("status",)) == Seen(False, False, True, None, DEADLINE_MS)


def test_a_client_that_gives_up_an_upload_which_was_not_read_for_too_long_takes_no_failure_back(tmp_path: Path) -> None:
    def client(plane: Plane, model: Model) -> None:
        with Raw(plane.port) as raw:
            send_until_stuck(raw)
            raw.reset()
        # It is seen once more is read of it.
        model.release()

    assert in_both(tmp_path, "unread", client) == Seen(False, False, True, 0, DEADLINE_MS)


def test_a_server_that_stops_reading_in_the_middle_of_its_answer_fails_in_both_arms(tmp_path: Path) -> None:
    """A champion's answer is on its way to the client by then; a challenger's is held."""
    begun = b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nfirst\r\n"
    for weight in (0, 10_000):
        with by_hand(tmp_path, weight, **LIMITS) as (plane, raw, server):
            raw.send(UPLOAD_HEAD + bytes(1_100_000))
            taken, _ = server.accept()
            with taken:
                taken.settimeout(10)
                read = len(taken.recv(65_536))
                taken.sendall(begun)
                left = UPLOAD - 1_100_000
                raw.socket.settimeout(2 * DEADLINE_MS / 1_000)
                with contextlib.suppress(TimeoutError, ConnectionError):
                    while left:
                        left -= raw.socket.send(bytes(min(left, 65_536)))
                assert left
                sender = threading.Thread(target=_send_rest, args=(raw, left))
                sender.start()
                with contextlib.suppress(ConnectionError):
                    while read < UPLOAD and (data := taken.recv(1 << 20)):
                        read += len(data)
                    taken.sendall(b"0\r\n\r\n")
                (exposure,) = plane.exposures(1)
                sender.join(10)
            found = seen(exposure)
            assert (found.usable, found.evidence) == (False, True), exposure.arm


def test_a_client_that_pauses_in_its_upload_once_the_answer_has_begun_makes_neither_arm_late(tmp_path: Path) -> None:
    first, rest = 1_100_000, 900_000
    head = b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: %d\r\n\r\n" % (first + rest)
    for weight in (0, 10_000):
        with by_hand(tmp_path, weight, stall_s=0.5, **LIMITS) as (plane, raw, server):
            raw.send(head + bytes(first))
            taken, _ = server.accept()
            with taken, taken.makefile("rb") as received:
                while received.readline() != b"\r\n":
                    pass
                received.read(first)
                taken.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n\r\nfirst")
                begun = time.monotonic()
                await_until(lambda: time.monotonic() > begun + 2.5 * DEADLINE_MS / 1_000)  # noqa: B023  # called here
                raw.send(bytes(rest))
                received.read(rest)
                taken.sendall(b"later")
                assert raw.answer().body == b"firstlater"
                (exposure,) = plane.exposures(1)
            assert seen(exposure)._replace(latency_ms=0) == Seen(True, False, True, 200, 0), exposure.arm


def _send_rest(raw: Raw, size: int) -> None:
    with contextlib.suppress(OSError):
        raw.send(bytes(size))


def test_a_stream_that_its_client_leaves_has_not_failed(tmp_path: Path) -> None:
    def leaver(plane: Plane, model: Model) -> None:
        with Raw(plane.port) as raw:
            raw.send(post("u"))
            raw.until(b"data: 1")
            raw.reset()

    found = in_both(tmp_path, "events", leaver)
    assert (found.usable, found.unjudged, found.evidence, found.status) == (True, True, True, 200)


def test_a_stream_that_had_gone_silent_when_its_client_left_has(tmp_path: Path) -> None:
    def leaver(plane: Plane, model: Model) -> None:
        with Raw(plane.port) as raw:
            raw.send(post("u"))
            raw.until(b"data: 1")
            begun = time.monotonic()
            await_until(lambda: time.monotonic() > begun + 1.5 * DEADLINE_MS / 1_000)
            raw.reset()

    # Its client leaves each of them when this process gets to it.
    assert not in_both(tmp_path, "events", leaver, unlike=("latency_ms",)).usable


def test_no_connection_left_is_a_failure_in_both_arms(tmp_path: Path) -> None:
    """Two at once over one connection: the challenger's second is answered by the champion, the champion's waits."""
    for weight in (0, 10_000):
        place = tmp_path / str(weight)
        place.mkdir()
        limits = {"challenger_timeout_ms": 10_000}
        config: dict[str, Any] = {"weight_bp": weight, "control_from_bp": weight, "limits": limits}
        with serving(place, "hang", champion_connections=1, challenger_connections=1, **config) as servers:
            plane, champion, challenger = servers
            if not weight:
                champion.mode = "hang"
            with Raw(plane.port) as first, Raw(plane.port) as second:
                first.send(post("u1"))
                server = challenger if weight else champion
                await_until(lambda server=server: server.count == 1)
                second.send(post("u2"))
                await_until(lambda plane=plane: sum(plane.poll()[f'requests_total{{arm="{a}"}}'] for a in ARMS) == 2)
                server.release()
                assert first.answer().status == second.answer().status == 200
            assert {e.unit: e.usable for e in plane.exposures(2)} == {"u1": True, "u2": False}


def test_equal_servers_with_a_slow_tail_fail_alike(tmp_path: Path) -> None:
    """Each tenth request takes longer than the challenger may: as many failures as that, by unit, in both arms."""
    body = json.dumps({"inputs": [[1]]}).encode()
    # However busy the machine, the others are in time.
    limits = {"challenger_timeout_ms": 1_500}
    with serving(tmp_path, "tail", weight_bp=5_000, control_from_bp=5_000, limits=limits) as servers:
        plane, champion, challenger = servers
        champion.mode, champion.late_s, challenger.late_s = "tail", 2.2, 2.2
        run(plane.port, lambda n: post(f"u{n}", body, f"X-Slow: {n % 10 // 9}"), 400, 16)
        for exposure in plane.exposures(400, 20):
            assert exposure.unit is not None
            assert exposure.usable is (int(exposure.unit[1:]) % 10 != 9)


def test_a_challenger_that_failed_an_upload_has_failed_also_where_the_client_gives_it_up_later(tmp_path: Path) -> None:
    """Nobody listens for the challenger; the champion is being asked when the client leaves."""
    with socket.socket() as reserved, Model("champion", "plain") as champion:
        reserved.bind(("127.0.0.1", 0))
        nobody = f"127.0.0.1:{reserved.getsockname()[1]}"
        first = table(1, champion.address, nobody, weight_bp=10_000, limits={"replay_bytes": 1_000})
        with running(tmp_path, first) as plane, Raw(plane.port) as raw:
            raw.send(b"POST / HTTP/1.1\r\nHost: r\r\nX-Unit: u\r\nContent-Length: 9000\r\n\r\n" + b"x" * 5_000)
            await_until(lambda: champion.open == 1)
            raw.reset()
            (exposure,) = plane.exposures(1)
            assert (exposure.usable, exposure.evidence, exposure.fallback_reason) == (False, True, "Error")


@pytest.mark.parametrize("deadline_ms", [200, 5_000])
def test_what_a_drain_cuts_off_is_recorded_alike(tmp_path: Path, deadline_ms: int) -> None:
    """Later than the challenger may be, or not yet: the champion would have had thirty seconds in either case."""
    limits = {"challenger_timeout_ms": deadline_ms, "champion_timeout_ms": 30_000}
    with Model("champion", "hang") as a, Model("challenger", "hang") as b, contextlib.ExitStack() as open_ones:
        first = table(1, a.address, b.address, weight_bp=5_000, control_from_bp=5_000, limits=limits)
        first["replay_to_champion"] = False
        with running(tmp_path, first, drain_s=0.5) as plane:
            raws = [open_ones.enter_context(Raw(plane.port)) for _ in range(20)]
            for number, raw in enumerate(raws):
                raw.send(post(f"u{number}"))
            plane.until(lambda: a.count + b.count == 20)
            asked = a.count
            assert plane.drain() == 0
            found = {arm: [e for e in plane.exposures() if e.arm == arm] for arm in ARMS}
            assert (len(found["champion"]), len(found["challenger"])) == (asked, 20 - asked)
            late = deadline_ms < 500
            for exposure in found["champion"] + found["challenger"]:
                assert (exposure.usable, exposure.evidence) == (False, late)
                assert not late or exposure.latency_us >= deadline_ms * 1_000
            # Nobody is left without a word.
            assert {raw.answer().status for raw in raws} <= {503, 504}
            assert plane.lines()[-1]["dropped"] == 0


def test_a_mirror_that_a_drain_cuts_off_is_no_evidence_before_its_time(tmp_path: Path) -> None:
    with Model("champion") as a, Model("challenger", "hang") as b:
        first = table(1, a.address, b.address, mirror_bp=10_000, limits={"challenger_timeout_ms": 5_000})
        with running(tmp_path, first, drain_s=0.5) as plane:
            with Raw(plane.port) as raw:
                raw.send(post("u"))
                assert raw.answer().status == 200
                plane.until(lambda: b.count == 1)
            assert plane.drain() == 0
            assert sorted((e.mirror, e.usable, e.evidence) for e in plane.exposures(2))[1] == (True, False, False)
