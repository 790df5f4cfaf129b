"""The kinds of metric: which fields each takes, its good direction, how it is counted, whether its engine exists."""

import math
from enum import StrEnum
from typing import Any, Literal, NamedTuple

from pydantic.alias_generators import to_camel

from controller import gauge
from controller.declared import Fault, refuse
from controller.quantities import parse_size

Family = Literal["unit", "label", "auc", "failures", "latency", "throughput", "resource", "limit", "pair", "other"]


class Kind(StrEnum):
    """A closed set; business, model, service and data kinds."""

    PROPORTION = "Proportion"
    MEAN = "Mean"
    RATIO = "Ratio"
    ACTIVE_UNITS = "ActiveUnits"
    ACCURACY = "Accuracy"
    PRECISION = "Precision"
    RECALL = "Recall"
    F1 = "F1"
    AUC = "Auc"
    LOG_LOSS = "LogLoss"
    BRIER = "Brier"
    ABSOLUTE_ERROR = "AbsoluteError"
    SQUARED_ERROR = "SquaredError"
    ERROR_RATE = "ErrorRate"
    LATENCY = "Latency"
    RESOURCE = "Resource"
    THROUGHPUT = "Throughput"
    DRIFT = "Drift"
    DISAGREEMENT = "Disagreement"


class KindRule(NamedTuple):
    """What a kind means.

    ``family``: ``unit`` one value per unit and epoch from outcomes; ``label`` a sum over labelled requests;
    ``auc`` scores of labelled requests; ``failures``, ``latency`` and ``throughput`` once per unit and block;
    ``resource`` samples of a gauge; ``limit`` the hard limit on a Latency, a metric of no user; ``pair`` mirror only.
    ``scale`` turns a value into the
    metric's integer unit. ``supported`` is false while the kind's engine is not there.
    """

    family: Family
    goal: Literal["Increase", "Decrease"] | None
    needs: frozenset[str]
    takes: frozenset[str]
    scale: int
    supported: bool

    def check(self, metric: Any) -> None:
        """Raise Faults where ``metric`` lacks a field its kind needs, has one its kind does not take, or has a value
        that this kind cannot have."""
        refuse([
            *self._of_kind(metric), *_pairs(metric), *_margins(metric), *_baseline(metric), *_limits(metric),
            *_queries(metric),
            *_windows(metric),
        ])  # fmt: skip

    def _of_kind(self, metric: Any) -> list[Fault]:
        kind, given = metric.kind, {f for f in OPTIONAL if getattr(metric, f) is not None}
        said = [
            Fault(to_camel(f), f"is missing; kind {kind} needs {_listed(self.needs)}")
            for f in _sorted(self.needs - given)
        ]
        takes = _listed(ALWAYS | self.needs | self.takes)
        for strange in _sorted(given - self.needs - self.takes):
            fixed = f", whose good direction is always {self.goal}" if strange == "goal" and self.goal else ""
            said.append(Fault(to_camel(strange), f"kind {kind} does not take it{fixed}; it takes {takes}"))
        if metric.role in ("Success", "Guardrail") and metric.margin is None and metric.limit is None:
            said.append(Fault("margin", f"is missing; a {metric.role} needs one, such as 0.05pp, 2% or 0.01"))
        return said


OPTIONAL = (
    "goal", "outcome", "numerator", "denominator", "window", "cap", "quantile", "covariate", "query", "limit",
)  # fmt: skip
ALWAYS = frozenset({"name", "kind", "role", "margin", "harm_margin", "baseline"})
_ORDER = ("name", "kind", "role", "margin", "harm_margin", *OPTIONAL, "baseline")


def _sorted(fields: frozenset[str] | set[str]) -> list[str]:
    return sorted(fields, key=_ORDER.index)


def _listed(fields: frozenset[str]) -> str:
    return ", ".join(to_camel(f) for f in _sorted(fields)) or "no other field"


def _pairs(metric: Any) -> list[Fault]:
    """What compares two things needs two; a mirror proves nothing better; without a baseline a margin is absolute."""
    said, kind = [], metric.kind
    if metric.numerator is not None and metric.numerator == metric.denominator:
        said.append(Fault("denominator", f"{metric.denominator} is the numerator too"))
    if KINDS[kind].family not in ABSOLUTE:
        return said
    if metric.role == "Success" and KINDS[kind].family == "pair":
        said.append(Fault("role", f"{kind} is only seen in a mirror and cannot be a Success; allowed is Guardrail"))
    for field, margin in (("margin", metric.margin), ("harmMargin", metric.harm_margin)):
        if margin is not None and margin.relative:
            said.append(Fault(field, f"{margin.text} of {kind} must be absolute, such as 1pp or 0.01"))
    return said


