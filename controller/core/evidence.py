"""From folds to evidence: estimate, always-valid interval, log e-values and a verdict, per metric and segment.

Every figure is in the metric's own unit and direction (challenger − champion). The interval is two-sided and for
reading; decisions use the log e-values. The estimand is the effect averaged over epochs with overlap weights.
"""

import math
from enum import StrEnum
from typing import NamedTuple

import numpy as np

from controller.core import intervals, sequential
from controller.core.areas import AreaFold, area_effect, area_gain
from controller.core.cells import OVERALL, BaselineSums, MetricPlan
from controller.core.counts import SLOW_SHARE, CountFold, absolute
from controller.core.covariates import explained
from controller.core.fold import Fold, Statistics
from controller.core.limits import Limited, LimitFold, limited
from controller.core.pairs import PairFold, pair_effect, pair_non_inferior, pair_units
from controller.core.plans import awaited, limit_plan, metric_plan
from controller.core.rates import Rates, again, slowness, stratified
from controller.core.repeats import NEVER, Repeated, repeated
from controller.core.resources import BATCH, LEAST_BATCHES, ResourceFold, resource_effect, resource_non_inferior
from controller.core.scores import ONE_ARM, Effect, ScoreFold, activity, score_effect
from controller.kinds import AWAITING, MIRRORED
from controller.metric import Metric, Role
from controller.quantities import parse_size
from controller.spec import RolloutSpec
from controller.status import BASELINE_HAS, RolloutStatus


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
    (champion, challenger). ``gate``: estimate + 2 se is not beyond the margin on the bad side. ``last``: the current
    epoch's own estimate lies above −margin in the good direction (None as long as one of its arms is without data).
    Of a Latency ``estimate`` is the difference of the shares above the champion's usual quantile, and ``margin`` what
    that would be about if every answer took the margin longer; ``gate`` and ``last`` have the edges of the test.
    ``due``: the current epoch is old enough for this metric to have data. ``note``: what is missing, or more to say.
    ``unseen``: as in ``Effect``, in the metric's unit squared: what proofs have in their variance beside ``se``².
    ``compared``: the arms are; else its limit alone decides. ``limit``: how the challenger stands to it, if it has one.
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
    compared: bool = True
    limit: Limited | None = None
    unseen: float = 0.0


class _Reading(NamedTuple):
    """Evidence before the tests that are read of all metrics at once.

    ``good``: the estimate in the good direction; ``tau`` of the score tests, 0 without any; ``shown`` that of the
    interval; ``rates``: what the interval of a counting kind is made from; ``bets``: log e-values whose mean is that of
    non-inferiority, where it is not the score test on ``tau``; ``every``: of failures, what has to be proven beside the
    bets.
    """

    evidence: Evidence
    good: float = 0.0
    tau: float = 0.0
    shown: float = 0.0
    bets: tuple[float, ...] | None = None
    rates: Rates | None = None
    every: Repeated | None = None


def read(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, now: int) -> tuple[Evidence, ...]:
    """All evidence of the current state: the mirror's pairs in a mirror step, else everything of the weights.

    Overall first, in the order of the spec; then the segments in the order in which their values appeared. Values of
    protected segments are there even without data, because their place says which alpha they have.
    """
    epoch = status.current_epoch
    paired = epoch is not None and epoch.kind == "mirror"
    source: dict[tuple[str, str], Fold] = dict(statistics.pairs if paired else statistics.folds)
    protected = {s.name for s in spec.segments if s.protected}
    metrics = [(m, metric_plan(spec, m, status.baselines.get(m.name))) for m in spec.metrics]
    blanks = [
        _blank(spec, status, metric, plan, paired, now)._replace(note=_absence(metric, plan, paired, statistics))
        for metric, plan in metrics
    ]
    found = []
    for segment in (OVERALL, *status.segment_values):
        always = segment == OVERALL or segment.partition("=")[0] in protected
        for (_, plan), blank in zip(metrics, blanks, strict=True):
            state = source.get((plan.name, segment))
            if always or state is not None:
                found.append(_one(plan, state, blank._replace(segment=segment), status.epoch))
    tested = _tested(found, spec.decision.promote_alpha)
    return tuple(_limited(spec, status, statistics, e, now) if e.segment == OVERALL else e for e in tested)


