"""The engine on DuckDB and the one in memory were written apart; they say the same of the same rows."""

import json
import random
from typing import Any

import pytest

from controller.core.cells import ScoreCell, StatisticsQuery
from controller.core.fold import Statistics
from controller.edges.engine import ExposureRow, OutcomeRow
from controller.edges.engine.rows import Pointer, exposure_row
from controller.edges.memory import MemorySource
from controller.kinds import UNMEASURED, Kind
from tests.engine.logs import exposure_event, sample_event
from tests.engine.twins import Twins
from tests.engine.worlds import METRICS, SECOND, World, deliveries, plan, query, shared, world

OPEN = tuple(m._replace(name=f"open-{m.name}".lower(), frozen=False, cap=None, edges=()) for m in METRICS)


def exposure(row: ExposureRow) -> dict[str, Any]:
    """The line of a journal that says what ``row`` does."""
    whole = row.scores is not None
    numbers = {f"covariate.{i}": repr(c / 1e6) for i, c in enumerate(row.numbers, 1) if c is not None}
    return {
        "type": "exposure", "t": row.t, "request_id": row.request_id, "attempt": row.attempt, "epoch": row.epoch,
        "unit": row.unit, "arm": "challenger" if row.challenger else "champion", "evidence": row.evidence,
        "assigned_by": "hash" if row.hashed else "override", "mirror": row.mirror, "usable": row.usable,
        "served_by": "champion" if row.fell_back or not row.challenger else "challenger",
        "latency_us": row.latency_us,
        "attributes": dict(text.split("=") for text in row.segments) | numbers,
        "answer": json.dumps({"predictions": row.scores}) if whole else '{"predictions": [0.',
        "cut": not whole or row.t // 10_000 % 2 == 0, "answer_cut": not whole,
    }  # fmt: skip


def outcome(row: OutcomeRow) -> dict[str, Any]:
    """The same of an outcome."""
    return {"type": "outcome", **row._asdict()}


def told(made: World, seed: int, asked: StatisticsQuery) -> tuple[Statistics, Statistics, set[Any], set[Any]]:
    """The same deliveries to both; what each says in the end, and the cells it folded."""
    engine, memory = Twins(), MemorySource(keep_blocks=True)
    for name in ("rows", "edge-w0", "edge-w1"):
        memory.gone(name)  # their times say nothing of what is still to come; only the clock does
    theirs, ours = engine.advance(asked, 0), memory.read(asked, 0)
    for part in deliveries(made, seed):
        engine.ingest(part.exposures, part.outcomes, part.samples)
        theirs = engine.advance(asked, part.watermark)
        for row in part.exposures:
            memory.ingest(row.journal, exposure(row))
        for event in [*map(outcome, part.outcomes), *map(sample_event, part.samples)]:
            memory.ingest("rows", event)
        memory.ingest("clock", {"type": "mark", "t": part.watermark})
        ours = memory.read(asked, part.watermark)
    cells = {b for m in asked.metrics for b in memory.blocks(asked.attempt, m.name)}
    kept = set(engine.blocks())
    engine.close()
    return theirs, ours, kept, cells


@pytest.mark.parametrize("seed", range(3))
def test_both_engines_fold_the_same_cells_whatever_the_order_of_the_rows(seed: int) -> None:
    made = world(seed, requests=400, late_s=400)
    theirs, ours, kept, cells = told(made, seed + 50, query(METRICS))
    assert cells
    assert cells == kept
    assert dict(ours.folds) == dict(theirs.folds)
    assert dict(ours.pairs) == dict(theirs.pairs)
    assert dict(ours.counts) == dict(theirs.counts)
    assert ours.losses == theirs.losses


@pytest.mark.parametrize("seed", range(2))
def test_both_engines_fold_the_same_cells_where_workers_were_given_the_same_ids(seed: int) -> None:
    made = shared(world(seed, requests=400, late_s=400))
    asked = query((plan(Kind.ACCURACY), plan(Kind.ERROR_RATE), plan(Kind.PROPORTION), plan(Kind.DISAGREEMENT)))
    theirs, ours, kept, cells = told(made, seed + 50, asked)
    assert cells == kept
    assert ours.losses == theirs.losses
    assert ours.losses.clashes == 0


