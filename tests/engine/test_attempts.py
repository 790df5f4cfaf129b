"""Baselines that are frozen on the way, attempts that follow each other, and questions that contradict the past."""

from pathlib import Path
from typing import Any

import pytest

from controller.core.cells import BaselineSums, Block, EpochPlan, StatisticsQuery
from controller.core.fold import EMPTY
from controller.edges.engine import Engine, ExposureRow, OutcomeRow, oracle
from controller.errors import EdgeError
from controller.kinds import Kind
from tests.engine.equality import assert_equal, raw, refolded
from tests.engine.twins import Twins
from tests.engine.worlds import METRICS, SECOND, deliveries, plan, query, world

OPEN = tuple(m._replace(frozen=False) for m in METRICS)


def test_a_baseline_frozen_late_leaves_every_later_block_as_evidence() -> None:
    made, engine, kept = world(11, requests=900), Twins(), set[Block]()
    frozen: dict[str, BaselineSums] = {}
    first, said = query(OPEN), EMPTY
    for number, some in enumerate(deliveries(made, 11)):
        engine.ingest(some.exposures, some.outcomes, some.samples)
        # What is read at the second delivery is frozen and comes into force some deliveries later.
        asked = first if number < 6 else _frozen(frozen)
        said = engine.advance(asked, some.watermark)
        kept.update(engine.blocks())
        if number == 2:
            assert dict(said.baselines) == oracle.baselines(raw(made), first, said.watermark)
            frozen = dict(said.baselines)
    last = _frozen(frozen)
    blocks = oracle.blocks(raw(made), last, said.watermark)
    assert any(sums.last_block >= 0 for sums in frozen.values())
    assert kept == set(blocks)
    expected = refolded(last, blocks)
    assert {k: f for k, f in expected.items() if not k[2]} == {(*k, False): f for k, f in said.folds.items()}


def _frozen(sums: dict[str, BaselineSums]) -> StatisticsQuery:
    return query(
        tuple(m._replace(from_block=sums[m.name].last_block, from_epoch=sums[m.name].last_epoch) for m in METRICS)
    )


def _simple(**of_epoch: Any) -> StatisticsQuery:
    metric = plan(Kind.ERROR_RATE)
    epochs = (
        EpochPlan(1, "mirror", 0, {}),
        EpochPlan(2, "weight", 500_000, {"ErrorRate": 0})._replace(**of_epoch),
    )
    return StatisticsQuery("r", 1, epochs, (metric,), (), 0)


def _some(epoch: int, at: int) -> list[ExposureRow]:
    return [
        ExposureRow(1, epoch, at * SECOND + i, f"{epoch}/{at}/{i}", f"u{i}", i % 2 == 0, True, True) for i in range(4)
    ]


def _with(asked: StatisticsQuery, **fields: Any) -> StatisticsQuery:
    return asked._replace(metrics=tuple(m._replace(**fields) for m in asked.metrics))


def test_a_plan_may_be_frozen_anew_between_the_mirror_and_the_weights_and_not_after() -> None:
    engine, asked = Twins(), _simple()
    shadows = [row._replace(mirror=True, challenger=True) for row in _some(1, 1)]
    engine.ingest([*(row._replace(challenger=False) for row in _some(1, 1)), *shadows])
    assert engine.advance(asked, 10 * SECOND).pairs["ErrorRate", ""].units == 4
    again = _with(asked, tau=2.0, p_hist=0.5)
    engine.ingest(_some(2, 11))
    said = engine.advance(again, 20 * SECOND)
    assert said.pairs["ErrorRate", ""].units == 4
    assert said.folds["ErrorRate", ""].blocks == 1
    with pytest.raises(ValueError, match="ErrorRate: p_hist changed within the attempt"):
        engine.advance(_with(again, p_hist=0.1), 30 * SECOND)
    with pytest.raises(ValueError, match="ErrorRate: its baseline was frozen and cannot be open again"):
        engine.advance(_with(again, frozen=False), 30 * SECOND)
    engine.ingest(_some(2, 21))
    assert engine.advance(again, 30 * SECOND).folds["ErrorRate", ""].blocks == 2


def test_the_share_and_mean_of_an_epoch_cannot_change_once_it_was_judged() -> None:
    engine, asked = Twins(), _simple()
    engine.ingest(_some(2, 1))
    engine.advance(asked, 10 * SECOND)
    engine.ingest(_some(2, 11))
    with pytest.raises(ValueError, match="ErrorRate: epoch 2 was judged with share 500000 ppm and mean 0"):
        engine.advance(_simple(pi_ppm=400_000), 20 * SECOND)
    assert engine.advance(asked, 20 * SECOND).folds["ErrorRate", ""].blocks == 2


def test_a_baseline_goes_on_in_a_mirror_after_it_was_frozen_and_ends_in_weighted_epochs() -> None:
    engine, asked = Twins(), _simple()
    rows = [row._replace(challenger=False) for at in (1, 6, 11) for row in _some(1, at)]
    engine.ingest([*rows, *_some(2, 16)])
    sums = engine.advance(asked, 40 * SECOND).baselines["ErrorRate"]
    assert sums == BaselineSums(blocks=3, last_block=2, last_epoch=1, units=12, x=12)
    open_engine = Twins()
    open_engine.ingest([*rows, *_some(2, 16)])
    sums = open_engine.advance(_with(asked, frozen=False), 40 * SECOND).baselines["ErrorRate"]
    assert sums == BaselineSums(blocks=4, last_block=3, last_epoch=2, units=14, x=14)


