"""A unit counts until its first failure, or until it was first that slow: each on a log that is added up by hand."""

import random

from controller.core.cells import Block, CountCell, EpochPlan, LatencyCell, PairCountCell, StatisticsQuery
from controller.core.fold import EMPTY
from controller.edges.engine import ExposureRow
from controller.edges.memory import MemorySource
from controller.kinds import Kind
from tests.engine.equality import assert_equal
from tests.engine.test_counting import HALF, counted, seen
from tests.engine.twins import Twins
from tests.engine.worlds import METRICS, SECOND, deliveries, plan, query, sticky, world
from tests.ports.test_source_contract import exposure, told

SERVICE = tuple(m for m in METRICS if m.family in ("failures", "latency"))
ERRORS = plan(Kind.ERROR_RATE)
SLOW = plan(Kind.LATENCY)
ONE = HALF**2  # what a unit adds that fails for the first time, at a share of one half
AGAIN = (2 * HALF) ** 2 - ONE


def failures(exposures: list[ExposureRow], kinds: str = "ww", segment: str = "") -> dict[tuple[int, int], Block]:
    """The blocks of the error rate in one segment, by (block, epoch)."""
    return {(b.block, b.epoch): b for b in counted(ERRORS, exposures, [], kinds) if b.segment == segment}


def test_a_unit_that_failed_counts_in_no_later_block_of_any_epoch() -> None:
    exposures = [seen(1, "a", usable=False), seen(1, "b"), seen(6, "a"), seen(6, "b", usable=False), seen(6, "c")]
    exposures += [seen(11, "a", epoch=2, usable=False), seen(11, "b", epoch=2), seen(11, "c", epoch=2, usable=False)]
    assert {place: b.champion for place, b in failures(exposures).items()} == {
        (0, 1): CountCell(2, 1, 2, 1, ONE),
        (1, 1): CountCell(2, 1, 3, 1, ONE),
        (2, 2): CountCell(1, 1, 3, 2, AGAIN + ONE),
    }


def test_within_a_block_a_unit_counts_with_all_its_failures_once_in_each_epoch_until_it_failed() -> None:
    exposures = [seen(1, "a", usable=False), seen(2, "a", usable=False), seen(3, "a", epoch=2, usable=False)]
    exposures += [seen(1, "b"), seen(4, "b", epoch=2)]
    assert {place: b.champion for place, b in failures(exposures).items()} == {
        (0, 1): CountCell(2, 1, 2, 1, ONE),
        (0, 2): CountCell(1, 0, 2, 1, AGAIN),
    }


def test_a_segment_forgets_no_failure_of_its_own_and_knows_of_no_other() -> None:
    in_a, in_b = ("carrier=A",), ("carrier=B",)
    exposures = [seen(1, "u", usable=False, segments=in_a), seen(6, "u", usable=False, segments=in_b)]
    exposures += [seen(11, "u", segments=in_a), seen(16, "u", segments=in_b)]
    cells = {name: [b.champion for b in failures(exposures, segment=name).values()] for name in ("", *in_a, *in_b)}
    seen_once, well = CountCell(1, 1, 1, 1, ONE), CountCell(0, 0, 1)
    assert cells[""] == [seen_once, CountCell(0, 0, 1, 1, AGAIN), well, well]
    assert cells["carrier=A"] == cells["carrier=B"] == [seen_once, well]


def test_what_failed_a_unit_between_the_arms_is_behind_it_when_it_meets_the_challenger() -> None:
    between = [seen(1, "a", evidence=False, usable=False), seen(1, "b", evidence=False)]
    joined = [seen(6, u, True, epoch=2, usable=False) for u in "ab"]
    override = [seen(1, "c", hashed=False, evidence=False, usable=False), seen(6, "c", True, epoch=2)]
    assert list(failures(between + joined + override).values()) == [
        Block("ErrorRate", "", 2, 1, challenger=CountCell(2, 1, 3, 2, 2 * ONE))
    ]


def test_failures_before_the_baseline_was_known_are_forgiven() -> None:
    metric = ERRORS._replace(from_block=0, from_epoch=1)
    blocks = counted(metric, [seen(1, "a", usable=False), seen(6, "a", usable=False)], [])
    assert blocks == [Block("ErrorRate", "", 1, 1, CountCell(1, 1, 1, 1, ONE))]


def test_a_unit_seen_in_both_arms_of_a_block_counts_in_both() -> None:
    exposures = [seen(1, "a", usable=False), seen(2, "a", True, usable=False), seen(6, "a"), seen(7, "a", True)]
    assert [(b.champion, b.challenger) for b in failures(exposures).values()] == [
        (CountCell(1, 1, 1, 1, ONE), CountCell(1, 1, 1, 1, -ONE)),
        (CountCell(0, 0, 1), CountCell(0, 0, 1)),
    ]