def _blank(
    spec: RolloutSpec, status: RolloutStatus, metric: Metric, plan: MetricPlan, paired: bool, now: int
) -> Evidence:
    service = plan.family in ("failures", "latency")
    role = Role.OBSERVE if plan.family == "pair" and not paired else metric.role
    return Evidence(
        metric.name, OVERALL, role, service, paired, 0.0, math.inf, -math.inf, math.inf, 0.0, 0.0, 0.0, 0.0,
        0.0, (0, 0), True, None, _due(spec, status, plan, paired, now), Verdict.NO_DATA, "", metric.compared,
    )  # fmt: skip


def _absence(metric: Metric, plan: MetricPlan, paired: bool, statistics: Statistics) -> str:
    """Why there is nothing to read of a metric, where that is so."""
    if plan.family == "pair" and not paired:
        return "only seen in a mirror"
    if not metric.compared or plan.family == "resource":
        return ""
    if plan.frozen:
        return ONE_ARM
    return BASELINE_HAS + awaited(metric, statistics.baselines.get(metric.name, BaselineSums()))


def _one(plan: MetricPlan, state: Fold | None, blank: Evidence, epoch: int) -> _Reading:
    if isinstance(state, PairFold):
        return _paired(plan, state, blank)
    if isinstance(state, ScoreFold):
        return _scored(plan, state, blank, epoch)
    if isinstance(state, AreaFold):
        return _ranked(plan, state, blank, epoch)
    if isinstance(state, CountFold):
        return _counted(plan, state, blank, epoch)
    if isinstance(state, ResourceFold) and blank.compared:
        return _by_hours(plan, state, blank, epoch)
    return _Reading(blank)


def _due(spec: RolloutSpec, status: RolloutStatus, plan: MetricPlan, paired: bool, now: int) -> bool:
    """Old enough to have data of this kind, if it is one that this epoch can have."""
    epoch = status.current_epoch
    if epoch is None or (plan.family == "pair" and not paired):
        return False
    if paired and plan.family not in MIRRORED:
        return False
    return now - epoch.opened_at >= until_data(spec, plan)


def _limited(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, e: Evidence, now: int) -> Evidence:
    """``e`` with its hard limit, which decides alone where the arms are not compared, and beside that else."""
    metric, trouble = spec.metric(e.metric), statistics.troubles.get(e.metric, "")
    e = e._replace(note="; ".join(filter(None, (e.note, trouble))))
    if metric.limit is None:
        return e
    plan = limit_plan(spec, metric) or metric_plan(spec, metric, None)
    state = statistics.folds.get((plan.name, OVERALL))
    held = state if isinstance(state, ResourceFold | LimitFold) else LimitFold()
    epoch = status.current_epoch
    opened_at = epoch.opened_at if epoch else now
    limit = limited(plan, parse_size(metric.limit), held.recent, held.last_block, status.epoch, opened_at, now)
    e, said = e._replace(limit=limit), Verdict.INCONCLUSIVE
    if limit.breached or not limit.here:
        said = Verdict.WORSE if limit.breached else Verdict.NO_DATA
    elif limit.met:
        said = Verdict.NOT_WORSE
    if not e.compared or (e.paired and plan.family not in MIRRORED):
        last = True if limit.here else None
        return e._replace(verdict=said, due=limit.due, gate=not limit.above, last=last)
    e = e._replace(gate=e.gate and not limit.above)
    if said is Verdict.WORSE or (said is Verdict.NO_DATA and limit.due):
        return e._replace(verdict=said, due=e.due or said is Verdict.NO_DATA)
    proven = e.verdict in (Verdict.NOT_WORSE, Verdict.BETTER)
    return e._replace(verdict=Verdict.INCONCLUSIVE) if proven and not limit.met else e


def until_data(spec: RolloutSpec, plan: MetricPlan) -> int:
    """From the opening of an epoch to its first evidence of a metric, at the latest (µs)."""
    hours = LEAST_BATCHES * max(BATCH, plan.block) if plan.family == "resource" else 0
    return hours + 2 * plan.block + until_final(spec, plan)


def until_final(spec: RolloutSpec, plan: MetricPlan) -> int:
    """From the end of a block until it is evidence (µs): what waits for outcomes has a window, and the grace."""
    return plan.window + spec.decision.grace if plan.family in AWAITING else 0