def test_a_new_attempt_begins_with_nothing_but_the_rows_that_came_for_it_already() -> None:
    made, engine, kept = world(12, requests=700), Twins(), set[Block]()
    said, asked = EMPTY, query()
    for number, some in enumerate(deliveries(made, 12)):
        engine.ingest(some.exposures, some.outcomes, some.samples)
        asked = query(attempt=1 if number < 7 else 2)
        said = engine.advance(asked, some.watermark)
        if number == 6:
            assert sum(c.champion_requests + c.challenger_requests for c in said.counts.values()) > 0
            assert said.pairs
        if number >= 7:
            kept.update(engine.blocks())
    # Outcomes by request that came before the switch found their request in staging only after it.
    assert_equal(kept, said, asked, made)


def test_outcomes_of_an_earlier_attempts_exposures_are_not_unknown() -> None:
    engine, asked = (
        Twins(),
        _with(_simple(), name="click", kind=Kind.PROPORTION, family="unit", outcome="click", window=SECOND),
    )
    engine.ingest(_some(2, 1))
    engine.advance(asked, 10 * SECOND)
    outcomes = [
        OutcomeRow("a", 2 * SECOND, 12 * SECOND, "click", 1.0, None, "2/1/0"),
        OutcomeRow("b", 2 * SECOND, 12 * SECOND, "click", 1.0, "u1"),
        OutcomeRow("c", 2 * SECOND, 12 * SECOND, "click", 1.0, None, "nobody"),
        OutcomeRow("d", 2 * SECOND, 12 * SECOND, "click", 1.0, "nobody"),
        OutcomeRow("e", 2 * SECOND, 12 * SECOND, "other", 1.0, "nobody"),
    ]
    engine.ingest([row._replace(attempt=2, unit=f"v{row.unit}") for row in _some(2, 12)], outcomes)
    said = engine.advance(asked._replace(attempt=2), 30 * SECOND)
    assert (said.losses.unknown, said.losses.received) == (2, 4 + 5)


def test_another_rollout_or_an_attempt_that_is_over_is_refused() -> None:
    engine, asked = Twins(), _simple()
    engine.advance(asked._replace(attempt=2), 0)
    with pytest.raises(ValueError, match="statistics of rollout r, not of other"):
        engine.advance(asked._replace(rollout="other"), 0)
    with pytest.raises(ValueError, match="attempt 1 is over, the statistics are of attempt 2"):
        engine.advance(asked, 0)


def test_a_state_file_belongs_to_one_engine(tmp_path: Path) -> None:
    (tmp_path / "state.duckdb").write_bytes(b"no database at all, but long enough to be looked at" * 500)
    with pytest.raises(EdgeError, match=r"statistics state .* cannot be opened"):
        Engine(tmp_path / "state.duckdb")


@pytest.mark.parametrize(("most", "kept"), [(10_000, 5), (0, 2)])
def test_rows_that_nothing_can_ask_for_any_more_are_forgotten_and_units_are_not(
    most: int, kept: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.edges.engine.large.MOST_REQUESTS", most)
    engine, asked, day = Twins(), _simple(), 86_400
    for at in range(0, 4 * day, day // 4):
        engine.ingest(_some(2, at + 1))
        engine.advance(asked, (at + 10) * SECOND)
    for con, requests in ((engine.large.con, 4 * kept), (engine.small.con, 4 * 5)):
        counts = {t: con.execute(f"SELECT count(*) FROM {t}").fetchall()[0][0] for t in ("requests", "entries")}
        assert counts == {"requests": requests, "entries": 4}


def test_an_empty_engine_answers_with_nothing() -> None:
    said = Twins().advance(_simple(), 0)
    assert (dict(said.folds), dict(said.counts), said.watermark) == ({}, {}, 0)


def test_an_outcome_id_that_comes_again_when_it_is_known_no_longer_is_another_outcome() -> None:
    """Its first one came in a second before the moment that it tells of, and is kept for that second longer."""
    engine, asked = Twins(), _with(_simple(), kind=Kind.PROPORTION, family="unit", outcome="click", window=60 * SECOND)
    engine.ingest(_some(1, 1), [OutcomeRow("a", 3 * SECOND, 2 * SECOND, "click", 1.0, "u0")])
    engine.advance(asked, 700 * SECOND)
    forgotten = (
        2 * SECOND + SECOND // 2 + 86_400 * SECOND + asked.metrics[0].window + asked.metrics[0].block + asked.grace
    )
    for watermark in (forgotten, forgotten + SECOND):
        engine.advance(asked, watermark)
    engine.ingest((), [OutcomeRow("a", 3 * SECOND, forgotten + 2 * SECOND, "click", 1.0, "u0")])
    for later in (10, 1_000, 90_000):
        said = engine.advance(asked, forgotten + later * SECOND)
    assert (said.losses.received, said.losses.duplicates) == (len(_some(1, 1)) + 2, 0)
