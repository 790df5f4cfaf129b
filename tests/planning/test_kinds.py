"""The plan of kinds that rest on some of the rows, on ranks or on pairs of answers: laws by other derivations."""

import json
import math
from pathlib import Path

import numpy as np
import pytest

from controller.core.cells import PPM, Block, EpochPlan, PairScoreCell, ScoreCell
from controller.core.fold import fold
from controller.core.pairs import PairFold, pair_effect, pair_harm, pair_non_inferior
from controller.core.scores import ScoreFold, score_tests
from controller.core.statistics import delong
from controller.planning import laws
from controller.planning.boundary import Scores, State, Traffic
from controller.planning.champion import Given, area_variance, champions
from controller.planning.differences import Differences
from tests.planning.examples import one, spec_of
from tests.planning.test_command import SHORT, document, run

OF_LABELS = "{{name: m, kind: {}, outcome: late, window: 30m, margin: {}, baseline: {{mean: {}}}}}"
PRECISION = OF_LABELS.format("Precision", "3pp", 0.7)
DIFFER = "{name: m, kind: Disagreement, margin: 5pp}"
MIRRORED = "[{mirror: 100, hold: 6h}, {weight: 5, hold: 1d}, {weight: 50, hold: 1d}]"
PI = 200_000


def test_the_ratio_tests_of_a_plan_are_nearly_those_of_the_core() -> None:
    _, simulated = one(PRECISION)
    assert isinstance(simulated, Scores)
    plan, mean = simulated.champion.plan, 700_000
    (n_a, k_a), (n_b, k_b) = (8_000, 5_600), (2_050, 1_353)
    arms = []
    for n, k, share in ((n_a, k_a, -PI), (n_b, k_b, PPM - PI)):
        clustered = k * (share * (PPM - mean)) ** 2 + (n - k) * (share * mean) ** 2
        arms.append(ScoreCell(n, n, k * PPM, k * PPM * PPM, k * PPM, n, k, clustered))
    state = fold(plan, EpochPlan(1, "weight", PI, {"m": mean}), None, Block("m", "", 1, 0, *arms))
    assert isinstance(state, ScoreFold)
    ours = score_tests(plan, state)
    pi, co = PI / PPM, 1 - PI / PPM
    q_a, q_b = (k * 0.3**2 + (n - k) * 0.7**2 for n, k in ((n_a, k_a), (n_b, k_b)))
    s = co * (k_b - 0.7 * n_b) - pi * (k_a - 0.7 * n_a)
    sums = [s, pi * co * (n_a + n_b), co**2 * q_b + pi**2 * q_a, pi * co * (q_a + q_b), n_a, n_b, k_a, pi**2 * q_a]
    found = simulated.read(np.array(sums, dtype=float)[:, None, None])
    assert ours.guarded
    assert found.harm[0, 0] == pytest.approx(ours.harm, abs=0.1)
    assert found.proof[0, 0] == pytest.approx(ours.non_inferior, abs=0.05)


def estimates(simulated: Scores, units: float, rows: int = 4_000) -> "np.ndarray[tuple[int], np.dtype[np.float64]]":
    """The differences found in ``rows`` rollouts of one look, with so many units in each arm."""
    arm = np.array([[units]])
    traffic = Traffic(arm, arm, np.ones((1, 1)), np.full((1, 1), 0.5), np.zeros(1))
    state, _ = simulated.fold(np.random.default_rng(1), State(), np.zeros(rows), traffic)
    assert state.sums is not None
    return np.asarray(state.sums[0] / state.sums[1])


def test_an_f1_varies_as_its_counts_do() -> None:
    """Of 5,000 rows 8 % are positive; .75 of them get a yes, and as many of the others as make precision .75 too."""
    _, simulated = one(OF_LABELS.format("F1", "3pp", 0.75), Given(share={"m": 0.08}))
    assert isinstance(simulated, Scores)
    rng = np.random.default_rng(2)
    counts = rng.multinomial(5_000, [0.06, 0.02, 0.02, 0.90], (4_000, 2))
    f = 2 * counts[..., 0] / (2 * counts[..., 0] + counts[..., 1] + counts[..., 2])
    assert estimates(simulated, 5_000).std() == pytest.approx((f[:, 1] - f[:, 0]).std(), rel=0.05)


@pytest.mark.parametrize(("rate", "share"), [(1 / 3, 0.1), (0.25, 0.5)])
def test_an_area_varies_as_delongs_does_on_exponential_scores(rate: float, share: float) -> None:
    """Negatives exponential with rate 1, positives with a smaller one: an area of 1/(1 + rate), Hanley's model."""
    area, rng, variances = 1 / (1 + rate), np.random.default_rng(3), []
    for _ in range(60):
        yes = int(2_000 * share)
        variances.append(delong(rng.exponential(1 / rate, yes), rng.exponential(1, 2_000 - yes))[1])
    assert area_variance(area, share) / 2_000 == pytest.approx(np.mean(variances), rel=0.05)
    _, simulated = one(OF_LABELS.format("Auc", "0.02", area), Given(share={"m": share}))
    assert isinstance(simulated, Scores)
    assert estimates(simulated, 2_000).std() == pytest.approx(math.sqrt(2 * np.mean(variances)), rel=0.06)