def _tested(found: list[_Reading], alpha: float) -> tuple[Evidence, ...]:
    """The evidence of ``found`` with its tests, intervals and verdicts: one call for all metrics and segments."""
    estimate = np.array([r.evidence.estimate for r in found])
    se2 = np.square([r.evidence.se for r in found])
    good, tau = np.array([r.good for r in found]), np.array([r.tau for r in found])
    shown = np.array([r.shown for r in found])
    margin = np.array([r.evidence.margin for r in found])
    some = np.where(tau > 0, tau, 1.0)
    careful = se2 + np.array([r.evidence.unseen for r in found])
    proof = np.where(tau > 0, sequential.log_e_one_sided(good + margin, careful, some), 0.0)
    superior = np.where(tau > 0, sequential.log_e_one_sided(good, careful, some), 0.0)
    counted = [i for i, r in enumerate(found) if r.bets is not None]
    if counted:
        proof[counted] = sequential.log_mean_exp([r.bets for r in found if r.bets is not None])
    repeats = [(i, r.every) for i, r in enumerate(found) if r.every is not None and r.evidence.margin > 0]
    if repeats:
        at = [i for i, _ in repeats]
        theta, variance = (np.array(x) for x in zip(*(every[:2] for _, every in repeats), strict=True))
        proven = sequential.log_e_one_sided(margin[at] - theta, variance, margin[at])
        proof[at] = np.minimum(proof[at], proven)
    known = np.where(shown > 0, se2, np.inf)
    scale = np.where(shown > 0, shown, 1.0)
    lower, upper = intervals.shown(estimate, known, scale)
    rated = [(i, r.rates) for i, r in enumerate(found) if r.rates is not None and r.shown > 0]
    if rated:
        at = [i for i, _ in rated]
        spread, units = (
            np.array(x, dtype=float).T for x in ([r.spread for _, r in rated], [r.units for _, r in rated])
        )
        events = [float(r.events) for _, r in rated]
        lower[at], upper[at] = intervals.shown_rates(estimate[at], spread, units, events, scale[at])
    columns = (x.tolist() for x in (lower, upper, proof, superior))
    return tuple(_judged(r.evidence, alpha, *figures) for r, *figures in zip(found, *columns, strict=True))


def _judged(e: Evidence, alpha: float, lower: float, upper: float, proof: float, superior: float) -> Evidence:
    if not all(e.units):
        return e
    better = 0.0 if e.paired else superior
    said = _verdict(e.log_e_harm, proof, better, -math.log(alpha))
    return e._replace(lower=lower, upper=upper, log_e_non_inferior=proof, log_e_superior=better, verdict=said)


def _verdict(harm: float, non_inferior: float, superior: float, needed: float) -> Verdict:
    if superior >= needed:
        return Verdict.BETTER
    if harm >= needed:
        return Verdict.WORSE
    return Verdict.NOT_WORSE if non_inferior >= needed else Verdict.INCONCLUSIVE


def _gate(good: float, se: float, margin: float) -> bool:
    return not math.isfinite(se) or good + 2 * se >= -margin


def _units(state: ScoreFold | CountFold) -> tuple[int, int]:
    return sum([e.champion.units for e in state.epochs]), sum([e.challenger.units for e in state.epochs])


def _scored(plan: MetricPlan, state: ScoreFold, blank: Evidence, epoch: int) -> _Reading:
    units = _units(state)
    effect = score_effect(plan, state)
    if plan.covariate is not None and not effect.note:
        effect = effect._replace(note=_explained(state, sum(units)))
    last = None
    for e in state.epochs:
        if e.epoch == epoch and e.champion.x and e.challenger.x:
            change = e.challenger.adjusted / e.challenger.x - e.champion.adjusted / e.champion.x
            if plan.family == "throughput":
                change = plan.scale * activity(e).change
            last = (-change if plan.decreasing else change) > -effect.margin
    return _of_effect(plan, effect, blank, plan.tau, units, state.ever_harm, last)


def _explained(state: ScoreFold, units: int) -> str:
    """For people: what the covariate is good for."""
    arms = [arm.covaried for e in state.epochs for arm in (e.champion, e.challenger)]
    known = sum(arm.units for arm in arms)
    return (
        f"the covariate is known of {100 * known / units:.0f} % of the units and explains "
        f"{100 * explained(arms):.0f} % of their variance"
    )


