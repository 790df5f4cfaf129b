"""From what is declared and what is frozen to what is counted: the query of a tick, and the baselines.

A baseline (base rate, cap, latency edges, τ) comes from the metric's ``baseline:``, else from the champion's traffic
in the mirror step, else from the first ten blocks that have it, which then are not evidence. It is frozen into status
before it is used. A mirror's own paired tests use what its first ten blocks froze; leaving the mirror freezes again,
once, from all of it (mirror evidence is never added to that of weights, so nothing is judged twice).
"""

import math
from collections.abc import Mapping

from controller.core.cells import BaselineSums, EpochPlan, MetricPlan, StatisticsQuery
from controller.core.counts import EDGE_QUANTILES, slower_bucket
from controller.core.fold import Statistics
from controller.core.scores import ScoreFold
from controller.core.sequential import LEAST_RATE
from controller.core.statistics import BUCKET_GROWTH, quantile_from_buckets
from controller.core.statistics import bucket_of as bucket_of_number
from controller.kinds import ERRORS, KINDS, UNMEASURED, Kind
from controller.metric import Metric, Role
from controller.quantities import Margin, parse_size
from controller.spec import RolloutSpec
from controller.status import Epoch, Frozen, RolloutStatus

GAMMA = BUCKET_GROWTH  # ratio of two bounds of the log histograms
BASELINE_BLOCKS = 10
BASELINE_UNITS = {"unit": 30, "label": 30, "auc": 1, "failures": 1, "latency": 100, "pair": 1, "other": 1}
BASELINE_NONZERO = 30  # a quantile of fewer values is no cap
RATE_UNITS = 100  # units without a failure that a measured rate is mixed with: a rate of ten units is a guess
DEFAULT_MARGIN = Margin(0.05, True, "5%")
SHARE_MARGIN = Margin(0.05, False, "5pp")
CAPPED = ERRORS | {Kind.MEAN}
NO_HARM_MARGIN = Margin(0.0, False, "0")


def margin_of(metric: Metric) -> Margin:
    """The declared margin; 5 % for metrics that only report, of the whole scale where there is no baseline."""
    return metric.margin or (SHARE_MARGIN if KINDS[metric.kind].family in UNMEASURED else DEFAULT_MARGIN)


def harm_margin_of(metric: Metric) -> Margin:
    """Declared, or 0 for ErrorRate and Success metrics other than Latency, or the margin."""
    if metric.harm_margin is not None:
        return metric.harm_margin
    if metric.kind is not Kind.LATENCY and (metric.kind is Kind.ERROR_RATE or metric.role is Role.SUCCESS):
        return NO_HARM_MARGIN
    return margin_of(metric)


def _counted(metric: Metric, margin: Margin) -> float:
    return margin.value if margin.relative else margin.value * KINDS[metric.kind].scale


def metric_plan(spec: RolloutSpec, metric: Metric, frozen: Frozen | None) -> MetricPlan:
    """How ``metric`` is counted and judged, with its baseline if there is one."""
    rule = KINDS[metric.kind]
    service = rule.family in ("failures", "latency")
    margin, harm = margin_of(metric), harm_margin_of(metric)
    plan = MetricPlan(
        name=metric.name,
        kind=metric.kind,
        family=rule.family,
        decreasing=metric.decreasing,
        scale=rule.scale,
        outcome=metric.outcome or metric.numerator,
        denominator=metric.denominator,
        window=metric.window or 0,
        block=spec.decision.tick if service or rule.family == "pair" else spec.block,
        margin=_counted(metric, margin),
        margin_relative=margin.relative,
        harm_margin=_counted(metric, harm),
        harm_relative=harm.relative,
        quantile=metric.quantile or 0.99,
    )
    if frozen is None:
        return plan
    return plan._replace(
        frozen=True,
        from_block=frozen.from_block,
        from_epoch=frozen.from_epoch,
        tau=frozen.tau,
        cap=frozen.cap,
        edges=frozen.edges,
        judged=frozen.judged,
        p_hist=frozen.p_hist,
    )


