"""How long evidence takes on one core: 20 metrics × 10 segments × 5 epochs, from the folded state.

`make bench-evidence` prints milliseconds for one read of all of it; the folding is not timed.
"""

import statistics as summary
import time

import numpy as np

from controller.core import evidence, plans
from controller.core.cells import PPM, Block, CountCell, EpochPlan, LatencyCell, MetricPlan, ScoreCell
from controller.core.fold import EMPTY, Fold, Statistics, fold
from controller.spec import RolloutSpec
from controller.status import Epoch, RolloutStatus
from tests.decide.rollouts import rollout

METRICS, SEGMENTS, EPOCHS, BLOCKS, RUNS = 20, 10, 5, 4, 30
KINDS = (
    {"kind": "Proportion", "outcome": "click", "window": "1m", "margin": "5%", "baseline": {"mean": 0.05}},
    {"kind": "Mean", "outcome": "buy", "window": "1m", "margin": "5%", "baseline": {"mean": 2, "cap": 50}},
    {"kind": "LogLoss", "outcome": "late", "window": "1m", "margin": "0.02", "baseline": {"mean": 0.3}},
    {"kind": "ErrorRate", "margin": "0.5pp", "baseline": {"mean": 0.001}},
    {"kind": "Latency", "margin": "10%", "baseline": {"latencies": [10, 30, 40, 60, 90]}},
)


def plan_of_many() -> RolloutSpec:
    """Twenty metrics, four of each family's kinds."""
    metrics = [{"name": f"m{i}", **KINDS[i % len(KINDS)]} for i in range(METRICS)]
    return rollout(metrics=metrics, segments=[{"name": "part", "header": "x-part"}]).spec


def _cells(plan: MetricPlan, rng: np.random.Generator, epoch: EpochPlan, block: int, segment: str, units: int) -> Block:
    arms = []
    for n, share in ((units - units // 10, -epoch.pi_ppm), (units // 10, PPM - epoch.pi_ppm)):
        k = int(rng.binomial(n, 0.05))
        if plan.family == "failures":
            failed = k // 10
            arms.append(CountCell(n, failed, n, 2 * failed, 4 * failed * share * share))
        elif plan.family == "latency":
            counts = rng.multinomial(n, np.full(200, 1 / 200)).tolist()
            arms.append(LatencyCell(n, tuple((400 + i, count) for i, count in enumerate(counts) if count)))
        else:
            y, mean = plan.scale, epoch.means.get(plan.name, 0)
            clustered = k * (share * (y - mean)) ** 2 + (n - k) * (share * mean) ** 2
            arms.append(ScoreCell(n, n, k * y, k * y * y, k * y, n, k, clustered))
    return Block(plan.name, segment, epoch.number, block, *arms)


def folded(units: int = 1000, values: int = SEGMENTS) -> tuple[RolloutSpec, RolloutStatus, Statistics]:
    """The state after five epochs with so many units a block, in all traffic and the segments of so many
    values."""
    spec, rng = plan_of_many(), np.random.default_rng(1)
    frozen = {m.name: plans.declared(m) for m in spec.metrics}
    segments = tuple(f"part={i}" for i in range(values))
    means = {name: round(f.mean) for name, f in frozen.items() if f is not None}
    epochs = tuple(
        Epoch(number=e + 1, kind="weight", step=0, weight_bp=1000, pi_ppm=100_000, means=means, opened_at=0)
        for e in range(EPOCHS)
    )
    status = RolloutStatus(uid="u", epochs=epochs, epoch=EPOCHS, baselines=frozen, segment_values=segments)
    folds: dict[tuple[str, str], Fold] = {}
    asked = plans.query("bench", spec, status)
    for plan in asked.metrics:
        for segment in ("", *segments):
            for number in range(EPOCHS * BLOCKS):
                epoch = asked.epochs[number // BLOCKS]
                key = (plan.name, segment)
                folds[key] = fold(plan, epoch, folds.get(key), _cells(plan, rng, epoch, number, segment, units))
    return spec, status, EMPTY._replace(folds=folds)


def main() -> None:
    spec, status, statistics = folded()
    taken = []
    for _ in range(RUNS):
        before = time.process_time()
        found = evidence.read(spec, status, statistics, 10**9)
        taken.append(1000 * (time.process_time() - before))
    print(
        f"{len(found)} pieces of evidence ({METRICS} metrics, all traffic and {SEGMENTS} segments, {EPOCHS} epochs): "
        f"median {summary.median(taken):.1f} ms, worst {max(taken):.1f} ms of {RUNS}"
    )


if __name__ == "__main__":
    main()
