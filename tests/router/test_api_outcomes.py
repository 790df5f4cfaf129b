"""Outcomes: all of a request or none, each fault named, durable before acknowledged, repeated without harm."""

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.events import Outcome
from tests.router.journals import assert_sound, now, read_all
from tests.router.routers import Router, started


@pytest.fixture(scope="module")
def router(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Router]:
    with started(
        tmp_path_factory.mktemp("router"), outcome_batch=100, outcome_body_bytes=20_000, outcome_window=1_000
    ) as running:
        yield running


def _outcome(name: str, **other: Any) -> dict[str, Any]:
    return {"outcome_id": name, "t": now(), "unit": "u1", "name": "click"} | other


def _post(router: Router, content: Any, **options: Any) -> httpx.Response:
    return router.control.post("/v1/outcomes", json=content, **options)


def _written(router: Router) -> list[dict[str, Any]]:
    events = read_all(Path(router.settings["journal_dir"]), "router-outcomes")
    assert_sound(events)
    return [event for event in events if event["type"] == "outcome"]


def _ids(router: Router) -> list[str]:
    return [event["outcome_id"] for event in _written(router)]


def test_an_acknowledged_outcome_is_in_the_journal_as_it_was_sent(router: Router) -> None:
    sent = _outcome("whole", t=now() - 3 * 86_400_000_000, unit=None, request_id="r9", row=3, value=12.5)
    before = now()
    answer = _post(router, {"outcomes": [sent]})
    assert answer.status_code == 202
    assert answer.json() == {"accepted": 1, "written": 1, "duplicates": 0, "conflicts": []}
    event = Outcome.model_validate(_written(router)[-1])
    assert event.model_dump(include=set(sent)) == sent
    assert before <= event.ingest_t <= now()


@pytest.mark.parametrize("value", [0, 1, -3, 2.5, -1e9, 1e9, 0.1])
def test_any_finite_value_in_range_is_taken(router: Router, value: float) -> None:
    assert _post(router, [_outcome(f"value{value}", value=value)]).status_code == 202
    assert _written(router)[-1]["value"] == value


def test_the_three_ways_to_send_a_batch_are_the_same(router: Router) -> None:
    outcomes = [_outcome(f"way{number}") for number in range(9)]
    assert _post(router, {"outcomes": outcomes[:3]}).json()["written"] == 3
    assert _post(router, outcomes[3:6]).json()["written"] == 3
    lines = "\n".join(map(json.dumps, outcomes[6:])) + "\n\n"
    headers = {"Content-Type": "application/x-ndjson; charset=utf-8"}
    assert router.control.post("/v1/outcomes", content=lines, headers=headers).json()["written"] == 3
    assert _ids(router)[-9:] == [outcome["outcome_id"] for outcome in outcomes]


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"outcome_id": ""}, "outcome_id"),
        ({"outcome_id": "x" * 129}, "outcome_id"),
        ({"outcome_id": 7}, "outcome_id"),
        ({"outcome_id": "o\x00"}, "outcome_id"),
        ({"outcome_id": "o\n"}, "outcome_id"),
        ({"unit": "u\x1f"}, "unit"),
        ({"unit": "u\x7f"}, "unit"),
        ({"unit": "u" * 513}, "unit"),
        ({"unit": None, "request_id": ""}, "request_id"),
        ({"unit": None, "request_id": "r" * 129}, "request_id"),
        ({"unit": None, "request_id": "r 1"}, "request_id"),
        ({"unit": None, "request_id": "r\xe9"}, "request_id"),
        ({"unit": None, "request_id": "r\n"}, "request_id"),
        ({"name": "cl\tick"}, "name"),
        ({"unit": None}, ""),
        ({"request_id": "r1"}, ""),
        ({"unit": ""}, "unit"),
        ({"name": ""}, "name"),
        ({"name": "x" * 64}, "name"),
        ({"value": "1"}, "value"),
        ({"value": 1e10}, "value"),
        ({"value": None}, "value"),
        ({"value": True}, "value"),
        ({"row": -1}, "row"),
        ({"row": 1.5}, "row"),
        ({"t": "now"}, "t"),
        ({"t": 1.5e15}, "t"),
        ({"t": 1_760_000_000}, "t"),
        ({"t": 1_760_000_000_000}, "t"),
        ({"t": 10**19}, "t"),
        ({"clicks": 1}, "clicks"),
        ({"seq": 4}, "seq"),
        ({"ingest_t": 4}, "ingest_t"),
        ({"type": "exposure"}, "type"),
    ],
)
def test_one_bad_outcome_refuses_the_batch_and_is_named(router: Router, change: dict[str, Any], field: str) -> None:
    before = _ids(router)
    answer = _post(router, [_outcome("good0"), _outcome("bad") | change, _outcome("good1")])
    assert answer.status_code == 400
    (problem,) = answer.json()["problems"]
    assert (problem["index"], problem["field"]) == (1, field)
    assert problem["message"].startswith("outcomes[1]: ")
    assert answer.json()["error"].startswith("nothing was taken: ")
    assert _ids(router) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"request_id": "r1"}, "outcomes[0]: unit or request_id is needed, not both: a request's unit is known"),
        ({"unit": None}, "outcomes[0]: unit or request_id is needed"),
        ({"unit": "a\nb"}, "outcomes[0]: unit: control characters are not allowed"),
        ({"unit": None, "request_id": "a b"}, "outcomes[0]: request_id: visible ASCII characters are allowed"),
        (
            {"clicks": 1},
            "outcomes[0]: clicks: is no field of an outcome; those are type, t, outcome_id, unit, request_id, ",
        ),
        ({"seq": 1}, "outcomes[0]: seq: is set by the router; leave it out"),
    ],
)
def test_a_refusal_says_what_is_allowed(router: Router, change: dict[str, Any], says: str) -> None:
    answer = _post(router, [_outcome("o") | change])
    assert answer.status_code == 400
    (problem,) = answer.json()["problems"]
    assert problem["message"].startswith(says)


