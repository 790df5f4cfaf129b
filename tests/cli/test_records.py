"""`explain` says why, from the record alone; `replay` derives every record again and finds one that was changed."""

import json
import math
from pathlib import Path
from typing import Any

import pytest

from controller.cli.explain import row
from controller.core.decide import superior_threshold
from controller.core.fold import EMPTY
from controller.core.record import Record
from controller.edges.store import SqliteStore
from controller.metric import Role
from controller.status import RolloutStatus
from tests.cli.states import answer, begun, declared, rolled_back, understudy
from tests.decide.rollouts import rollout
from tests.evidence.test_outlook import piece


def lines(path: Path, records: list[Record]) -> Path:
    path.write_text("".join(json.dumps(r._asdict()) + "\n" for r in records))
    return path


def explained(folder: Path) -> Any:
    return answer(understudy("explain", "--state-dir", str(folder), "--output", "json"))


def test_explain_shows_the_evidence_a_rollback_rested_on_also_after_it_was_carried_out(tmp_path: Path) -> None:
    store = rolled_back(tmp_path)
    assert store.load("late").status.progress == "RolledBack"
    said = explained(tmp_path)
    assert (said["decision"], said["reason"]) == ("RollBack", "ServiceHarm")
    errors = next(row for row in said["evidence"] if row["metric"] == "errors")
    assert errors["verdict"] == "Worse"
    assert errors["units"] == {"champion": 5000, "challenger": 1000}
    assert errors["estimate"] == pytest.approx(0.3 - 1 / 500)
    assert errors["log_e_harm"] >= errors["log_e_harm_needed"] == pytest.approx(-math.log(0.02 / 2))


def test_explain_says_what_is_missing_to_prove_a_metric_not_worse(tmp_path: Path) -> None:
    rolled_back(tmp_path).close()
    errors = next(row for row in explained(tmp_path)["evidence"] if row["metric"] == "errors")
    assert errors["log_e_non_inferior"] < errors["log_e_non_inferior_needed"] == pytest.approx(math.log(20))
    assert errors["missing"].endswith("of the 3.00 that prove it not worse than 0.005")


@pytest.mark.parametrize("segment", ["", "country=DE"])
def test_explain_asks_no_segment_for_a_proof(segment: str) -> None:
    metrics = [
        {"name": "ctr", "kind": "Proportion", "outcome": "click", "window": "1m", "role": "Success", "margin": "1%"}
    ]
    spec = rollout(metrics=metrics, decision={"mode": "Superior"}).spec
    e = piece(segment=segment, role=Role.SUCCESS, log_e_non_inferior=4.0, log_e_superior=1.0)
    said = row(spec, RolloutStatus(uid="u"), EMPTY, e, 4.6, superior_threshold(spec, [e._replace(segment="")]))
    if segment:
        assert (said["missing"], said["expected_in_s"], said["log_e_superior_needed"]) == (None, None, None)
    else:
        assert said["missing"] == "log e 1.00 of the 3.00 that prove it better; one Success metric has to be"
        assert said["log_e_superior_needed"] == pytest.approx(math.log(20))


def test_explain_says_until_when_it_speaks_and_when_the_data_are_due(tmp_path: Path) -> None:
    begun(tmp_path).close()
    said = explained(tmp_path)
    assert said["at"].endswith("+00:00")
    assert all(row["expected_in_s"] > 0 for row in said["evidence"])
    assert "expected    data in about" in understudy("explain", "--state-dir", str(tmp_path)).stdout


def test_explain_before_any_evidence_has_no_number_that_is_not_finite(tmp_path: Path) -> None:
    begun(tmp_path).close()
    said = explained(tmp_path)
    assert (said["decision"], said["reason"]) == ("Hold", "HoldTime")
    assert {row["verdict"] for row in said["evidence"]} == {"NoData"}
    assert {row["se"] for row in said["evidence"]} == {None}


def test_explain_in_words_names_each_metric_with_its_numbers(tmp_path: Path) -> None:
    rolled_back(tmp_path).close()
    text = understudy("explain", "--state-dir", str(tmp_path)).stdout
    assert text.startswith("late: RollBack, ServiceHarm. errors ")
    assert "errors (Guardrail): Worse" in text
    assert "units       5000 champion, 1000 challenger" in text


def test_a_rollout_without_a_record_says_so(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path / "rollouts.sqlite")
    store.put(declared("late"))
    store.close()
    outcome = understudy("explain", "--state-dir", str(tmp_path))
    assert outcome.returncode == 2
    assert "late has no record yet" in outcome.stderr


def test_every_record_of_a_store_derives_again(tmp_path: Path) -> None:
    store = rolled_back(tmp_path)
    count = len(store.records("late"))
    store.close()
    assert count >= 4
    for path in (tmp_path, tmp_path / "rollouts.sqlite"):
        outcome = understudy("replay", str(path))
        assert (outcome.returncode, outcome.stdout) == (0, f"{count} records, 0 differ\n")


def test_records_may_come_as_json_lines(tmp_path: Path) -> None:
    store = rolled_back(tmp_path)
    path = lines(tmp_path / "records.jsonl", store.records("late"))
    assert answer(understudy("replay", str(path), "--output", "json"))["differences"] == []


