"""Comparing what the engine says with what the oracle says."""

import random

import duckdb

from controller.core.cells import Block, StatisticsQuery
from controller.core.fold import Fold, Statistics, fold
from controller.edges.engine import oracle
from controller.edges.engine.state import dumped
from tests.engine.worlds import World


def raw(made: World) -> duckdb.DuckDBPyConnection:
    """The raw log as the oracle wants it, in no order."""
    con = duckdb.connect(":memory:", config={"threads": 1})
    rng = random.Random(1)
    oracle.load(
        con,
        rng.sample(made.exposures, len(made.exposures)),
        rng.sample(made.outcomes, len(made.outcomes)),
        made.samples,
    )
    return con


def refolded(asked: StatisticsQuery, blocks: list[Block]) -> dict[tuple[str, str, bool], Fold]:
    """The folds of blocks, one after the other."""
    plans, epochs = {m.name: m for m in asked.metrics}, {e.number: e for e in asked.epochs}
    folds: dict[tuple[str, str, bool], Fold] = {}
    for block in blocks:
        key = (block.metric, block.segment, block.pair is not None)
        folds[key] = fold(plans[block.metric], epochs[block.epoch], folds.get(key), block)
    return folds


def assert_equal(kept: set[Block], said: Statistics, asked: StatisticsQuery, made: World) -> None:
    """Cells, folds, baselines and counts are those of the oracle."""
    con, watermark = raw(made), said.watermark
    blocks = oracle.blocks(con, asked, watermark)
    assert len(blocks) == len(set(blocks))
    assert kept == set(blocks)
    folds = {(*k, False): f for k, f in said.folds.items()} | {(*k, True): f for k, f in said.pairs.items()}
    expected = refolded(asked, blocks)
    assert {k: dumped(f) for k, f in folds.items()} == {k: dumped(f) for k, f in expected.items()}
    assert dict(said.baselines) == oracle.baselines(con, asked, watermark)
    assert dict(said.counts) == oracle.counts(con, asked, watermark)