@pytest.mark.parametrize("unit", [" ", "a b", "\xe9\u4e00", "\\xff", "\u200b", "u" * 512])
def test_any_other_text_is_a_unit(router: Router, unit: str) -> None:
    assert _post(router, [_outcome(f"unit{hash(unit)}", unit=unit)]).status_code == 202
    assert _written(router)[-1]["unit"] == unit


@pytest.mark.parametrize("field", ["outcome_id", "t", "name"])
def test_a_missing_field_is_named(router: Router, field: str) -> None:
    outcome = _outcome("missing")
    del outcome[field]
    answer = _post(router, [outcome])
    assert answer.status_code == 400
    assert answer.json()["problems"] == [
        {"index": 0, "field": field, "message": f"outcomes[0]: {field}: Field required"}
    ]


def test_every_bad_outcome_of_a_batch_is_named(router: Router) -> None:
    batch = [_outcome(f"many{number}", **({"value": "x"} if number % 2 else {})) for number in range(12)]
    answer = _post(router, batch)
    assert [problem["index"] for problem in answer.json()["problems"]] == [1, 3, 5, 7, 9, 11]


def test_an_outcome_more_than_five_minutes_ahead_is_refused_and_named(router: Router) -> None:
    answer = _post(router, [_outcome("soon", t=now() + 290_000_000), _outcome("late", t=now() + 330_000_000)])
    assert answer.status_code == 400
    (problem,) = answer.json()["problems"]
    assert (problem["index"], problem["field"]) == (1, "t")
    assert "in the future; at most 300 s are allowed" in problem["message"]
    assert _post(router, [_outcome("soon", t=now() + 290_000_000)]).status_code == 202


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("{", "no JSON"),
        ("", "no JSON"),
        ('"x"', "a list of outcomes is needed"),
        ("{}", "an object with outcomes is needed"),
        ('{"outcome": []}', "an object with outcomes is needed, not with 'outcome'"),
        ('{"outcomes": {}}', "a list of outcomes is needed"),
        ("[1]", "outcomes[0]"),
        ("[[]]", "outcomes[0]"),
        ("[null]", "outcomes[0]"),
        ('[{"value": NaN}]', "no JSON"),
        ("[" * 5_000, "no JSON"),
        ("\ufeff[]", "no JSON"),
    ],
)
def test_a_malformed_body_is_refused_with_what_is_needed(router: Router, body: str, says: str) -> None:
    answer = router.control.post("/v1/outcomes", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400
    assert says in answer.json()["error"]


def test_a_bad_line_of_ndjson_is_named_by_its_place(router: Router) -> None:
    before = _ids(router)
    body = json.dumps(_outcome("line0")) + "\n{\n" + json.dumps(_outcome("line2"))
    answer = router.control.post("/v1/outcomes", content=body, headers={"Content-Type": "application/x-ndjson"})
    assert answer.status_code == 400
    assert answer.json()["problems"][0]["index"] == 1
    assert _ids(router) == before


def test_the_same_outcome_again_is_acknowledged_and_not_written_twice(router: Router) -> None:
    outcome = _outcome("again")
    assert _post(router, [outcome, outcome]).json() == {
        "accepted": 2,
        "written": 1,
        "duplicates": 1,
        "conflicts": [],
    }
    for _ in range(3):
        answer = _post(router, [outcome])
        assert (answer.status_code, answer.json()["duplicates"]) == (202, 1)
    assert _ids(router).count("again") == 1


def test_another_content_under_a_known_id_is_reported_and_the_first_holds(router: Router) -> None:
    first = _outcome("twofold", value=1.0)
    _post(router, [first])
    answer = _post(router, [_outcome("other"), first | {"value": 2.0}])
    assert answer.status_code == 202
    assert answer.json()["conflicts"] == [{"index": 1, "outcome_id": "twofold"}]
    assert answer.json()["written"] == 1
    assert [event["value"] for event in _written(router) if event["outcome_id"] == "twofold"] == [1.0]
    metrics = router.control.get("/metrics").text
    assert 'understudy_router_outcomes_total{result="conflict"} 1.0' in metrics


def test_the_memory_for_ids_is_bounded_and_forgets_the_oldest(router: Router) -> None:
    _post(router, [_outcome("old", t=1_760_000_000_000_000)])
    for start in range(0, 1_200, 100):
        assert _post(router, [_outcome(f"fill{start + number}") for number in range(100)]).status_code == 202
    answer = _post(router, [_outcome("old", t=1_760_000_000_000_000), _outcome("fill1199")])
    assert answer.json()["written"] == 1  # the old one again; the engine counts an id once for good
    assert len(answer.json()["conflicts"]) == 1  # the recent one is remembered (its time differs)


def test_too_many_outcomes_are_refused(router: Router) -> None:
    answer = _post(router, [{"outcome_id": str(number)} for number in range(101)])
    assert answer.status_code == 400
    assert "more than 100 outcomes in one request, 100 are allowed" in answer.json()["error"]


@pytest.mark.parametrize("line", ["{}", "1", "{", json.dumps({"outcome_id": "x"})])
def test_too_many_lines_are_refused_before_they_are_all_looked_at(router: Router, line: str) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    answer = router.control.post("/v1/outcomes", content=f"{line}\n" * 101, headers=headers)
    assert answer.status_code == 400
    assert answer.json()["problems"] == [
        {"index": None, "field": "outcomes", "message": "more than 100 outcomes in one request, 100 are allowed"}
    ]


def test_a_field_too_many_is_named_once_however_many_there_are(router: Router) -> None:
    answer = _post(router, [_outcome("wide") | {f"f{number}": 1 for number in range(1_500)}])
    assert [problem["field"] for problem in answer.json()["problems"]] == ["f0"]


def test_ndjson_has_the_limits_of_json(router: Router) -> None:
    headers = {"Content-Type": "application/x-ndjson"}
    answer = router.control.post("/v1/outcomes", content=b"\n" * 20_001, headers=headers)
    assert answer.status_code == 413
    good, twice = _outcome("nd0"), _outcome("nd1")
    lines = "\r\n".join(json.dumps(each) for each in (good, twice, twice, twice | {"value": 2.0}))
    answer = router.control.post("/v1/outcomes", content=lines, headers=headers)
    assert answer.json() == {
        "accepted": 4, "written": 2, "duplicates": 1, "conflicts": [{"index": 3, "outcome_id": "nd1"}],
    }  # fmt: skip


def test_who_goes_on_sending_far_too_much_hears_why_and_not_a_broken_connection(router: Router) -> None:
    size = 5 << 20
    host, port = router.control.base_url.host, router.control.base_url.port
    fields = f"Host: {host}\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    head = f"POST /v1/outcomes HTTP/1.1\r\n{fields}\r\n"
    with socket.create_connection((host, port or 80), 10) as client:
        client.sendall(head.encode() + b" " * size)
        assert client.recv(1_000).startswith(b"HTTP/1.1 413 ")


def test_a_body_over_the_limit_is_refused_whatever_length_it_claims(router: Router) -> None:
    large = json.dumps([_outcome("large", unit="u" * 30_000)])
    assert _post(router, json.loads(large)).status_code == 413

    def in_parts() -> Iterator[bytes]:
        for start in range(0, len(large), 5_000):
            yield large[start : start + 5_000].encode()

    answer = router.control.post("/v1/outcomes", content=in_parts(), headers={"Content-Type": "application/json"})
    assert answer.status_code == 413
    assert "20000 bytes" in answer.json()["error"]


@pytest.mark.parametrize("media", ["text/plain", "application/x-www-form-urlencoded", ""])
def test_only_json_and_ndjson_are_taken(router: Router, media: str) -> None:
    answer = router.control.post("/v1/outcomes", content=b"[]", headers={"Content-Type": media})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["error"]


def test_a_packed_body_is_refused(router: Router) -> None:
    answer = _post(router, [], headers={"Content-Encoding": "gzip"})
    assert answer.status_code == 415


@pytest.mark.parametrize("limits", [{"journal_capacity": 100}, {"outcome_batch": 12_000}], ids=["few", "large"])
def test_a_batch_that_is_allowed_is_taken_however_few_events_may_wait(tmp_path: Path, limits: dict[str, int]) -> None:
    number = limits.get("outcome_batch", 5_000)
    with started(tmp_path, **limits) as small:
        answer = _post(small, [_outcome(f"o{n}") for n in range(number)])
        assert (answer.status_code, answer.json()["written"]) == (202, number)
        assert len(_ids(small)) == number


def test_an_empty_batch_is_no_error(router: Router) -> None:
    assert _post(router, []).json() == {"accepted": 0, "written": 0, "duplicates": 0, "conflicts": []}


def test_acknowledged_outcomes_survive_kill_9(tmp_path: Path) -> None:
    acknowledged = []
    for life in range(3):
        with started(tmp_path) as router:
            for number in range(30):
                outcome = _outcome(f"{life}-{number}")
                if _post(router, [outcome]).status_code == 202:
                    acknowledged.append(outcome["outcome_id"])
            router.process.kill()
            router.process.wait(10)
            found = _ids(router)
            assert sorted(found) == sorted(acknowledged)
    assert len(acknowledged) == 90


def test_a_full_disk_answers_503_and_takes_outcomes_again_later(tmp_path: Path) -> None:
    with started(tmp_path, file_limit=20_000) as router:
        statuses = []
        for number in range(60):
            answer = _post(router, [_outcome(f"full{number}", unit="u" * 500)])
            statuses.append(answer.status_code)
        assert statuses[0] == 202
        assert statuses[-1] == 503
        refused = _post(router, [_outcome("refused", unit="u" * 500)])
        assert refused.headers["retry-after"] == "1"
        assert "the journal does not take outcomes now" in refused.json()["error"]
        good = {f"full{number}" for number, status in enumerate(statuses) if status == 202}
        assert good <= set(_ids(router))
        router.lift_file_limit()
        deadline = time.monotonic() + 10
        while _post(router, [_outcome("refused", unit="u" * 500)]).status_code != 202:
            assert time.monotonic() < deadline
        assert "refused" in _ids(router)


def test_the_api_describes_itself(router: Router) -> None:
    described = router.control.get("/openapi.json").json()
    assert set(described["paths"]) >= {"/v1/table", "/v1/state", "/v1/outcomes", "/v1/journals", "/readyz"}
    body = described["paths"]["/v1/outcomes"]["post"]["requestBody"]["content"]
    fields = body["application/json"]["schema"]["properties"]["outcomes"]["items"]["properties"]
    assert {"outcome_id", "unit", "request_id", "value"} <= set(fields)
