"""What is frozen before it is used: base rates, caps, tau and latency edges, once, from the right blocks."""

import math
from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from controller.core import allocation, decide, evidence, plans
from controller.core.cells import BaselineSums
from controller.core.fold import EMPTY, Statistics
from controller.core.statistics import bucket_of
from controller.metric import Metric
from controller.spec import RolloutSpec
from controller.status import Epoch, Frozen, Progress, RolloutStatus
from tests.decide.rollouts import fresh, rollout

MEAN = {"name": "gmv", "kind": "Mean", "outcome": "buy", "window": "1m", "margin": "5%"}
RATE = {"name": "errors", "kind": "ErrorRate", "margin": "0.5pp"}
CTR = {"name": "ctr", "kind": "Proportion", "outcome": "click", "window": "1m", "margin": "5%"}
SLOW = {"name": "slow", "kind": "Latency", "margin": "10%"}


def metric(**fields: Any) -> Metric:
    return Metric.model_validate(fields)


def of_values(values: list[int], blocks: int = 10) -> BaselineSums:
    """The sums an engine gives for units with these values (integer units): zeros alone in bucket 0."""
    places = [max(bucket_of(abs(v)), 1) if v else 0 for v in values]
    buckets = tuple((b, places.count(b)) for b in sorted(set(places)))
    n = len(values)
    return BaselineSums(blocks, 9, 1, n, n, sum(values), sum(v != 0 for v in values), buckets)


def started(*epochs: Epoch, metrics: list[dict[str, Any]]) -> tuple[RolloutSpec, RolloutStatus]:
    status = fresh(progress=Progress.RUNNING, epochs=epochs, epoch=epochs[-1].number)
    return rollout(metrics=metrics).spec, status


def weighted(number: int, **fields: Any) -> Epoch:
    return Epoch(number=number, kind="weight", step=number - 1, weight_bp=1000, pi_ppm=100_000, opened_at=0, **fields)


def seen(**baselines: BaselineSums) -> Statistics:
    return EMPTY._replace(baselines=baselines)


def test_a_baseline_waits_for_ten_blocks_and_enough_units() -> None:
    enough = BaselineSums(10, 9, 1, 30, 30, 2_000_000, 2)
    assert plans.measured(metric(**CTR), enough, mirror=False) is not None
    assert plans.measured(metric(**CTR), enough._replace(blocks=9), mirror=False) is None
    assert plans.measured(metric(**CTR), enough._replace(units=29), mirror=False) is None


def of_latencies(micros: np.ndarray, blocks: int = 10) -> BaselineSums:
    """The sums an engine gives for units whose slowest requests took so long."""
    places, counts = np.unique([bucket_of(float(t)) for t in micros], return_counts=True)
    buckets = tuple(zip(places.tolist(), counts.tolist(), strict=True))
    return BaselineSums(blocks, blocks - 1, 1, len(micros), len(micros), 0, 0, buckets)


@pytest.mark.parametrize(("quantile", "least"), [(0.5, 100), (0.9, 100), (0.95, 200), (0.99, 1000), (0.999, 10_000)])
def test_a_latency_waits_for_ten_values_beyond_the_quantile_it_is_judged_by(quantile: float, least: int) -> None:
    slow = metric(**SLOW, quantile=quantile)
    micros = np.random.default_rng(6).lognormal(10, 0.6, least)
    assert plans.measured(slow, of_latencies(micros), mirror=False) is not None
    assert plans.measured(slow, of_latencies(micros[:-1]), mirror=False) is None


def test_a_cap_waits_for_a_value_beyond_its_quantile_and_a_number_for_none() -> None:
    for cap, least in (("p99.9", 1000), ("p99", 100), ("50", 30)):
        values = [5] * least
        assert plans.measured(metric(**MEAN, cap=cap), of_values(values), mirror=False) is not None
        assert plans.measured(metric(**MEAN, cap=cap), of_values(values[1:]), mirror=False) is None


def test_what_a_baseline_waits_for_is_said_and_when_it_will_be_there() -> None:
    sums = of_latencies(np.random.default_rng(7).lognormal(10, 0.6, 155), blocks=20)
    assert plans.awaited(metric(**SLOW), sums) == "155 of 1,000 champion units"
    assert plans.awaited(metric(**SLOW), sums._replace(blocks=7)) == "7 of 10 blocks, 155 of 1,000 champion units"
    assert plans.until_baseline(metric(**SLOW), sums, 155) == 845
    assert plans.until_baseline(metric(**SLOW), BaselineSums(), 155) is None
    spec, status = started(weighted(1), metrics=[SLOW])
    [read] = evidence.read(spec, status, seen(slow=sums), 10**9)
    assert read.note == "its baseline has 155 of 1,000 champion units"
    facts = decide.Facts(step_elapsed=10**10, units=10**6, requests=10**6)
    said = decide.decide(spec, facts, [read], decide.Validity())
    assert (said.reason.value, said.message) == ("NoData", f"slow has no data yet: {read.note}")


