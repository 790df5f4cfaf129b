"""The breaker of a worker, from the first failure to the full share again."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import pytest

from router.breaker import IN_A_ROW, PROBES
from tests.router.load import run
from tests.router.models import Model, head_of
from tests.router.planes import Plane, running, serving, table
from tests.router.raw import Raw, ask, await_until, post

BOTH_FAIL = ["late", "gone", "nan", "cut", "400"]
LIMITS = {"challenger_timeout_ms": 300}
# Where one is late and the other must not be, however busy the machine.
APART_MS, LATE_S = 1_500, 2.2
# Only what is late needs a short deadline: what breaks off on a machine that stands still for one is passed on before.
PATIENT = {"challenger_timeout_ms": 20_000}
CHUNKS = b"\r\nTransfer-Encoding: chunked\r\n\r\n"
CUT = {
    "stream": b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream" + CHUNKS + b"9\r\ndata: 1\n\n\r\n",
    "large": head_of(50_000) + b"[" * 30_000,
    "chunks": b"HTTP/1.1 200 OK\r\nContent-Type: text/plain" + CHUNKS + b"7530\r\n" + b"x" * 30_000,
}


def test_a_challenger_that_recovers_is_probed_and_then_given_a_growing_share(tmp_path: Path) -> None:
    with serving(tmp_path, "500", weight_bp=10_000) as (plane, _, challenger):
        assert {g.arm() for g in run(plane.port, lambda n: post(f"u{n}"), 30)} == {"champion"}
        assert plane.poll()["breaker_opened_total"] == 1
        challenger.mode = "good"
        failed = challenger.count

        def closed() -> bool:
            assert ask(plane.port, post("u")).status == 200
            plane.poll()
            return plane.state is not None and plane.state.breaker == "closed"

        plane.until(closed, 60)
        assert challenger.count - failed == PROBES
        assert plane.state is not None
        assert plane.state.breaker_open_ms >= 7_000
        # A tenth at first, all of it ten seconds later.
        got = run(plane.port, lambda n: post(f"u{n}"), 100, 1)
        assert {g.status for g in got} == {200}
        assert 5 <= [g.arm() for g in got].count("challenger") <= 60
        assert plane.poll()["breaker_opened_total"] == 1


@pytest.mark.parametrize("mode", BOTH_FAIL)
def test_requests_that_neither_arm_can_answer_do_not_open_the_breaker(tmp_path: Path, mode: str) -> None:
    """One client could else have everybody's requests count against the challenger alone."""
    limits = {"challenger_timeout_ms": APART_MS // 2} if mode == "late" else PATIENT
    with serving(tmp_path, mode, weight_bp=10_000, limits=limits) as (plane, champion, challenger):
        champion.mode, champion.late_s, challenger.late_s = mode, LATE_S / 2, LATE_S / 2
        run(plane.port, lambda n: post(f"u{n}"), 2 * IN_A_ROW)
        exposures = plane.exposures(2 * IN_A_ROW)
        assert [(e.usable, e.served_by) for e in exposures] == [(False, "champion")] * 2 * IN_A_ROW
        champion.mode = challenger.mode = "good"
        assert {g.arm() for g in run(plane.port, lambda n: post(f"u{n}"), 20)} == {"challenger"}
        assert plane.poll()["breaker_opened_total"] == 0


@pytest.mark.parametrize("mode", [*BOTH_FAIL, "hang"])
def test_requests_that_only_the_challenger_cannot_answer_open_it(tmp_path: Path, mode: str) -> None:
    limits = {"challenger_timeout_ms": APART_MS}
    with serving(tmp_path, mode, weight_bp=10_000, limits=limits) as (plane, _, challenger):
        challenger.late_s = LATE_S
        assert {g.arm() for g in run(plane.port, lambda n: post(f"u{n}"), IN_A_ROW)} == {"champion"}
        assert plane.poll()["breaker_opened_total"] == 1
        sent = challenger.count
        run(plane.port, lambda n: post(f"u{n}"), 10)
        assert challenger.count == sent


def test_a_stream_of_the_champions_opens_it_as_soon_as_it_begins(tmp_path: Path) -> None:
    with serving(tmp_path, "gone", weight_bp=10_000) as (plane, champion, _), ExitStack() as streams:
        champion.mode = "events"
        for n in range(IN_A_ROW):
            raw = streams.enter_context(Raw(plane.port))
            raw.send(post(f"u{n}"))
            raw.until(b"data: 1")
        assert plane.poll()["breaker_opened_total"] == 1


def broken_off(port: int, unit: str) -> bool:
    """Ask by a connection of its own; whether the answer began and ended before it was complete."""
    with Raw(port) as raw:
        raw.send(post(unit))
        raw.until(b"\r\n\r\n")
        said = raw.rest()
        return b"x" * 50_000 not in said and not said.endswith(b"0\r\n\r\n")


@pytest.mark.parametrize("kind", CUT)
def test_answers_that_it_breaks_off_while_they_are_passed_on_open_it(tmp_path: Path, kind: str) -> None:
    """Their clients have seen a part, so the champion cannot step in, and nobody tells whose fault it was."""
    with serving(tmp_path, "raw", weight_bp=10_000, limits={"judge_bytes": 10_000}) as (plane, _, challenger):
        challenger.raw = CUT[kind]
        assert all(broken_off(plane.port, f"u{n}") for n in range(IN_A_ROW))
        assert plane.poll()["breaker_opened_total"] == 1
        assert {g.arm() for g in run(plane.port, lambda n: post(f"v{n}"), 10)} == {"champion"}
        assert challenger.count == IN_A_ROW


def streams_taken(plane: Plane, stack: ExitStack, number: int) -> list[Raw]:
    """So many clients, each with the first event of a stream."""
    clients = [stack.enter_context(Raw(plane.port)) for _ in range(number)]
    for n, raw in enumerate(clients):
        raw.send(post(f"u{n}"))
    for raw in clients:
        raw.until(b"data: 1")
    return clients


def test_streams_that_do_not_go_on_open_it(tmp_path: Path) -> None:
    with serving(tmp_path, "events", weight_bp=10_000, stall_s=0.5) as (plane, _, _), ExitStack() as stack:
        for raw in streams_taken(plane, stack, IN_A_ROW):
            raw.rest()
        assert plane.poll()["breaker_opened_total"] == 1


def test_streams_that_last_for_longer_than_any_may_do_not_open_it(tmp_path: Path) -> None:
    """The champion's would have been ended as well."""
    with serving(tmp_path, "ticks", weight_bp=10_000, total_s=0.5) as (plane, _, _), ExitStack() as stack:
        for raw in streams_taken(plane, stack, 2 * IN_A_ROW):
            raw.rest()
        assert {e.usable for e in plane.exposures(2 * IN_A_ROW)} == {False}
        assert plane.poll()["breaker_opened_total"] == 0


def test_streams_that_their_clients_leave_do_not_open_it(tmp_path: Path) -> None:
    """Also where their server had been silent for longer than before an answer, which is on record as a failure."""
    with serving(tmp_path, "events", weight_bp=10_000, limits=LIMITS) as (plane, _, _), ExitStack() as stack:
        clients = streams_taken(plane, stack, 2 * IN_A_ROW)
        began = time.monotonic()
        await_until(lambda: time.monotonic() > began + 0.5)
        for raw in clients:
            raw.reset()
        assert {e.usable for e in plane.exposures(2 * IN_A_ROW)} == {False}
        assert plane.poll()["breaker_opened_total"] == 0


def test_a_server_that_slow_clients_kept_waiting_does_not_open_it_by_giving_them_up(tmp_path: Path) -> None:
    with serving(tmp_path, "large_cut", weight_bp=10_000, limits=LIMITS) as (plane, _, challenger), ExitStack() as s:
        challenger.size = 10_000_000
        clients = [s.enter_context(Raw(plane.port, receive_buffer=4_096)) for _ in range(IN_A_ROW)]
        for n, raw in enumerate(clients):
            raw.send(post(f"u{n}"))
            raw.until(b"\r\n\r\n")
        began = time.monotonic()
        await_until(lambda: time.monotonic() > began + 0.6)
        challenger.release()
        for raw in clients:
            raw.rest()
        assert {e.usable for e in plane.exposures(IN_A_ROW)} == {False}
        assert plane.poll()["breaker_opened_total"] == 0


@contextmanager
def answering(act: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that does so with each connection once it has a request's head."""

    def serve(client: socket.socket) -> None:
        with client, suppress(OSError):
            data = b""
            while b"\r\n\r\n" not in data:
                data += client.recv(65_536)
            act(client)

    def accept() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listening.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=accept, daemon=True).start()
        yield f"127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)


def so_much(client: socket.socket) -> None:
    """A part of a large answer, which a client has after five seconds at 6 MB a second.

    What a server sends in so many seconds would be a matter of the buffers between: tens of megabytes on some
    machines, and the answer is over only when the client has them all.
    """
    client.sendall(head_of(80_000_000, kind=b"text/plain"))
    for _ in range(30):
        client.sendall(b"x" * 1_000_000)


def transcribe(client: socket.socket) -> None:
    """Events from the first byte of an upload on; nothing is said while nothing comes."""
    client.sendall(CUT["stream"])
    while client.recv(65_536):
        pass


def test_waits_for_a_slow_client_add_up(tmp_path: Path) -> None:
    """None is as long as an answer may take, and all together are."""
    pause = threading.Event()  # never set

    def taken(raw: Raw) -> None:
        """All of the answer, at 6 MB a second: where the kernel has room for 4, each wait is of some .3 to 1.5 s."""
        with suppress(OSError):
            while raw.socket.recv(300_000):
                pause.wait(0.05)

    with Model("champion") as champion, answering(so_much) as server, ExitStack() as stack:
        first = table(1, champion.address, server, weight_bp=10_000, limits={"challenger_timeout_ms": 2_000})
        plane = stack.enter_context(running(tmp_path, first))
        clients = [stack.enter_context(Raw(plane.port, receive_buffer=300_000)) for _ in range(IN_A_ROW)]
        readers = [threading.Thread(target=taken, args=(raw,), daemon=True) for raw in clients]
        for n, (raw, reader) in enumerate(zip(clients, readers, strict=True)):
            raw.send(post(f"u{n}"))
            reader.start()
        assert {e.usable for e in plane.exposures(IN_A_ROW, 60)} == {False}
        assert plane.poll()["breaker_opened_total"] == 0


def test_a_stream_that_waits_for_its_clients_upload_does_not_open_it(tmp_path: Path) -> None:
    with Model("champion") as champion, answering(transcribe) as server, ExitStack() as stack:
        first = table(1, champion.address, server, weight_bp=10_000)
        plane = stack.enter_context(running(tmp_path, first, stall_s=0.5))
        clients = [stack.enter_context(Raw(plane.port)) for _ in range(IN_A_ROW)]
        for n, raw in enumerate(clients):
            raw.send(post(f"u{n}", b"x" * 9_000_000)[:2_000_000])
            raw.until(b"data: 1")
        for raw in clients:
            raw.rest()
        assert {e.usable for e in plane.exposures(IN_A_ROW)} == {False}
        assert plane.poll()["breaker_opened_total"] == 0


def test_what_the_champion_breaks_off_as_well_does_not_open_it(tmp_path: Path) -> None:
    limits = {"judge_bytes": 10_000}
    with serving(tmp_path, "gone", weight_bp=10_000, limits=limits) as (plane, champion, _):
        champion.mode, champion.raw = "raw", CUT["chunks"]
        assert all(broken_off(plane.port, f"u{n}") for n in range(2 * IN_A_ROW))
        assert plane.poll()["breaker_opened_total"] == 0


@pytest.mark.parametrize("mode", BOTH_FAIL)
def test_mirrors_of_what_the_champion_cannot_answer_either_do_not_open_it(tmp_path: Path, mode: str) -> None:
    limits = LIMITS if mode == "late" else PATIENT
    with serving(tmp_path, mode, mirror_bp=10_000, limits=limits) as (plane, champion, _):
        champion.mode = mode
        run(plane.port, lambda n: post(f"u{n}"), 2 * IN_A_ROW)
        assert {e.usable for e in plane.exposures(4 * IN_A_ROW)} == {False}
        assert plane.poll()["breaker_opened_total"] == 0
        champion.mode = "good"
        # More than it takes: on a busy machine an answer of the champion's may be late, and its mirror does not count.
        await_until(lambda: ask(plane.port, post("u")).status and plane.poll()["breaker_opened_total"] == 1, 20)


@pytest.mark.parametrize("shown", [{"weight_bp": 10_000}, {"mirror_bp": 10_000}], ids=["shown", "mirrored"])
def test_what_the_last_attempts_challenger_still_fails_of_does_not_count_for_the_next(
    tmp_path: Path, shown: dict[str, int]
) -> None:
    """Its requests hang while a table for another challenger comes, and end afterwards."""
    with (
        serving(tmp_path, "hang", limits={"challenger_timeout_ms": 1_500}, **shown) as (plane, champion, challenger),
        Model("challenger") as better,
        ExitStack() as clients,
    ):
        for n in range(2 * IN_A_ROW):
            clients.enter_context(Raw(plane.port)).send(post(f"u{n}"))
        await_until(lambda: challenger.count == 2 * IN_A_ROW)
        plane.put(table(2, champion.address, better.address, attempt=2, **shown))
        ended = plane.exposures(2 * IN_A_ROW * (1 + ("mirror_bp" in shown)))
        assert sum(e.arm == "challenger" and not e.usable for e in ended) == 2 * IN_A_ROW
        assert ask(plane.port, post("u")).status == 200
        await_until(lambda: better.count == 1)
        assert plane.poll()["breaker_opened_total"] == 0
