"""When a proof may be expected, and which segments are named as worse."""

import math

import pytest

from controller.core.cells import PPM
from controller.core.evidence import Evidence, Verdict
from controller.core.outlook import discoveries, informed, until_proof
from controller.core.sequential import log_e_one_sided
from controller.metric import Role
from controller.status import Epoch

HOUR = 3_600_000_000
ALPHA = 0.05


def piece(**more: object) -> Evidence:
    usual = {
        "metric": "ctr", "segment": "", "role": Role.GUARDRAIL, "service": False, "paired": False, "estimate": 0.0,
        "se": 0.002, "lower": -0.01, "upper": 0.01, "margin": 0.0025, "champion": 0.05, "log_e_harm": 0.0,
        "log_e_non_inferior": 0.5, "log_e_superior": 0.0, "units": (5000, 500), "gate": True, "last": True,
        "due": True, "verdict": Verdict.INCONCLUSIVE,
    }  # fmt: skip
    return Evidence(**{**usual, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize("unseen", [0.0, 1e-5])
@pytest.mark.parametrize("estimate", [-0.0005, 0.0, 0.002])
def test_a_proof_is_expected_when_as_much_more_data_would_give_it(estimate: float, unseen: float) -> None:
    e = piece(estimate=estimate, unseen=unseen)
    left = until_proof(e, False, HOUR, ALPHA)
    assert left is not None
    more = (HOUR + left) / HOUR
    variance = e.se**2 / more + unseen / more**2
    assert log_e_one_sided(estimate + e.margin, variance, e.margin) == pytest.approx(math.log(20), rel=1e-3)


def test_a_loss_that_decreases_is_expected_sooner_than_one_that_grows() -> None:
    better = until_proof(piece(estimate=-0.001), True, HOUR, ALPHA)
    worse = until_proof(piece(estimate=0.001), True, HOUR, ALPHA)
    assert better is not None
    assert worse is not None
    assert better < worse


def test_bets_grow_with_the_data() -> None:
    e = piece(service=True, log_e_non_inferior=1.0)
    assert until_proof(e, True, HOUR, ALPHA) == pytest.approx((math.log(20) - 1) * HOUR)


@pytest.mark.parametrize(
    "hopeless",
    [
        {"estimate": -0.003},
        {"estimate": -0.00249},
        {"se": math.inf},
        {"units": (100, 0)},
        {"paired": True},
        {"service": True, "log_e_non_inferior": -0.2},
        {"service": True, "log_e_non_inferior": 0.001},
    ],
)
def test_what_is_not_to_be_expected_is_not_promised(hopeless: dict[str, object]) -> None:
    assert until_proof(piece(**hopeless), False, HOUR, ALPHA) is None


def test_time_counts_by_what_it_tells() -> None:
    thin = Epoch(number=2, kind="weight", step=1, weight_bp=100, pi_ppm=PPM // 51, opened_at=HOUR)
    wide = Epoch(number=3, kind="weight", step=2, weight_bp=5000, pi_ppm=PPM // 2, opened_at=25 * HOUR)
    mirror = Epoch(number=1, kind="mirror", step=0, opened_at=0)
    # 1 × 50/51 beside 50 × 1/2.
    assert informed((mirror, thin, wide), 26 * HOUR, 0) == pytest.approx(HOUR + 24 * HOUR * (50 / 51) / 25, rel=1e-4)
    assert informed((mirror, thin, wide), 26 * HOUR, HOUR) == pytest.approx(24 * HOUR * (50 / 51) / 25, rel=1e-4)
    assert informed((mirror, thin), 26 * HOUR, 2 * HOUR) == 23 * HOUR
    assert informed((mirror,), HOUR, 0) == informed((), HOUR, 0) == 0


def test_what_is_proven_is_not_waited_for() -> None:
    assert until_proof(piece(log_e_non_inferior=3.0), False, HOUR, ALPHA) == 0


def test_segments_are_named_by_what_all_of_them_together_allow() -> None:
    parts = [piece(segment=f"country={i}", log_e_harm=0.5) for i in range(18)]
    bad = [piece(segment=f"country={name}", log_e_harm=12.3) for name in ("x", "y")]
    alone = piece(segment="country=x", log_e_harm=12.3)
    overall = piece(log_e_harm=99.0)
    # One of twenty needs e >= 20/.05 = 400, two need 200 each; of a largest ever of exp(12.3) it is exp(6.15)/2 = 234.
    assert discoveries((overall, *parts, *bad)) == bad
    assert discoveries((overall, *parts, piece(segment="country=y"), alone)) == []
    assert discoveries(()) == []
