"""The route table: written with a generation check, kept for the next start, never half taken."""

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.table import Limits, RouterState, RouteTable
from tests.router.journals import until
from tests.router.raw import Raw
from tests.router.routers import Router, started, table


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with started(tmp_path_factory.mktemp("router")) as running:
        yield running


def test_without_a_table_the_router_says_that_it_is_not_ready(tmp_path: Path) -> None:
    with started(tmp_path) as fresh:
        assert fresh.control.get("/v1/table").status_code == 404
        answer = fresh.control.get("/readyz")
        assert (answer.status_code, answer.json()["error"]) == (503, "no route table yet")
        assert answer.headers["retry-after"] == "1"
        assert fresh.control.get("/healthz").status_code == 200
        assert RouterState.model_validate(fresh.state()).generation == -1
        fresh.put(table(0))
        assert fresh.control.get("/readyz").status_code == 200


def test_a_table_reads_back_as_it_was_written(router: Router) -> None:
    challenger = {"version": "2", "upstreams": ["127.0.0.1:2", "127.0.0.1:3"]}
    content = table(10, challenger=challenger, weight_bp=500, control_from_bp=5_000, attempt=2, epoch=4)
    answer = router.put(content)
    assert RouterState.model_validate_json(answer.content).confirmed == 10
    assert RouteTable.model_validate_json(router.control.get("/v1/table").content) == RouteTable.model_validate(content)


def test_the_same_table_again_changes_nothing(router: Router) -> None:
    for _ in range(3):
        assert router.put(table(20)).status_code == 200


def test_an_older_generation_is_a_conflict(router: Router) -> None:
    router.put(table(31))
    answer = router.put(table(30))
    assert answer.status_code == 409
    assert answer.json()["error"] == "generation 30 is older than generation 31, which is served"
    assert router.control.get("/v1/table").json()["generation"] == 31


def test_another_content_under_the_same_generation_is_a_conflict(router: Router) -> None:
    router.put(table(40))
    answer = router.put(table(40, rollout="other"))
    assert answer.status_code == 409
    assert "needs a higher generation" in answer.json()["error"]
    assert router.control.get("/v1/table").json()["rollout"] == "flights"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"weight_bp": 10_001}, "weight_bp"),
        ({"weight_bp": "many"}, "weight_bp"),
        ({"champion": {"version": "1", "upstreams": []}}, "champion.upstreams"),
        ({"champion": {"version": "1", "upstreams": ["127.0.0.1:9", "127.0.0.1:99999"]}}, "champion.upstreams"),
        ({"champion": {"version": "1", "upstreams": ["https://model:443"]}}, "champion.upstreams"),
        ({"challenger": {"version": "2", "upstreams": ["a..b:80"]}}, "challenger.upstreams"),
        ({"unit": {}}, "unit"),
        ({"unit": {"cookie": "uid\r\nX-Injected: yes\r\nX: "}}, "unit.cookie"),
        ({"unit": {"cookie": "uid\n"}}, "unit.cookie"),
        ({"unit": {"cookie": "user id;"}}, "unit.cookie"),
        ({"unit": {"cookie": "\u00fcid"}}, "unit.cookie"),
        ({"unit": {"cookie": ""}}, "unit.cookie"),
        ({"unit": {"header": "X-Unit:"}}, "unit.header"),
        ({"override_header": "X Arm"}, "override_header"),
        ({"attributes": [{"name": "a", "source": {"header": "X-\u00e4"}}]}, "attributes.0.source.header"),
        ({"weihgt": 3}, "weihgt"),
        ({"weight_bp": 5}, ""),  # no challenger
        ({"generation": None}, "generation"),
        ({"generation": 10**30}, "generation"),
        ({"attempt": 1 << 64}, "attempt"),
        ({"ttl_s": 10**30}, "ttl_s"),
        ({"limits": {"replay_bytes": 10**30}}, "limits.replay_bytes"),
        ({"limits": {"champion_timeout_ms": 999}}, "limits.champion_timeout_ms"),
        ({"limits": {"challenger_timeout_ms": 30_001}}, "limits.champion_timeout_ms"),
        ({"capture": {"redact": ["pnr", "%%%"]}}, "capture.redact.1"),
        ({"capture": {"redact": ["\U0001f511"]}}, "capture.redact.0"),
    ],
)
def test_a_table_with_a_fault_is_refused_and_the_field_named(
    router: Router, change: dict[str, Any], field: str
) -> None:
    before = router.control.get("/v1/table").text
    answer = router.put(table(1_000) | change)
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"] == field
    assert field in answer.json()["error"]
    assert router.control.get("/v1/table").text == before


