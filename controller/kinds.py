"""The kinds of metric: which fields each takes, its good direction, how it is counted, whether its engine exists."""

from enum import StrEnum
from typing import Any, Literal, NamedTuple

Family = Literal["unit", "label", "failures", "latency", "pair", "other"]


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
    ``failures`` and ``latency`` once per unit and block; ``pair`` mirror only. ``scale`` turns a value into the
    metric's integer unit. ``supported`` is false while the kind's engine is not there.
    """

    family: Family
    goal: Literal["Increase", "Decrease"] | None
    needs: frozenset[str]
    takes: frozenset[str]
    scale: int
    supported: bool

    def check(self, metric: Any) -> None:
        """Raise ValueError where ``metric`` lacks a field its kind needs, or has one its kind does not take."""
        optional = (
            "goal",
            "outcome",
            "numerator",
            "denominator",
            "window",
            "cap",
            "quantile",
            "covariate",
            "query",
            "limit",
        )
        given = {f for f in optional if getattr(metric, f) is not None}
        missing = sorted(self.needs - given - _ALWAYS - ({"margin"} if metric.margin is not None else set()))
        if missing:
            raise ValueError(f"{metric.name}: kind {metric.kind} needs {', '.join(missing)}")
        strange = sorted(given - self.needs - self.takes)
        if strange:
            takes = ", ".join(sorted(self.needs | self.takes))
            raise ValueError(f"{metric.name}: kind {metric.kind} does not take {', '.join(strange)}; it takes {takes}")
        if metric.role in ("Success", "Guardrail") and metric.margin is None and metric.limit is None:
            raise ValueError(f"{metric.name}: a {metric.role} needs a margin, such as 0.05pp, 2% or 0.01")
        if metric.margin is not None and metric.margin.value <= 0:
            raise ValueError(f"{metric.name}: margin {metric.margin.text} must be above 0")
        if metric.harm_margin is not None and metric.harm_margin.value < 0:
            raise ValueError(f"{metric.name}: harmMargin {metric.harm_margin.text} must not be below 0")


_ALWAYS = frozenset({"name", "kind", "role", "margin", "harm_margin", "baseline"})


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
    Kind.RATIO: _rule("unit", None, "numerator denominator window", "goal", 1_000, False),
    Kind.ACTIVE_UNITS: _rule("other", "Increase", "", "window", 1, False),
    Kind.ACCURACY: _rule("label", "Increase", _LABEL, "", 1_000_000, True),
    Kind.PRECISION: _rule("label", "Increase", _LABEL, "", 1_000_000, True),
    Kind.RECALL: _rule("label", "Increase", _LABEL, "", 1_000_000, True),
    Kind.F1: _rule("label", "Increase", _LABEL, "", 1_000_000, True),
    Kind.AUC: _rule("other", "Increase", _LABEL, "", 1_000_000, False),
    Kind.LOG_LOSS: _rule("label", "Decrease", _LABEL, "", 1_000_000, True),
    Kind.BRIER: _rule("label", "Decrease", _LABEL, "", 1_000_000, True),
    Kind.ABSOLUTE_ERROR: _rule("label", "Decrease", _LABEL, "cap", 1_000, True),
    Kind.SQUARED_ERROR: _rule("label", "Decrease", _LABEL, "cap", 1_000, True),
    Kind.ERROR_RATE: _rule("failures", "Decrease", "", "", 1, True),
    Kind.LATENCY: _rule("latency", "Decrease", "", "quantile", 1, True),
    Kind.RESOURCE: _rule("other", "Decrease", "query", "limit", 1, False),
    Kind.THROUGHPUT: _rule("other", "Increase", "", "", 1, False),
    Kind.DRIFT: _rule("other", "Decrease", "", "", 1, False),
    Kind.DISAGREEMENT: _rule("pair", "Decrease", "", "", 1_000_000, False),
}

# The value is a ratio of two sums, whose lower one the challenger's answers may change.
RATIOS = frozenset({Kind.PRECISION, Kind.RECALL, Kind.F1, Kind.RATIO})
# A row's error has no worst case but the cap, which is what a missing answer costs.
ERRORS = frozenset({Kind.ABSOLUTE_ERROR, Kind.SQUARED_ERROR})
# Label kinds with the same rows in both arms of a mirror, so that two answers have a difference.
PAIRED = frozenset({Kind.ACCURACY, Kind.RECALL, Kind.LOG_LOSS, Kind.BRIER}) | ERRORS