def _margins(metric: Any) -> list[Fault]:
    said = []
    for field, margin in (("margin", metric.margin), ("harmMargin", metric.harm_margin)):
        if margin is None:
            continue
        if field == "margin" and margin.value <= 0:
            said.append(Fault(field, f"{margin.text} must be above 0"))
        elif margin.value < 0:
            said.append(Fault(field, f"{margin.text} must not be below 0"))
        elif margin.relative and margin.value >= 1:
            said.append(Fault(field, f"{margin.text} would allow anything; a relative margin is below 100%"))
        elif margin.text.endswith("pp") and metric.kind not in SHARES:
            text = (
                f"{margin.text} is in percentage points, which only a share has; write {margin.text[:-2]}% (relative)"
            )
            said.append(Fault(field, f"{text} or a number in the metric's unit"))
        elif not margin.relative and margin.value >= LARGEST.get(metric.kind, float("inf")):
            most = LARGEST[metric.kind]
            allowed = f"below {most:g}" + (" (100pp)" if metric.kind in SHARES else "")
            said.append(Fault(field, f"{margin.text} is as large as {metric.kind} can be; allowed is {allowed}"))
    return said


def _limits(metric: Any) -> list[Fault]:
    """A limit is above 0; of a latency in milliseconds. Without a margin nothing is compared."""
    said, limit = [], metric.limit
    if limit is not None and parse_size(limit) <= 0:
        said.append(Fault("limit", f"{limit} must be above 0"))
    if limit is not None and metric.kind == Kind.LATENCY and not limit.replace(".", "", 1).isdigit():
        said.append(Fault("limit", f"{limit} is a size; of a Latency it is a number of milliseconds, such as 250"))
    if (
        metric.margin is None
        and metric.harm_margin is not None
        and KINDS[metric.kind].family in ("latency", "resource")
    ):
        said.append(Fault("harmMargin", "without a margin the arms are not compared; give a margin as well"))
    for field, margin in (("margin", metric.margin), ("harmMargin", metric.harm_margin)):
        if margin is not None and not margin.relative and metric.kind == Kind.THROUGHPUT:
            said.append(Fault(field, f"{margin.text} of Throughput must be relative, such as 2%"))
    return said


def _queries(metric: Any) -> list[Fault]:
    """What is asked of a Resource, and whether the arms can be compared by it."""
    query, said = metric.query, []
    if query is None or metric.kind != Kind.RESOURCE:
        return []
    for stranger in gauge.strangers(query):
        allowed = ", ".join(f"${name}" for name in gauge.PLACEHOLDERS)
        said.append(Fault("query", f"{stranger} stands for nothing; allowed are {allowed}"))
    if metric.margin is not None and query == "cpu":
        text = "cpu grows with the traffic that an arm gets, so the arms cannot be compared by it"
        said.append(Fault("margin", f"{text}; give a limit, or a query of PromQL that divides by the requests"))
    elif metric.margin is not None and not gauge.of_each_arm(query):
        said.append(Fault("margin", "the query says the same of both arms; $arm or $version in it tells them apart"))
    if metric.role == "Success":
        said.append(Fault("role", "a Resource is never proven better; allowed: Guardrail, Signal, Observe"))
    return said


def _windows(metric: Any) -> list[Fault]:
    if metric.window is None:
        return []
    if metric.kind == Kind.RESOURCE and not 1_000_000 <= metric.window <= 3_600_000_000:
        return [Fault("window", "of a Resource it is from 1s to 1h")]
    return [] if metric.window > 0 else [Fault("window", "must be above 0s: no outcome comes with its exposure")]


def _baseline(metric: Any) -> list[Fault]:
    b, kind, said = metric.baseline, metric.kind, []
    if b is None:
        return []
    if b.mean is not None and kind in SHARES and not 0 <= b.mean <= 1:
        said.append(Fault("baseline.mean", f"{b.mean:g} is no share; the mean of kind {kind} is from 0 to 1"))
    elif b.mean is not None and kind in LARGEST and not 0 <= b.mean <= LARGEST[kind]:
        said.append(Fault("baseline.mean", f"{b.mean:g} cannot be; {kind} is from 0 to {LARGEST[kind]:g}"))
    rising = all(x <= y for x, y in zip(b.latencies, b.latencies[1:], strict=False))
    if b.latencies and not (len(b.latencies) == 5 and b.latencies[0] > 0 and rising):
        text = "five numbers above 0 that never fall are needed: p50 p90 p95 p99 p99.9 in milliseconds"
        said.append(Fault("baseline.latencies", f"{text}, got {list(b.latencies)}"))
    return said


