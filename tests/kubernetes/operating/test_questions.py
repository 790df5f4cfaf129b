"""Model servers that take connections and say nothing: who looks at them goes on, and so do all others."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from controller.edges.cluster.asking import Lane
from controller.edges.cluster.questions import HEALTH, UNASKED, Questions, Server
from controller.edges.cluster.resources import SERVICES, SLICES
from controller.status import Progress
from tests.kubernetes.operating.machines import ModelServer, own_address
from tests.kubernetes.operating.templated import of_store
from tests.kubernetes.operating.test_slices import adopting, piece
from tests.kubernetes.operating.theatre import STAY, Theatre, until

CROWD = 10


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of a server that nobody ever answers at."""
    with socket.socket() as hole:
        hole.bind((own_address(), 0))
        hole.listen(1_000)
        yield hole.getsockname()[1]


def test_a_look_does_not_wait_for_a_server_that_says_nothing(silent: int) -> None:
    """Its failure is told by another look, which it brings about once."""
    fed = threading.Semaphore(0)
    questions = Questions(1.0, 0.1, fed.release)
    server = Server(f"{own_address()}:{silent}", "")

    def look() -> tuple[float, str]:
        began = time.monotonic()
        found = questions.faults("1", (server,), HEALTH)[server.upstream]
        return time.monotonic() - began, found.text

    took, said = look()
    assert (took < 0.7, said) == (True, UNASKED.text)
    assert fed.acquire(timeout=10)
    looks = [look() for _ in range(50)]
    assert sum(took for took, _ in looks) < 0.7  # it is not waited for at all
    assert all("no answer" in said for _, said in looks)
    until(lambda: not questions._asking, "it was asked again")
    assert not fed.acquire(blocking=False)  # and that told nothing new
    questions.close()


def test_what_answers_is_known_beside_what_does_not(silent: int) -> None:
    questions = Questions(2.0, 1.0)
    answering = ModelServer(own_address(), 0, "1")
    servers = [Server(f"{own_address()}:{port}", "") for port in (silent, answering.port)]
    assert questions.faults("1", tuple(servers), HEALTH) == {servers[0].upstream: UNASKED}
    until(lambda: UNASKED not in questions.faults("1", tuple(servers), HEALTH).values(), "it is given up")
    answering.fails = True
    found = questions.faults("1", tuple(servers), HEALTH)
    assert "status 503" in found[servers[1].upstream].text  # by this look, not by a later one
    answering.stop()
    questions.close()


@pytest.mark.parametrize("said", [b"[" * 100_000, b'{"a":' * 100_000, b'{"model_version": "1"'])
def test_a_version_that_cannot_be_read_is_none_and_is_asked_for_again(said: bytes) -> None:
    questions = Questions(2.0, 1.0)
    strange = ModelServer(own_address(), 0, "1")
    strange.names = said
    server = Server(f"{own_address()}:{strange.port}", "")
    until(lambda: not questions.faults("1", (server,), HEALTH), "it answers, whatever it says of its version")
    strange.names = b'{"model_version": "2"}'
    until(lambda: "serves version 2" in str(questions.faults("1", (server,), HEALTH)), "it is asked again")
    strange.stop()
    questions.close()


def test_a_lane_has_so_many_threads_and_outlives_a_fault() -> None:
    lane, gate = Lane("test", 2), threading.Event()
    begun: list[int] = []
    ended = threading.Semaphore(0)

    def work(number: int) -> None:
        begun.append(number)
        gate.wait(10)
        ended.release()
        raise ValueError("a fault")

    for number in range(6):
        lane.put(lambda number=number: work(number))
    until(lambda: len(begun) == 2, "two are at it")
    assert sum(t.name.startswith("test-") for t in threading.enumerate()) == 2
    gate.set()
    assert all(ended.acquire(timeout=10) for _ in range(6))
    assert sorted(begun) == [*range(6)]


def test_neighbours_whose_servers_say_nothing_delay_no_decision(theatre: Theatre, silent: int) -> None:
    """One namespace, and two threads for all of its rollouts."""
    neighbours = of_store(time.time)
    theatre.workloads = lambda access, store, key, views: (
        theatre.scene("late").workloads if key == theatre.key("late") else neighbours(access, store, key, views)
    )
    for service in ("a", "b"):
        meta = {"namespace": theatre.namespace, "name": service}
        theatre.access.create(SERVICES, {"metadata": meta, "spec": {"ports": [{"name": "http", "port": 8080}]}})
        theatre.access.create(SLICES, piece(theatre.namespace, f"{service}-1", service, silent))
    theatre.operator(ticks=2)
    theatre.apply(steps=STAY)
    theatre.reaches(Progress.RUNNING, step=1)
    for number in range(CROWD):
        theatre.model(f"m{number}")
        theatre.apply(f"m{number}", model={"name": f"m{number}"}, steps=STAY, servers=adopting("a", "b"))

    def at_it() -> bool:
        return all("no answer" in theatre.status(f"m{number}").message for number in range(CROWD))

    until(at_it, "they wait for their servers", within=60)
    theatre.reaches(Progress.ROLLED_BACK, errors=0.9, requests=200, within=10)
