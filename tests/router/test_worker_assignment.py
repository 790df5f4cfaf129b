"""Who is served by which arm, and what counts as evidence, through the real worker."""

import json
import time
from itertools import pairwise
from pathlib import Path

import pytest

from router.assignment import POINTS, assign, point
from tests.router.load import run
from tests.router.models import Model
from tests.router.planes import Plane, running, serving, table
from tests.router.raw import Raw, ask, await_until, post


def test_every_unit_meets_the_arm_and_the_evidence_that_the_assignment_says(tmp_path: Path) -> None:
    with serving(tmp_path, weight_bp=500, control_from_bp=5_000) as (plane, _, _):
        units = [f"user-{n}" for n in range(4_000)]
        got = run(plane.port, lambda n: post(units[n]), len(units))
        expected = {unit: assign("s/1", unit, 500, 5_000) for unit in units}
        assert [g.arm() for g in got] == [expected[unit].arm for unit in units]
        found = {e.unit: e for e in plane.exposures(len(units))}
        assert set(found) == set(units)
        for unit, exposure in found.items():
            assert (exposure.arm, exposure.evidence) == expected[str(unit)][:2]
            assert (exposure.served_by, exposure.assigned_by) == (expected[str(unit)].arm, "hash")
        # None of the three kinds is missing.
        assert {(e.arm, e.evidence) for e in found.values()} == {
            ("challenger", True), ("champion", True), ("champion", False),
        }  # fmt: skip


def test_a_wider_weight_keeps_everybody_it_had_and_a_restart_changes_nothing(tmp_path: Path) -> None:
    units = [f"u{n}" for n in range(600)]
    with Model("champion") as champion, Model("challenger") as challenger:
        seen = []
        for folder, weight in (("a", 2_500), ("b", 5_000), ("c", 5_000)):
            first = table(1, champion.address, challenger.address, weight_bp=weight)
            with running(tmp_path / folder, first) as plane:
                got = run(plane.port, lambda n: post(units[n]), len(units))
                seen.append({units[g.number] for g in got if g.arm() == "challenger"})
    assert seen[0] < seen[1] == seen[2]


def test_units_of_a_holdback_that_met_both_arms_are_served_but_no_evidence(tmp_path: Path) -> None:
    units = [f"u{n}" for n in range(300)]
    limits = {"weight_bp": 9_500, "control_from_bp": 9_500, "counted_bp": 5_000}
    with serving(tmp_path, **limits) as (plane, _, _):
        run(plane.port, lambda n: post(units[n]), len(units))
        for exposure in plane.exposures(len(units)):
            place = point("s/1", str(exposure.unit))
            assert exposure.arm == ("challenger" if place < 9_500 else "champion")
            assert exposure.evidence == (place < 5_000 or place >= 9_500)


REPLAY = 1_000


def ask_in_pieces(
    plane: Plane, body: bytes, cuts: list[int], *lines: str, chunked: bool, held: int = REPLAY
) -> tuple[int, bytes]:
    """Ask with a body of which each piece is sent once the router has the one before; status and body of the answer."""
    with Raw(plane.port) as raw:
        length = "Transfer-Encoding: chunked" if chunked else f"Content-Length: {len(body)}"
        raw.send("\r\n".join(["POST / HTTP/1.1", "Host: a", "Content-Type: application/json", length, *lines]).encode())
        raw.send(b"\r\n\r\n")
        seen = 0
        for begin, end in pairwise([0, *cuts, len(body)]):
            piece = body[begin:end]
            seen = begin if seen <= held else seen  # what comes after that is passed on
            await_until(lambda seen=seen: plane.poll()["held_bytes"] == seen)
            last = b"0\r\n\r\n" if end == len(body) else b""
            raw.send(b"%x\r\n%b\r\n%b" % (len(piece), piece, last) if chunked else piece)
        answer = raw.answer()
        # The connection goes on, whatever the framing was.
        raw.send(post())
        assert raw.answer().status == answer.status
        return answer.status, answer.body


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("cuts", [[], [600], [REPLAY], [1_500], [600, 1_500]], ids=str)
def test_the_arm_does_not_depend_on_the_pieces_in_which_a_body_comes(
    tmp_path: Path, cuts: list[int], chunked: bool
) -> None:
    """A unit is found in a body of up to ``replayBytes`` and in none that is longer; what is kept of it is the same."""
    limits = {"replay_bytes": REPLAY, "challenger_timeout_ms": 20_000}
    way = {"unit": {"json_pointer": "/user"}, "limits": limits, "capture": {"redact_defaults": False}}
    with serving(tmp_path, weight_bp=10_000, **way) as (plane, _, challenger):
        seen = []
        for size in (REPLAY, REPLAY + 1, 3 * REPLAY):
            body = b'{"user": "ada", "inputs": [[1]], "pad": "'
            body += b"x" * (size - len(body) - 2) + b'"}'
            _, answer = ask_in_pieces(plane, body, [cut for cut in cuts if cut < size], chunked=chunked)
            seen.append(json.loads(answer)["arm"])
            if size == REPLAY:
                assert challenger.requests[-1].body == body
        assert seen == ["challenger", "champion", "champion"]
        found = plane.exposures(6)[::2]
        assert [(e.unit, e.evidence) for e in found] == [("ada", True), (None, False), (None, False)]
        assert {len(str(e.inputs)) for e in found} == {REPLAY}