def query(name: str, spec: RolloutSpec, status: RolloutStatus) -> StatisticsQuery:
    """What the engine is asked at this tick."""
    return StatisticsQuery(
        rollout=name,
        attempt=status.attempt.number if status.attempt else 0,
        epochs=tuple(EpochPlan(e.number, e.kind, e.pi_ppm, e.means) for e in status.epochs),
        metrics=tuple(metric_plan(spec, m, status.baselines.get(m.name)) for m in spec.metrics),
        segments=tuple(s.name for s in spec.segments),
        grace=spec.decision.grace,
        prediction=spec.prediction.json_pointer,
        positive=spec.prediction.positive,
        threshold=spec.prediction.threshold,
    )


def declared(metric: Metric) -> Frozen | None:
    """The baseline the user wrote down, if it is all that the kind needs."""
    b, rule = metric.baseline, KINDS[metric.kind]
    if rule.family in UNMEASURED:
        return Frozen(source="Declared", tau=_tau(metric, 0.0))
    if b is None:
        return None
    if metric.kind is Kind.LATENCY:
        if len(b.latencies) != len(EDGE_QUANTILES):
            return None
        edges = tuple(bucket_of(1000 * x) for x in b.latencies)
        at = dict(zip(EDGE_QUANTILES, edges, strict=True)).get(metric.quantile or 0.99)
        return None if at is None else Frozen(source="Declared", edges=edges, judged=judged(metric, at))
    if b.mean is None:
        return None
    cap: int | None = None
    if _capped(metric):
        number = b.cap if b.cap is not None else _number(metric.cap)
        if number is None:
            return None
        cap = round(number * rule.scale)
    mean = b.mean * rule.scale
    if mean == 0 and margin_of(metric).relative and rule.family in ("unit", "label"):
        return None
    return Frozen(source="Declared", mean=mean, tau=_tau(metric, mean), p_hist=max(b.mean, LEAST_RATE), cap=cap)


def _capped(metric: Metric) -> bool:
    return metric.kind in CAPPED or (metric.kind is Kind.RATIO and metric.cap is not None)


def _number(cap: str | None) -> float | None:
    return parse_size(cap) if cap and not cap.startswith("p") else None


def _tau(metric: Metric, mean: float) -> float:
    margin = margin_of(metric)
    return margin.value * abs(mean) if margin.relative else margin.value * KINDS[metric.kind].scale


def measured(metric: Metric, sums: BaselineSums, mirror: bool) -> Frozen | None:
    """The baseline in the champion's own traffic; None while there is too little of it."""
    rule = KINDS[metric.kind]
    if sums.blocks < BASELINE_BLOCKS or sums.units < BASELINE_UNITS[rule.family]:
        return None
    frozen = Frozen(source="Mirror" if mirror else "Blocks", from_block=sums.last_block, from_epoch=sums.last_epoch)
    if metric.kind is Kind.LATENCY:
        edges = tuple(quantile_bucket(dict(sums.buckets), q) for q in EDGE_QUANTILES)
        at = quantile_bucket(dict(sums.buckets), metric.quantile or 0.99)
        return frozen.model_copy(update={"edges": edges, "judged": judged(metric, at)})
    if rule.family == "failures":
        rate = (sums.y + RATE_UNITS * LEAST_RATE) / (sums.units + RATE_UNITS)
        return frozen.model_copy(update={"p_hist": max(rate, LEAST_RATE)})
    if sums.x == 0 or (margin_of(metric).relative and sums.y == 0):
        return None
    mean, cap = sums.y / sums.x, None
    if _capped(metric):
        cap = _cap(metric, sums)
        if cap is None:
            return None
        mean = _cut_mean(sums, cap)
    return frozen.model_copy(update={"mean": mean, "tau": _tau(metric, mean), "cap": cap})


