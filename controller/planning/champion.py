"""What is assumed of the champion: base rates, spreads, the share of units with any value, of positives, of yeses.

From the metric's ``baseline:`` or from options; what is neither known nor can be left open is assumed, and said.
"""

import math
from collections.abc import Mapping, Sequence
from itertools import accumulate
from typing import NamedTuple

from scipy.special import ndtri

from controller.core import plans
from controller.core.cells import MetricPlan
from controller.core.counts import EDGE_QUANTILES
from controller.core.decide import harm_thresholds
from controller.core.evidence import read
from controller.core.fold import EMPTY
from controller.errors import SpecError
from controller.kinds import Kind
from controller.metric import Baseline, Metric, Role
from controller.spec import RolloutSpec
from controller.status import Epoch, Frozen, RolloutStatus

# What is said of rows of one label, or of those to which the model says yes.
OF_LABELS = frozenset({Kind.PRECISION, Kind.RECALL, Kind.F1, Kind.AUC})
SHARES = frozenset({Kind.PROPORTION, Kind.ACTIVE_UNITS, Kind.ACCURACY, Kind.ERROR_RATE, Kind.DISAGREEMENT}) | (
    OF_LABELS - {Kind.AUC}
)
VALUES = frozenset({Kind.MEAN, Kind.RATIO})  # of outcomes: many units have none
SPREAD = VALUES | {Kind.LOG_LOSS, Kind.BRIER, Kind.ABSOLUTE_ERROR, Kind.SQUARED_ERROR}
SIMULATED = SHARES | SPREAD | {Kind.LATENCY, Kind.AUC}
USUAL_BASE = {Kind.PRECISION: 0.7, Kind.RECALL: 0.7, Kind.F1: 0.7, Kind.AUC: 0.75}
USUAL_SHARE = 0.1  # of positives among the labels, and of yeses among the answers
USUAL_NONZERO = 0.03  # of the units of a Mean: three in a hundred buy
USUAL_VARIATION = 2.0  # standard deviation of a loss, or of what a unit adds to a Ratio, over the mean
USUAL_LATENCY_MS = 100.0  # only the rounding of the edges depends on it
USUAL_LATENCY_SIGMA = 0.6  # of the logarithm of a latency
PRACTICALLY_NO_CAP = 1e12
_NORMAL_QUANTILES = (0.0, 1.2815515655446004, 1.6448536269514722, 2.3263478740408408, 3.090232306167813)


class Champion(NamedTuple):
    """One judging metric as it will be tested, and the champion's law for it, in the metric's own unit.

    ``plan``: the core's plan with its frozen baseline. ``base``: the mean (a share for Proportion, Accuracy and
    ErrorRate; milliseconds at the judged quantile for Latency). ``spread``: standard deviation per row. ``nonzero``:
    share of units with a value other than 0 (Mean, Ratio). ``assumed``: the spread is a guess. ``latencies``: p50 p90
    p95 p99 p99.9 in ms. ``harm_needed``, ``proof_needed``: the log e to reach. ``share``: of positives, or for
    Precision of yeses, among the rows. ``rows``: how many independent rows a unit adds to what is counted.
    ``assumptions``: what of this nobody gave, as sentences.
    """

    metric: Metric
    plan: MetricPlan
    base: float
    spread: float
    nonzero: float
    assumed: bool
    latencies: tuple[float, ...]
    harm_needed: float
    proof_needed: float
    share: float = 1.0
    rows: float = 1.0
    assumptions: tuple[str, ...] = ()

    @property
    def service(self) -> bool:
        return self.plan.family in ("failures", "latency")

    @property
    def delay(self) -> int:
        """Microseconds from the end of a block until it is evidence, without the grace of outcomes."""
        return 0 if self.service else self.plan.window


class Given(NamedTuple):
    """What the options say, by metric."""

    base: Mapping[str, float] = {}
    spread: Mapping[str, float] = {}
    nonzero: Mapping[str, float] = {}
    share: Mapping[str, float] = {}


def judging(spec: RolloutSpec) -> list[Metric]:
    """The metrics that may veto or must win."""
    return [m for m in spec.metrics if m.role in (Role.GUARDRAIL, Role.SUCCESS)]


def thresholds(spec: RolloutSpec) -> dict[str, float]:
    """The log e of harm that rolls back, on all traffic, by metric: the rule's own."""
    # In a mirror, where every metric has its role.
    mirror = Epoch(number=1, kind="mirror", step=0, opened_at=0)
    blank = read(spec, RolloutStatus(uid="plan", rollout="plan", epochs=(mirror,), epoch=1), EMPTY, 0)
    return {e.metric: needed for e, needed in harm_thresholds(spec, blank) if not e.segment}


