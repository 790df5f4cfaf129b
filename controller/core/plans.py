"""From what is declared and what is frozen to what is counted: the query of a tick, and the baselines.

A baseline (base rate, cap, latency edges, τ) comes from the metric's ``baseline:``, else from the champion's traffic
in the mirror step, else from the first ten blocks that have it, or as many more as hold enough values, which then are
not evidence. It is frozen into status before it is used. A mirror's own paired tests use what was frozen first; leaving
the mirror freezes again, once, from all of it (mirror evidence is never added to that of weights, so nothing is judged
twice).

Enough for a latency is ten values beyond its judged quantile, because that quantile is what "not worse" is said of.
After 160 requests a p99 may be a p97, and a challenger with 12 answers of 10 s in a thousand was proven not worse in 16
of 100 drawn rollouts (``margin: 50%, harmMargin: 50%``; after 300 in 14, after 1,000 in 1, after 3,000 in 2). Harm
waits for no more: any edge that was fixed before the values it judges gives a valid test, so a p99.9 of few values
costs power at most. A cap needs one value beyond its quantile. It is in both arms alike, hence of no concern to the
levels, but below it lies all that the metric can see.

A latency's harm margin is its margin unless another is declared. With 0, 20 ms that vary by a twentieth and .3 ms more
in the challenger, as colder caches bring, were proven harm in 100 of 100 drawn rollouts after a median of 550
challenger requests (varying by a tenth: in 100 after 4,600, by a fifth: in 8 of 50,000 requests each); with 10 % in
none. What it costs: answers 30 % slower (varying by .6) are found after 460 challenger requests in place of 110.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from controller.core.adjustments import opening_adjustments
from controller.core.cells import BaselineSums, EpochPlan, MetricPlan, StatisticsQuery
from controller.core.counts import EDGE_QUANTILES, slower_bucket
from controller.core.covariates import PREFIX
from controller.core.fold import Statistics
from controller.core.scores import ScoreFold
from controller.core.sequential import LEAST_RATE
from controller.core.statistics import BUCKET_GROWTH, quantile_from_buckets
from controller.core.statistics import bucket_of as bucket_of_number
from controller.kinds import ABSOLUTE, ERRORS, KINDS, SERVED, UNMEASURED, Family, Kind
from controller.metric import Covariate, Metric, Role
from controller.quantities import SECOND, Margin, parse_size
from controller.spec import RolloutSpec
from controller.status import Epoch, Frozen, RolloutStatus

GAMMA = BUCKET_GROWTH  # ratio of two bounds of the log histograms
BASELINE_BLOCKS = 10
BASELINE_UNITS: dict[Family, int] = {"unit": 30, "label": 30, "latency": 100}  # of others one is enough
WINDOW = 60 * SECOND  # of a limit: longer than the usual interval between two scrapes of Prometheus
BASELINE_NONZERO = 30  # a quantile of fewer values is no cap
BEYOND_JUDGED = 10  # values expected beyond the judged quantile of a latency
BEYOND_CAP = 1
BLOCKS, UNITS, NONZERO = "blocks", "champion units", "values other than 0"
RATE_UNITS = 100  # units without a failure that a measured rate is mixed with: a rate of ten units is a guess
DEFAULT_MARGIN = Margin(0.05, True, "5%")
SHARE_MARGIN = Margin(0.05, False, "5pp")
CAPPED = ERRORS | {Kind.MEAN}
NO_HARM_MARGIN = Margin(0.0, False, "0")


def margin_of(metric: Metric) -> Margin:
    """The declared margin; 5 % for metrics that only report, of the whole scale where there is no baseline."""
    return metric.margin or (SHARE_MARGIN if KINDS[metric.kind].family in ABSOLUTE else DEFAULT_MARGIN)


def harm_margin_of(metric: Metric) -> Margin:
    """Declared, or 0 for ErrorRate, Throughput and Success metrics other than Latency, or the margin."""
    if metric.harm_margin is not None:
        return metric.harm_margin
    counted = metric.kind in (Kind.ERROR_RATE, Kind.THROUGHPUT)
    if metric.kind is not Kind.LATENCY and (counted or metric.role is Role.SUCCESS):
        return NO_HARM_MARGIN
    return margin_of(metric)


def _counted(metric: Metric, margin: Margin) -> float:
    return margin.value if margin.relative else margin.value * KINDS[metric.kind].scale


def metric_plan(spec: RolloutSpec, metric: Metric, frozen: Frozen | None) -> MetricPlan:
    """How ``metric`` is counted and judged, with its baseline if there is one."""
    rule = KINDS[metric.kind]
    margin, harm = margin_of(metric), harm_margin_of(metric)
    plan = MetricPlan(
        name=metric.name,
        kind=metric.kind,
        family=rule.family,
        decreasing=metric.decreasing,
        scale=rule.scale,
        outcome=metric.outcome or metric.numerator,
        denominator=metric.denominator,
        window=0 if rule.family == "resource" else metric.window or 0,
        block=_block(spec, metric),
        margin=_counted(metric, margin),
        margin_relative=margin.relative,
        harm_margin=_counted(metric, harm),
        harm_relative=harm.relative,
        quantile=metric.quantile or 0.99,
        query=metric.query,
        span=_span(spec, metric),
        covariate=None if metric.covariate is None else covariate_name(spec, metric.covariate),
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


def _span(spec: RolloutSpec, metric: Metric) -> int:
    """Length of a limit's windows (µs)."""
    return max(metric.window if metric.kind is Kind.RESOURCE and metric.window else WINDOW, spec.decision.tick)