def test_a_relative_margin_of_nothing_is_no_baseline_whether_measured_or_declared() -> None:
    nothing = BaselineSums(10, 9, 1, 1000, 1000, 0, 0)
    assert plans.measured(metric(**CTR), nothing, mirror=False) is None
    assert plans.declared(metric(**CTR, baseline={"mean": 0})) is None


def test_a_baseline_is_frozen_once_and_evidence_begins_after_its_blocks() -> None:
    spec, status = started(weighted(1), metrics=[CTR])
    sums = BaselineSums(12, 57, 1, 1000, 1000, 50_000_000, 50)
    status = plans.with_baselines(spec, status, seen(ctr=sums))
    frozen = status.baselines["ctr"]
    assert (frozen.from_block, frozen.from_epoch, frozen.mean, frozen.tau) == (57, 1, 50_000.0, 2500.0)
    later = plans.with_baselines(spec, status, seen(ctr=sums._replace(y=90_000_000, last_block=80)))
    assert later == status


def test_a_baseline_that_comes_late_centres_every_epoch_that_waited_for_it() -> None:
    spec, status = started(weighted(1), weighted(2), weighted(3), metrics=[CTR])
    sums = BaselineSums(10, 57, 1, 1000, 1000, 50_000_000, 50)
    status = plans.with_baselines(spec, status, seen(ctr=sums))
    assert [e.means for e in status.epochs] == [{"ctr": 50_000}] * 3


def test_a_mean_once_set_is_never_changed() -> None:
    spec, status = started(weighted(1, means={"ctr": 7}), weighted(2), metrics=[CTR, MEAN])
    sums = BaselineSums(10, 57, 1, 1000, 1000, 50_000_000, 50)
    status = plans.with_baselines(spec, status, seen(ctr=sums, gmv=of_values([0] * 900 + [9000] * 100)))
    assert status.epochs[0].means == {"ctr": 7, "gmv": 900}


def test_the_cap_is_the_quantile_of_all_units_and_no_more_than_a_bucket_above_it() -> None:
    values = sorted(int(v) for v in np.random.default_rng(1).lognormal(8, 1, 5000))
    frozen = plans.measured(metric(**MEAN, cap="p99"), of_values(values), mirror=False)
    assert frozen is not None
    assert frozen.cap is not None
    assert values[4949] <= frozen.cap <= values[4949] * 1.02 + 1


def test_a_champion_without_a_sale_leaves_the_cap_open_and_the_metric_without_evidence() -> None:
    absolute = metric(**{**MEAN, "margin": "0.5"})
    assert plans.measured(absolute, of_values([0] * 5000), mirror=False) is None
    assert plans.measured(absolute, of_values([0] * 4999 + [7000]), mirror=False) is None
    some = plans.measured(absolute, of_values([0] * 4900 + [7000] * 100), mirror=False)
    assert some is not None
    assert some.cap is not None
    assert some.cap >= 7000


def test_one_enormous_sale_before_the_evidence_blunts_no_test_of_it() -> None:
    usual = [0] * 9000 + [int(v) for v in np.random.default_rng(2).lognormal(9, 0.5, 1000)]
    calm = plans.measured(metric(**MEAN), of_values(usual), mirror=False)
    wild = plans.measured(metric(**MEAN), of_values([*usual, 10**12]), mirror=False)
    assert calm is not None
    assert wild is not None
    assert wild.cap == calm.cap
    assert wild.mean == pytest.approx(calm.mean, rel=0.03)
    assert wild.tau == pytest.approx(calm.tau, rel=0.03)


def test_the_mean_of_values_that_are_cut_is_the_mean_after_the_cut() -> None:
    values = [int(v) for v in np.random.default_rng(3).lognormal(8, 1.5, 20_000)]
    for cap in ("p95", "20"):
        frozen = plans.measured(metric(**MEAN, cap=cap), of_values(values), mirror=False)
        assert frozen is not None
        assert frozen.cap is not None
        assert frozen.mean == pytest.approx(np.minimum(values, frozen.cap).mean(), rel=0.02)


