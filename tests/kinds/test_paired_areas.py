"""The area under the ROC curve in a mirror: DeLong's covariance by another derivation, seldom wrong, never silent."""

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
from scipy.stats import rankdata

from controller.core import evidence
from controller.core.areas import LAST, LEAST_ROWS, MOST_ROWS, SCORE_EDGES, Joint, score_bin
from controller.core.batches import blocks_of
from controller.core.cells import Block, EpochPlan, MetricPlan, PairAreaCell, StatisticsQuery
from controller.core.evidence import Verdict
from controller.core.fold import EMPTY, fold
from controller.core.pairs import PairFold, pair_effect, pair_non_inferior
from controller.core.plans import declared, metric_plan, with_baselines
from controller.edges.engine import ExposureRow, OutcomeRow
from controller.kinds import Kind
from controller.status import Epoch
from tests.decide.rollouts import fresh, rollout
from tests.engine.test_counting import counted, said, seen
from tests.engine.twins import Twins
from tests.engine.worlds import SECOND, plan
from tests.kinds.rollouts import allowed

AUC = {"name": "m", "kind": "Auc", "outcome": "late", "window": "1m", "role": "Guardrail", "margin": "0.03"}
FROM_ZERO = {**AUC, "harmMargin": "0"}
STEPS = [{"mirror": 100, "hold": "10m"}, {"weight": 50, "hold": "10m"}]
BLOCKS = 48
EPOCH = EpochPlan(1, "mirror", 0, {})
Column = np.ndarray[tuple[int], np.dtype[np.float64]]


def judged(metric: dict[str, str] = AUC) -> MetricPlan:
    spec = rollout(metrics=[metric]).spec
    return metric_plan(spec, spec.metrics[0], declared(spec.metrics[0]))


def fast_delong(label: Column, a: Column, b: Column) -> tuple[float, float, float, float]:
    """Areas of both, the sum of their variances, and that of their difference, by midranks (Sun and Xu 2014)."""
    yes, m, n = label == 1, int((label == 1).sum()), int((label == 0).sum())
    areas, of_positives, of_negatives = [], [], []
    for scores in (a, b):
        together, within = rankdata(scores), np.empty(len(scores))
        within[yes], within[~yes] = rankdata(scores[yes]), rankdata(scores[~yes])
        areas.append((together[yes].sum() / m - (m + 1) / 2) / n)
        of_positives.append((together - within)[yes] / n)
        of_negatives.append(1 - (together - within)[~yes] / m)
    covariance = np.cov(of_positives) / m + np.cov(of_negatives) / n
    return areas[0], areas[1], float(np.trace(covariance)), float(np.array([-1, 1]) @ covariance @ np.array([-1, 1]))


def mirrored(label: Column, a: Column, b: Column, unit: Column) -> tuple[MetricPlan, PairFold]:
    """What the engine and the core make of answers in one block of a mirror."""
    exposures, outcomes = [], []
    for i in range(len(label)):
        served = ExposureRow(1, 1, SECOND, f"q{i}", f"u{unit[i]}", False, hashed=True, evidence=True)
        exposures.append(served._replace(scores=(float(a[i]),)))
        exposures.append(served._replace(mirror=True, scores=(float(b[i]),)))
        outcomes.append(OutcomeRow(f"o{i}", 2 * SECOND, 2 * SECOND, "late", float(label[i]), None, f"q{i}"))
    metric, engine = plan(Kind.AUC), Twins()
    engine.ingest(exposures, outcomes)
    said = engine.advance(StatisticsQuery("r", 1, (EPOCH,), (metric,), (), SECOND), 1_000 * SECOND)
    engine.close()
    return metric, said.pairs["Auc", ""]


def on_edges(rng: np.random.Generator, n: int, positive: float = 0.2) -> tuple[Column, Column, Column]:
    """Labels, and two scores with mostly the same errors that lie where a bin begins, so that binning loses nothing."""
    label = rng.binomial(1, positive, n).astype(float)
    noise = rng.normal(0, 1.2, n)
    edges = np.array(SCORE_EDGES)
    scores = []
    for apart in (1.4, 1.2):
        score = 1 / (1 + np.exp(-(apart * label - 1 + noise + rng.normal(0, 0.4, n))))
        scores.append(edges[np.searchsorted(edges, score, side="right") - 1])
    return label, scores[0], scores[1]