def champions(spec: RolloutSpec, given: Given) -> tuple[list[Champion], list[Metric]]:
    """(the metrics that can be simulated, those that lack a base). SpecError has one line per wrong option."""
    problems = _faults(spec, given)
    if problems:
        raise SpecError(*problems)
    needed, proof = thresholds(spec), -math.log(spec.decision.promote_alpha)
    known, missing = [], []
    for metric in judging(spec):
        if metric.kind not in SIMULATED or not metric.compared:
            continue
        base = given.base.get(metric.name, metric.baseline.mean if metric.baseline else None)
        if metric.kind is Kind.LATENCY:
            known.append(_latency(spec, metric, given, needed[metric.name], proof))
        elif metric.kind in OF_LABELS or metric.kind is Kind.DISAGREEMENT:
            known.append(_of_labels(spec, metric, base, given, needed[metric.name], proof))
        elif base is None:
            missing.append(metric)
        else:
            known.append(_counted(spec, metric, base, given, needed[metric.name], proof))
    if missing and not known:
        raise SpecError(*(f"--base: {how_to_give(m)}" for m in missing))
    return known, missing


def how_to_give(metric: Metric) -> str:
    """Which option says the base of ``metric``."""
    usual = "its mean per unit" if metric.kind is not Kind.RATIO else "the ratio"
    what = "a share such as 0.05 or 5%" if metric.kind in SHARES else usual
    return f"{metric.name} has no base rate; give --base {metric.name}=VALUE ({what}), or baseline.mean in the metric"


def _counted(spec: RolloutSpec, metric: Metric, base: float, given: Given, needed: float, proof: float) -> Champion:
    spread, nonzero, assumed = _spread(metric, base, given)
    return Champion(metric, _plan(spec, metric, base), base, spread, nonzero, assumed, (), needed, proof)


def _plan(spec: RolloutSpec, metric: Metric, base: float) -> MetricPlan:
    capped = metric.kind in plans.CAPPED or metric.cap is not None
    unknown = capped and plans.quantile_of_cap(metric) is not None
    baseline = Baseline(mean=base, cap=PRACTICALLY_NO_CAP if unknown else None)
    return plans.metric_plan(spec, metric, plans.declared(metric.model_copy(update={"baseline": baseline})))


def _of_labels(
    spec: RolloutSpec, metric: Metric, base: float | None, given: Given, needed: float, proof: float
) -> Champion:
    """What rests on few of the rows, or on pairs of answers; where nobody says how few, that is assumed.

    An F1 of N rows, of which a share p is positive and as many get a yes, has the variance F(1−F)(2−F)/(2pN): that of
    2pN/(2−F) coins. An area's is that of a mean over the rows (``area_variance``).
    """
    name, kind, said = metric.name, metric.kind, list[str]()
    if base is None and kind is Kind.DISAGREEMENT:
        base = plans.margin_of(metric).value / 2
        said.append(f"{name}: half of the margin, {base:g}, is assumed for the share of answers that differ")
    elif base is None:
        base = USUAL_BASE[kind]
        said.append(f"{name}: {base:g} is assumed for the champion; give --base {name}=VALUE or baseline.mean")
    share = given.share.get(name, USUAL_SHARE) if kind in OF_LABELS else 1.0
    if kind in OF_LABELS and name not in given.share:
        what = "yes is said to" if kind is Kind.PRECISION else "positives are"
        said.append(f"{name}: {what} {100 * share:g} % of the rows, it is assumed; give --share {name}=SHARE")
    rows = {Kind.PRECISION: share, Kind.RECALL: share, Kind.F1: 2 * share / (2 - base)}.get(kind, 1.0)
    variance = area_variance(base, share) if kind is Kind.AUC else base * (1 - base)
    law = (base, math.sqrt(variance), base, False, ())
    return Champion(metric, _plan(spec, metric, base), *law, needed, proof, share, rows, tuple(said))


def area_variance(area: float, share: float) -> float:
    """Variance of an area under the ROC curve times the number of its rows, a ``share`` of which is positive.

    Hanley and McNeil (Radiology 1982), for large numbers: (Q1 − A²)/n⁻ + (Q2 − A²)/n⁺ with Q1 = A/(2−A) and
    Q2 = 2A²/(1+A).
    """
    square = area * area
    return (area / (2 - area) - square) / (1 - share) + (2 * square / (1 + area) - square) / share


def _spread(metric: Metric, base: float, given: Given) -> tuple[float, float, bool]:
    """(standard deviation per unit, share of units with a value, whether the first is a guess).

    A Mean is taken as q units in a hundred with values whose variation is 1 and the others with 0: then
    (sd/mean)² = 2/q - 1, which gives either of the two from the other.
    """
    name = metric.name
    if metric.kind in SHARES:
        return math.sqrt(base * (1 - base)), base, False
    if metric.kind not in VALUES:
        return given.spread.get(name, USUAL_VARIATION * abs(base)), 1.0, name not in given.spread
    guessed = metric.kind is Kind.RATIO and name not in given.spread and name not in given.nonzero
    if name in given.spread or guessed:
        spread = USUAL_VARIATION * abs(base) if guessed else given.spread[name]
        return spread, given.nonzero.get(name, min(1.0, 2 / (1 + (spread / base) ** 2)) if base else 1.0), guessed
    nonzero = given.nonzero.get(name, USUAL_NONZERO)
    return abs(base) * math.sqrt(2 / nonzero - 1), nonzero, name not in given.nonzero


