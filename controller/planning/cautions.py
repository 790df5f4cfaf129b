"""What a plan cannot do, in words: where a metric cannot gate, what is missing, what was guessed."""

from collections.abc import Iterator, Sequence
from enum import StrEnum
from typing import NamedTuple

from controller.core.areas import EXPECTED_ROWS
from controller.core.batches import LEAST_BLOCKS
from controller.core.limits import BREACHES, WINDOWS
from controller.core.plans import BASELINE_BLOCKS, metric_plan
from controller.core.resources import LEAST_BATCHES
from controller.core.scores import EXPECTED_EVENTS, EXPECTED_NONZERO, LEAST_UNITS
from controller.kinds import KINDS, SCORED, UNMEASURED, Kind
from controller.metric import Metric
from controller.planning.boundary import Simulated
from controller.planning.champion import SHARES, SIMULATED, VALUES, Champion, how_to_give, judging
from controller.planning.ramp import Course, weighted_time
from controller.planning.steps import DAY, POWER, Allocation, informative_share, span, until_evidence
from controller.quantities import format_duration
from controller.spec import RolloutSpec

LEAST_WEIGHT_OF_HEAVY_TAILS = 5.0  # percent
HEAVY_VARIATION = 3.0  # standard deviation over mean
LEAST_INFORMATION = 0.8
WEEK = 7 * DAY


class Code(StrEnum):
    """A closed set, for programs that read the plan."""

    MISSING_BASE = "MissingBase"
    NOT_SIMULATED = "NotSimulated"
    LIMIT = "Limit"
    NO_TRAFFIC = "NoTraffic"
    ASSUMED_BASE = "AssumedBase"
    ASSUMED_SPREAD = "AssumedSpread"
    HEAVY_TAIL = "HeavyTail"
    HOLD_TOO_SHORT = "HoldTooShort"
    MIN_UNITS = "MinUnits"
    MIN_AGE = "MinAge"
    SHORT_MIRROR = "ShortMirror"
    GUARD = "Guard"
    THIN_BLOCKS = "ThinBlocks"
    NOT_PROVEN = "NotProven"
    COVARIATE = "Covariate"


class Caution(NamedTuple):
    """``step`` counts from 1, mirrors included; None: of no single step."""

    code: Code
    message: str
    metric: str | None = None
    step: int | None = None


def of_plan(
    spec: RolloutSpec, steps: Sequence[Allocation], missing: Sequence[Metric], traffic: bool
) -> Iterator[Caution]:
    """What concerns the whole plan, or metrics that are not simulated."""
    for metric in missing:
        yield Caution(Code.MISSING_BASE, how_to_give(metric), metric.name)
    for metric in judging(spec):
        window = metric_plan(spec, metric, None).span
        if metric.limit is not None:
            rule = f"breached in {BREACHES} of the last {WINDOWS} windows, met after {WINDOWS} of a step"
            text = f"{metric.name}: its limit is a rule, no sample size: {rule} ({format_duration(WINDOWS * window)})"
            yield Caution(Code.LIMIT, text, metric.name)
        if metric.compared and metric.kind not in SIMULATED:
            text = f"{metric.name}: the kind {metric.kind} is not simulated; its units and days are unknown here"
            if metric.kind is Kind.RESOURCE:
                text = f"{metric.name}: a {metric.kind} is compared by the hour, in no less than {LEAST_BATCHES} hours"
            yield Caution(Code.NOT_SIMULATED, text, metric.name)
    if not traffic:
        yield Caution(Code.NO_TRAFFIC, "days, detectable harm and exposure need the traffic: give --units-per-day")
    holds = sum(s.hold for s in spec.steps)
    longest = max(holds, spec.decision.min_age, *(m.window or 0 for m in judging(spec)))
    if longest < WEEK and any(m.kind not in (Kind.ERROR_RATE, Kind.LATENCY, Kind.RESOURCE) for m in judging(spec)):
        text = (
            f"the plan may promote after {format_duration(longest)}: where people behave by the week, a part of it "
            "is not the whole; minAge: 7d waits for one"
        )
        yield Caution(Code.MIN_AGE, text)
    yield from _mirrors(spec)
    if traffic:
        yield from _min_units(spec, steps)


def _mirrors(spec: RolloutSpec) -> Iterator[Caution]:
    """Where a mirror has too few blocks for its tests of labels."""
    for metric in (m for m in judging(spec) if KINDS[m.kind].family in SCORED):
        family, block = KINDS[metric.kind].family, metric_plan(spec, metric, None).block
        needed = LEAST_BLOCKS + (0 if family in UNMEASURED else BASELINE_BLOCKS)
        for number, step in enumerate(spec.steps, 1):
            if step.mirror is not None and step.hold // block < needed:
                text = (
                    f"{metric.name} is shown in step {number} and can stop it, but is not tested there: its hold "
                    f"{format_duration(step.hold)} has {step.hold // block} blocks of {format_duration(block)}, and "
                    f"its test in a mirror needs {needed}"
                )
                yield Caution(Code.SHORT_MIRROR, text, metric.name, number)


