"""Where a covariate is read, from the declaration to the row that is counted, and what is refused on the way."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from controller.backtest import run_log
from controller.core import allocation, plans
from controller.core.adjustments import opening_adjustments
from controller.core.cells import BaselineSums, EpochPlan, StatisticsQuery
from controller.core.covariates import Moments
from controller.core.fold import EMPTY, Statistics
from controller.edges.engine import ExposureRow, JournalSource
from controller.edges.engine.rows import exposure_row
from controller.edges.memory import MemorySource
from controller.errors import SpecError
from controller.kinds import Kind
from controller.status import Adjustment, Attempt, Epoch, Progress, RolloutStatus
from router.heads import Request
from router.subject import extractor
from router.table import RouteTable
from tests.backtest.logs import PLAN, World, declared, drawn, write
from tests.decide.rollouts import fresh, rollout
from tests.engine.logs import Log, exposure_event
from tests.engine.worlds import SECOND, plan
from tests.spec.documents import TEXT, refusals

CTR = {"name": "ctr", "kind": "Proportion", "outcome": "click", "window": "1m", "margin": "5%"}
SPENT = {"name": "gmv", "kind": "Mean", "outcome": "buy", "window": "1m", "margin": "5%", "cap": "500"}
DECLARED = {**CTR, "baseline": {"mean": 0.05}, "covariate": {"header": "x-visits"}}


def table_of(*metrics: dict[str, Any], **spec: Any) -> RouteTable:
    attempt = Attempt(number=1, champion="1", challenger="2", salt="u/1", started_at=0)
    status = fresh(progress=Progress.RUNNING, attempt=attempt)
    table = allocation.with_table(rollout(metrics=list(metrics), **spec).spec, status).table
    assert table is not None
    return table


def read_by(table: RouteTable, body: Any, **fields: str) -> dict[str, str]:
    """The attributes that a router finds in a request."""
    request = Request(b"POST", b"/", False, [], {k.replace("_", "-").encode(): v.encode() for k, v in fields.items()})
    request.body = json.dumps(body).encode()
    found = {a.name: extractor(a.source)(request) for a in table.attributes}
    return {name: text for name, text in found.items() if text is not None}


def test_metrics_with_one_source_share_an_attribute_and_each_source_is_read_where_it_was_declared() -> None:
    metrics = [
        {**CTR, "covariate": {"feature": "visits"}},
        {**SPENT, "covariate": {"json": "/client/spent"}},
        {**CTR, "name": "again", "covariate": {"feature": "visits"}},
        {**SPENT, "name": "other", "covariate": {"header": "X-Age"}},
    ]
    table = table_of(*metrics, segments=[{"name": "visits", "header": "x-often"}])
    body = {"inputs": {"visits": [3, 4]}, "client": {"spent": 12.5}}
    found = read_by(table, body, x_age="41", x_often="yes")
    assert found == {"visits": "yes", "covariate.1": "3", "covariate.2": "12.5", "covariate.3": "41"}
    spec = rollout(metrics=metrics).spec
    asked = plans.query("r", spec, fresh())
    assert [m.covariate for m in asked.metrics] == ["covariate.1", "covariate.2", "covariate.1", "covariate.3"]
    event = exposure_event(ExposureRow(1, 1, 0, "q", "u", False, True, True), random.Random(1))
    row = exposure_row({**event, "attributes": found}, (), None, asked.covariates)
    assert row.numbers == (3_000_000, 12_500_000, 41_000_000)


def test_a_covariate_changes_nothing_of_a_table_but_what_is_taken_from_requests() -> None:
    plain, adjusted = table_of(CTR), table_of({**CTR, "covariate": {"header": "x-visits"}})
    assert adjusted.model_copy(update={"attributes": ()}) == plain


@pytest.mark.parametrize(
    ("covariate", "said"),
    [
        ("visits", "'visits' does not say where it is; write {feature: …}, {header: …} or {json: /…}"),
        ("{feature: a, header: b}", "exactly one of feature, header, json is needed, got feature and header"),
        ("{}", "exactly one of feature, header, json is needed, got none"),
    ],
)
def test_a_covariate_without_one_source_is_refused(covariate: str, said: str) -> None:
    text = TEXT.replace("kind: Proportion", f"kind: Proportion, covariate: {covariate}")
    assert refusals(text) == [f"spec.metrics[1].covariate (ctr): {said}"]


def test_kinds_that_are_not_adjusted_refuse_it_and_nine_different_ones_are_too_many() -> None:
    [said] = refusals(TEXT.replace("kind: ErrorRate", "kind: ErrorRate, covariate: {header: a}"))
    assert said.startswith("spec.metrics[0].covariate (errors): kind ErrorRate does not take it")
    many = "".join(
        f"    - {{name: m{i}, kind: Mean, outcome: o, window: 1m, margin: 2%, covariate: {{header: x{i % 8}}}}}\n"
        for i in range(9)
    )
    assert refusals(TEXT.replace("  decision:", f"{many}  decision:")) == []
    [said] = refusals(TEXT.replace("  decision:", f"{many.replace('x0', 'y', 1)}  decision:"))
    assert said == "spec.metrics: the metrics have 9 different covariates; at most 8 are allowed"


def one_journal(folder: Path, *texts: str | None) -> Statistics:
    """The statistics of units whose requests carry ``texts``."""
    asked = StatisticsQuery(
        "r", 1, (EpochPlan(1, "weight", 500_000, {}),), (plan(Kind.PROPORTION, covariate="covariate.1"),), (), SECOND
    )
    log, memory, rng = Log(folder, "edge-w0", random.Random(0)), MemorySource(), random.Random(0)
    memory.read(asked, 0)
    for i, text in enumerate(texts):
        event = exposure_event(ExposureRow(1, 1, i * SECOND, f"q{i}", f"u{i}", False, True, True), rng)
        event["attributes"] = {} if text is None else {"covariate.1": text}
        log.write(i * SECOND, event)
        memory.ingest("edge-w0", {**event, "seq": i + 1})
    log.mark(1_000 * SECOND)
    memory.ingest("edge-w0", {"type": "mark", "seq": len(texts) + 1, "t": 1_000 * SECOND})
    ours = memory.read(asked, 1_000 * SECOND)
    theirs = JournalSource(folder, None).read(asked, 1_000 * SECOND)
    assert ours.folds == theirs.folds
    assert ours.losses.misread == theirs.losses.misread
    return theirs


def test_what_is_no_number_is_counted_and_its_unit_counts_as_one_without(tmp_path: Path) -> None:
    said = one_journal(tmp_path, "5", "nan", "-inf", "1e300", "about five", None, "7.5")
    assert said.losses.misread == 4
    arm = said.folds["Proportion", ""].epochs[0].champion  # type: ignore[union-attr]
    assert (arm.units, arm.covaried.units, arm.covaried.c) == (7, 2, 12_500_000)  # type: ignore[union-attr]


def weighted(*metrics: dict[str, Any], sums: BaselineSums) -> RolloutStatus:
    """The status of a rollout in its first weight after its baselines were looked at."""
    epoch = Epoch(number=1, kind="weight", step=0, weight_bp=1000, pi_ppm=100_000, opened_at=0)
    status = fresh(progress=Progress.RUNNING, epochs=(epoch,), epoch=1)
    return plans.with_baselines(rollout(metrics=list(metrics)).spec, status, EMPTY._replace(baselines={"ctr": sums}))


def test_a_declared_baseline_waits_for_ten_blocks_that_show_what_its_covariate_explains() -> None:
    moments = Moments(1_000, 50_000_000, 50 * 10**12, 0, 1_000 * 10**12, 30 * 10**12)
    sums = BaselineSums(9, 8, 1, 1_000, 1_000, 50_000_000, 50, covaried=moments)
    assert weighted(DECLARED, sums=sums).baselines == {}
    status = weighted(DECLARED, sums=sums._replace(blocks=10, last_block=9))
    frozen = status.baselines["ctr"]
    assert (frozen.source, frozen.mean, frozen.from_block) == ("Declared", 50_000.0, 9)
    by = Adjustment(centre=0, per=1_000_000, slope=30_000, most=1_000_000)
    assert status.epochs[0].adjustments == {"ctr": by}
    plain = weighted({k: v for k, v in DECLARED.items() if k != "covariate"}, sums=sums)
    assert plain.baselines["ctr"].from_block == -1


def test_a_slope_from_values_before_the_cut_is_that_of_values_after_it() -> None:
    # 1,000 units, of which 10 spent 1,000 times the cap; a correlation of .5 before the cut.
    spec = rollout(metrics=[{**SPENT, "covariate": {"header": "x-spent"}}]).spec
    large, cap = 10**8, 10**5
    square = 1_000 * (10 * large**2 / 1_000 - (10 * large / 1_000) ** 2)
    joint = int(0.5 * (square * 1_000 * 10**12) ** 0.5)
    moments = Moments(1_000, 10 * large, 10 * large**2, 0, 1_000 * 10**12, joint)
    place = plans.bucket_of(large)
    sums = BaselineSums(10, 9, 1, 1_000, 1_000, 10 * large, 10, ((0, 990), (place, 10)), moments)
    status = fresh(progress=Progress.RUNNING)
    frozen = plans.measured(spec.metrics[0], sums, mirror=False)
    assert frozen is not None
    now = EMPTY._replace(baselines={"gmv": sums})
    by = opening_adjustments(spec, {"gmv": frozen.model_copy(update={"cap": cap})}, now)["gmv"]
    after = cap * (0.01 * 0.99) ** 0.5
    assert by.slope == pytest.approx(0.5 * after, rel=0.01)
    assert status.epochs == ()


ADJUSTED = PLAN.replace("kind: Proportion,", "kind: Proportion, covariate: {feature: past visits},")


def test_a_log_without_the_column_or_with_something_else_in_it_is_refused(tmp_path: Path) -> None:
    log = drawn(World(stretches=((50, 1, 200),)))
    with pytest.raises(SpecError, match=r"has no column covariate.past visits \(metric ctr is adjusted by it\)"):
        run_log(declared(ADJUSTED), *write(tmp_path / "a", log), tick=SECOND)
    for i, row in enumerate(log.exposures):
        row["covariate.past visits"] = "" if i % 3 else "2e9" if i == 6 else 7
    with pytest.raises(SpecError, match=r"row 7, column covariate.past visits: '2e9'; a number within 1e9 is needed"):
        run_log(declared(ADJUSTED), *write(tmp_path / "b", log), tick=SECOND)
