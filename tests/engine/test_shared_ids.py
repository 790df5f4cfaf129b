"""One X-Request-Id for several requests: the evidence is the same however many workers they reach."""

import random
from pathlib import Path
from typing import Any

import pytest

from controller.core.cells import (
    Block,
    CountCell,
    EpochPlan,
    MetricPlan,
    PairCountCell,
    ScoreCell,
    StatisticsQuery,
)
from controller.core.fold import EMPTY, Statistics
from controller.edges.engine import ExposureRow, JournalSource, OutcomeRow
from controller.edges.engine.tailer import AGAIN
from controller.kinds import Kind
from tests.engine.equality import assert_equal
from tests.engine.logs import Log, exposure_event, outcome_event
from tests.engine.twins import Twins
from tests.engine.worlds import SECOND, deliveries, plan, query, shared, world

HALF = 500_000
DEADLINE = SECOND


def request(page: int, t: int, worker: int, **more: Any) -> ExposureRow:
    """A request of a page, whose unit and id are the page's, answered at ``t`` (µs)."""
    row = ExposureRow(1, 1, t, f"page-{page}", f"u{page}", False, True, True, journal=f"edge-w{worker}")
    return row._replace(scores=(1.0,), **more)


def counted(
    folder: Path, rows: list[ExposureRow], labels: list[OutcomeRow], *metrics: MetricPlan, mirror: bool = False
) -> tuple[Statistics, list[Block]]:
    """What a controller makes of the journals that these rows are written to."""
    folder.mkdir()
    rng = random.Random(0)
    logs = {name: Log(folder, name, rng) for name in sorted({row.journal for row in rows} | {"edge-outcomes"})}
    for row in sorted(rows, key=lambda row: row.t):
        logs[row.journal].write(row.t, exposure_event(row, rng))
    for label in labels:
        logs["edge-outcomes"].write(label.ingest_t, outcome_event(label))
    for log in logs.values():
        log.mark(1_000 * SECOND)
    epoch = EpochPlan(1, "mirror" if mirror else "weight", 0 if mirror else HALF, {})
    asked = StatisticsQuery("r", 1, (epoch,), metrics, (), 10 * SECOND)
    source = JournalSource(folder, None)
    said = source.read(asked._replace(prediction="/predictions/0/late"), 1_000 * SECOND)
    blocks = source.engine.blocks()
    source.close()
    return said, blocks


@pytest.mark.parametrize("slow", [True, False])
def test_failures_are_as_many_with_two_workers_as_with_one_however_long_they_take(tmp_path: Path, slow: bool) -> None:
    """Two calls of each page at once with the page's id; each tenth call fails, at its deadline or at once."""
    rng = random.Random(1)
    one, two = [], []
    for page in range(100):
        for call in range(2):
            fails = rng.random() < 0.1
            took = (DEADLINE if slow else 1_000) if fails else 30_000
            row = request(2 * page + call, page * SECOND + took + call, 0, usable=not fails, latency_us=took)
            # One worker gives the second an id of its own.
            row = row._replace(unit=f"u{2 * page + call}")
            one.append(row)
            two.append(row._replace(request_id=f"page-{page}", journal=f"edge-w{call}"))
    metric = plan(Kind.ERROR_RATE)
    said = [counted(tmp_path / name, rows, [], metric) for name, rows in (("one", one), ("two", two))]
    assert said[0][1] == said[1][1]
    assert said[0][0].losses == said[1][0].losses
    cells = [block.champion for block in said[1][1] if isinstance(block.champion, CountCell)]
    assert sum(cell.units for cell in cells) == 200
    assert sum(cell.events for cell in cells) == sum(not row.usable for row in one)


def test_a_journal_that_was_copied_once_more_counts_once(tmp_path: Path) -> None:
    rows = [request(page, page * SECOND, 0) for page in range(50)]
    copied = [row._replace(journal=f"{row.journal}{AGAIN}1") for row in rows[10:]]
    said, blocks = counted(tmp_path / "j", rows + copied, [], plan(Kind.ERROR_RATE))
    assert (said.losses.duplicates, said.losses.late) == (40, 0)
    assert sum(block.champion.units for block in blocks if isinstance(block.champion, CountCell)) == 50


def test_a_mirror_finds_its_own_request_among_those_of_the_same_id(tmp_path: Path) -> None:
    """The second is answered first by its mirror; both arms fail of one, and neither of the other."""
    rows = [
        request(1, t, worker, unit=f"u{worker}", usable=worker == 0, mirror=mirror)
        for t, worker, mirror in ((1_000, 0, False), (2_000, 1, False), (3_000, 1, True), (5_000, 0, True))
    ]
    said, blocks = counted(tmp_path / "j", rows, [], plan(Kind.ERROR_RATE), mirror=True)
    assert (said.losses.received, said.losses.duplicates) == (4, 0)
    assert [block.pair for block in blocks] == [PairCountCell(units=2, worse=0, better=0)]


@pytest.mark.parametrize("slow", [True, False])
def test_a_label_belongs_to_one_of_the_requests_with_its_id_and_not_to_the_one_answered_first(
    tmp_path: Path, slow: bool
) -> None:
    """One call of each page fails, before or after the other; half of the labels are of a call that failed."""
    rows, labels = [], []
    for page in range(200):
        failing = random.Random(page).randrange(2)
        for worker in range(2):
            fails = worker == failing
            took = (DEADLINE if slow else 1_000) if fails else 30_000
            rows.append(request(page, page * SECOND + took, worker, usable=not fails))
        t = (page + 5) * SECOND
        labels.append(OutcomeRow(f"o{page}", t, t, "late", 1.0, None, f"page-{page}"))
    said, blocks = counted(tmp_path / "j", rows, labels, plan(Kind.ACCURACY))
    assert said.losses.unknown == 0
    cells = [block.champion for block in blocks if isinstance(block.champion, ScoreCell)]
    assert sum(cell.x for cell in cells) == 200
    right = sum(cell.y for cell in cells) // 1_000_000
    assert 80 <= right <= 120


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_micro_batches_give_the_cells_of_one_query_where_ids_are_shared(seed: int) -> None:
    asked = query((plan(Kind.ACCURACY), plan(Kind.ERROR_RATE), plan(Kind.PROPORTION), plan(Kind.DISAGREEMENT)))
    made, engine, kept = shared(world(seed, 40, 600)), Twins(), set[Block]()
    said = EMPTY
    for part in deliveries(made, seed + 1):
        engine.ingest(part.exposures, part.outcomes, part.samples)
        said = engine.advance(asked, part.watermark)
        kept.update(engine.blocks())
    assert_equal(kept, said, asked, made)
    engine.close()