def test_a_failure_rate_from_few_units_is_not_taken_at_its_word() -> None:
    few = plans.measured(metric(**RATE), BaselineSums(10, 9, 1, 10, 10, 1, 1), mirror=False)
    many = plans.measured(metric(**RATE), BaselineSums(10, 9, 1, 100_000, 100_000, 2000, 2000), mirror=False)
    none = plans.measured(metric(**RATE), BaselineSums(10, 9, 1, 100_000, 100_000, 0, 0), mirror=False)
    assert few is not None
    assert many is not None
    assert none is not None
    assert few.p_hist < 0.02
    assert many.p_hist == pytest.approx(0.02, rel=0.002)
    assert none.p_hist == 1e-4


def test_latency_edges_are_quantiles_of_the_slowest_requests_and_the_judged_one_is_a_margin_slower() -> None:
    micros = np.random.default_rng(4).lognormal(10, 0.6, 20_000)
    frozen = plans.measured(metric(**SLOW), of_latencies(micros), mirror=False)
    assert frozen is not None
    for edge, q in zip(frozen.edges, (0.5, 0.9, 0.95, 0.99, 0.999), strict=True):
        exact = float(np.quantile(micros, q, method="inverted_cdf"))
        assert 1.02 ** (edge - 1) < exact <= 1.02**edge
    usual, slower = frozen.judged
    assert usual == frozen.edges[3]
    assert 1.02 ** (slower - usual) == pytest.approx(1.1, rel=0.011)
    absolute = plans.judged(metric(**{**SLOW, "margin": "5"}), usual)  # 5 ms
    assert 1.02 ** absolute[1] == pytest.approx(1.02 ** absolute[0] + 5000, rel=0.011)


def test_declared_latencies_are_in_milliseconds_and_all_five_are_needed() -> None:
    given = {"latencies": [10, 30, 40, 60, 90]}
    frozen = plans.declared(metric(**SLOW, baseline=given))
    assert frozen is not None
    assert frozen.edges == tuple(bucket_of(1000 * x) for x in (10, 30, 40, 60, 90))
    with pytest.raises(ValidationError, match="five numbers above 0 that never fall are needed"):
        metric(**SLOW, baseline={"latencies": [10, 30]})


def test_leaving_the_mirror_freezes_again_from_all_of_it_but_not_what_was_declared() -> None:
    steps = [{"mirror": 50, "hold": "10m"}, {"weight": 10, "hold": "10m"}]
    declared = {**MEAN, "baseline": {"mean": 3, "cap": 50}}
    spec = rollout(steps=steps, metrics=[CTR, RATE, declared]).spec
    status = allocation.open_step(spec, fresh(), EMPTY, 0, 1)
    first = {"ctr": BaselineSums(10, 9, 1, 100, 100, 9_000_000, 9), "errors": BaselineSums(10, 9, 1, 100, 100, 0, 0)}
    status = plans.with_baselines(spec, status, seen(**first))
    assert status.baselines["ctr"].source == "Mirror"
    whole = {"ctr": BaselineSums(90, 89, 1, 10**4, 10**4, 5 * 10**8, 500), "errors": first["errors"]}
    after = allocation.open_step(spec, status, seen(**whole), 1, 2)
    assert after.baselines["ctr"].mean == 50_000.0
    assert (after.baselines["ctr"].from_block, after.epochs[-1].means["ctr"]) == (89, 50_000)
    assert after.baselines["gmv"] == status.baselines["gmv"]
    again = plans.with_baselines(spec, after, seen(ctr=whole["ctr"]._replace(y=1)))
    assert again.baselines == after.baselines


def test_the_mean_of_a_new_epoch_is_that_of_all_that_is_final() -> None:
    from tests.evidence.drawn import Draw

    draw = Draw(seed=5, pi=0.3, epochs=2, units=400)
    state = draw.folded()
    spec = rollout(metrics=[CTR]).spec
    frozen = {"ctr": Frozen(source="Declared", mean=50_000, tau=2500)}
    means = plans.opening_means(spec, frozen, EMPTY._replace(folds={("ctr", ""): state}))
    assert means == {"ctr": round(draw.champion_total() / draw.champion_count())}
    assert plans.opening_means(spec, frozen, EMPTY) == {"ctr": 50_000}


@pytest.mark.parametrize("value", [0, 1, 2, 3, 51, 999, 1000, 10**6, 10**9, 10**12])
def test_the_core_and_the_engine_put_a_number_into_the_same_bucket(value: int) -> None:
    from controller.edges.engine.terms import bucket

    assert plans.bucket_of(value) == bucket(value)
    assert math.isclose(plans.GAMMA, 1.02)