def test_the_mirrors_tests_of_a_plan_are_those_of_the_core() -> None:
    spec = spec_of(DIFFER, PRECISION.replace("name: m", "name: p"), steps=MIRRORED)
    simulated = laws.simulated(champions(spec, Given())[0][0])
    assert isinstance(simulated, Differences)
    plan, rng, state = simulated.champion.plan, np.random.default_rng(4), None
    sums = np.zeros(3)
    for block in range(60):
        k = int(rng.binomial(200, 0.08))
        cell = PairScoreCell(200, 200, k * PPM, k * PPM**2, k * PPM**2, 0)
        state = fold(plan, EpochPlan(1, "mirror", 0, {}), state, Block("m", "", 1, block, pair=cell))
        sums += (200, k, 1)
    assert isinstance(state, PairFold)
    found = simulated.read(sums[:, None, None])
    assert found.harm[0, 0] == pytest.approx(pair_harm(plan, state), rel=0.15)
    assert found.proof[0, 0] == pytest.approx(pair_non_inferior(plan, state, pair_effect(plan, state)), abs=0.05)
    few = simulated.read(np.array([4_000.0, 800.0, 20.0])[:, None, None])
    assert few.harm[0, 0] == 0


def test_rare_labels_need_as_many_more_units_as_they_are_rare(tmp_path: Path) -> None:
    found = {}
    for share in ("5%", "50%"):
        said = run(
            tmp_path, document(OF_LABELS.format("Recall", "3pp", 0.7)), *SHORT, "--share", f"m={share}", "-o", "json"
        )
        [metric] = json.loads(said.stdout)["metrics"]
        assert metric["assumptions"] == []
        found[share] = [s["units_to_prove_not_worse"] for s in metric["steps"]]
    assert np.array(found["5%"]) / np.array(found["50%"]) == pytest.approx(np.full(3, 10), rel=0.3)


def test_what_nobody_gave_is_assumed_and_said(tmp_path: Path) -> None:
    kinds = [("p", "Precision", "3pp"), ("r", "Recall", "3pp"), ("f", "F1", "3pp"), ("a", "Auc", "0.02")]
    metrics = [f"{{name: {n}, kind: {k}, outcome: late, window: 30m, margin: {m}}}" for n, k, m in kinds]
    ratio = (
        "{name: x, kind: Ratio, numerator: buy, denominator: requests, window: 30m, margin: 5%, baseline: {mean: 2}}"
    )
    text = document(*metrics, ratio, DIFFER, steps=MIRRORED)
    said = run(tmp_path, text, *SHORT)
    assert said.exit_code == 0, said.output
    for words in (
        "AssumedBase: p: 0.7 is assumed for the champion; give --base p=VALUE or baseline.mean",
        "AssumedBase: p: yes is said to 10 % of the rows, it is assumed; give --share p=SHARE",
        "AssumedBase: r: positives are 10 % of the rows, it is assumed; give --share r=SHARE",
        "AssumedBase: a: 0.75 is assumed for the champion",
        "AssumedBase: m: half of the margin, 0.025, is assumed for the share of answers that differ",
        "AssumedSpread: x: a standard deviation of 4 per unit",
        "a (Auc, Guardrail): champion 0.75, positives are 10 % of the rows, margin 0.02",
        "m (Disagreement, Guardrail): answers that differ 0.025, margin 5pp",
    ):
        assert words in said.stdout
    assert "NotSimulated" not in said.stdout
    found = json.loads(run(tmp_path, text, *SHORT, "-o", "json").stdout)["metrics"]
    assert [m["steps"][0]["step"] for m in found] == [2, 2, 2, 2, 2, 1]
    assert found[-1]["gross_harm"] is None
    assert all(s["units_to_prove_not_worse"] > 0 for m in found for s in m["steps"])


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (["--share", "m=0"], "--share m=0: m is of kind Auc; allowed is a share above 0 and below 1"),
        (["--base", "m=0.4"], "--base m=0.4: m is of kind Auc; allowed is an area above 0.5 and below 1"),
        (["--spread", "m=1"], "--spread m=1: m is of kind Auc; its spread follows from its base"),
    ],
)
def test_an_option_that_cannot_be_is_refused(tmp_path: Path, option: list[str], message: str) -> None:
    said = run(tmp_path, document(OF_LABELS.format("Auc", "0.02", 0.8)), *option)
    assert said.exit_code == 2
    assert message in said.stderr
