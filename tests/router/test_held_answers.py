"""What is held of answers at the same time is bounded: those who do not read them go, and no more is held of any."""

import contextlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.router.models import Model
from tests.router.planes import Plane, serving
from tests.router.raw import Raw, ask, await_until, post

LIMITS = {"challenger_timeout_ms": 20_000}


def held(plane: Plane) -> float:
    return plane.poll()["held_answer_bytes"]


@pytest.mark.parametrize("weight", [0, 10_000])
def test_where_too_much_is_held_answers_go_on_as_those_do_that_are_too_large(tmp_path: Path, weight: int) -> None:
    """By one rule in both arms; the same answers are judged again as soon as there is room."""
    way = {"weight_bp": weight, "control_from_bp": weight, "limits": LIMITS}
    with (
        serving(tmp_path, "large_halves", max_held_answer_bytes=299_999, **way) as (plane, champion, challenger),
        contextlib.ExitStack() as open_ones,
    ):
        server = challenger if weight else champion
        server.mode, server.size = "large_halves", 200_000
        first, second, third, fourth = (open_ones.enter_context(Raw(plane.port)) for _ in range(4))
        for number, raw in enumerate((first, second, third), 1):
            raw.send(post(f"u{number}"))
            await_until(lambda number=number: held(plane) == number * 100_000)
        # The fourth finds no room: it has what there is.
        fourth.send(post("u4"))
        fourth.until(b"\r\n\r\n")
        assert fourth.take(100_000) == b"x" * 100_000
        assert plane.poll()["unheld_total"] == 1
        server.release_once()
        assert fourth.take(100_000) == b"x" * 100_000
        for raw in (first, second, third):
            assert len(raw.answer().body) == 200_000
        seen = {e.unit: e for e in plane.exposures(4)}
        assert all(e.usable and e.status == e.answer_status == 200 for e in seen.values())
        assert seen["u4"].unjudged
        await_until(lambda: held(plane) == 0)
        first.send(post("u5"))
        await_until(lambda: held(plane) == 100_000)
        server.release()
        assert len(first.answer().body) == 200_000
        assert not next(e for e in plane.exposures(5) if e.unit == "u5").unjudged


def test_answers_that_come_at_once_are_not_all_held(tmp_path: Path) -> None:
    """All of them are there before it is looked at the next time; none of them goes on."""
    most, limits = 2_000_000, LIMITS | {"capture_bytes": 1_000}
    with (
        serving(tmp_path, "large_halves", weight_bp=10_000, max_held_answer_bytes=most, limits=limits) as servers,
        contextlib.ExitStack() as open_ones,
    ):
        plane, _, challenger = servers
        challenger.size = 600_000
        for number in range(40):
            open_ones.enter_context(Raw(plane.port)).send(post(f"u{number}"))
        await_until(lambda: challenger.halved == 40)
        await_until(lambda: plane.poll()["unheld_total"] > 20)
        await_until(lambda: held(plane) < 2 * most)


@contextlib.contextmanager
def no_room_for_failures(directory: Path) -> Iterator[tuple[Plane, Model]]:
    """A worker that holds all it may of answers, whose challenger fails from now on; and its champion."""
    with (
        serving(directory, "large_halves", weight_bp=10_000, max_held_answer_bytes=99_999, limits=LIMITS) as servers,
        Raw(servers[0].port) as first,
    ):
        plane, champion, challenger = servers
        challenger.size = 200_000
        first.send(post("u1"))
        await_until(lambda: held(plane) == 100_000)
        challenger.mode, challenger.raw = "raw", b"HTTP/1.1 500 No\r\nContent-Length: 99999\r\n\r\n" + b"x" * 90_000
        yield plane, champion


def test_a_failure_that_finds_no_room_is_stood_in_for(tmp_path: Path) -> None:
    with no_room_for_failures(tmp_path) as (plane, _):
        answer = ask(plane.port, post("u2"))
        assert (answer.status, b"champion" in answer.body) == (200, True)
        (exposure,) = plane.exposures(1)
        assert (exposure.usable, exposure.status, exposure.fallback_reason) == (False, 500, "Status")