def test_the_largest_numbers_that_a_table_may_have_are_served_by(router: Router) -> None:
    largest = 2**53 - 1
    limits = {"challenger_timeout_ms": largest, "champion_timeout_ms": largest, "replay_bytes": largest}
    assert router.put(table(largest, ttl_s=largest, limits=limits)).status_code == 200
    assert router.control.get("/readyz").status_code == 200


def test_a_table_that_is_no_json_is_refused(router: Router) -> None:
    answer = router.control.put("/v1/table", content=b"{", headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


@pytest.mark.parametrize("path", ["/v1/table", "/v1/readers/r"])
def test_every_body_has_a_limit(router: Router, path: str) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"pad": "'
        while sent < 64 << 20:
            sent += 1 << 16
            yield b"x" * (1 << 16)
        yield b'"}'

    try:
        answer = router.control.put(path, content=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
        assert answer.json()["error"] == "the body has more than 1048576 bytes"
    except httpx.TransportError:  # it was closed before the client had sent all
        pass
    assert sent < 32 << 20


@pytest.mark.parametrize(
    ("method", "path", "content", "status", "said"),
    [
        ("GET", "/v1/nothing", None, 404, "no path '/v1/nothing' here: /openapi.json lists them"),
        ("DELETE", "/v1/table", None, 405, "/v1/table is for GET, PUT, not for DELETE"),
        ("POST", "/v1/readers/r", b"{}", 405, "/v1/readers/r is for DELETE, PUT, not for POST"),
        ("PUT", "/v1/table", b"{", 400, "no route table: Invalid JSON"),
        ("PUT", "/v1/readers/r", b"{", 400, "no positions: Invalid JSON"),
        ("PUT", "/v1/readers/r", b"[" * 200_000, 400, "no positions: Invalid JSON"),
        ("PUT", "/v1/readers/r", b"[]", 400, "no positions: Input should be"),
        (
            "PUT",
            "/v1/readers/r",
            b'{"j": {"file": -1, "offset": 0}}',
            400,
            "no positions: j.file: Input should be greater",
        ),
        ("PUT", "/v1/readers/r", b'{"../x": {"file": 0, "offset": 0}}', 400, "'../x' names no journal"),
        ("POST", "/v1/outcomes", b"{", 400, "nothing was taken: no JSON"),
        ("GET", "/v1/journals/router-w0?offset=1e3", None, 400, "offset: Input should be a valid integer"),
    ],
)
def test_every_fault_has_the_same_form_and_says_what_is_allowed(
    router: Router, method: str, path: str, content: bytes | None, status: int, said: str
) -> None:
    headers = {} if content is None else {"Content-Type": "application/json"}
    answer = router.control.request(method, path, content=content, headers=headers)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "application/json")
    assert set(answer.json()) == {"error", "problems"}
    assert said in answer.json()["error"]
    if status == 405:
        assert answer.headers["allow"] in said


def test_what_is_no_http_is_told_so_in_the_same_form(router: Router) -> None:
    with Raw(router.ready["control_port"]) as raw:
        raw.send(b"\x16\x03\x01 no HTTP\r\n\r\n")
        answer = raw.answer()
    assert answer.status == 400
    assert json.loads(answer.body) == {"error": "Invalid HTTP request received.", "problems": []}


def test_a_form_of_a_web_page_cannot_write_a_table(router: Router) -> None:
    answer = router.control.put("/v1/table", content=json.dumps(table(9_999)), headers={"Content-Type": "text/plain"})
    assert answer.status_code == 415


def test_a_refusal_before_the_body_came_reaches_who_goes_on_sending_it(router: Router) -> None:
    with Raw(router.ready["control_port"]) as raw:
        for encoding in ("", "Content-Type: application/json\r\nContent-Encoding: gzip\r\n"):
            raw.send(f"PUT /v1/table HTTP/1.1\r\nHost: localhost\r\nContent-Length: 9\r\n{encoding}\r\n".encode())
            raw.until(b"HTTP/1.1 415 ")
            raw.send(b"123456789")
        raw.send(b"GET /v1/state HTTP/1.1\r\nHost: localhost\r\n\r\n")
        raw.until(b"HTTP/1.1 200 ")


def test_a_body_without_a_length_is_cut_off_at_the_limit(router: Router) -> None:
    sent = 0

    def endless() -> Iterator[bytes]:
        nonlocal sent
        while sent < 64 << 20:
            sent += 1 << 16
            yield b" " * (1 << 16)

    # The answer comes while the body is still being sent: the client either reads it or finds the way closed.
    try:
        answer = router.control.put("/v1/table", content=endless(), headers={"Content-Type": "application/json"})
        assert answer.status_code == 413
    except httpx.TransportError:
        pass
    assert sent < 32 << 20
    assert router.control.get("/healthz").status_code == 200


@pytest.mark.parametrize("wait", ["-1", "31", "long"])
def test_the_wait_for_confirmation_is_bounded(router: Router, wait: str) -> None:
    answer = router.control.put("/v1/table", json=table(50), params={"wait": wait})
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["field"] == "wait"


def test_the_wait_ends_without_confirmation_where_a_worker_is_stuck(tmp_path: Path) -> None:
    with started(tmp_path, workers=2) as stuck:
        (pid, *_) = stuck.workers()
        os.kill(pid, 19)  # SIGSTOP
        began = time.monotonic()
        answer = stuck.put(table(3), wait=1)
        assert 1 <= time.monotonic() - began < 8
        state = RouterState.model_validate_json(answer.content)
        assert (state.generation, state.confirmed) == (3, -1)
        assert sorted(worker.generation for worker in state.workers) == [-1, 3]
        os.kill(pid, 18)  # SIGCONT
        until(lambda: stuck.generations() == [3, 3], "the stuck one follows")


def test_the_table_is_kept_over_a_restart(tmp_path: Path) -> None:
    with started(tmp_path) as first:
        first.put(table(5))
        first.process.kill()
        first.process.wait(10)
    with started(tmp_path, workers=2) as second:
        assert second.generations() == [5, 5]
        assert second.put(table(4)).status_code == 409


def test_a_restart_does_not_count_as_word_from_the_controller(tmp_path: Path) -> None:
    with started(tmp_path) as first:
        first.put(table(5))
        heard = first.get()["heard"]
        assert abs(heard - time.time_ns() // 1000) < 30_000_000
        first.end()
    with started(tmp_path) as second:
        assert abs(second.get()["heard"] - heard) < 2_000_000
        second.state()
        until(lambda: second.get()["heard"] > heard + 1, "reading the state is word from the controller")


def test_a_corrupt_kept_table_is_put_aside_with_a_message(tmp_path: Path) -> None:
    (tmp_path / "journal").mkdir()
    kept = tmp_path / "journal" / "table.json"
    kept.write_text('{"generation": 3, "rollout":')
    with started(tmp_path) as router:
        assert router.control.get("/readyz").status_code == 503
        assert "holds no route table and was moved to" in router.log()
        assert (tmp_path / "journal" / "table.json.corrupt").read_text() == '{"generation": 3, "rollout":'
        assert router.put(table(1)).status_code == 200
        assert RouteTable.model_validate_json(kept.read_bytes()).generation == 1
        assert kept.stat().st_mode & 0o777 == 0o600


NOBODY = "127.0.0.1:1"


def kept_by_another_version(directory: Path, **other: Any) -> dict[str, Any]:
    """A table of generation 7 with a challenger at work, as some other version has left it."""
    content = table(
        7,
        attempt=2,
        challenger={"version": "2", "upstreams": [NOBODY]},
        weight_bp=5_000,
        mirror_bp=10_000,
        replay_to_champion=False,
        **other,
    )
    (directory / "journal").mkdir()
    (directory / "journal" / "table.json").write_text(json.dumps(content))
    return content


def test_fields_of_a_kept_table_that_nobody_knows_are_passed_over(tmp_path: Path) -> None:
    champion = {"version": "1", "upstreams": [NOBODY], "region": "eu"}
    known = kept_by_another_version(tmp_path, later=[1], champion=champion, limits={"judge_bytes": 9, "more": {}})
    with started(tmp_path) as router:
        held = router.control.get("/v1/table").json()
        assert (held["generation"], held["weight_bp"], held["mirror_bp"]) == (7, 5_000, 10_000)
        assert held["limits"]["judge_bytes"] == 9
        assert "champion.region, later, limits.more" in router.log()
        assert router.get()["generation"] == 7
        # The same from the controller, without them, is no other table.
        del known["later"], known["champion"]["region"], known["limits"]["more"]
        assert router.put(known).status_code == 200


@pytest.mark.parametrize(
    "other",
    [
        {"limits": {"champion_timeout_ms": 500, "challenger_timeout_ms": 1_000, "capture_bytes": 0}},
        {"unit": {"jwt": "sub"}, "salt": "s/2"},
        {"champion": {"version": "1", "upstreams": [NOBODY], "probe": {"path": "no path"}}},
        {"weight_bp": 20_000},
    ],
    ids=["limits", "unit", "probe", "weight"],
)
def test_the_champion_alone_serves_by_a_kept_table_that_is_refused_otherwise(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    """It was in front of users before this version came, and may be while no controller is there."""
    content = kept_by_another_version(tmp_path)
    kept = tmp_path / "journal" / "table.json"
    kept.write_text(json.dumps(content | other))
    with started(tmp_path) as router:
        held = RouteTable.model_validate(router.control.get("/v1/table").json())
        assert (held.generation, held.attempt, held.champion.upstreams) == (7, 2, (NOBODY,))
        assert (held.challenger, held.weight_bp, held.mirror_bp, held.limits) == (None, 0, 0, Limits())
        # Nothing that might have been forbidden: no request is sent twice, and no body is kept.
        assert (held.replay_to_champion, held.capture.inputs_bp, held.capture.answers_bp) == (False, 0, 0)
        assert router.control.get("/readyz").status_code == 200
        assert router.get()["generation"] == 7
        assert "the champion alone serves" in router.log()
        # What the other version wrote is still there for it.
        assert json.loads(kept.read_bytes()) == content | other
        # The controller's table has the generation that it had, or an older one where it is not the newest.
        assert router.put(table(6)).status_code == 409
        assert router.put(table(7, attempt=2, salt="s/3")).status_code == 200
        until(lambda: json.loads(kept.read_bytes())["salt"] == "s/3", "it is kept")
        assert router.put(table(7, attempt=2, salt="s/4")).status_code == 409


@pytest.mark.parametrize("other", [{"champion": {"version": "1"}}, {"generation": "x"}, {"salt": None}])
def test_a_kept_table_without_what_the_champion_needs_is_put_aside(tmp_path: Path, other: dict[str, Any]) -> None:
    content = kept_by_another_version(tmp_path)
    (tmp_path / "journal" / "table.json").write_text(json.dumps(content | other))
    with started(tmp_path) as router:
        assert router.control.get("/readyz").status_code == 503
        assert (tmp_path / "journal" / "table.json.corrupt").exists()


def test_the_given_table_serves_until_a_later_one_was_kept(tmp_path: Path) -> None:
    given = tmp_path / "given.json"
    given.write_text(json.dumps(table(2)))
    with started(tmp_path / "r", table=str(given)) as first:
        assert first.get()["generation"] == 2
        assert first.control.get("/readyz").status_code == 200
        first.put(table(3))
        first.end()
    with started(tmp_path / "r", table=str(given)) as second:
        assert second.get()["generation"] == 3


def test_a_table_that_cannot_be_kept_is_served_all_the_same(tmp_path: Path) -> None:
    blocked = tmp_path / "blocked"
    blocked.write_text("a file where a folder should be")
    with started(tmp_path / "r", table_file=str(blocked / "table.json"), ready=False) as refused:
        assert refused.process.wait(20) == 2
        assert "--table-file" in refused.log()
    blocked.unlink()
    with started(tmp_path / "r", table_file=str(blocked / "table.json")) as router:
        blocked.write_text("a file again")
        assert router.put(table(1)).json()["workers"][0]["generation"] == 1
        assert "understudy_router_table_persisted 0.0" in router.control.get("/metrics").text
        blocked.unlink()
        until((blocked / "table.json").exists, "the table is kept once that is possible")
        until(lambda: "table_persisted 1.0" in router.control.get("/metrics").text, "and counted as kept")
