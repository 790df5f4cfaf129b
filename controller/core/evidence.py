"""From folds to evidence: estimate, always-valid interval, log e-values and a verdict, per metric and segment.

Every figure is in the metric's own unit and direction (challenger − champion). The interval is two-sided and for
reading; decisions use the log e-values. The estimand is the effect averaged over epochs with overlap weights.
"""

import math
from enum import StrEnum
from typing import NamedTuple

from controller.core import sequential
from controller.core.cells import OVERALL, MetricPlan
from controller.core.counts import SLOW_SHARE, CountFold, EpochCountSums, absolute, count_tests
from controller.core.fold import Fold, Statistics
from controller.core.plans import GAMMA, metric_plan, quantile_bucket
from controller.core.scores import PairFold, ScoreFold, pair_tests, score_tests
from controller.metric import Metric, Role
from controller.spec import RolloutSpec
from controller.status import RolloutStatus

SHOWN_TAU = 4.0


class Verdict(StrEnum):
    """What the evidence says so far."""

    BETTER = "Better"
    NOT_WORSE = "NotWorse"
    WORSE = "Worse"
    INCONCLUSIVE = "Inconclusive"
    NO_DATA = "NoData"


class Evidence(NamedTuple):
    """One metric in one segment (``""``: all traffic).

    ``estimate``, ``se``, ``lower``, ``upper``, ``margin``, ``champion`` (the champion's value) in the metric's unit;
    infinite ``se`` where nothing is known. ``log_e_harm`` is the largest ever. ``units`` counts unit values
    (champion, challenger). ``gate``: estimate + 2 se is not beyond the margin on the bad side. ``last``: the last
    epoch's own estimate lies above −margin in the good direction (None without data there). ``due``: the current
    epoch is old enough for this metric to have data.
    """

    metric: str
    segment: str
    role: Role
    service: bool
    paired: bool
    estimate: float
    se: float
    lower: float
    upper: float
    margin: float
    champion: float
    log_e_harm: float
    log_e_non_inferior: float
    log_e_superior: float
    units: tuple[int, int]
    gate: bool
    last: bool | None
    due: bool
    verdict: Verdict
    note: str = ""


def read(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, now: int) -> tuple[Evidence, ...]:
    """All evidence of the current state: the mirror's pairs in a mirror step, else everything of the weights.

    Overall first, in the order of the spec; then the segments in the order in which their values appeared.
    """
    epoch = status.current_epoch
    paired = epoch is not None and epoch.kind == "mirror"
    source: dict[tuple[str, str], Fold] = dict(statistics.pairs if paired else statistics.folds)
    said = []
    for segment in (OVERALL, *status.segment_values):
        for metric in spec.metrics:
            state = source.get((metric.name, segment))
            if segment == OVERALL or state is not None:
                said.append(_one(spec, status, metric, segment, state, paired, now))
    return tuple(said)


def _one(
    spec: RolloutSpec, status: RolloutStatus, metric: Metric, segment: str, state: Fold | None, paired: bool, now: int
) -> Evidence:
    plan = metric_plan(spec, metric, status.baselines.get(metric.name))
    due = _due(spec, status, plan, paired, now)
    blank = Evidence(
        metric.name, segment, metric.role, plan.family in ("failures", "latency"), paired,
        0.0, math.inf, -math.inf, math.inf, 0.0, 0.0, 0.0, 0.0, 0.0, (0, 0), True, None, due, Verdict.NO_DATA,
    )  # fmt: skip
    alpha = spec.decision.promote_alpha
    if isinstance(state, PairFold):
        return _paired(plan, state, blank, alpha)
    if isinstance(state, ScoreFold):
        return _scored(plan, state, blank, alpha)
    if isinstance(state, CountFold):
        return _counted(plan, state, blank, alpha)
    return blank


def _due(spec: RolloutSpec, status: RolloutStatus, plan: MetricPlan, paired: bool, now: int) -> bool:
    """Old enough to have data: the window, the grace and two blocks have passed since the first evidence could be."""
    epoch = status.current_epoch
    if epoch is None or (paired and plan.family in ("unit", "latency")):
        return False
    service = plan.family in ("failures", "latency")
    wait = 2 * plan.block + (0 if service else plan.window + spec.decision.grace)
    return now - epoch.opened_at >= wait


def _verdict(e: Evidence, alpha: float) -> Verdict:
    if not any(e.units) or not math.isfinite(e.se):
        proven = e.log_e_non_inferior >= -math.log(alpha)
        return Verdict.NOT_WORSE if proven else (Verdict.INCONCLUSIVE if any(e.units) else Verdict.NO_DATA)
    if e.log_e_superior >= -math.log(alpha):
        return Verdict.BETTER
    if e.log_e_harm >= -math.log(alpha):
        return Verdict.WORSE
    return Verdict.NOT_WORSE if e.log_e_non_inferior >= -math.log(alpha) else Verdict.INCONCLUSIVE


