"""A run fails where a promise does not hold or a peer did not do what was measured."""

import http.server
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.bench_router.__main__ import Bench, Cores, Void, assert_sound
from tests.bench_router.load import BODY
from tests.bench_router.processes import Running, free_port
from tests.bench_router.promises import promises, room
from tests.bench_router.report import FEATURES
from tests.bench_router.test_report import row
from tests.router.journals import until

GOOD: dict[tuple[str, str, int], dict[str, float]] = {
    ("fixed", "nginx", 16): {"per_s": 4_000.0},
    ("fixed", "envoy+capture", 16): {"per_s": 1_000.0},
    ("fixed", "understudy+capture", 16): {"per_s": 2_000.0},
    ("workers", "1 workers", 64): {"per_s": 4_000.0, "cpu_us": 100.0, "idle": 0.2},
    ("workers", "2 workers", 64): {"per_s": 5_000.0, "cpu_us": 115.0, "idle": 0.0},
    (FEATURES, "1 workers", 64): {"per_s": 4_000.0, "cpu_us": 100.0},
    (FEATURES, "2 workers", 64): {"per_s": 5_000.0, "cpu_us": 100.0},
    ("mlflow", "direct", 1): {"p50_ms": 2.0},
    ("mlflow", "nginx", 1): {"p50_ms": 2.25},
    ("mlflow", "understudy+capture", 1): {"p50_ms": 2.75},
}


def bench(directory: Path, figures: dict[tuple[str, str, int], dict[str, float]]) -> Bench:
    made = Bench(directory, Cores("0", "1", "0,1"), 1, 1)
    made.rows += [row(*key, 0, **fields) for key, fields in figures.items()]
    return made


def test_all_promises_hold_at_their_bounds(tmp_path: Path) -> None:
    found = promises(bench(tmp_path, GOOD), models=True)
    assert [promise.seen for promise in found] == [0.5, 2.0, 1.25, 1.25, 1.15, 3.0]
    assert all(promise.holds for promise in found)


@pytest.mark.parametrize(
    ("key", "fields", "which"),
    [
        (("fixed", "nginx", 16), {"per_s": 4_020.0}, 0),
        (("fixed", "envoy+capture", 16), {"per_s": 1_010.0}, 1),
        (("workers", "2 workers", 64), {"per_s": 4_980.0, "cpu_us": 100.0}, 2),
        ((FEATURES, "2 workers", 64), {"per_s": 4_980.0, "cpu_us": 100.0}, 3),
        (("workers", "2 workers", 64), {"per_s": 6_000.0, "cpu_us": 116.0}, 4),
        (("mlflow", "understudy+capture", 1), {"p50_ms": 2.76}, 5),
    ],
)
def test_each_promise_can_fail(key: tuple[str, str, int], fields: dict[str, float], which: int, tmp_path: Path) -> None:
    found = promises(bench(tmp_path, GOOD | {key: fields}), models=True)
    assert [number for number, promise in enumerate(found) if not promise.holds] == [which]
    assert str(found[which]).startswith("does not hold: ")


def test_what_could_not_be_judged_does_not_hold_unless_it_was_left_out(tmp_path: Path) -> None:
    without = {key: fields for key, fields in GOOD.items() if key[1] != "envoy+capture" and key[0] != "mlflow"}
    found = promises(bench(tmp_path, without), models=True)
    assert [promise.holds for promise in found] == [True, False, True, True, True, False]
    assert str(found[1]).startswith("not judged: ")
    assert len(promises(bench(tmp_path, without), models=False)) == 5


def test_what_the_cores_have_room_for_is_shown_beside_them(tmp_path: Path) -> None:
    assert room(bench(tmp_path, GOOD)) == "these cores have room for 1.250 times the requests of one worker"
    assert " room for ? times " in room(bench(tmp_path, {}))


@contextmanager
def answering(status: int) -> Iterator[int]:
    """A server that answers everything so; its port."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield server.server_port
        server.shutdown()


@pytest.mark.parametrize("status", [204, 302, 500])
def test_a_peer_that_answers_anything_but_200_voids_the_run(status: int) -> None:
    with answering(200) as port:
        assert_sound("peer", port, BODY, None, "now")
    with answering(status) as port, pytest.raises(Void, match=f"peer: its answer is {status} and not 200"):
        assert_sound("peer", port, BODY, None, "now")
    with pytest.raises(Void, match="its answer is 0"):
        assert_sound("peer", free_port(), BODY, None, "now")


def test_a_peer_that_ended_or_lost_a_process_voids_the_run(tmp_path: Path) -> None:
    port = free_port()
    two = (
        "import os, signal, socket; os.fork() or signal.pause();"
        "listening = socket.create_server(('127.0.0.1', int(os.sys.argv[1]))); signal.pause()"
    )
    server = Running([sys.executable, "-c", two, str(port)], "0", port, tmp_path / "log")
    try:
        assert server.lost() == ""
        (child,) = server.pids - {server.process.pid}
        os.kill(child, signal.SIGKILL)
        until(lambda: server.lost() == "1 of its processes ended", "the loss is seen")
        server.process.kill()
        server.process.wait(10)
        assert server.lost().startswith("it ended with -9")
    finally:
        server.stop()
