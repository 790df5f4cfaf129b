"""What is assumed of the champion: base rates, spreads, the share of units with any value.

From the metric's ``baseline:`` or from options; where a spread is neither known nor needed it is assumed, and said.
"""

import math
from collections.abc import Mapping
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
from controller.status import Frozen, RolloutStatus

SHARES = frozenset({Kind.PROPORTION, Kind.ACTIVE_UNITS, Kind.ACCURACY, Kind.ERROR_RATE})
SPREAD = frozenset({Kind.MEAN, Kind.LOG_LOSS, Kind.BRIER, Kind.ABSOLUTE_ERROR, Kind.SQUARED_ERROR})
SIMULATED = SHARES | SPREAD | {Kind.LATENCY}
USUAL_NONZERO = 0.03  # of the units of a Mean: three in a hundred buy
USUAL_LOSS_VARIATION = 2.0  # standard deviation of a loss over its mean
USUAL_LATENCY_MS = 100.0  # only the rounding of the edges depends on it
USUAL_LATENCY_SIGMA = 0.6  # of the logarithm of a latency
_PRACTICALLY_NO_CAP = 1e12
_NORMAL_QUANTILES = (0.0, 1.2815515655446004, 1.6448536269514722, 2.3263478740408408, 3.090232306167813)


class Champion(NamedTuple):
    """One judging metric as it will be tested, and the champion's law for it, in the metric's own unit.

    ``plan``: the core's plan with its frozen baseline. ``base``: the mean (a share for Proportion, Accuracy and
    ErrorRate; milliseconds at the judged quantile for Latency). ``spread``: standard deviation per unit. ``nonzero``:
    share of units with a value other than 0 (Mean). ``assumed``: the spread is a guess. ``latencies``: p50 p90 p95
    p99 p99.9 in ms. ``harm_needed``, ``proof_needed``: the log e to reach.
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


def judging(spec: RolloutSpec) -> list[Metric]:
    """The metrics that may veto or must win."""
    return [m for m in spec.metrics if m.role in (Role.GUARDRAIL, Role.SUCCESS)]


def thresholds(spec: RolloutSpec) -> dict[str, float]:
    """The log e of harm that rolls back, on all traffic, by metric: the rule's own."""
    blank = read(spec, RolloutStatus(uid="plan", rollout="plan"), EMPTY, 0)
    return {e.metric: needed for e, needed in harm_thresholds(spec, blank) if not e.segment}


def champions(spec: RolloutSpec, given: Given) -> tuple[list[Champion], list[Metric]]:
    """(the metrics that can be simulated, those that lack a base). SpecError has one line per wrong option."""
    problems = _faults(spec, given)
    if problems:
        raise SpecError(*problems)
    needed, proof = thresholds(spec), -math.log(spec.decision.promote_alpha)
    known, missing = [], []
    for metric in judging(spec):
        if metric.kind not in SIMULATED:
            continue
        base = given.base.get(metric.name, metric.baseline.mean if metric.baseline else None)
        if metric.kind is Kind.LATENCY:
            known.append(_latency(spec, metric, given, needed[metric.name], proof))
        elif base is None:
            missing.append(metric)
        else:
            known.append(_counted(spec, metric, base, given, needed[metric.name], proof))
    if missing and not known:
        raise SpecError(*(f"--base: {how_to_give(m)}" for m in missing))
    return known, missing


def how_to_give(metric: Metric) -> str:
    """Which option says the base of ``metric``."""
    what = "a share such as 0.05 or 5%" if metric.kind in SHARES else "its mean per unit"
    return f"{metric.name} has no base rate; give --base {metric.name}=VALUE ({what}), or baseline.mean in the metric"


def _counted(spec: RolloutSpec, metric: Metric, base: float, given: Given, needed: float, proof: float) -> Champion:
    spread, nonzero, assumed = _spread(metric, base, given)
    baseline = Baseline(mean=base, cap=_PRACTICALLY_NO_CAP if metric.kind in plans.CAPPED else None)
    frozen = plans.declared(metric.model_copy(update={"baseline": baseline}))
    plan = plans.metric_plan(spec, metric, frozen)
    return Champion(metric, plan, base, spread, nonzero, assumed, (), needed, proof)


def _spread(metric: Metric, base: float, given: Given) -> tuple[float, float, bool]:
    """(standard deviation per unit, share of units with a value, whether the first is a guess).

    A Mean is taken as q units in a hundred with values whose variation is 1 and the others with 0: then
    (sd/mean)² = 2/q - 1, which gives either of the two from the other.
    """
    name = metric.name
    if metric.kind in SHARES:
        return math.sqrt(base * (1 - base)), base, False
    if metric.kind is not Kind.MEAN:
        return given.spread.get(name, USUAL_LOSS_VARIATION * abs(base)), 1.0, name not in given.spread
    if name in given.spread:
        spread = given.spread[name]
        return spread, given.nonzero.get(name, min(1.0, 2 / (1 + (spread / base) ** 2)) if base else 1.0), False
    nonzero = given.nonzero.get(name, USUAL_NONZERO)
    return abs(base) * math.sqrt(2 / nonzero - 1), nonzero, name not in given.nonzero


def _latency(spec: RolloutSpec, metric: Metric, given: Given, needed: float, proof: float) -> Champion:
    quantile = metric.quantile or 0.99
    declared = metric.baseline.latencies if metric.baseline else ()
    latencies, assumed = tuple(declared), False
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
    for option, values in zip(("--base", "--spread", "--nonzero"), given, strict=True):
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
        if kind is not Kind.MEAN:
            return "only a Mean takes --nonzero"
        return None if 0 < value <= 1 else "allowed is a share above 0 and up to 1"
    if option == "--spread":
        if kind not in SPREAD:
            return "its spread follows from its base; --spread is for " + ", ".join(sorted(SPREAD))
        return None if value > 0 and math.isfinite(value) else "allowed is a standard deviation above 0"
    return _allowed_base(metric, value)


def _allowed_base(metric: Metric, value: float) -> str | None:
    kind = metric.kind
    if kind is Kind.ERROR_RATE:
        return None if 0 <= value < 1 else "allowed is a share from 0 to below 1"
    if kind in SHARES:
        return None if 0 < value < 1 else "allowed is a share above 0 and below 1"
    if kind is Kind.MEAN:
        return None if value != 0 and math.isfinite(value) else "allowed is any number but 0"
    return None if value > 0 and math.isfinite(value) else "allowed is a number above 0"


def _baseline_faults(i: int, metric: Metric, given: Given) -> list[str]:
    b, where = metric.baseline, f"spec.metrics[{i}].baseline"
    if b is None:
        return []
    said = []
    if metric.kind is Kind.LATENCY and len(b.latencies) == len(EDGE_QUANTILES):
        rising = all(0 < x < y for x, y in zip(b.latencies, b.latencies[1:], strict=False))
        if not rising:
            text = f"must rise from p50 to p99.9 and be above 0, got {list(b.latencies)}"
            said.append(f"{where}.latencies ({metric.name}): {text}")
    elif metric.kind in SIMULATED and b.mean is not None and metric.name not in given.base:
        allowed = _allowed_base(metric, b.mean)
        if allowed is not None and metric.kind is not Kind.LATENCY:
            said.append(f"{where}.mean ({metric.name}): {b.mean:g} cannot be; {allowed}")
    return said