@pytest.mark.parametrize("chunked", [False, True], ids=["length", "chunks"])
@pytest.mark.parametrize("cuts", [[], [600], [1_500], [600, 1_500]], ids=str)
@pytest.mark.parametrize("replay_bytes", [0, REPLAY])
def test_whether_the_champion_steps_in_does_not_depend_on_them_either(
    tmp_path: Path, replay_bytes: int, cuts: list[int], chunked: bool
) -> None:
    limits = {"replay_bytes": replay_bytes}
    with serving(tmp_path, "500", weight_bp=10_000, limits=limits) as (plane, champion, challenger):
        body = b'{"inputs": [[1]]}'.ljust(3 * REPLAY)
        champion.mode = "500"
        status, answer = ask_in_pieces(plane, body, cuts, "X-Unit: u", chunked=chunked, held=replay_bytes)
        assert (status, json.loads(answer)["arm"]) == (500, "challenger")
        assert challenger.requests[-1].body == body


@pytest.mark.parametrize("unit", ["ünïcode ✓", "with  blanks", "x" * 512, "100% a:b/c?d"])
def test_a_unit_is_hashed_as_the_text_that_was_sent(tmp_path: Path, unit: str) -> None:
    with serving(tmp_path, weight_bp=5_000) as (plane, _, _):
        ask(plane.port, post(unit))
        (exposure,) = plane.exposures(1)
        assert (exposure.unit, exposure.arm) == (unit, assign("s/1", unit, 5_000, POINTS).arm)


@pytest.mark.parametrize("lines", [[], ["X-Unit:"], ["X-Unit: " + "x" * 513]])
def test_a_request_without_a_unit_is_the_champions_and_never_evidence(tmp_path: Path, lines: list[str]) -> None:
    with serving(tmp_path, weight_bp=9_500) as (plane, _, challenger):
        assert b"champion" in ask(plane.port, post(None, b"{}", *lines)).body
        (exposure,) = plane.exposures(1)
        assert (exposure.unit, exposure.arm, exposure.evidence) == (None, "champion", False)
        assert exposure.assigned_by == "none"
        assert plane.poll()["no_unit_total"] == 1
        assert challenger.count == 0
        assert plane.drain() == 0
        assert plane.lines()[-1]["no_unit"] == 1


def test_the_override_header_chooses_the_arm_is_logged_and_goes_no_further(tmp_path: Path) -> None:
    with serving(tmp_path, override_header="X-Arm") as (plane, champion, challenger):
        assert b'"challenger"' in ask(plane.port, post("u", b"{}", "X-Arm: challenger")).body
        assert b'"champion"' in ask(plane.port, post("u", b"{}", "x-arm: champion")).body
        assert b'"champion"' in ask(plane.port, post("u", b"{}", "X-Arm: whatever")).body
        one, two, three = plane.exposures(3)
        assert (one.assigned_by, one.arm, one.evidence) == ("override", "challenger", False)
        assert (two.assigned_by, two.arm, two.evidence) == ("override", "champion", False)
        assert (three.assigned_by, three.arm) == ("hash", "champion")
        for request in [*champion.requests, *challenger.requests]:
            assert b"x-arm" not in request.head.lower()