def _cap(metric: Metric, sums: BaselineSums) -> int | None:
    """The declared cap, or the declared quantile of the units' values; None while too few values are there for one."""
    number = _number(metric.cap)
    if number is not None:
        return round(number * KINDS[metric.kind].scale)
    if sums.nonzero < BASELINE_NONZERO:
        return None
    at = quantile_bucket(dict(sums.buckets), round(float((metric.cap or "p99.9")[1:]) / 100, 12))
    # A rare purchase lies beyond the quantile of all units: then the largest value seen is the cap.
    return math.ceil(GAMMA ** (at if at > 0 else max(dict(sums.buckets))))


def _cut_mean(sums: BaselineSums, cap: int) -> float:
    """The mean after the cut, to a percent, from the histogram where something was cut: one sale must not set tau."""
    if all(GAMMA**bucket <= cap for bucket, _ in sums.buckets):
        return sums.y / sums.x
    size = sum(units * min(GAMMA ** (bucket - 0.5), cap) for bucket, units in sums.buckets if bucket > 0)
    return math.copysign(size / sums.x, sums.y)


def bucket_of(value: float) -> int:
    """The log bucket of a whole number as the engine counts it: as in ``statistics``, but values up to 1 are in 0."""
    return max(0, bucket_of_number(value))


def quantile_bucket(buckets: Mapping[int, int], share: float) -> int:
    """The first bucket at which at least ``share`` of the counts are reached; 0 without counts."""
    return quantile_from_buckets(buckets, max(share, 1e-12)) if any(buckets.values()) else 0


def judged(metric: Metric, at: int) -> tuple[int, int]:
    """The bucket of the champion's quantile, and the one a margin slower (milliseconds, or relative)."""
    margin = margin_of(metric)
    return at, max(at + 1, slower_bucket(at, margin.value, margin.relative))


def with_baselines(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics) -> RolloutStatus:
    """``status`` with every baseline frozen that now can be, and the means that depend on it.

    A baseline may come when the epoch whose blocks it waited for is over: no epoch was judged without it yet, so all
    of them are centred on it.
    """
    epoch = status.current_epoch
    if epoch is None:
        return status
    new: dict[str, Frozen] = {}
    for metric in spec.metrics:
        if metric.name in status.baselines:
            continue
        sums = statistics.baselines.get(metric.name, BaselineSums())
        frozen = declared(metric) or measured(metric, sums, epoch.kind == "mirror")
        if frozen is not None:
            new[metric.name] = frozen
    if not new:
        return status
    means = {n: round(f.mean) for n, f in new.items()}
    epochs = tuple(e.model_copy(update={"means": {**means, **e.means}}) for e in status.epochs)
    return status.model_copy(update={"baselines": {**status.baselines, **new}, "epochs": epochs})


def refrozen(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics) -> dict[str, Frozen]:
    """The baselines with which the first weighted epoch opens, from all of the mirror where it had enough."""
    kept: dict[str, Frozen] = {}
    for metric in spec.metrics:
        old = status.baselines.get(metric.name)
        sums = statistics.baselines.get(metric.name, BaselineSums())
        better = None if old and old.source == "Declared" else measured(metric, sums, mirror=True)
        chosen = better or old
        if chosen is not None:
            kept[metric.name] = chosen
    return kept


def opening_means(spec: RolloutSpec, baselines: Mapping[str, Frozen], statistics: Statistics) -> dict[str, int]:
    """The centring means of a new epoch: the champion's mean over all that is final, else the baseline's."""
    means = {name: round(f.mean) for name, f in baselines.items()}
    for metric in spec.metrics:
        state = statistics.folds.get((metric.name, ""))
        if metric.name in means and isinstance(state, ScoreFold):
            x = sum(e.champion.x for e in state.epochs)
            if x:
                means[metric.name] = round(sum(e.champion.y for e in state.epochs) / x)
    return means


def epoch_of(status: RolloutStatus, number: int) -> Epoch:
    """The epoch called ``number``; KeyError without one."""
    for epoch in status.epochs:
        if epoch.number == number:
            return epoch
    raise KeyError(number)