@pytest.mark.parametrize("seed", range(3))
def test_both_engines_count_the_requests_whose_id_another_unit_had(seed: int) -> None:
    made = world(seed, requests=400, late_s=0)
    ids = {row.request_id: row.unit for row in made.exposures}
    some = random.Random(seed).sample(sorted(ids), 40)
    given = dict(zip(some[:20], some[20:], strict=True))
    rows = [row._replace(request_id=given.get(row.request_id, row.request_id)) for row in made.exposures]
    theirs, ours, kept, cells = told(made._replace(exposures=rows), seed, query(METRICS))
    assert ours.losses._replace(late=0) == theirs.losses._replace(late=0)
    assert cells == kept
    others = sum(ids[old] != ids[new] for old, new in given.items())
    assert 0 < ours.losses.clashes <= 2 * others  # each as a request, and some as a mirror


@pytest.mark.parametrize(
    ("reason", "answered", "counts"), [("Status", 200, 1), ("Status", 400, 0), ("Status", 503, 0), ("Timeout", 400, 1)]
)
def test_the_champion_stood_in_only_where_it_had_a_better_answer(reason: str, answered: int, counts: int) -> None:
    asked = query(METRICS)
    mine = [row for row in world(0).exposures if row.attempt == asked.attempt and row.challenger and row.hashed]
    row = mine[0]._replace(mirror=False)
    event = exposure_event(row._replace(usable=False, fell_back=True), random.Random(1))
    event |= {"fallback_reason": reason, "status": 400, "answer_status": answered}
    engine, memory = Twins(), MemorySource()
    engine.ingest([exposure_row(event, (), None)], [], [])
    memory.ingest("rows", event)
    memory.ingest("rows", {"type": "mark", "t": row.t + 1})
    said = engine.advance(asked, row.t + 1), memory.read(asked, row.t + 1)
    assert [each.counts[row.epoch].fallbacks for each in said] == [counts, counts]


@pytest.mark.parametrize(
    ("cut", "wrong"),
    [
        ({"cut": True, "answer_cut": False}, True), ({"cut": True, "answer_cut": True}, False),
        ({"cut": False, "answer_cut": False}, True),
        # Journals of before have one word for request and answer.
        ({"cut": True}, False), ({"cut": False}, True), ({"cut": True, "answer_cut": None}, False),
    ],
)  # fmt: skip
def test_an_answer_without_a_score_is_wrong_unless_the_answer_itself_was_cut(cut: dict[str, bool], wrong: bool) -> None:
    asked = query((plan(Kind.ACCURACY),))
    row = ExposureRow(asked.attempt, 2, SECOND, "r", "u", True, True, True)
    event = exposure_event(row, random.Random(1)) | {"answer": '{"oops": 1}'}
    del event["answer_cut"]
    event |= cut
    label = OutcomeRow("o", SECOND, SECOND, "late", 1.0, None, "r")
    engine, memory = Twins(), MemorySource(keep_blocks=True)
    engine.ingest([exposure_row(event, (), Pointer("/predictions/0"))], [label], [])
    for each in (event, outcome(label), {"type": "mark", "t": 1_000 * SECOND}):
        memory.ingest("rows", each)
    engine.advance(asked, 1_000 * SECOND)
    memory.read(asked, 1_000 * SECOND)
    blocks = engine.blocks()
    engine.close()
    assert memory.blocks(asked.attempt, "Accuracy") == blocks
    said = [(b.challenger.x, b.challenger.y) for b in blocks if isinstance(b.challenger, ScoreCell)]
    assert said == ([(1, 0)] if wrong else [])


@pytest.mark.parametrize("seed", range(3))
def test_both_engines_gather_the_same_baselines(seed: int) -> None:
    theirs, ours, _, cells = told(world(seed, requests=400, late_s=400), seed + 50, query(OPEN))
    assert cells == set()
    unmeasured = {m.name for m in OPEN if m.family in UNMEASURED}
    for name, sums in theirs.baselines.items():
        here = ours.baselines[name]
        if name == "open-latency":  # of a latency only units and buckets mean anything
            sums, here = (b._replace(x=0, y=0, nonzero=0) for b in (sums, here))  # noqa: PLW2901
        assert here == sums, name
        assert (here.blocks > 0) is (name not in unmeasured)