def test_without_the_switch_an_override_header_is_a_field_like_any_other(tmp_path: Path) -> None:
    with serving(tmp_path) as (plane, champion, _challenger):
        assert b'"champion"' in ask(plane.port, post("u", b"{}", "X-Arm: challenger")).body
        assert champion.requests[0].values(b"x-arm") == [b"challenger"]
        assert plane.exposures(1)[0].assigned_by == "hash"


def test_a_cookie_unit_is_minted_once_and_counts_from_the_second_request(tmp_path: Path) -> None:
    with serving(tmp_path, weight_bp=5_000, unit={"cookie": "understudy"}) as (plane, _, _):
        first = ask(plane.port, post())
        name, _, value = first.fields[b"set-cookie"].decode().partition("=")
        unit, *attributes = value.split("; ")
        assert name == "understudy"
        assert len(unit) == 32
        assert set(attributes) == {"Max-Age=31536000", "Path=/", "HttpOnly", "SameSite=Lax"}
        second = ask(plane.port, post(None, b"{}", f"Cookie: a=b; understudy={unit}; c=d"))
        assert b"set-cookie" not in second.fields
        one, two = plane.exposures(2)
        assert (one.unit, one.assigned_by, one.evidence) == (None, "none", False)
        expected = assign("s/1", unit, 5_000, POINTS)
        assert (two.unit, two.arm, two.evidence) == (unit, expected.arm, expected.evidence)


def test_unit_and_attributes_come_from_the_body_where_the_table_says_so(tmp_path: Path) -> None:
    table_says = {
        "unit": {"feature": "tailnum"},
        "attributes": [
            {"name": "carrier", "source": {"feature": "carrier"}},
            {"name": "country", "source": {"header": "X-Country"}},
            {"name": "deep", "source": {"json_pointer": "/params/a~1b/1"}},
        ],
    }
    body = (
        b'{"dataframe_split": {"columns": ["carrier", "tailnum"], "data": [["UA", "N1"], ["AA", "N2"]]},'
        b' "params": {"a/b": [0, 7]}}'
    )
    with serving(tmp_path, weight_bp=5_000, **table_says) as (plane, _, _):
        ask(plane.port, post(None, body, "X-Country: NL"))
        (exposure,) = plane.exposures(1)
        assert exposure.unit == "N1"
        assert exposure.attributes == {"carrier": "UA", "country": "NL", "deep": "7"}


@pytest.mark.parametrize("unit", ["a\\nb", "\\u0000", "\\u007f", "\\t"])
def test_a_unit_that_no_outcome_could_name_is_none(tmp_path: Path, unit: str) -> None:
    with serving(tmp_path, weight_bp=9_500, unit={"json_pointer": "/user"}) as (plane, _, challenger):
        ask(plane.port, post(None, b'{"user": "%b"}' % unit.encode()))
        (exposure,) = plane.exposures(1)
        assert (exposure.unit, exposure.arm, exposure.assigned_by) == (None, "champion", "none")
        assert challenger.count == 0


def test_after_its_ttl_a_table_sends_everybody_to_the_champion_until_the_controller_is_heard(tmp_path: Path) -> None:
    with serving(tmp_path, weight_bp=9_500, ttl_s=60) as (plane, _, _), Raw(plane.port) as raw:
        unit = next(f"u{n}" for n in range(100) if point("s/1", f"u{n}") < 9_500)
        for ago, stale in ((0, False), (61, True), (59, False)):
            plane.send({"type": "heard", "t": int((time.time() - ago) * 1e6)})
            plane.poll()
            raw.send(post(unit))
            arm = b"champion" if stale else b"challenger"
            assert arm in raw.answer().body
        found = plane.exposures(3)
        assert [(e.stale, e.arm, e.evidence) for e in found] == [
            (False, "challenger", True), (True, "champion", False), (False, "challenger", True),
        ]  # fmt: skip


def test_without_a_table_the_answer_is_503_and_says_when_to_come_back(tmp_path: Path) -> None:
    with Model("champion") as champion, running(tmp_path) as plane:
        answer = ask(plane.port, post("u"))
        assert (answer.status, answer.fields[b"retry-after"]) == (503, b"1")
        plane.put(table(0, champion.address))
        assert ask(plane.port, post("u")).status == 200