def test_the_attempt_after_this_one_begins_with_everybody_at_risk() -> None:
    engine = Twins()
    for attempt in (1, 2):
        asked = StatisticsQuery("r", attempt, (EpochPlan(1, "weight", HALF, {}),), (ERRORS,), (), 0)
        rows = [seen(t, "a", usable=False, attempt=attempt, request_id=f"{attempt}/{t}") for t in (1, 6)]
        engine.ingest(rows)
        engine.advance(asked, 20 * SECOND)
        assert [b.champion for b in engine.blocks()] == [CountCell(1, 1, 1, 1, ONE), CountCell(0, 0, 1, 1, AGAIN)]


def test_a_mirror_counts_a_unit_until_one_arm_alone_failed_it() -> None:
    usable = {"a": [(0, 0), (1, 0), (1, 0), (0, 1)], "b": [(1, 1), (0, 1), (1, 0), (1, 0)]}
    exposures = []
    for unit, answers in usable.items():
        for i, (champion, challenger) in enumerate(answers):
            row = seen(1 + 5 * i, unit, usable=champion == 1)
            exposures += [row, row._replace(mirror=True, usable=challenger == 1)]
    assert [b.pair for b in failures(exposures, "m").values()] == [
        PairCountCell(2, 0, 0),
        PairCountCell(2, 1, 1),
        PairCountCell(0, 0, 0),
        PairCountCell(0, 0, 0),
    ]


def test_at_every_edge_a_unit_counts_until_its_first_request_above_it() -> None:
    rng = random.Random(3)
    exposures = [
        seen(i * 0.1, f"u{rng.randrange(12)}", latency_us=int(rng.lognormvariate(8, 2)), evidence=rng.random() < 0.7)
        for i in range(500)
    ]
    cells = {b.block: b.champion for b in counted(SLOW, exposures, [])}
    assert len(cells) == 10
    for edge in range(0, 900, 25):
        above: set[str | None] = set()
        for number in range(10):
            rows = [e for e in exposures if e.t // SLOW.block == number]
            slow = {e.unit for e in rows if e.latency_us > 1.02**edge}
            at_risk = {e.unit for e in rows if e.evidence} - above
            risen = {e.unit for e in rows if e.evidence and e.latency_us > 1.02**edge} & at_risk
            cell = cells[number]
            assert isinstance(cell, LatencyCell)
            assert cell.at(edge) == CountCell(len(at_risk), len(risen))
            above |= slow


def test_units_that_always_fail_are_counted_alike_by_the_engine_and_one_query_however_the_rows_come() -> None:
    for seed, units in ((0, 12), (1, 60)):
        made, asked, engine = sticky(world(seed, units, 900, late_s=60), 0.2), query(SERVICE), Twins()
        kept, said = set[Block](), EMPTY
        for some in deliveries(made, seed):
            engine.ingest(some.exposures, some.outcomes, some.samples)
            said = engine.advance(asked, some.watermark)
            kept.update(engine.blocks())
        assert_equal(kept, said, asked, made)
        assert any(isinstance(b.champion, CountCell) and not b.champion.units for b in kept)
        assert any(isinstance(b.challenger, LatencyCell) and b.challenger.again for b in kept)


def test_units_that_always_fail_are_counted_alike_by_both_engines() -> None:
    made = sticky(world(4, 30, 500, late_s=60), 0.2)
    theirs, ours, kept, cells = told(made, 4, query(SERVICE))
    assert kept == cells
    assert dict(ours.folds) == dict(theirs.folds)
    assert dict(ours.pairs) == dict(theirs.pairs)


def test_the_engine_in_memory_treats_both_arms_of_a_block_alike() -> None:
    rows = [seen(1, "a", usable=False), seen(2, "a", True, usable=False), seen(6, "a"), seen(7, "a", True)]
    rows += [seen(2, "b", evidence=False, usable=False), seen(3, "b", True), seen(8, "b", True)]
    asked = StatisticsQuery("r", 1, (EpochPlan(1, "weight", HALF, {}),), SERVICE, (), 0)
    engine, memory = Twins(), MemorySource(keep_blocks=True)
    engine.ingest(rows)
    engine.advance(asked, 20 * SECOND)
    for row in rows:
        memory.ingest("rows", exposure(row))
    memory.ingest("rows", {"type": "mark", "t": 20 * SECOND})
    memory.read(asked, 20 * SECOND)
    cells = {b for m in SERVICE for b in memory.blocks(1, m.name)}
    assert cells == set(engine.blocks())
    assert Block("ErrorRate", "", 1, 1, CountCell(0, 0, 1), CountCell(0, 0, 2)) in cells
