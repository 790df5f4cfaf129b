"""How a log is read: its order and format do not matter, its weights are its epochs, its faults have a place."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from controller.backtest import run_log
from controller.backtest.allocations import logged
from controller.errors import SpecError
from controller.quantities import SECOND
from tests.backtest.logs import PLAN, START, Log, World, declared, drawn, write, write_csv, write_parquet

TICK = 60 * SECOND
SMALL = World(challenger=0.4, challenger_errors=0.01, stretches=((5, 2, 1500), (50, 2, 1500)))
SEGMENTED = PLAN.replace("  steps:", "  segments: [{name: carrier, feature: carrier, protected: true}]\n  steps:")
LATENCY = SEGMENTED.replace("  decision:", "    - {name: latency, kind: Latency, margin: 20%}\n  decision:")


def plain(files: tuple[Path, Path], plan: str = LATENCY) -> Any:
    return run_log(declared(plan), *files, tick=TICK).plain()


def test_csv_and_parquet_give_the_same_result(tmp_path: Path) -> None:
    files = write(tmp_path, drawn(SMALL))
    parquet = [write_parquet(path.with_suffix(".parquet"), path) for path in files]
    expected = plain(files)
    assert plain((parquet[0], parquet[1])) == expected
    assert plain((files[0], parquet[1])) == expected
    assert {e["metric"] for e in expected["evidence"]} == {"ctr", "errors", "latency"}
    assert {e["segment"] for e in expected["segments"]} == {"carrier=AA", "carrier=UA"}


def test_a_file_is_read_whose_name_looks_like_a_pattern(tmp_path: Path) -> None:
    exposures, outcomes = write(tmp_path, drawn(SMALL))
    expected = plain((exposures, outcomes))
    odd = exposures.rename(tmp_path / "log[1]?*.csv")
    (tmp_path / "log1xy.csv").write_text("".join(odd.read_text().splitlines(keepends=True)[:100]))
    assert plain((odd, outcomes)) == expected


@pytest.mark.parametrize("ids", [True, False])
def test_the_order_of_rows_does_not_matter(tmp_path: Path, ids: bool) -> None:
    log = drawn(SMALL)
    if not ids:
        for row in log.exposures:
            del row["request_id"]
    expected = plain(write(tmp_path / "sorted", log))
    for rows in log:
        random.Random(3).shuffle(rows)
    assert plain(write(tmp_path / "shuffled", log)) == expected


def test_iso_times_and_seconds_are_the_same_moments(tmp_path: Path) -> None:
    from datetime import UTC, datetime, timedelta, timezone

    log = drawn(SMALL)
    expected = plain(write(tmp_path / "seconds", log))
    for row in log.exposures:
        row["ts"] = datetime.fromtimestamp(row["ts"], UTC).isoformat()
    for row in log.outcomes:
        row["ts"] = datetime.fromtimestamp(row["ts"], timezone(timedelta(hours=2))).isoformat()
    assert plain(write(tmp_path / "iso", log)) == expected


def test_what_was_served_before_the_rollout_is_no_evidence_and_its_outcomes_are_no_loss(tmp_path: Path) -> None:
    log = drawn(SMALL)
    expected = plain(write(tmp_path / "rollout", log))
    before = drawn(World(stretches=((0, 2, 1500),)), seed=9)
    for row in [*before.exposures, *before.outcomes]:
        row["ts"] -= 300
        for name in ("unit", "request_id"):
            if name in row:
                row[name] += "before"
    whole = Log(before.exposures + log.exposures, before.outcomes + log.outcomes)
    assert plain(write(tmp_path / "whole", whole)) == expected


def test_only_marked_champion_units_are_control_where_there_is_a_mark(tmp_path: Path) -> None:
    log, plan = drawn(SMALL, reserved=True), PLAN.replace("margin: 0.5pp", "margin: 0.5pp, baseline: {mean: 0.001}")
    marked = sum(r["control"] for r in log.exposures if r["arm"] == "champion")
    champions = sum(r["arm"] == "champion" for r in log.exposures)
    found = {e["metric"]: e["units"]["champion"] for e in plain(write(tmp_path, log), plan)["evidence"]}
    assert found["errors"] == marked < 0.7 * champions
    for row in log.exposures:
        del row["control"]
    found = {e["metric"]: e["units"]["champion"] for e in plain(write(tmp_path, log), plan)["evidence"]}
    assert found["errors"] == champions


def test_one_weight_is_one_epoch_also_where_it_returns_and_says_the_step_in_force() -> None:
    spec = declared().spec
    found = logged(spec, [(1, 0), (2, 300), (3, 100), (4, 0), (5, 300), (6, 6000), (7, 10_000)], 9, False)
    assert [(c.t, c.epoch, c.step) for c in found.changes] == [
        (2, 1, 1), (3, 2, 0), (4, 0, 0), (5, 1, 1), (6, 3, 2), (7, 0, 2),
    ]  # fmt: skip
    assert [(e.number, e.weight_bp, e.pi_ppm, e.opened_at) for e in found.epochs] == [
        (1, 300, 30_000, 2), (2, 100, 10_000, 3), (3, 6000, 600_000, 6),
    ]  # fmt: skip


def test_the_share_of_the_challenger_counts_the_reserved_control_alone() -> None:
    spec = declared().spec
    (epoch,) = logged(spec, [(2, 500)], 9, True).epochs
    assert (epoch.control_from_bp, epoch.pi_ppm) == (5000, round(1e6 * 5 / 55))
    with pytest.raises(SpecError, match="weight 60 is above the plan's largest, 50"):
        logged(spec, [(2, 6000)], 9, True)


Change = Callable[[Log], object]


def _cell(table: int, row: int, column: str, value: object) -> Change:
    return lambda log: log[table][row].__setitem__(column, value)


def _without(table: int, column: str) -> Change:
    return lambda log: [row.pop(column) for row in log[table]]


def _twice(log: Log) -> None:
    for number, row in enumerate(log.exposures):
        row["request_id"] = "again" if number in (2, 7) else f"r{number}"


FAULTS: list[tuple[Change, str]] = [
    (_without(0, "arm"), r"--exposures: \S+ has no column arm; it has unit, ts, weight"),
    (_without(0, "weight"), "has no column weight"),
    (_without(0, "status"), r"has no column status \(metric errors is of kind ErrorRate\)"),
    (_without(1, "ts"), "--outcomes: .* has no column ts"),
    (_without(1, "unit"), "has no column unit or request_id"),
    (_cell(0, 2, "arm", "B"), "row 3, column arm: 'B'; allowed are champion and challenger"),
    (_cell(0, 4, "ts", "yesterday"), "row 5, column ts: 'yesterday'; an ISO time or seconds since 1970"),
    (_cell(0, 4, "ts", (START + 1) * 1000), r"row 5, column ts: '17\d+'; .*not milliseconds"),
    (_cell(0, 4, "ts", "epoch"), "row 5, column ts: 'epoch'; an ISO time or"),
    (_cell(0, 4, "ts", "9999-12-31T00:00:00Z"), "row 5, column ts: '9999-12-31T00:00:00Z'; an ISO time or"),
    (_cell(0, 4, "ts", "1970-01-02"), "row 5, column ts: '1970-01-02'; .*within a year of the others"),
    (_cell(0, 4, "ts", 86_400), "row 5, column ts: '86400'; .*within a year of the others"),
    (_cell(0, 4, "ts", "2026-01-01T00:00:00+25:00"), r"row 5, column ts: '2026-01-01T00:00:00\+25:00'; an ISO time or"),
    (_cell(0, 4, "ts", "2026-01-01T00:00:00-05:75"), "row 5, column ts: '2026-01-01T00:00:00-05:75'; an ISO time or"),
    (_cell(0, 4, "unit", "a\0b"), r"row 5, column unit: 'a\\x00b'; an id has no control characters"),
    (_cell(1, 1, "unit", "a\tb"), r"--outcomes: .* row 2, column unit: 'a\\tb'; an id has no control characters"),
    (_cell(0, 4, "ts", ""), "row 5, column ts: is blank"),
    (_cell(0, 4, "ts", -5), "row 5, column ts: '-5'"),
    (_cell(0, 0, "weight", "5%"), "row 1, column weight: '5%'; a percentage from 0 to 100"),
    (_cell(0, 0, "weight", 101), "row 1, column weight: '101'"),
    (_cell(0, 0, "weight", 0.005), "row 1, column weight: '0.005'; .* steps of 0.01"),
    (_cell(0, 0, "weight", "nan"), "row 1, column weight: 'nan'"),
    (_cell(0, 7, "status", "ok"), "row 8, column status: 'ok'; an HTTP status"),
    (_cell(0, 7, "latency_ms", -1), "row 8, column latency_ms: '-1'"),
    (_twice, "row 8, column request_id: 'again'; each request once is needed, and row 3 has this one"),
    (_cell(1, 1, "value", "many"), "--outcomes: .* row 2, column value: 'many'; a number"),
    (_cell(1, 1, "value", ""), "row 2, column value: is blank"),
    (_cell(1, 1, "unit", ""), "row 2, column unit: is blank; a unit or a request_id is needed"),
    (_cell(1, 1, "name", ""), "row 2, column name: is blank"),
    (lambda log: [r.update(name="clicks") for r in log.outcomes], "has no outcome 'click', which metric ctr counts"),
    (lambda log: [r.update(weight=0) for r in log.exposures], "no row has a weight between 0 and 100"),
]  # fmt: skip


@pytest.mark.parametrize(("fault", "text"), FAULTS)
def test_a_fault_names_its_file_row_and_column_and_what_is_allowed(tmp_path: Path, fault: Change, text: str) -> None:
    log = drawn(World(stretches=((50, 1, 60),)))
    fault(log)
    with pytest.raises(SpecError, match=text):
        plain(write(tmp_path, log), PLAN)


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"", "is empty"), (b"unit,arm,ts,weight\n", "has no rows"), (b"PAR1 and no more", "is no Parquet")],
)
def test_a_file_without_rows_says_so(tmp_path: Path, content: bytes, text: str) -> None:
    exposures, outcomes = write(tmp_path, drawn(World(stretches=((50, 1, 60),))))
    exposures.write_bytes(content)
    with pytest.raises(SpecError, match=f"--exposures: .*{text}"):
        plain((exposures, outcomes), PLAN)
    with pytest.raises(SpecError, match="No such file"):
        plain((tmp_path / "none.csv", outcomes), PLAN)


def test_an_answer_without_its_latency_is_a_fault_and_a_failure_without_it_took_the_deadline(tmp_path: Path) -> None:
    log = drawn(World(challenger_errors=0.5, stretches=((50, 4, 600),)))
    for row in log.exposures:
        row["latency_ms"] = row["latency_ms"] if row["status"] == 200 else ""
    assert plain(write(tmp_path, log))["result"] == "RolledBack"
    place = next(i for i, row in enumerate(log.exposures) if row["status"] == 200)
    log.exposures[place]["latency_ms"] = ""
    with pytest.raises(SpecError, match=f"row {place + 1}, column latency_ms: is blank; milliseconds are needed"):
        plain(write(tmp_path, log))


def test_a_metric_that_only_reports_is_left_out_where_its_data_are_missing(tmp_path: Path) -> None:
    log = drawn(World(stretches=((50, 1, 600),)))
    for row in log.exposures:
        del row["latency_ms"]
    heard: list[str] = []
    plan = LATENCY.replace("margin: 20%", "margin: 20%, role: Observe")
    result = run_log(declared(plan), *write(tmp_path, log), tick=TICK, warned=heard.append)
    assert [e.metric for e in result.evidence if not e.segment] == ["ctr", "errors"]
    assert len(heard) == 1
    assert "has no column latency_ms" in heard[0]


def test_weights_that_look_like_fractions_are_pointed_out(tmp_path: Path) -> None:
    log = drawn(World(stretches=((50, 1, 600),)))
    for row in log.exposures:
        row["weight"] = 0.5
    heard: list[str] = []
    run_log(declared(), *write(tmp_path, log), tick=TICK, warned=heard.append)
    assert heard == ["no weight is above 1: weights are percentages, 5 and not 0.05"]


def test_outcomes_that_name_requests_need_requests_with_a_name(tmp_path: Path) -> None:
    log = drawn(World(stretches=((50, 1, 60),)))
    exposures = [{k: v for k, v in row.items() if k != "request_id"} for row in log.exposures]
    outcomes = [{"request_id": "r1", **{k: v for k, v in row.items() if k != "unit"}} for row in log.outcomes]
    files = write_csv(tmp_path / "e.csv", exposures), write_csv(tmp_path / "o.csv", outcomes)
    with pytest.raises(SpecError, match=r"has no column request_id \(the outcomes name requests\)"):
        plain(files, PLAN)


def test_a_log_is_a_table_of_many_segments_by_name(tmp_path: Path) -> None:
    log = drawn(World(stretches=((50, 2, 1500),)))
    for row in log.exposures:
        row["segment"] = f"carrier={row['segment']}; hub=JFK; other=x"
    plan = SEGMENTED.replace("protected: true}", "protected: true}, {name: hub, feature: hub}")
    found = plain(write(tmp_path, log), plan)
    assert {e["segment"] for e in found["segments"]} == {"carrier=AA", "carrier=UA", "hub=JFK"}
    assert json.dumps(found, allow_nan=False)


def test_a_latency_that_waits_for_its_values_is_not_looked_at_at_every_tick_of_the_wait(tmp_path: Path) -> None:
    """Half of 300 requests a minute are control: the thousandth comes in the seventh minute, to five seconds."""
    world = World(stretches=((50, 8, 300),))
    plan = PLAN.replace("tick: 10s", "tick: 5s").replace(
        "  decision:", "    - {name: latency, kind: Latency, margin: 20%}\n  decision:"
    )
    looks: list[tuple[int, bool]] = []
    run_log(
        declared(plan),
        *write(tmp_path, drawn(world)),
        tick=TICK,
        progressed=lambda t, status: looks.append((t, "latency" in status.baselines)),
    )
    frozen = next(i for i, (_, there) in enumerate(looks) if there)
    assert looks[frozen][0] - looks[frozen - 1][0] == 5 * SECOND
    assert sum(t < looks[frozen][0] for t, _ in looks) < 60
