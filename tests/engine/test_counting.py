"""What the cells of each family hold, on logs small enough to be added up by hand."""

import math
from typing import Any

import pytest

from controller.core.cells import (
    Block,
    CountCell,
    EpochPlan,
    LatencyCell,
    MetricPlan,
    PairCountCell,
    PairScoreCell,
    ScoreCell,
    StatisticsQuery,
)
from controller.core.plans import bucket_of
from controller.edges.engine import ExposureRow, OutcomeRow
from controller.edges.engine.terms import LARGEST, bucket, bucket_edges, buckets
from controller.errors import EdgeError
from controller.kinds import Kind
from tests.engine.twins import Twins
from tests.engine.worlds import SECOND, plan

GRACE = 10 * SECOND
HALF = 500_000


def seen(at: float, unit: str, challenger: bool = False, epoch: int = 1, **more: Any) -> ExposureRow:
    """Evidence at second ``at``; the request is called after unit and time."""
    row = ExposureRow(1, epoch, int(at * SECOND), f"{unit}@{at}", unit, challenger, hashed=True, evidence=True)
    return row._replace(**more)


def said(at: float, name: str, value: float = 1.0, unit: str | None = None, request: str | None = None) -> OutcomeRow:
    """An outcome at second ``at`` that came in at once."""
    t = int(at * SECOND)
    return OutcomeRow(f"{name}/{at}/{unit}{request}", t, t, name, value, unit, request)


def counted(
    metric: MetricPlan, exposures: list[ExposureRow], outcomes: list[OutcomeRow], kinds: str = "ww"
) -> list[Block]:
    """All blocks of one metric. ``kinds``: what epochs 1, 2 … are, weights (share one half, mean 0) or mirrors."""
    engine = Twins()
    epochs = tuple(
        EpochPlan(i + 1, "mirror" if kind == "m" else "weight", 0 if kind == "m" else HALF, {})
        for i, kind in enumerate(kinds)
    )
    query = StatisticsQuery("r", 1, epochs, (metric,), ("carrier",), GRACE)
    engine.ingest(exposures, outcomes)
    engine.advance(query, 1_000 * SECOND)
    return engine.blocks()


def test_a_proportion_asks_of_each_unit_once_whether_it_had_any_outcome_but_zero() -> None:
    exposures = [seen(1, "a"), seen(2, "a"), seen(3, "b"), seen(4, "c", True), seen(5, "d", True)]
    outcomes = [said(6, "click", 1, "a"), said(7, "click", 3, "a"), said(8, "click", 0, "b"), said(9, "click", 1, "c")]
    [block] = counted(plan(Kind.PROPORTION), exposures, outcomes)
    one = 1_000_000
    # Scores: champion −½ · y, challenger ½ · y; each unit has one cell, so the clustered sum is the sum of squares.
    square = (HALF * one) ** 2
    assert block == Block(
        "Proportion",
        "",
        1,
        0,
        ScoreCell(units=2, x=2, y=one, yy=one**2, xy=one, xx=2, nonzero=1, clustered=square),
        ScoreCell(units=2, x=2, y=one, yy=one**2, xy=one, xx=2, nonzero=1, clustered=square),
    )


def test_a_mean_is_the_sum_of_rounded_outcomes_within_the_window_cut_to_the_cap() -> None:
    metric = plan(Kind.MEAN, window=20 * SECOND, cap=5_000)
    exposures = [seen(1, "a"), seen(2, "b"), seen(3, "c", True)]
    outcomes = [
        said(0.5, "purchase", 100, "a"),
        said(1, "purchase", 1.0005, "a"),
        said(21, "purchase", 2, "a"),
        said(21.000001, "purchase", 100, "a"),
        said(5, "purchase", 3, "b"),
        said(6, "purchase", 4, "b"),
        said(7, "purchase", -9, "c"),
    ]
    [block] = counted(metric, exposures, outcomes)
    assert isinstance(block.champion, ScoreCell)
    assert isinstance(block.challenger, ScoreCell)
    assert block.champion[:4] == (2, 2, 3_001 + 5_000, 3_001**2 + 5_000**2)
    assert block.challenger[:3] == (1, 1, -5_000)