def _interval(estimate: float, se: float, tau: float) -> tuple[float, float]:
    """A 95 % confidence sequence. Its mixture is wider than that of the tests: narrow early, and hardly wider late."""
    if not math.isfinite(se) or se <= 0 or tau <= 0:
        return -math.inf, math.inf
    low, high = sequential.confidence_sequence(estimate, se * se, SHOWN_TAU * tau, 0.05)
    return float(low), float(high)


def _gate(plan: MetricPlan, theta: float, se: float, margin: float) -> bool:
    good = -theta if plan.decreasing else theta
    return not math.isfinite(se) or good + 2 * se >= -margin


def _scored(plan: MetricPlan, state: ScoreFold, blank: Evidence, alpha: float) -> Evidence:
    tests = score_tests(plan, state)
    units = (sum(e.champion.units for e in state.epochs), sum(e.challenger.units for e in state.epochs))
    se, k = math.sqrt(tests.se2), plan.scale
    lower, upper = _interval(tests.theta / k, se / k, plan.tau / k)
    last = state.epochs[-1]
    only = None
    if last.champion.x and last.challenger.x:
        change = last.challenger.y / last.challenger.x - last.champion.y / last.champion.x
        only = (-change if plan.decreasing else change) > -tests.margin
    found = blank._replace(
        estimate=tests.theta / k, se=se / k, lower=lower, upper=upper, margin=tests.margin / k,
        champion=tests.champion_mean / k, log_e_harm=state.ever_harm, log_e_non_inferior=tests.non_inferior,
        log_e_superior=tests.superior, units=units, gate=_gate(plan, tests.theta, se, tests.margin), last=only,
        note="" if tests.guarded else "too few expected events yet",
    )  # fmt: skip
    return found._replace(verdict=_verdict(found, alpha))


def _paired(plan: MetricPlan, state: PairFold, blank: Evidence, alpha: float) -> Evidence:
    tests = pair_tests(plan, state)
    se, k = math.sqrt(tests.se2), plan.scale
    margin = plan.margin * abs(tests.champion_mean) if plan.margin_relative else plan.margin
    if plan.family == "failures":
        margin = absolute(plan, plan.margin, plan.margin_relative)
    lower, upper = _interval(tests.theta / k, se / k, (plan.tau or margin) / k)
    found = blank._replace(
        estimate=tests.theta / k, se=se / k, lower=lower, upper=upper, margin=margin / k,
        champion=tests.champion_mean / k, log_e_harm=state.ever_harm, log_e_non_inferior=tests.non_inferior,
        units=(state.units, state.units), gate=_gate(plan, tests.theta, se, margin),
    )  # fmt: skip
    return found._replace(verdict=_verdict(found, alpha))


def _counted(plan: MetricPlan, state: CountFold, blank: Evidence, alpha: float) -> Evidence:
    tests = count_tests(plan, state)
    theta, se, rate = _rates(state.epochs)
    units = (sum(e.champion.units for e in state.epochs), sum(e.challenger.units for e in state.epochs))
    latency = plan.family == "latency"
    margin = SLOW_SHARE * (1 - plan.quantile) if latency else absolute(plan, plan.margin, plan.margin_relative)
    lower, upper = _interval(theta, se, margin)
    last_theta, _, _ = _rates(state.epochs[-1:])
    both = bool(state.epochs and state.epochs[-1].champion.units and state.epochs[-1].challenger.units)
    found = blank._replace(
        estimate=theta, se=se, lower=lower, upper=upper, margin=margin, champion=rate,
        log_e_harm=state.ever_harm, log_e_non_inferior=tests.non_inferior, units=units,
        gate=theta - 2 * se <= margin if math.isfinite(se) else True,
        last=(last_theta < margin) if both else None, note=_slowness(plan, state) if latency else "",
    )  # fmt: skip
    return found._replace(verdict=_verdict(found, alpha))


def _rates(epochs: tuple[EpochCountSums, ...]) -> tuple[float, float, float]:
    """Difference of rates stratified by epoch, its standard error, and the champion's rate.

    The error adds half an event to each arm, so that an arm without events is not taken for certain.
    """
    weight = theta = variance = rate = 0.0
    for e in epochs:
        (n_a, y_a), (n_b, y_b) = e.champion, e.challenger
        if not n_a or not n_b:
            continue
        w = n_a * n_b / (n_a + n_b)
        p_a, p_b = (y_a + 0.5) / (n_a + 1), (y_b + 0.5) / (n_b + 1)
        weight += w
        theta += w * (y_b / n_b - y_a / n_a)
        rate += w * y_a / n_a
        variance += w * w * (p_a * (1 - p_a) / n_a + p_b * (1 - p_b) / n_b)
    if weight == 0:
        return 0.0, math.inf, 0.0
    return theta / weight, math.sqrt(variance) / weight, rate / weight


def _slowness(plan: MetricPlan, state: CountFold) -> str:
    """The quantile of both arms in the last epoch, for people."""
    last = state.epochs[-1]
    a = GAMMA ** quantile_bucket(dict(last.champion_buckets), plan.quantile) / 1000
    b = GAMMA ** quantile_bucket(dict(last.challenger_buckets), plan.quantile) / 1000
    return f"p{plan.quantile * 100:g} {a:.1f} ms and {b:.1f} ms"