def _block(spec: RolloutSpec, metric: Metric) -> int:
    family = KINDS[metric.kind].family
    if family == "resource":
        return _span(spec, metric)
    return spec.decision.tick if family in (*SERVED, "pair") else spec.block


def limit_plan(spec: RolloutSpec, metric: Metric) -> MetricPlan | None:
    """What is counted for the hard limit of a Latency, beside its comparison; None where that needs nothing more."""
    if metric.kind is not Kind.LATENCY or metric.limit is None:
        return None
    plan = metric_plan(spec, metric, None)
    return plan._replace(name=limit_name(metric.name), family="limit", frozen=True)


def limit_name(metric: str) -> str:
    """The name under which the limit of a Latency is counted: none that a metric can have."""
    return f"{metric} limit"


def covariate_name(spec: RolloutSpec, covariate: Covariate) -> str:
    """The attribute of exposures in which routers write the covariate down."""
    return f"{PREFIX}{spec.covariates.index(covariate) + 1}"


def query(name: str, spec: RolloutSpec, status: RolloutStatus) -> StatisticsQuery:
    """What the engine is asked at this tick."""
    return StatisticsQuery(
        rollout=name,
        attempt=status.attempt.number if status.attempt else 0,
        epochs=tuple(EpochPlan(e.number, e.kind, e.pi_ppm, e.means, e.adjustments) for e in status.epochs),
        metrics=(
            *(metric_plan(spec, m, status.baselines.get(m.name)) for m in spec.metrics),
            *filter(None, (limit_plan(spec, m) for m in spec.metrics)),
        ),
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
        return Frozen(source="Declared", tau=_tau(metric, rule.scale))
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


class Requirement(NamedTuple):
    """What a baseline needs of the champion's traffic: ``have`` of ``need`` ``what``."""

    have: int
    need: int
    what: str


def requirements(metric: Metric, sums: BaselineSums) -> list[Requirement]:
    """All that has to be there before ``sums`` are a baseline; of sums that are empty, how much that is.

    Where the rest is declared, what a covariate explains is still to be seen.
    """
    family, blocks = KINDS[metric.kind].family, Requirement(sums.blocks, BASELINE_BLOCKS, BLOCKS)
    if metric.covariate is not None and declared(metric) is not None:
        return [blocks]
    units, share = BASELINE_UNITS.get(family, 1), quantile_of_cap(metric)
    if metric.kind is Kind.LATENCY:
        units = max(units, _least(metric.quantile or 0.99, BEYOND_JUDGED))
    said = [blocks, Requirement(sums.units, units, UNITS)]
    if share is not None:
        values = sum(n for _, n in sums.buckets)
        said.append(Requirement(values, _least(share, BEYOND_CAP), "champion values"))
        said.append(Requirement(sums.nonzero, BASELINE_NONZERO, NONZERO))
    if family in ("unit", "label"):
        said.append(Requirement(sums.x, 1, "in the denominator"))
        if margin_of(metric).relative:
            said.append(Requirement(abs(sums.y), 1, "values with a sum other than 0"))
    return said


def _least(share: float, beyond: int) -> int:
    """How many values have ``beyond`` of them above their quantile of ``share``."""
    return math.ceil(round(beyond / (1 - share), 6))


def quantile_of_cap(metric: Metric) -> float | None:
    """The quantile at which the metric's values are cut; None without a cap, or with one that is a number."""
    if not _capped(metric) or _number(metric.cap) is not None:
        return None
    return round(float((metric.cap or "p99.9")[1:]) / 100, 12)


def awaited(metric: Metric, sums: BaselineSums) -> str:
    """What a baseline still waits for, in words; empty where nothing is missing."""
    missing = [r for r in requirements(metric, sums) if r.have < r.need]
    return ", ".join(f"{r.have:,} of {r.need:,} {r.what}" for r in missing)


def until_baseline(metric: Metric, sums: BaselineSums, elapsed: int) -> int | None:
    """µs until nothing is missing, after ``elapsed`` µs that brought ``sums``; None where that is not known."""
    missing = [r for r in requirements(metric, sums) if r.have < r.need]
    if elapsed <= 0 or any(r.have <= 0 for r in missing):
        return None
    return round(elapsed * (max((r.need / r.have for r in missing), default=1.0) - 1))


def measured(metric: Metric, sums: BaselineSums, mirror: bool) -> Frozen | None:
    """The baseline in the champion's own traffic; None while there is too little of it."""
    if awaited(metric, sums):
        return None
    rule = KINDS[metric.kind]
    frozen = Frozen(source="Mirror" if mirror else "Blocks", from_block=sums.last_block, from_epoch=sums.last_epoch)
    if metric.kind is Kind.LATENCY:
        buckets = sorted(sums.buckets)
        edges = tuple(quantile_bucket(buckets, q) for q in EDGE_QUANTILES)
        at = quantile_bucket(buckets, metric.quantile or 0.99)
        return frozen.model_copy(update={"edges": edges, "judged": judged(metric, at)})
    if rule.family == "failures":
        rate = (sums.y + RATE_UNITS * LEAST_RATE) / (sums.units + RATE_UNITS)
        return frozen.model_copy(update={"p_hist": max(rate, LEAST_RATE)})
    mean, cap = sums.y / sums.x, None
    if _capped(metric):
        cap = _cap(metric, sums)
        mean = _cut_mean(sums, cap)
    return frozen.model_copy(update={"mean": mean, "tau": _tau(metric, mean), "cap": cap})


def _cap(metric: Metric, sums: BaselineSums) -> int:
    """The declared cap, or the declared quantile of the values."""
    number, share = _number(metric.cap), quantile_of_cap(metric)
    if share is None:
        assert number is not None
        return round(number * KINDS[metric.kind].scale)
    at = quantile_bucket(sorted(sums.buckets), share)
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


def quantile_bucket(buckets: Sequence[tuple[int, int]], share: float) -> int:
    """The first of the buckets, which are in order, at which at least ``share`` of the counts are reached; 0 without
    counts."""
    return quantile_from_buckets(buckets, max(share, 1e-12)) if any(n for _, n in buckets) else 0


def judged(metric: Metric, at: int) -> tuple[int, int]:
    """The bucket of the champion's quantile, and the one a margin slower (milliseconds, or relative)."""
    margin = margin_of(metric)
    return at, max(at + 1, slower_bucket(at, margin.value, margin.relative))


def _frozen(metric: Metric, sums: BaselineSums, mirror: bool) -> Frozen | None:
    """The declared or measured baseline, once nothing is awaited. Blocks that show what a covariate explains are no
    evidence, even if all else is declared."""
    known = declared(metric)
    if known is None:
        return measured(metric, sums, mirror)
    if metric.covariate is None:
        return known
    seen = {"from_block": sums.last_block, "from_epoch": sums.last_epoch}
    return None if awaited(metric, sums) else known.model_copy(update=seen)


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
        frozen = _frozen(metric, sums, epoch.kind == "mirror")
        if frozen is not None:
            new[metric.name] = frozen
    if not new:
        return status
    means = {n: round(f.mean) for n, f in new.items()}
    found = opening_adjustments(spec, new, statistics)
    epochs = tuple(
        e.model_copy(update={"means": {**means, **e.means}, "adjustments": {**found, **e.adjustments}})
        for e in status.epochs
    )
    return status.model_copy(update={"baselines": {**status.baselines, **new}, "epochs": epochs})


def refrozen(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics) -> dict[str, Frozen]:
    """The baselines with which the first weighted epoch opens, from all of the mirror where it had enough."""
    kept: dict[str, Frozen] = {}
    for metric in spec.metrics:
        old = status.baselines.get(metric.name)
        sums = statistics.baselines.get(metric.name, BaselineSums())
        better = None if old and old.source == "Declared" else _frozen(metric, sums, mirror=True)
        chosen = better or old
        if chosen is not None:
            kept[metric.name] = chosen
    return kept


def opening_means(spec: RolloutSpec, baselines: Mapping[str, Frozen], statistics: Statistics) -> dict[str, int]:
    """The centring means of a new epoch: the champion's mean over all that is final, else the baseline's."""
    means = {name: round(f.mean) for name, f in baselines.items()}
    for metric in spec.metrics:
        state = statistics.folds.get((metric.name, ""))
        if metric.kind is Kind.THROUGHPUT:
            continue  # always about 0: units that do not come cannot be centred
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