def test_an_outcome_counts_for_the_epoch_its_unit_entered_last_and_for_no_other() -> None:
    exposures = [seen(1, "a", True), seen(15, "a", True, epoch=2), seen(30, "a", True)]
    outcomes = [said(t, "purchase", v, "a") for t, v in ((5, 1), (14.999999, 2), (15, 4), (40, 8))]
    blocks = counted(plan(Kind.MEAN, window=60 * SECOND, cap=None), exposures, outcomes)
    got = {(b.epoch, b.block): b.challenger.y for b in blocks if isinstance(b.challenger, ScoreCell)}
    # The return to epoch 1 at second 30 enters nothing: the unit's place there was taken at second 1.
    assert got == {(1, 0): 3_000, (2, 1): 12_000}


def test_an_outcome_that_came_in_after_its_block_was_final_does_not_count() -> None:
    metric, deadline = plan(Kind.PROPORTION, window=30 * SECOND), (10 + 30) * SECOND + GRACE
    late = [
        said(9, "click", 1, "a")._replace(ingest_t=deadline),
        said(9, "click", 1, "b")._replace(ingest_t=deadline - 1),
    ]
    [block] = counted(metric, [seen(1, "a"), seen(2, "b")], late)
    assert isinstance(block.champion, ScoreCell)
    assert block.champion.nonzero == 1


def test_the_clustered_sum_squares_a_units_score_over_blocks_and_epochs() -> None:
    exposures = [seen(1, "a", True), seen(15, "a", True), seen(25, "a", True, epoch=2), seen(2, "b")]
    labels = [said(60, "late", 1, request=f"a@{t}") for t in (1, 15, 25)] + [said(60, "late", 1, request="b@2")]
    right = [row._replace(scores=(0.9,)) for row in exposures]
    blocks = counted(plan(Kind.ACCURACY), right, labels)
    s = HALF * 1_000_000
    clustered = {(b.epoch, b.block): b.challenger.clustered for b in blocks if isinstance(b.challenger, ScoreCell)}
    assert clustered == {(1, 0): s * s, (1, 1): 3 * s * s, (2, 2): 5 * s * s}
    assert sum(clustered.values()) == (3 * s) ** 2


def test_the_earliest_label_of_a_row_counts_and_of_two_at_once_the_first_id() -> None:
    labels = [
        said(20, "late", 0, request="a@1"),
        OutcomeRow("x2", 10 * SECOND, 10 * SECOND, "late", 0.0, None, "a@1"),
        OutcomeRow("x1", 10 * SECOND, 30 * SECOND, "late", 1.0, None, "a@1"),
    ]
    [block] = counted(plan(Kind.ACCURACY), [seen(1, "a", scores=(0.9,))], labels)
    assert isinstance(block.champion, ScoreCell)
    assert (block.champion.x, block.champion.y) == (1, 1_000_000)


def test_a_label_of_a_unit_belongs_to_its_latest_request_at_or_before_it() -> None:
    exposures = [seen(1, "a", scores=(0.1,)), seen(5, "a", scores=(0.9,)), seen(8, "a", scores=(0.1,))]
    [block] = counted(plan(Kind.ACCURACY), exposures, [said(5, "late", 1, "a"), said(4.9, "late", 0, "a")])
    assert isinstance(block.champion, ScoreCell)
    assert (block.champion.x, block.champion.y) == (2, 2_000_000)


def test_an_outcome_that_lies_ahead_of_its_arrival_counts_when_its_time_has_come() -> None:
    engine, metric = Twins(), plan(Kind.ACCURACY)
    query = StatisticsQuery("r", 1, (EpochPlan(1, "weight", HALF, {}),), (metric,), (), GRACE)
    engine.ingest([seen(1, "a", scores=(0.9,))], [said(40, "late", 1, "a")._replace(ingest_t=2 * SECOND)])
    assert engine.advance(query, 30 * SECOND).losses.received == 2
    engine.advance(query, 1_000 * SECOND)
    [block] = engine.blocks()
    assert isinstance(block.champion, ScoreCell)
    assert block.champion.y == 1_000_000