def _latency(spec: RolloutSpec, metric: Metric, given: Given, needed: float, proof: float) -> Champion:
    quantile = metric.quantile or 0.99
    declared = metric.baseline.latencies if metric.baseline else ()
    latencies, assumed = _apart(declared), False
    if len(latencies) != len(EDGE_QUANTILES):
        at = given.base.get(metric.name, USUAL_LATENCY_MS)
        z = _normal_quantile(quantile)
        latencies = tuple(at * math.exp(USUAL_LATENCY_SIGMA * (e - z)) for e in _NORMAL_QUANTILES)
        assumed = True
    usual = latency_at(latencies, _normal_quantile(quantile))
    frozen = Frozen(
        source="Declared",
        edges=tuple(plans.bucket_of(1000 * x) for x in latencies),
        judged=plans.judged(metric, plans.bucket_of(1000 * usual)),
    )
    plan = plans.metric_plan(spec, metric, frozen)
    return Champion(metric, plan, usual, 0.0, 1.0, assumed, latencies, needed, proof)


def _apart(latencies: Sequence[float]) -> tuple[float, ...]:
    """``latencies`` that rise: those that are the same at several quantiles by next to nothing."""
    return tuple(accumulate(latencies, lambda below, latency: max(latency, below * (1 + 1e-9))))


def _normal_quantile(share: float) -> float:
    return float(ndtri(share))


def latency_at(latencies: tuple[float, ...], z: float) -> float:
    """The latency (ms) at the normal quantile ``z``: log-linear between the five known ones, and beyond them."""
    i = max(1, min(len(latencies) - 1, sum(z > known for known in _NORMAL_QUANTILES)))
    low, high = _NORMAL_QUANTILES[i - 1], _NORMAL_QUANTILES[i]
    slope = math.log(latencies[i] / latencies[i - 1]) / (high - low)
    return latencies[i - 1] * math.exp(slope * (z - low))


def latency_place(latencies: tuple[float, ...], value: float) -> float:
    """The normal quantile at which the latency (ms) is ``value``; the inverse of ``latency_at``."""
    i = max(1, min(len(latencies) - 1, sum(value > known for known in latencies)))
    low, high = _NORMAL_QUANTILES[i - 1], _NORMAL_QUANTILES[i]
    slope = math.log(latencies[i] / latencies[i - 1]) / (high - low)
    return low + math.log(value / latencies[i - 1]) / slope


def _faults(spec: RolloutSpec, given: Given) -> list[str]:
    """One line per option that names no metric, or has a value its kind cannot have."""
    by_name = {m.name: m for m in judging(spec)}
    said = []
    for option, values in zip(("--base", "--spread", "--nonzero", "--share"), given, strict=True):
        for name, value in values.items():
            if name not in by_name:
                known = ", ".join(by_name)
                said.append(f"{option} {name}={value:g}: no Guardrail or Success is called {name!r}; there is: {known}")
            elif (allowed := _allowed(option, by_name[name], value)) is not None:
                kind = by_name[name].kind
                said.append(f"{option} {name}={value:g}: {name} is of kind {kind}; {allowed}")
    for metric in by_name.values():
        said += _baseline_faults(spec.metrics.index(metric), metric, given)
    return said


def _allowed(option: str, metric: Metric, value: float) -> str | None:
    """What is allowed instead of ``value``; None where it is."""
    kind = metric.kind
    if option == "--nonzero":
        if kind not in VALUES:
            return "only a Mean or a Ratio takes --nonzero"
        return None if 0 < value <= 1 else "allowed is a share above 0 and up to 1"
    if option == "--share":
        if kind not in OF_LABELS:
            return "--share is for " + ", ".join(sorted(OF_LABELS))
        return None if 0 < value < 1 else "allowed is a share above 0 and below 1"
    if option == "--spread":
        if kind not in SPREAD:
            return "its spread follows from its base; --spread is for " + ", ".join(sorted(SPREAD))
        return None if value > 0 and math.isfinite(value) else "allowed is a standard deviation above 0"
    return _allowed_base(metric, value)


def _allowed_base(metric: Metric, value: float) -> str | None:
    kind = metric.kind
    if kind is Kind.AUC:
        return None if 0.5 < value < 1 else "allowed is an area above 0.5 and below 1"
    if kind in (Kind.ERROR_RATE, Kind.DISAGREEMENT):
        return None if 0 <= value < 1 else "allowed is a share from 0 to below 1"
    if kind in SHARES:
        return None if 0 < value < 1 else "allowed is a share above 0 and below 1"
    if kind in VALUES:
        return None if value != 0 and math.isfinite(value) else "allowed is any number but 0"
    return None if value > 0 and math.isfinite(value) else "allowed is a number above 0"


def _baseline_faults(i: int, metric: Metric, given: Given) -> list[str]:
    b, where = metric.baseline, f"spec.metrics[{i}].baseline"
    if b is None:
        return []
    if b.mean is None or metric.name in given.base or metric.kind not in SIMULATED - {Kind.LATENCY}:
        return []
    allowed = _allowed_base(metric, b.mean)
    return [] if allowed is None else [f"{where}.mean ({metric.name}): {b.mean:g} cannot be; {allowed}"]