def _min_units(spec: RolloutSpec, steps: Sequence[Allocation]) -> Iterator[Caution]:
    least = spec.decision.min_units
    for step in steps:
        units = step.challenger * step.hold
        if units < least:
            text = (
                f"step {step.number}: minUnits {least} takes {step.lasts / DAY:.3g} d at {step.weight:g} % of this "
                f"traffic, its hold {format_duration(step.hold)} brings {units:.0f}"
            )
            yield Caution(Code.MIN_UNITS, text, None, step.number)


def of_champion(champion: Champion) -> Iterator[Caution]:
    """What nobody gave and is assumed."""
    for text in champion.assumptions:
        yield Caution(Code.ASSUMED_BASE, text, champion.metric.name)
    if champion.assumed:
        yield Caution(Code.ASSUMED_SPREAD, _assumed(champion), champion.metric.name)


def of_metric(
    spec: RolloutSpec, metric: Simulated, steps: Sequence[Allocation], lead: int, per_unit: float, traffic: bool
) -> Iterator[Caution]:
    """Where a metric cannot gate a step."""
    champion = metric.champion
    name = champion.metric.name
    if champion.metric.covariate is not None:
        text = (
            f"{name}: what its covariate explains is not known here and left out; a correlation ρ with the values of "
            "units would take units and days times 1 - ρ²: at 0.6, 0.64 of them"
        )
        yield Caution(Code.COVARIATE, text, name)
    heavy = champion.metric.kind in VALUES and champion.spread > HEAVY_VARIATION * abs(champion.base)
    for i, step in enumerate(steps):
        if heavy and step.weight < LEAST_WEIGHT_OF_HEAVY_TAILS:
            text = (
                f"{name} cannot gate step {step.number}: a heavy-tailed {champion.metric.kind} at {step.weight:g} % "
                f"weight (below {LEAST_WEIGHT_OF_HEAVY_TAILS:g} %) rests on a few large values"
            )
            yield Caution(Code.HEAVY_TAIL, text, name, step.number)
        length = span(spec, metric, step, i == 0, lead)
        if length <= 0:
            lost = until_evidence(spec, metric) + (lead if i == 0 else 0)
            text = (
                f"{name} cannot gate step {step.number}: its first evidence comes after {format_duration(lost)} "
                f"(window, grace and baseline), the step lasts {format_duration(step.lasts)}"
            )
            yield Caution(Code.HOLD_TOO_SHORT, text, name, step.number)
        elif traffic:
            yield from _guard(champion, step, length)
            yield from _thin(spec, champion, step, per_unit)


def _guard(champion: Champion, step: Allocation, length: int) -> Iterator[Caution]:
    """Where the step alone never reaches what the score tests want before they say anything."""
    if champion.service:
        return
    units, name = step.challenger * length * champion.rows, champion.metric.name
    if champion.metric.kind in SHARES:
        rarer = min(champion.base, 1 - champion.base)
        have, needed, what = units * rarer, EXPECTED_EVENTS, "expected events"
    elif champion.metric.kind is Kind.AUC:
        rarer = min(champion.share, 1 - champion.share)
        have, needed, what = units * rarer, EXPECTED_ROWS, "expected rows of each label"
    elif champion.metric.kind in VALUES:
        have, needed, what = units * champion.nonzero, EXPECTED_NONZERO, "expected values other than 0"
    else:
        have, needed, what = units, LEAST_UNITS, "units"
    if have < needed:
        text = (
            f"{name} says nothing in step {step.number} alone: its tests begin at {needed} {what} of the challenger, "
            f"it brings {have:.3g}"
        )
        yield Caution(Code.GUARD, text, name, step.number)


def _thin(spec: RolloutSpec, champion: Champion, step: Allocation, per_unit: float) -> Iterator[Caution]:
    if not champion.service:
        return
    block, name = champion.plan.block, champion.metric.name
    kept = informative_share(step, block, per_unit)
    if kept < LEAST_INFORMATION:
        text = (
            f"{name} keeps {100 * kept:.0f} % of its information in step {step.number}: a tick of "
            f"{format_duration(spec.decision.tick)} holds {step.challenger * per_unit * block:.2g} challenger "
            "requests, and one without requests of both arms says nothing; a longer decision.tick keeps more"
        )
        yield Caution(Code.THIN_BLOCKS, text, name, step.number)


def _assumed(champion: Champion) -> str:
    name, kind = champion.metric.name, champion.metric.kind
    if kind is Kind.LATENCY:
        return (
            f"{name}: latencies taken as lognormal with sigma 0.6; give baseline.latencies (p50 p90 p95 p99 p99.9, "
            "milliseconds)"
        )
    per = (
        "per unit" if kind is not Kind.RATIO else "per unit (of its numerator less its due, over the mean denominator)"
    )
    text = f"{name}: a standard deviation of {champion.spread:.4g} {per} is assumed; give --spread {name}=SD"
    return f"{text} or --nonzero {name}=SHARE" if kind in VALUES else text


def of_course(spec: RolloutSpec, metric: Simulated, equal: Course) -> Iterator[Caution]:
    """Whether an equal challenger would ever be promoted."""
    if equal.proven < POWER:
        name = metric.champion.metric.name
        text = (
            f"{name}: an equal challenger is proven not worse in {100 * equal.proven:.0f} of 100 rollouts by "
            f"maxDuration ({weighted_time(spec) / DAY:.3g} d of weights); a wider margin, more traffic, larger "
            "weights or more time would help"
        )
        yield Caution(Code.NOT_PROVEN, text, name)