@pytest.mark.parametrize(
    ("kind", "x", "y"),
    [
        (Kind.ACCURACY, 1, 0),
        (Kind.BRIER, 1, 1_000_000),
        (Kind.LOG_LOSS, 1, round(-math.log(1e-6) * 1e6)),
        (Kind.RECALL, 1, 0),
        (Kind.F1, 1, 0),
    ],
)
def test_an_answer_that_is_missing_or_has_no_score_counts_as_wrong(kind: Kind, x: int, y: int) -> None:
    exposures = [seen(1, "a", True, usable=False), seen(2, "b", True, scores=(None,)), seen(3, "c", True, scores=None)]
    labels = [said(20, "late", 1, request=e.request_id) for e in exposures]
    [block] = counted(plan(kind), exposures, labels)
    assert isinstance(block.challenger, ScoreCell)
    # The third answer was not kept whole: nobody knows its score, so it does not count.
    assert block.challenger[:3] == (2, 2 * x, 2 * y)


@pytest.mark.parametrize(
    ("kind", "x", "y"),
    [
        (Kind.ACCURACY, 4, 2 * 10**6),
        (Kind.PRECISION, 2, 10**6),
        (Kind.RECALL, 2, 10**6),
        (Kind.F1, 4, 2 * 10**6),
        (Kind.BRIER, 4, round(1e6 * (0.2**2 + 0.7**2 + 0.6**2 + 0.1**2))),
        (Kind.ABSOLUTE_ERROR, 4, 200 + 700 + 600 + 100),
        (Kind.SQUARED_ERROR, 4, 40 + 490 + 360 + 10),
        (Kind.LOG_LOSS, 4, sum(round(-1e6 * math.log(p)) for p in (0.8, 0.3, 0.4, 0.9))),
    ],
)
def test_each_kind_of_label_sums_what_its_name_says(kind: Kind, x: int, y: int) -> None:
    table = [(0.8, 1), (0.7, 0), (0.4, 1), (0.1, 0)]
    exposures = [seen(i, f"u{i}", scores=(score,)) for i, (score, _) in enumerate(table)]
    labels = [said(30, "late", truth, request=e.request_id) for e, (_, truth) in zip(exposures, table, strict=True)]
    [block] = counted(plan(kind), exposures, labels)
    assert isinstance(block.champion, ScoreCell)
    assert (block.champion.x, block.champion.y) == (x, y)


def test_failures_and_latency_count_a_unit_once_a_block_by_its_worst_request() -> None:
    exposures = [
        seen(0.1, "a", latency_us=100),
        seen(0.2, "a", latency_us=90_000, usable=False),
        seen(0.3, "b", latency_us=1_000),
        seen(5, "a", latency_us=1),
    ]
    assert counted(plan(Kind.ERROR_RATE), exposures, []) == [
        Block("ErrorRate", "", 1, 0, CountCell(2, 1, 2, 1, HALF**2)),
        Block("ErrorRate", "", 1, 1, CountCell(0, 0, 1, 0, 0)),
    ]
    assert counted(plan(Kind.LATENCY), exposures, []) == [
        Block("Latency", "", 1, 0, LatencyCell(2, ((bucket(1_000), 1), (bucket(90_000), 1)))),
        Block("Latency", "", 1, 1, LatencyCell(1, ((0, 1),), ((bucket(90_000), 1),), ((0, 1),))),
    ]


def test_a_mirror_pairs_the_two_answers_of_a_request_in_the_block_of_the_later_one() -> None:
    served = [seen(1, "a", scores=(0.9,)), seen(4.9, "b", usable=False), seen(2, "c")]
    shadows = [
        served[0]._replace(mirror=True, scores=(0.2,), t=3 * SECOND),
        served[1]._replace(mirror=True, usable=True, scores=(0.9,), t=6 * SECOND),
    ]
    labels = [said(20, "late", 1, request=e.request_id) for e in served]
    failed = counted(plan(Kind.ERROR_RATE), [*served, *shadows], [], "m")
    assert failed == [
        Block("ErrorRate", "", 1, 0, pair=PairCountCell(1, 0, 0)),
        Block("ErrorRate", "", 1, 1, pair=PairCountCell(1, 0, 1)),
    ]
    one = 1_000_000
    assert counted(plan(Kind.ACCURACY), [*served, *shadows], labels, "m") == [
        Block("Accuracy", "", 1, 0, pair=PairScoreCell(2, 2, 0, 2 * one**2, 2 * one**2, one))
    ]


def test_only_hash_assigned_evidence_counts() -> None:
    exposures = [
        seen(1, "a"),
        seen(1, "b", True, evidence=False),
        seen(1, "c", True, hashed=False, evidence=False),
        seen(1, "d", attempt=0),
        seen(1, "e", mirror=True),
    ]
    assert counted(plan(Kind.ERROR_RATE), exposures, []) == [Block("ErrorRate", "", 1, 0, CountCell(1, 0, 1))]


