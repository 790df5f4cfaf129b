"""The counting folds, block by block, are the public running tests over whole arrays."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from controller.core.cells import Block, EpochPlan, LatencyCell, MetricPlan
from controller.core.counts import EDGE_QUANTILES, CountFold, count_tests
from controller.core.fold import fold
from controller.core.plans import bucket_of, judged
from controller.core.sequential import log_e_count_non_inferior, log_e_harm_counts, log_mean_exp
from controller.metric import Metric
from tests.evidence.drawn import once, plan_for

ERRORS = {"name": "m", "kind": "ErrorRate", "margin": "0.5pp"}
SLOW = {"name": "m", "kind": "Latency", "margin": "10%", "harmMargin": "0%"}
EPOCHS = [EpochPlan(1, "weight", 20_000, {}), EpochPlan(2, "weight", 300_000, {})]

counts = st.tuples(st.integers(0, 60), st.integers(0, 9), st.integers(0, 60), st.integers(0, 9)).map(
    lambda t: (t[0], min(t[0], t[1]), t[2], min(t[2], t[3]))
)


def folded(plan: MetricPlan, blocks: list[Block]) -> list[CountFold]:
    """The state after each block."""
    said, state = [], None
    for block in blocks:
        state = fold(plan, EPOCHS[block.epoch - 1], state, block)
        assert isinstance(state, CountFold)
        said.append(state)
    return said


def failures(tables: list[tuple[int, int, int, int]]) -> list[Block]:
    """One block each, the second half in a second epoch; an arm without units has no cell."""
    return [
        Block("m", "", e.number, i, *once(e.pi_ppm, (a, x), (b, y)))
        for i, (a, x, b, y) in enumerate(tables)
        for e in (EPOCHS[2 * i >= len(tables)],)
    ]


@settings(deadline=None, max_examples=60)
@given(st.lists(counts, min_size=1, max_size=25), st.floats(1e-5, 0.3))
def test_failures_fold_to_the_running_tests_over_arrays(tables: list[tuple[int, int, int, int]], p_hist: float) -> None:
    plan = plan_for(ERRORS, p_hist=p_hist)
    states = folded(plan, failures(tables))
    a, x, b, y = (np.array(column) for column in zip(*tables, strict=True))
    harm = log_e_harm_counts(a, x, b, y, p_hist)
    proof = log_e_count_non_inferior(a, x, b, y, None, 0.005)
    assert [count_tests(plan, s).harm for s in states] == pytest.approx(harm.tolist(), abs=1e-9)
    assert [log_mean_exp(s.bets) for s in states] == pytest.approx(proof.tolist(), abs=1e-9)
    assert states[-1].ever_harm == pytest.approx(max(0.0, float(harm.max())), abs=1e-9)
    if states[-1].ever_harm > 0:
        assert states[-1].harm_block == int(np.argmax(harm))


@settings(deadline=None, max_examples=40)
@given(st.lists(counts, min_size=1, max_size=20))
def test_harm_beyond_a_declared_margin_is_the_bet_with_the_arms_exchanged(
    tables: list[tuple[int, int, int, int]],
) -> None:
    plan = plan_for({**ERRORS, "harmMargin": "2pp"}, p_hist=0.001)
    states = folded(plan, failures(tables))
    a, x, b, y = (np.array(column) for column in zip(*tables, strict=True))
    against = log_e_count_non_inferior(b, y, a, x, None, -0.02)
    assert [count_tests(plan, s).harm for s in states] == pytest.approx(against.tolist(), abs=1e-9)


def test_a_relative_margin_of_failures_is_a_share_of_the_frozen_rate() -> None:
    tables = [(500, 5, 50, 1)] * 8
    relative = folded(plan_for({**ERRORS, "margin": "50%"}, p_hist=0.01), failures(tables))
    absolute = folded(plan_for({**ERRORS, "margin": "0.5pp"}, p_hist=0.01), failures(tables))
    assert relative[-1].bets == absolute[-1].bets


USUAL = (10, 30, 40, 60, 90)
EDGES = tuple(bucket_of(1000 * x) for x in USUAL)


def slow_plan() -> MetricPlan:
    return plan_for(SLOW, edges=EDGES, judged=judged(Metric.model_validate(SLOW), EDGES[3]))


def drawn_latencies(seed: int, blocks: int) -> list[tuple[np.ndarray, np.ndarray]]:
    rng = np.random.default_rng(seed)
    return [
        (12_000 * rng.lognormal(0, 0.7, int(rng.integers(0, 40))), 13_000 * rng.lognormal(0, 0.9, int(rng.integers(9))))
        for _ in range(blocks)
    ]


def cell(micros: np.ndarray) -> LatencyCell | None:
    places = [bucket_of(float(v)) for v in micros]
    return LatencyCell(len(places), tuple((b, places.count(b)) for b in sorted(set(places)))) if places else None


def test_latency_folds_to_the_mean_over_the_edges_of_the_running_test() -> None:
    drawn = drawn_latencies(1, 30)
    blocks = [Block("m", "", 1 + (i > 12), i, cell(a), cell(b)) for i, (a, b) in enumerate(drawn)]
    states = folded(slow_plan(), blocks)
    n_a, n_b = (np.array([len(pair[arm]) for pair in drawn]) for arm in (0, 1))
    per_edge = []
    for edge, quantile in zip(EDGES, EDGE_QUANTILES, strict=True):
        above = [np.array([int((pair[arm] > 1.02**edge).sum()) for pair in drawn]) for arm in (0, 1)]
        per_edge.append(log_e_harm_counts(n_a, above[0], n_b, above[1], 1 - quantile))
    expected = np.asarray(log_mean_exp(np.array(per_edge), axis=0))
    assert [count_tests(slow_plan(), s).harm for s in states] == pytest.approx(expected.tolist(), abs=1e-9)


def test_latency_is_not_inferior_by_the_champions_quantile_against_the_challengers_a_margin_slower() -> None:
    drawn = drawn_latencies(2, 40)
    states = folded(slow_plan(), [Block("m", "", 1, i, cell(a), cell(b)) for i, (a, b) in enumerate(drawn)])
    usual, slower = slow_plan().judged
    above = [np.array([int((a > 1.02**usual).sum()) for a, _ in drawn])]
    above.append(np.array([int((b > 1.02**slower).sum()) for _, b in drawn]))
    n_a, n_b = (np.array([len(pair[arm]) for pair in drawn]) for arm in (0, 1))
    proof = log_e_count_non_inferior(n_a, above[0], n_b, above[1], None, 0.1 * (1 - 0.99))
    assert [count_tests(slow_plan(), s).non_inferior for s in states] == pytest.approx(proof.tolist(), abs=1e-9)
    last = states[-1].epochs[-1]
    assert (last.champion.units, last.champion.events) == (n_a.sum(), above[0].sum())
    assert (last.slower.units, last.slower.events) == (n_b.sum(), above[1].sum())
    same = sum(int((b > 1.02**usual).sum()) for _, b in drawn)
    assert (last.challenger.units, last.challenger.events) == (n_b.sum(), same)


def test_two_arms_without_a_single_failure_are_proven_equal() -> None:
    plan = plan_for({**ERRORS, "margin": "0.05pp"}, p_hist=1e-4)
    states = folded(plan, failures([(10_000, 0, 1000, 0)] * 40))
    proven = next(i for i, s in enumerate(states) if count_tests(plan, s).non_inferior >= math.log(20))
    assert 5 <= proven < 30
    assert states[-1].ever_harm == 0.0


def test_blocks_with_one_arm_only_neither_prove_nor_harm() -> None:
    plan = plan_for(ERRORS, p_hist=0.001)
    for tables in ([(1000, 0, 0, 0)] * 50, [(0, 0, 1000, 1000)] * 50):
        state = folded(plan, failures(tables))[-1]
        assert (count_tests(plan, state), state.ever_harm) == ((0.0, 0.0), 0.0)
