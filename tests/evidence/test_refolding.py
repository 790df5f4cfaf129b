"""A fold is a function of its blocks: the same bytes again, after a pause on disk, and in no other order."""

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.cells import (
    Block,
    CountCell,
    EpochPlan,
    LatencyCell,
    MetricPlan,
    PairCountCell,
    PairScoreCell,
    ScoreCell,
)
from controller.core.fold import EMPTY, Fold, Statistics, fold
from controller.core.plans import bucket_of
from controller.core.record import canonical
from controller.core.replay import _build
from controller.edges.engine.state import dumped, loaded
from tests.evidence.drawn import CTR, plan_for

EPOCHS = {e: EpochPlan(e, "weight", 10_000 * 5**e, {"ctr": 50_000}) for e in (1, 2)}
PLANS = {
    "score": plan_for(CTR, mean=50_000, tau=2500.0),
    "failures": plan_for({"name": "ctr", "kind": "ErrorRate", "margin": "0.5pp"}, p_hist=0.001),
    "latency": plan_for(
        {"name": "ctr", "kind": "Latency", "margin": "10%"},
        edges=tuple(bucket_of(1000 * x) for x in (10, 30, 40, 60, 90)),
        judged=(555, 560),
    ),
    "pair": plan_for({**CTR, "kind": "Accuracy", "margin": "2pp"}, mean=800_000, tau=20_000.0),
    "discordant": plan_for({"name": "ctr", "kind": "ErrorRate", "margin": "0.5pp"}, p_hist=0.001),
}


def block(kind: str, number: int, epoch: int, rng: np.random.Generator) -> Block:
    n, k = int(rng.integers(1, 500)), int(rng.integers(0, 40))
    if kind == "pair":
        d = int(rng.integers(-(10**7), 10**7))
        return Block("ctr", "", epoch, number, pair=PairScoreCell(n, n, d, d * d, d * d // 3 - 7, 10**5 * n))
    if kind == "discordant":
        return Block("ctr", "", epoch, number, pair=PairCountCell(n + 80, k, int(rng.integers(0, 40))))
    cells: list[Any] = []
    for _ in range(2):
        if kind == "score":
            y = int(rng.integers(-(10**12), 10**12))
            cells.append(ScoreCell(n, n, y, y * y, y, n, n, y * y * 10**12 - n))
        elif kind == "failures":
            cells.append(CountCell(n + 40, int(rng.integers(0, 40)), n + 70, 60, 60 * 10**12 + n))
        else:
            cells.append(LatencyCell(n + k, ((400 + k, n), (560 + k, k))))
    if rng.random() < 0.2:
        cells[int(rng.integers(2))] = None
    return Block("ctr", "", epoch, number, *cells)


def blocks(kind: str, seed: int, length: int) -> list[Block]:
    rng = np.random.default_rng(seed)
    return [block(kind, i // 2, 1 + i % 2, rng) for i in range(length)]


def folded(plan: MetricPlan, some: list[Block], state: Fold | None = None) -> Fold:
    for b in some:
        state = fold(plan, EPOCHS[b.epoch], state, b)
    assert state is not None
    return state


@settings(deadline=None, max_examples=50)
@given(st.sampled_from(sorted(PLANS)), st.integers(0, 10**6), st.integers(2, 20), st.data())
def test_folding_in_pieces_with_a_pause_on_disk_gives_the_same_bytes(
    kind: str, seed: int, length: int, data: st.DataObject
) -> None:
    some, plan = blocks(kind, seed, length), PLANS[kind]
    cut = data.draw(st.integers(1, length - 1))
    whole = folded(plan, some)
    paused = loaded(dumped(folded(plan, some[:cut])))
    assert dumped(folded(plan, some[cut:], paused)) == dumped(whole)
    assert dumped(folded(plan, some)) == dumped(whole)


@pytest.mark.parametrize("kind", sorted(PLANS))
def test_a_fold_comes_back_whole_from_a_record(kind: str) -> None:
    state = folded(PLANS[kind], blocks(kind, 3, 12))
    known = {("ctr", ""): state, ("ctr", "part=a|b"): state}
    pairs = known if kind in ("pair", "discordant") else {}
    statistics = EMPTY._replace(folds=known, pairs=pairs)  # type: ignore[arg-type]
    again = _build(Statistics, json.loads(canonical(statistics)))
    assert again == statistics
    assert canonical(again) == canonical(statistics)


@pytest.mark.parametrize("kind", sorted(PLANS))
def test_a_block_that_is_not_later_than_the_last_one_is_refused(kind: str) -> None:
    some = blocks(kind, 4, 6)
    state = folded(PLANS[kind], some)
    for again in (some[-1], some[-2], some[0]):
        with pytest.raises(ValueError, match="comes after"):
            fold(PLANS[kind], EPOCHS[again.epoch], state, again)


def test_what_is_remembered_does_not_grow_with_the_units_or_the_blocks() -> None:
    plan = PLANS["score"]
    short, long = (len(dumped(folded(plan, blocks("score", 5, n)))) for n in (40, 400))
    assert long < 1.3 * short