def test_a_record_that_was_changed_is_found(tmp_path: Path) -> None:
    records = rolled_back(tmp_path).records("late")
    place = next(i for i, r in enumerate(records) if r.reason == "ServiceHarm")
    tree = json.loads(records[place].inputs)
    tree["statistics"]["folds"]["errors|"]["ever_harm"] = 0.0
    records[place] = records[place]._replace(inputs=json.dumps(tree))
    outcome = understudy("replay", str(lines(tmp_path / "records.jsonl", records)), "--output", "json")
    assert outcome.returncode == 1
    said = answer(outcome)
    assert [d["key"] for d in said["differences"]] == [records[place].key]
    assert records[place].key in outcome.stderr


@pytest.mark.parametrize("change", [{"decision": "Promote"}, {"message": "all good"}, {"now": 1}, {"uid": "other"}])
def test_what_a_record_says_of_itself_is_derived_as_well(tmp_path: Path, change: dict[str, Any]) -> None:
    records = rolled_back(tmp_path).records("late")
    records[-1] = records[-1]._replace(**change)
    outcome = understudy("replay", str(lines(tmp_path / "records.jsonl", records)), "--output", "json")
    assert outcome.returncode == 1
    (found,) = answer(outcome)["differences"]
    assert (found["key"], found["fields"]) == (records[-1].key, list(change))


@pytest.mark.parametrize("order", [[0, 2, 3], [0, 1, 1, 2, 3], [0, 2, 1, 3]], ids=["gap", "repeat", "disorder"])
def test_a_record_that_is_missing_or_in_the_wrong_place_is_told(tmp_path: Path, order: list[int]) -> None:
    records = rolled_back(tmp_path).records("late")
    moved = [records[i] for i in order]
    outcome = understudy("replay", str(lines(tmp_path / "records.jsonl", moved)), "--output", "json")
    assert outcome.returncode == 1
    said = answer(outcome)
    assert said["differences"] == []
    assert said["misplaced"]
    assert all(text in outcome.stderr for text in said["misplaced"])


@pytest.mark.parametrize(
    "inputs",
    ["[" * 100_000, '{"spec": {}, "status": {}, "statistics": [], "now": 1}', "null", "[]"],
    ids=["deep", "wrong type", "null", "list"],
)
def test_inputs_that_nobody_wrote_are_named_without_a_trace(tmp_path: Path, inputs: str) -> None:
    record = rolled_back(tmp_path).records("late")[-1]._replace(inputs=inputs)
    outcome = understudy("replay", str(lines(tmp_path / "records.jsonl", [record])))
    assert outcome.returncode == 2
    assert record.key in outcome.stderr
    assert "Traceback" not in outcome.stderr


@pytest.mark.parametrize(("field", "value"), [("now", 1e400), ("statistics", []), ("statistics", {"folds": {"a": 3}})])
def test_one_input_of_a_wrong_type_is_named_without_a_trace(tmp_path: Path, field: str, value: object) -> None:
    record = rolled_back(tmp_path).records("late")[-1]
    changed = record._replace(inputs=json.dumps(json.loads(record.inputs) | {field: value}))
    outcome = understudy("replay", str(lines(tmp_path / "records.jsonl", [changed])))
    assert outcome.returncode == 2
    assert record.key in outcome.stderr
    assert "Traceback" not in outcome.stderr


TEXTS = ("uid", "decision", "reason", "message", "inputs", "digest")
WHOLE = json.dumps({"sequence": 1, "generation": 1, "now": 1, **dict.fromkeys(TEXTS, "")}).encode()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (
            b"{}\n",
            "line 1 is no record: it lacks decision, digest, generation, inputs, message, now, reason, sequence, uid",
        ),
        (b"[]\n", "line 1 is no record: a JSON object is needed"),
        (b"[" * 100_000 + b"\n", "line 1 is no record: "),
        (
            WHOLE.replace(b'"sequence": 1', b'"sequence": "one", "size": 3'),
            "line 1 is no record: it should not have size; it has another type of sequence",
        ),
        (b"no json\n", "line 1 is no record"),
        (b"\xff\xfe\x00\n", "line 1 is no record"),
        (b"", ""),
    ],
)
def test_what_is_no_record_is_named_by_its_line(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "records.jsonl"
    path.write_bytes(content)
    outcome = understudy("replay", str(path))
    assert outcome.returncode == (2 if said else 1)
    assert said in outcome.stderr
    assert "Traceback" not in outcome.stderr


def test_records_that_are_not_there_are_bad_usage(tmp_path: Path) -> None:
    outcome = understudy("replay", str(tmp_path / "none"))
    assert outcome.returncode == 2
    assert "does not exist" in outcome.stderr


def test_a_record_without_its_inputs_is_an_error_of_explain_and_no_trace(tmp_path: Path) -> None:
    store = begun(tmp_path)
    stored = store.load("late")
    newest = store.records("late")[-1]
    broken = newest._replace(sequence=newest.sequence + 1, inputs="{}")
    store.commit("late", stored.status, stored.version, broken)
    outcome = understudy("explain", "--state-dir", str(tmp_path))
    assert outcome.returncode == 1
    assert "cannot be derived again" in outcome.stderr
    assert "Traceback" not in outcome.stderr
