"""A metric as declared: a quantity per unit or request, its role, and how much worse is still not worse."""

from enum import StrEnum
from typing import Any, Self

from pydantic import Field, model_validator

from controller.declared import Declared, Name, Pointer, Text, Token, exactly_one
from controller.kinds import KINDS, Kind
from controller.quantities import CapField, Duration, LimitField, MarginField


class Role(StrEnum):
    """What a metric may do to the rollout."""

    SUCCESS = "Success"
    GUARDRAIL = "Guardrail"
    SIGNAL = "Signal"
    OBSERVE = "Observe"


class Goal(StrEnum):
    """The good direction."""

    INCREASE = "Increase"
    DECREASE = "Decrease"


class Baseline(Declared):
    """The champion's usual values, where the user knows them; else they are measured and frozen."""

    mean: float | None = Field(None, description="mean per unit or request, in the metric's unit")
    cap: float | None = Field(None, gt=0, description="value above which an outcome's sum is cut")
    latencies: tuple[float, ...] = Field((), max_length=5, description="p50 p90 p95 p99 p99.9 in milliseconds")


class Covariate(Declared):
    """Where a unit's number is in its requests, known before the answer (CUPED); exactly one source."""

    feature: Text | None = Field(None, max_length=128, description="model input column (first row)")
    header: Token | None = Field(None, description="request header")
    json_pointer: Pointer | None = Field(None, alias="json", description="JSON pointer into the request body")

    @model_validator(mode="before")
    @classmethod
    def _with_its_source(cls, given: Any) -> Any:
        if isinstance(given, str):
            raise ValueError(
                f"{given!r:.60} does not say where it is; write {{feature: …}}, {{header: …}} or {{json: /…}}"
            )
        return given

    @model_validator(mode="after")
    def _one(self) -> Self:
        return exactly_one(self, "feature", "header", "json_pointer")

    @property
    def text(self) -> str:
        """The column, header or pointer, as declared."""
        return self.feature or self.header or self.json_pointer or ""


class Metric(Declared):
    """A quantity per unit or request, and what it may do. Which fields go with which kind: see ``kinds``."""

    name: Name
    kind: Kind
    role: Role = Role.GUARDRAIL
    goal: Goal | None = Field(None, description="good direction; fixed for model and service kinds")
    margin: MarginField | None = Field(None, description="how much worse is still not worse: 0.05pp, 2%, 0.01")
    harm_margin: MarginField | None = Field(None, description="harm is proven when worse than this")
    outcome: Text | None = Field(None, max_length=63, description="name of the outcome")
    numerator: Text | None = Field(None, max_length=63, description="Ratio: outcome summed above")
    denominator: Text | None = Field(None, max_length=63, description="Ratio: outcome, or `requests`")
    window: Duration | None = Field(
        None,
        description="outcomes later than this after the exposure do not count; Resource: length of a window (1m)",
    )
    cap: CapField | None = Field(
        None,
        description="quantile of the champion's values, or a value, at which a unit's sum is cut",
    )
    quantile: float | None = Field(None, gt=0, lt=1, description="Latency: the quantile judged (0.99)")
    covariate: Covariate | None = Field(
        None, description="number that comes with a unit's first request, known before it; makes estimates sharper"
    )
    query: Text | None = Field(
        None,
        max_length=2048,
        description="Resource: `memory` or `cpu` of our own servers, or PromQL with `$arm`, `$version`, `$rollout`",
    )
    limit: LimitField | None = Field(
        None, description="Resource, Latency (milliseconds): rolls back when 3 of the last 5 windows are above it"
    )
    baseline: Baseline | None = None

    @model_validator(mode="after")
    def _fields_of_kind(self) -> Self:
        KINDS[self.kind].check(self)
        return self

    @property
    def compared(self) -> bool:
        """Whether the arms are compared; else its limit alone decides, or it is only shown."""
        return self.margin is not None or (self.limit is None and self.kind is not Kind.RESOURCE)

    @property
    def decreasing(self) -> bool:
        """True where less is better."""
        fixed = KINDS[self.kind].goal
        return (fixed or (self.goal or Goal.INCREASE).value) == "Decrease"