def test_a_challenger_is_not_blamed_where_the_champion_that_stood_in_fails_too(tmp_path: Path) -> None:
    """That the challenger's failure found no room says nothing of the champion's answer, which comes in one read."""
    with no_room_for_failures(tmp_path) as (plane, champion):
        champion.mode = "nan"
        for number in range(12):
            assert ask(plane.port, post(f"v{number}")).status == 200
        reasons = [e.fallback_reason for e in plane.exposures(12)]
        assert reasons == ["Status"] * 12
        assert plane.poll()["breaker_opened_total"] == 0


# The head is of no known length, so it is read apart from its body, also where all of it is in hand.
IN_ONE_READ = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
IN_ONE_READ += b'15\r\n{"predictions":[NaN]}\r\n0\r\n\r\n'


@pytest.mark.parametrize(
    "way",
    [{"weight_bp": 0}, {"weight_bp": 10_000}, {"mirror_bp": 10_000, "control_from_bp": 5_000}],
    ids=["champion", "challenger", "mirror"],
)
def test_an_answer_that_is_all_in_hand_is_judged_also_where_there_is_no_room(
    tmp_path: Path, way: dict[str, int]
) -> None:
    with (
        serving(tmp_path, "raw", max_held_answer_bytes=99_999, limits=LIMITS, **way) as servers,
        Raw(servers[0].port) as first,
    ):
        plane, champion, challenger = servers
        asked = challenger if way.get("weight_bp") else champion
        asked.mode, asked.size = "large_halves", 200_000
        first.send(post("u1"))
        await_until(lambda: held(plane) == 100_000)
        challenger.mode, champion.mode = "raw", "raw" if way == {"weight_bp": 0} else "good"
        champion.raw = challenger.raw = IN_ONE_READ
        assert ask(plane.port, post("u2")).status == 200
        number = 1 + ("mirror_bp" in way)
        found = next(e for e in plane.exposures(number) if e.unit == "u2" and e.mirror is ("mirror_bp" in way))
        assert (found.usable, found.unjudged, found.status) == (False, False, 200)
        assert plane.poll()["unheld_total"] == 0


def test_mirrors_are_held_no_more_either(tmp_path: Path) -> None:
    mirror = {"mirror_bp": 10_000, "control_from_bp": 5_000, "limits": LIMITS}
    with serving(tmp_path, "large_halves", max_held_answer_bytes=99_999, **mirror) as (plane, _, challenger):
        # What is to come is more than any loop reads at once.
        challenger.size = 600_000
        assert ask(plane.port, post("u1")).status == 200
        await_until(lambda: held(plane) == 300_000)
        challenger.release()
        mirrored = next(e for e in plane.exposures(2) if e.mirror)
        assert (mirrored.usable, mirrored.unjudged, mirrored.answer_cut) == (True, True, True)
        assert plane.poll()["unheld_total"] == 1


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_those_who_do_not_read_make_room(tmp_path: Path, loop: str) -> None:
    """No more of them than there have to be. How much each has left to take is for the kernel and the loop to say."""
    many, most = 32, 1_600_000
    with (
        serving(tmp_path, head_s=1.0, max_held_answer_bytes=most, loop=loop, limits={"capture_bytes": 1_000}) as (
            plane,
            champion,
            _,
        ),
        contextlib.ExitStack() as open_ones,
    ):
        champion.mode, champion.size = "large", 1_000_000
        for number in range(many):
            raw = open_ones.enter_context(Raw(plane.port, receive_buffer=4_096))
            # So many that the kernel does not hold them.
            raw.send(post(f"u{number}") * 10)
        await_until(lambda: plane.poll()["connections_total"] == many and plane.counters["client_connections"] < many)
        await_until(lambda: held(plane) <= most)
        assert plane.poll()["client_connections"] > 0
        champion.mode = "good"
        assert ask(plane.port, post("other")).status == 200