def _ranked(plan: MetricPlan, state: AreaFold, blank: Evidence, epoch: int) -> _Reading:
    effect = area_effect(plan, state)
    own = area_gain(state, epoch)
    last = None if own is None else own * plan.scale > -effect.margin
    units = (state.champion.units, state.challenger.units)
    return _of_effect(plan, effect, blank, plan.tau, units, state.ever_harm, last)


def _by_hours(plan: MetricPlan, state: ResourceFold, blank: Evidence, epoch: int) -> _Reading:
    effect = resource_effect(plan, state)
    of_epoch, d = state.last_d
    last = d < effect.margin if of_epoch == epoch else None
    units = (state.batches, state.batches)
    found = _of_effect(plan, effect, blank, effect.margin, units, state.ever_harm, last)
    return found._replace(tau=0.0, bets=(resource_non_inferior(state, effect),))


def _paired(plan: MetricPlan, state: PairFold, blank: Evidence) -> _Reading:
    effect, units = pair_effect(plan, state), pair_units(plan, state)
    if plan.family == "failures":
        return _of_effect(plan, effect, blank, effect.margin, units, state.ever_harm)._replace(tau=0.0)
    found = _of_effect(plan, effect, blank, plan.tau, units, state.ever_harm)
    return found._replace(bets=(pair_non_inferior(plan, state, effect),))


def _of_effect(
    plan: MetricPlan, effect: Effect, blank: Evidence, tau: float,
    units: tuple[int, int], ever_harm: float, last: bool | None = None,
) -> _Reading:  # fmt: skip
    k, good = plan.scale, effect.good(plan)
    se = math.sqrt(effect.se2)
    found = blank._replace(
        estimate=effect.theta / k, se=se / k, margin=effect.margin / k, champion=effect.champion_mean / k,
        gate=_gate(good, se, effect.margin), note=effect.note, units=units, log_e_harm=ever_harm, last=last,
        unseen=effect.unseen / (k * k),
    )  # fmt: skip
    tested = tau / k if effect.guarded else 0.0
    return _Reading(found, good / k, tested, tau / k)


def _counted(plan: MetricPlan, state: CountFold, blank: Evidence, epoch: int) -> _Reading:
    if plan.family == "latency":
        return _slow(plan, state, blank, epoch)
    margin = absolute(plan, plan.margin, plan.margin_relative)
    rates = stratified((e.champion, e.challenger) for e in state.epochs)
    every = repeated((e.pi_ppm, e.champion, e.challenger) for e in state.epochs) or NEVER
    last = None
    for e in state.epochs:
        if e.epoch == epoch and e.champion.units and e.challenger.units:
            last = e.worse_by() < margin
    gate = _gate(-rates.theta, rates.se, margin) and _gate(-every.theta, math.sqrt(every.variance), margin)
    found = _of_rates(state, rates, blank)._replace(margin=margin, gate=gate, last=last)
    if all(found.units):
        found = found._replace(note=again(every))
    return _Reading(found, -rates.theta, 0.0, margin, state.bets, rates, every=every)


def _of_rates(state: CountFold, rates: Rates, blank: Evidence) -> Evidence:
    units = _units(state)
    return blank._replace(
        estimate=rates.theta, se=rates.se, champion=rates.rate, log_e_harm=state.ever_harm, units=units,
        note="" if all(units) else ONE_ARM,
    )  # fmt: skip


def _slow(plan: MetricPlan, state: CountFold, blank: Evidence, epoch: int) -> _Reading:
    # What is decided of a latency is the challenger above q + margin against the champion above q; what is shown has
    # one edge, lest an equal challenger look faster.
    margin = SLOW_SHARE * (1 - plan.quantile)
    rates = stratified((e.champion, e.challenger) for e in state.epochs)
    decided = stratified((e.champion, e.slower) for e in state.epochs)
    last = None
    for e in state.epochs:
        if e.epoch == epoch and e.champion.units and e.slower.units:
            last = e.slower.events / e.slower.units - e.champion.events / e.champion.units < margin
    found = _of_rates(state, rates, blank)
    found = found._replace(margin=margin, gate=_gate(-decided.theta, decided.se, margin), last=last)
    if all(found.units):
        room = stratified((e.champion, e.within) for e in state.epochs).theta
        found = found._replace(margin=margin + max(room, 0.0), note=slowness(plan, state))
    return _Reading(found, -rates.theta, 0.0, margin, state.bets, rates)