SHARES = frozenset(
    {
        Kind.PROPORTION, Kind.ACTIVE_UNITS, Kind.ACCURACY, Kind.PRECISION, Kind.RECALL, Kind.F1, Kind.AUC, Kind.BRIER,
        Kind.ERROR_RATE, Kind.DISAGREEMENT,
    }
)  # fmt: skip
# The largest value of a kind. Log loss: that of a prediction as sure as any is taken to be, one in a million.
LARGEST = {**dict.fromkeys(SHARES, 1.0), Kind.LOG_LOSS: -math.log(1e-6)}


def _rule(
    family: Family,
    goal: Literal["Increase", "Decrease"] | None,
    needs: str,
    takes: str,
    scale: int,
    supported: bool,
) -> KindRule:
    return KindRule(family, goal, frozenset(needs.split()), frozenset(takes.split()), scale, supported)


_LABEL = "outcome window"
KINDS: dict[Kind, KindRule] = {
    Kind.PROPORTION: _rule("unit", None, "outcome window", "goal covariate", 1_000_000, True),
    Kind.MEAN: _rule("unit", None, "outcome window", "goal cap covariate", 1_000, True),
    Kind.RATIO: _rule("unit", None, "numerator denominator window", "goal cap", 1_000, True),
    Kind.ACTIVE_UNITS: _rule("unit", "Increase", "window", "", 1_000_000, True),
    Kind.ACCURACY: _rule("label", "Increase", _LABEL, "", 1_000_000, True),
    Kind.PRECISION: _rule("label", "Increase", _LABEL, "", 1_000_000, True),
    Kind.RECALL: _rule("label", "Increase", _LABEL, "", 1_000_000, True),
    Kind.F1: _rule("label", "Increase", _LABEL, "", 1_000_000, True),
    Kind.AUC: _rule("auc", "Increase", _LABEL, "", 1_000_000, True),
    Kind.LOG_LOSS: _rule("label", "Decrease", _LABEL, "", 1_000_000, True),
    Kind.BRIER: _rule("label", "Decrease", _LABEL, "", 1_000_000, True),
    Kind.ABSOLUTE_ERROR: _rule("label", "Decrease", _LABEL, "cap", 1_000, True),
    Kind.SQUARED_ERROR: _rule("label", "Decrease", _LABEL, "cap", 1_000, True),
    Kind.ERROR_RATE: _rule("failures", "Decrease", "", "", 1, True),
    Kind.LATENCY: _rule("latency", "Decrease", "", "quantile limit", 1, True),
    Kind.RESOURCE: _rule("resource", "Decrease", "query", "limit window", 1_000, True),
    Kind.THROUGHPUT: _rule("throughput", "Increase", "", "", 1_000_000, True),
    Kind.DRIFT: _rule("other", "Decrease", "", "", 1, False),
    Kind.DISAGREEMENT: _rule("pair", "Decrease", "", "", 1_000_000, True),
}

# A row's error has no worst case but the cap, which is what a missing answer costs.
ERRORS = frozenset({Kind.ABSOLUTE_ERROR, Kind.SQUARED_ERROR})
# Label kinds whose answers decide which rows count, so that the two answers of a mirror may differ in that.
DECIDED = frozenset({Kind.PRECISION, Kind.F1})
# The denominator of a Ratio that needs no outcome.
REQUESTS = "requests"
# Families that read labels, the score of an answer, outcomes; those that need no baseline, those whose margin is
# absolute for the lack of one, those that are counted at every tick, and those that look at servers, not at units.
LABELLED = ("label", "auc")
SCORED = (*LABELLED, "pair")
AWAITING = (*LABELLED, "unit")
UNMEASURED = ("auc", "pair", "throughput", "resource", "limit")
ABSOLUTE = ("auc", "pair")
SERVED = ("failures", "latency", "throughput")
OF_SERVERS = ("resource", "limit")
# Families that compare the two answers to a mirrored request.
MIRRORED = (*SCORED, "failures")
