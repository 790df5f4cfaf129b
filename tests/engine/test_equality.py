"""The incremental engine says, bit for bit, what one query over the raw log says."""

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from controller.core.cells import Block
from controller.core.fold import EMPTY
from controller.edges.engine import Engine
from controller.edges.engine.small import SmallTables
from controller.errors import EdgeError
from tests.engine.equality import assert_equal
from tests.engine.twins import Twins
from tests.engine.worlds import deliveries, query, world


@pytest.mark.parametrize(("seed", "units"), [(0, 40), (1, 6), (2, 300), (3, 40)])
def test_shuffled_micro_batches_give_the_cells_of_one_query_over_the_raw_log(seed: int, units: int) -> None:
    made, asked, engine, kept = world(seed, units, 1_000), query(), Twins(), set[Block]()
    said = EMPTY
    for some in deliveries(made, seed):
        engine.ingest(some.exposures, some.outcomes, some.samples)
        said = engine.advance(asked, some.watermark)
        kept.update(engine.blocks())
    assert said.losses.late > 0
    assert said.losses.duplicates > 0
    assert_equal(kept, said, asked, made)


def test_one_pass_that_writes_nothing_down_says_the_same_and_nothing_more_after_an_error() -> None:
    made, asked = world(7, requests=600), query()
    kept, passing = Twins(), Engine(passing=True)
    for some in deliveries(made, 7):
        said = []
        for engine in (kept, passing):
            engine.ingest(some.exposures, some.outcomes)
            said.append(engine.advance(asked, some.watermark))
        assert said[0] == said[1]
    with pytest.raises(ValueError, match="is over"):
        passing.advance(asked._replace(attempt=asked.attempt - 1), 10**18)
    with pytest.raises(EdgeError, match="lost in an earlier error"):
        passing.advance(asked, 10**18)


def test_at_every_moment_the_statistics_are_those_of_the_rows_before_the_watermark() -> None:
    made, asked, engine = world(100, requests=600), query(), Twins()
    rng, kept = random.Random(5), set[Block]()
    for some in deliveries(made, 5):
        engine.ingest(some.exposures, some.outcomes, some.samples)
        said = engine.advance(asked, some.watermark)
        kept.update(engine.blocks())
        if rng.random() < 0.2:
            assert_equal(kept, said, asked, made)


def _large(folder: Path) -> Engine:
    return Engine(folder / "state.duckdb")


def _small(folder: Path) -> Engine:
    return Engine(tables=lambda: SmallTables(folder / "state.sqlite"))


@pytest.mark.parametrize("opened", [_large, _small])
def test_a_new_process_object_on_the_same_file_goes_on_as_if_nothing_had_happened(
    tmp_path: Path, opened: Callable[[Path], Engine]
) -> None:
    made, asked, rng = world(200, requests=700), query(), random.Random(6)
    engine, kept, said = opened(tmp_path), set[Block](), EMPTY
    for some in deliveries(made, 6):
        engine.ingest(some.exposures, some.outcomes, some.samples)
        if rng.random() < 0.2:
            engine.close()
            engine = opened(tmp_path)
        said = engine.advance(asked, some.watermark)
        kept.update(engine.blocks())
        if rng.random() < 0.2:
            engine.close()
            engine = opened(tmp_path)
    assert_equal(kept, said, asked, made)
    engine.close()