def test_the_areas_and_the_error_of_their_difference_are_those_of_midranks() -> None:
    label, a, b = on_edges(np.random.default_rng(1), 1_200)
    metric, state = mirrored(label, a, b, np.arange(1_200))
    found = pair_effect(metric, state)
    champion, challenger, apart, paired = fast_delong(label, a, b)
    assert found.champion_mean / 1e6 == pytest.approx(champion, abs=1e-9)
    assert found.theta / 1e6 == pytest.approx(challenger - champion, abs=1e-9)
    assert found.se2 / 1e12 == pytest.approx(paired, rel=1e-9)
    assert paired < 0.25 * apart  # the same rows: most of the variance is common to both


def test_rows_of_one_unit_are_taken_to_be_alike() -> None:
    label, a, b = on_edges(np.random.default_rng(2), 1_200)
    alone, (metric, tens) = mirrored(label, a, b, np.arange(1_200))[1], mirrored(label, a, b, np.arange(1_200) // 10)
    assert tens.units == 120
    assert pair_effect(metric, tens).se2 == pytest.approx(10 * pair_effect(metric, alone).se2, rel=1e-9)


def test_a_missing_answer_ranks_a_positive_last_and_a_negative_first_in_its_arm_alone() -> None:
    served = [seen(t, unit, scores=(0.2,)) for t, unit in ((1, "a"), (2, "b"), (3, "c"), (4, "d"))]
    shadows = [
        served[0]._replace(mirror=True, scores=(0.7,)),
        served[1]._replace(mirror=True, usable=False),
        served[2]._replace(mirror=True, scores=(None,)),
        served[3]._replace(mirror=True, scores=None),
    ]
    labels = [said(20, "late", v, request=e.request_id) for v, e in zip((1, 1, 0, 1), served, strict=True)]
    [block] = counted(plan(Kind.AUC), [*served, *shadows], labels, "m")
    at, other = score_bin(0.2, True), score_bin(0.7, True)
    # The fourth answer of the challenger was not kept whole.
    assert block.pair == PairAreaCell(3, 3, ((at, 0, 1), (at, other, 1)), ((at, LAST, 1),))


class Mirror(NamedTuple):
    """A challenger whose positives lie ``apart`` (the champion's 1.4: an area of .80); ``shock``: how its distance
    differs between times, each of ``lasting`` blocks."""

    apart: float = 1.4
    shock: float = 0.0
    lasting: int = 1
    rows: int = 120


def cell(label: Column, a: Column, b: Column) -> PairAreaCell:
    """Each row of a new unit; scores as they are binned."""
    places = [np.searchsorted(SCORE_EDGES, scores, side="right") for scores in (a, b)]
    joint: list[Any] = []
    for wanted in (1, 0):
        pairs, counts = np.unique(np.stack(places)[:, label == wanted], axis=1, return_counts=True)
        joint.append(tuple(zip(*pairs.tolist(), counts.tolist(), strict=True)))
    return PairAreaCell(len(label), len(label), *joint)


def drawn(rng: np.random.Generator, mirror: Mirror) -> list[PairAreaCell]:
    shocks = np.repeat(rng.normal(0, mirror.shock, BLOCKS // mirror.lasting + 1), mirror.lasting)[:BLOCKS]
    cells = []
    for shock in shocks:
        label = rng.binomial(1, 0.3, mirror.rows).astype(float)
        noise, own = rng.normal(0, 1.1, mirror.rows), rng.normal(0, 0.4, (2, mirror.rows))
        logits = (1.4 * label + noise + own[0], (mirror.apart + shock) * label + noise + own[1])
        cells.append(cell(label, *(1 / (1 + np.exp(1 - logit)) for logit in logits)))
    return cells


def folded(metric: MetricPlan, cells: list[PairAreaCell]) -> tuple[PairFold, float]:
    """The state after all cells, and the largest log e of a proof at any of them."""
    state, proof = None, 0.0
    for i, one in enumerate(cells):
        state = fold(metric, EPOCH, state, Block("m", "", 1, i, pair=one))
        assert isinstance(state, PairFold)
        proof = max(proof, pair_non_inferior(metric, state, pair_effect(metric, state)))
    assert isinstance(state, PairFold)
    return state, proof


def played(metric: dict[str, str], seed: int, mirror: Mirror) -> tuple[PairFold, float]:
    return folded(judged(metric), drawn(np.random.default_rng(seed), mirror))


@pytest.mark.parametrize("mirror", [Mirror(), Mirror(shock=0.3), Mirror(shock=0.3, lasting=3)])
def test_equal_areas_are_no_harm_whatever_the_times_share(mirror: Mirror) -> None:
    runs = 40
    assert sum(played(FROM_ZERO, seed, mirror)[0].ever_harm >= math.log(20) for seed in range(runs)) <= allowed(runs)


def test_an_area_at_the_margin_is_not_proven_and_an_equal_one_mostly_is() -> None:
    runs = 40
    # An area of .77 rather than .80.
    assert sum(played(AUC, seed, Mirror(apart=1.225))[1] >= math.log(20) for seed in range(runs)) <= allowed(runs)
    assert sum(played(AUC, seed, Mirror())[1] >= math.log(20) for seed in range(10)) >= 9


def test_a_clearly_smaller_area_is_found_though_times_differ() -> None:
    found = [played(FROM_ZERO, seed, Mirror(apart=0.6, shock=0.2))[0] for seed in range(6)]
    assert all(state.ever_harm >= math.log(200) for state in found)


def test_a_stratum_takes_blocks_until_there_are_enough_rows_of_both_labels() -> None:
    rng, cells = np.random.default_rng(3), []
    for _ in range(30):
        label, a, b = on_edges(rng, 20, 0.15)
        cells.append(cell(label, a, b))
    state, _ = folded(judged(), cells)
    assert 3 <= blocks_of(state.batches) < 30
    assert min(state.ranked.open.rows) < LEAST_ROWS
    assert state.ranked.rows == 600


@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_label_alone_ranks_nothing_and_does_not_pile_up(label: float) -> None:
    rng = np.random.default_rng(4)
    _, a, b = on_edges(rng, 2_000)
    state, proof = folded(judged(), [cell(np.full(2_000, label), a, b)] * 10)
    found = pair_effect(judged(), state)
    assert (found.se2, found.guarded, found.note) == (math.inf, False, "too few expected events yet")
    assert (state.ever_harm, proof, state.ranked.rows) == (0.0, 0.0, 20_000)
    assert MOST_ROWS <= max(state.ranked.open.rows) < MOST_ROWS + 2_000


@pytest.mark.parametrize("score", [0.5, 0.0, 1.0])
def test_a_challenger_that_says_the_same_to_all_has_half_an_area_and_is_found(score: float) -> None:
    rng, cells = np.random.default_rng(5), []
    for _ in range(BLOCKS):
        label, a, _ = on_edges(rng, 120)
        cells.append(cell(label, a, np.full(120, score)))
    state, _ = folded(judged(FROM_ZERO), cells)
    found = pair_effect(judged(), state)
    assert (found.theta + found.champion_mean) / 1e6 == pytest.approx(0.5, abs=1e-6)
    assert state.ever_harm >= math.log(200)


@pytest.mark.parametrize("kind", ["same", "ties", "separated"])
def test_models_that_rank_alike_prove_nothing_and_say_so(kind: str) -> None:
    label, a, _ = on_edges(np.random.default_rng(6), 300)
    scores = {"same": a, "ties": np.full(300, 0.5), "separated": 0.2 + 0.6 * label}[kind]
    state, proof = folded(judged(), [cell(label, scores, scores)] * BLOCKS)
    found = pair_effect(judged(), state)
    assert (found.theta, found.se2, found.guarded) == (0.0, math.inf, False)
    assert (state.ever_harm, proof, found.note) == (0.0, 0.0, "the values do not vary, which proves nothing")


def test_it_is_read_in_a_mirror_with_a_reason_where_there_is_no_verdict() -> None:
    spec = rollout(metrics=[AUC], steps=STEPS).spec
    epoch = Epoch(number=1, kind="mirror", step=0, mirror_bp=10_000, opened_at=0)
    status = with_baselines(spec, fresh(epochs=(epoch,), epoch=1), EMPTY)
    read = [evidence.read(spec, status, EMPTY, 10**12)[0]]
    for mirror in (Mirror(), Mirror(apart=0.6)):
        state, _ = folded(judged(), drawn(np.random.default_rng(7), mirror))
        read.append(evidence.read(spec, status, EMPTY._replace(pairs={("m", ""): state}), 10**12)[0])
    assert [e.verdict for e in read] == [Verdict.NO_DATA, Verdict.NOT_WORSE, Verdict.WORSE]
    assert (read[0].due, read[0].note) == (True, "no units of both arms yet")
    assert read[1].champion == pytest.approx(0.8, abs=0.02)
    assert read[2].upper < 0
    few, _ = folded(judged(), drawn(np.random.default_rng(8), Mirror())[:20])
    quiet = evidence.read(spec, status, EMPTY._replace(pairs={("m", ""): few}), 10**12)[0]
    assert (quiet.verdict, quiet.note) == (Verdict.INCONCLUSIVE, "too few blocks of the mirror yet")


def test_joint_rows_add_up() -> None:
    one = PairAreaCell(3, 3, ((4, 5, 2),), ((1, 1, 1),))
    assert Joint().plus(one).plus(one) == Joint(((4, 5, 4),), ((1, 1, 2),))