def test_a_unit_is_in_the_segments_of_its_exposures() -> None:
    exposures = [seen(1, "a", segments=("carrier=A",)), seen(2, "a", segments=("carrier=B",)), seen(3, "b")]
    blocks = counted(plan(Kind.ERROR_RATE), exposures, [])
    assert {b.segment: b.champion for b in blocks} == {
        "": CountCell(2, 0, 2),
        "carrier=A": CountCell(1, 0, 1),
        "carrier=B": CountCell(1, 0, 1),
    }


def test_an_attribute_with_endless_values_gets_no_more_segments_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.edges.engine.segments.MOST_SEGMENTS", 3)
    exposures = [seen(1, f"u{i}", segments=(f"carrier={i}",)) for i in range(9)]
    blocks = counted(plan(Kind.ERROR_RATE), exposures, [])
    assert {b.segment: b.champion for b in blocks} == {
        "": CountCell(9, 0, 9),
        **{f"carrier={i}": CountCell(1, 0, 1) for i in range(3)},
    }


def test_log_buckets_are_exact_at_every_edge_up_to_the_largest_value() -> None:
    for b, edge in enumerate(bucket_edges()):
        assert 102**b // 100**b == edge
        assert 102 ** bucket(edge) >= edge * 100 ** bucket(edge)
        assert bucket(edge + 1) > b or edge >= LARGEST
    values = [0, 1, 2, 3, 51, 52, 53, 999, 1_000, 12_345_678, LARGEST, 10 * LARGEST]
    assert buckets(values).tolist() == [bucket(v) for v in values]
    assert [bucket(v) for v in values[:-1]] == [bucket_of(v) for v in values[:-1]]


def test_sums_beyond_128_bits_are_an_error_that_names_the_metric_and_loses_nothing() -> None:
    engine = Twins()
    metric = plan(Kind.MEAN, cap=None)
    query = StatisticsQuery("r", 1, (EpochPlan(1, "weight", HALF, {}),), (metric,), (), GRACE)
    units = [f"u{i}" for i in range(800)]
    engine.ingest([seen(1, u, True) for u in units], [said(2, "purchase", 1e9, u) for u in units])
    with pytest.raises(EdgeError, match=r"Mean: sums of blocks 0 to .* exceed 128 bits; a smaller cap"):
        engine.advance(query, 1_000 * SECOND)
    capped = query._replace(metrics=(metric._replace(cap=10**9),))
    assert engine.advance(capped, 1_000 * SECOND).counts[1].challenger_units == 800
    [block] = engine.blocks()
    assert isinstance(block.challenger, ScoreCell)
    assert block.challenger.y == 800 * 10**9


@pytest.mark.parametrize(
    "kind", [Kind.ACCURACY, Kind.THROUGHPUT, Kind.ERROR_RATE, Kind.LATENCY, Kind.AUC, Kind.PROPORTION, Kind.MEAN]
)
def test_a_unit_that_is_evidence_for_both_arms_of_a_block_counts_the_same_in_both_kinds_of_tables(kind: Kind) -> None:
    metric = plan(kind)
    rows = [seen(1, "a", usable=kind is not Kind.ERROR_RATE, scores=(0.9,)), seen(2, "a", True, scores=(0.8,))]
    outcomes = [said(3, metric.outcome or "late", 1.0, request=row.request_id) for row in rows]
    assert counted(metric, rows, outcomes)


@pytest.mark.parametrize("kind", [Kind.BRIER, Kind.LOG_LOSS, Kind.SQUARED_ERROR, Kind.AUC, Kind.DISAGREEMENT])
@pytest.mark.parametrize("score", [1e154, 1e200, -1e200, 1.7e308, 5e-324, -0.0])
def test_a_score_of_any_size_is_taken_in_both_kinds_of_tables(kind: Kind, score: float) -> None:
    metric = plan(kind)
    rows = [seen(1, "a", scores=(0.5,)), seen(1.5, "a", scores=(score,), mirror=True, request_id="a@1")]
    rows += [seen(2, "b", True, epoch=2, scores=(score,)), seen(2, "c", epoch=2, scores=(score,))]
    outcomes = [said(3, metric.outcome or "late", 1.0, request=row.request_id) for row in rows]
    assert counted(metric, rows, outcomes, "mw")
