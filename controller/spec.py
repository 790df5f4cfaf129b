"""What a user declares: one ``ModelRollout``, the source of the CRD, the JSON Schema and the README's field table.

Every model is frozen and refuses unknown fields. YAML names are camelCase, Python names snake_case. ``specfile`` reads
them from YAML.
"""

from collections.abc import Iterator
from typing import Any, Literal, Self

from pydantic import Field, model_validator

from controller.declared import Declared, Fault, Name, refuse
from controller.gauge import built_in
from controller.kinds import KINDS, SCORED, Kind
from controller.metric import Covariate, Metric, Role
from controller.quantities import SECOND, format_duration
from controller.sections import (
    AfterPromotion,
    Alert,
    Capture,
    Decision,
    Ending,
    GatewayTraffic,
    Mode,
    Model,
    Notify,
    OnRollback,
    Prediction,
    Probe,
    RouterTraffic,
    SecretKey,
    Segment,
    Server,
    Servers,
    Slack,
    Step,
    Traffic,
    UnitSource,
    Watch,
    address,
)

__all__ = [
    "API_VERSION",
    "AfterPromotion",
    "Alert",
    "Capture",
    "Covariate",
    "Decision",
    "Ending",
    "GatewayTraffic",
    "Metadata",
    "Mode",
    "Model",
    "ModelRollout",
    "Notify",
    "OnRollback",
    "Prediction",
    "Probe",
    "RolloutSpec",
    "RouterTraffic",
    "SecretKey",
    "Segment",
    "Server",
    "Servers",
    "Slack",
    "Step",
    "Traffic",
    "UnitSource",
    "Watch",
]

API_VERSION: Literal["understudy.dev/v1alpha1"] = "understudy.dev/v1alpha1"


JUDGING = (Role.SUCCESS, Role.GUARDRAIL)
MOST_COVARIATES = 8  # different ones: each is looked for in every request
# Fields of ObjectMeta that the API server writes.
SERVERS_OWN = (
    "creationTimestamp", "deletionGracePeriodSeconds", "deletionTimestamp", "finalizers", "generateName", "generation",
    "managedFields", "ownerReferences", "resourceVersion", "selfLink", "uid",
)  # fmt: skip


class RolloutSpec(Declared):
    """The plan of one rollout."""

    model: Model
    unit: UnitSource
    segments: tuple[Segment, ...] = Field((), max_length=8)
    prediction: Prediction = Prediction()
    servers: Servers | None = None
    traffic: Traffic = Traffic()
    steps: tuple[Step, ...] = Field(min_length=1, max_length=32)
    metrics: tuple[Metric, ...] = Field(min_length=1, max_length=64)
    decision: Decision = Decision()
    after_promotion: AfterPromotion | None = None
    on_rollback: OnRollback = OnRollback()
    notify: Notify = Notify()
    allow_same_version: bool = Field(False, description="an A/A run: ends Held with its figures, never promoted")

    @model_validator(mode="after")
    def _plan(self) -> Self:
        refuse([*_ramp(self), *_times(self), *_judges(self), *_servers(self), *_gateway(self)])
        return self

    @property
    def largest_bp(self) -> int:
        """w_max: the control is reserved from here on, in basis points."""
        return max(s.bp for s in self.steps if s.weight is not None)

    def control_bp(self, weight_bp: int) -> int:
        """From where on units are the control at a weight: reserved is what no step reaches. Requests that are units of
        their own never come back, so nothing has to be kept for them."""
        return self.largest_bp if self.traffic.gateway_api is None else weight_bp

    @property
    def block(self) -> int:
        """Length of an outcome block in microseconds: declared, or from the shortest weighted hold."""
        if self.decision.block is not None:
            return self.decision.block
        shortest = min(s.hold for s in self.steps if s.weight is not None)
        return max(min(600 * SECOND, shortest // 30), self.decision.tick)

    @property
    def covariates(self) -> tuple[Covariate, ...]:
        """The different covariates of all metrics, in their order."""
        return tuple(dict.fromkeys(m.covariate for m in self.metrics if m.covariate is not None))

    def metric(self, name: str) -> Metric:
        """The metric called ``name``; KeyError without one."""
        return next((m for m in self.metrics if m.name == name), None) or _missing(name)


class Metadata(Declared):
    """Name and labels, as Kubernetes has them; what the API server adds is passed over."""

    name: Name
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}

    @model_validator(mode="before")
    @classmethod
    def _without_the_servers_own(cls, given: Any) -> Any:
        return {k: v for k, v in given.items() if k not in SERVERS_OWN} if isinstance(given, dict) else given


class ModelRollout(Declared):
    """One rollout, as applied."""

    api_version: Literal["understudy.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelRollout"] = "ModelRollout"
    metadata: Metadata
    spec: RolloutSpec


def _missing(name: str) -> Any:
    raise KeyError(name)


def _ramp(spec: RolloutSpec) -> Iterator[Fault]:
    weights = [s.bp for s in spec.steps if s.weight is not None]
    mirrors = [i for i, s in enumerate(spec.steps) if s.mirror is not None]
    if not weights:
        yield Fault("steps", "at least one step needs a weight; a mirror alone cannot promote")
    if weights != sorted(weights):
        yield Fault("steps", f"weights must not decrease, got {[w / 100 for w in weights]}")
    if mirrors != list(range(len(mirrors))):
        yield Fault("steps", "mirror steps come before every weight")
    hold_back = spec.after_promotion.holdback if spec.after_promotion else 0
    control = 100 - max(weights, default=0) / 100
    if hold_back > control:
        yield Fault("afterPromotion.holdback", f"{hold_back:g} is more than the reserved control of {control:g}")


def _times(spec: RolloutSpec) -> Iterator[Fault]:
    decision, holds = spec.decision, [s.hold for s in spec.steps]
    longest = format_duration(decision.max_duration)
    if decision.block is not None and decision.block < decision.tick:
        yield Fault(
            "decision.block", f"must not be shorter than decision.tick, which is {format_duration(decision.tick)}"
        )
    if decision.block is not None and decision.block > max(holds):
        text = f"{format_duration(decision.block)} is longer than every step's hold; a step would end without evidence"
        yield Fault("decision.block", text)
    if decision.max_duration < decision.tick:
        yield Fault("decision.maxDuration", f"{longest} must not be shorter than decision.tick")
    if sum(holds) > decision.max_duration:
        text = (
            f"their holds add up to {format_duration(sum(holds))}, more than decision.maxDuration, which is {longest}"
        )
        yield Fault("steps", f"{text}: the last step could never end")
    if decision.min_age > decision.max_duration:
        text = f"{format_duration(decision.min_age)} is longer than decision.maxDuration, which is {longest}"
        yield Fault("decision.minAge", text)
    for i, metric in enumerate(spec.metrics):
        if metric.role in JUDGING and metric.kind != "Resource" and (metric.window or 0) >= decision.max_duration:
            text = (
                f"{format_duration(metric.window or 0)} must be shorter than decision.maxDuration, which is {longest}"
            )
            yield Fault(f"metrics.{i}.window", f"{text}: no outcome would ever count")
    router = spec.traffic.router
    if router is not None and router.table_ttl <= decision.tick:
        text = (
            f"{format_duration(router.table_ttl)} must be longer than decision.tick, or the champion alone would serve"
        )
        yield Fault("traffic.router.tableTtl", text)
    if router is not None and router.champion_timeout < router.timeout:
        had = format_duration(router.champion_timeout)
        shown = had if "champion_timeout" in router.model_fields_set else f"its default of {had}"
        text = f"{shown} is shorter than timeout, which is {format_duration(router.timeout)}; allowed is at least that"
        yield Fault("traffic.router.championTimeout", f"{text}, or of two equal servers the champion would fail more")


def _judges(spec: RolloutSpec) -> Iterator[Fault]:
    for field, names in (
        ("metrics", [m.name for m in spec.metrics]),
        ("segments", [s.name for s in spec.segments]),
    ):
        twice = sorted({n for n in names if names.count(n) > 1})
        if twice:
            yield Fault(field, f"names must differ, {', '.join(twice)} stands twice")
    shown = [m for m in spec.metrics if KINDS[m.kind].family != "pair"]
    if not any(m.role in JUDGING and m.compared for m in shown):
        seen = " that is not only seen in a mirror" if len(shown) < len(spec.metrics) else ""
        limits = " with a margin" if any(m.role in JUDGING for m in shown) else ""
        text = f"at least one Guardrail or Success{limits}{seen} is needed, else nothing could be proven"
        yield Fault("metrics", text)
    for i, metric in enumerate(spec.metrics):
        if KINDS[metric.kind].family == "pair" and all(s.mirror is None for s in spec.steps):
            yield Fault(f"metrics.{i}.kind", f"{metric.kind} is only seen in a mirror, and steps has none")
    if len(spec.covariates) > MOST_COVARIATES:
        text = f"the metrics have {len(spec.covariates)} different covariates; at most {MOST_COVARIATES} are allowed"
        yield Fault("metrics", text)
    if spec.decision.mode is not Mode.SUPERIOR:
        return
    if not any(m.role is Role.SUCCESS for m in spec.metrics):
        yield Fault("decision.mode", "Superior needs a metric with role Success")
    for i, metric in enumerate(spec.metrics):
        if metric.role is Role.SUCCESS and KINDS[metric.kind].family in ("failures", "latency"):
            text = f"kind {metric.kind} is never proven better, which decision.mode: Superior asks of a Success"
            yield Fault(f"metrics.{i}.role", f"{text}; make it a Guardrail")


def _servers(spec: RolloutSpec) -> Iterator[Fault]:
    model, servers = spec.model, spec.servers
    if model.champion == model.challenger and not spec.allow_same_version:
        text = f"is {model.challenger!r} like the champion; allowSameVersion: true makes it an A/A run"
        yield Fault("model.challenger", text)
    if servers and servers.challenger and servers.challenger.external:
        yield Fault("servers.challenger.external", "only a champion may be external")
    if servers and servers.champion and servers.challenger and not spec.allow_same_version:
        a, b = servers.champion, servers.challenger
        if a.url is not None and b.url is not None and address(a.url) == address(b.url):
            yield Fault("servers.challenger.url", f"{b.url} is the champion's server too; each version needs its own")
        if a.service is not None and (a.service, a.port) == (b.service, b.port):
            yield Fault("servers.challenger.service", f"{b.service} is the champion's too; each version needs its own")
    yield from _adopted(spec)
    router = spec.traffic.router
    override = router.override_header if router else None
    scored = [m.name for m in spec.metrics if KINDS[m.kind].family in SCORED]
    if router is not None and router.capture.answers < 100 and scored:
        text = f"{scored[0]} reads the score from every answer, so 100 is needed"
        yield Fault("traffic.router.capture.answers", text)
    if override is not None and override.lower() == (spec.unit.header or "").lower():
        text = f"{override} is unit.header too; a header that names the arm cannot name the unit"
        yield Fault("traffic.router.overrideHeader", text)


def _adopted(spec: RolloutSpec) -> Iterator[Fault]:
    """On one machine, the processes of somebody else's server are not ours to measure."""
    servers = {arm: getattr(spec.servers, arm, None) for arm in ("challenger", "champion")}
    adopted = [arm for arm, server in servers.items() if server is not None and server.url is not None]
    for i, metric in enumerate(spec.metrics):
        ours = metric.query is not None and built_in(metric.query)
        if ours and adopted and ("challenger" in adopted or metric.compared):
            text = f"{metric.query} is measured at our own servers, and servers.{adopted[0]} is adopted"
            yield Fault(f"metrics.{i}.query", f"{text}; write a query of PromQL")


def _gateway(spec: RolloutSpec) -> Iterator[Fault]:
    """What cannot hold where a gateway draws each request anew and tells nobody what it was: no unit, no attribute, no
    answer, no second request. Two counters for each arm are all that is known."""
    if spec.traffic.gateway_api is None:
        if spec.unit.request is not None:
            yield Fault("unit.request", "needs traffic.gatewayAPI; the router takes one of header, cookie, json")
        return
    only = "with traffic.gatewayAPI"
    if spec.unit.request is None:
        text = f"{only} no unit sticks to an arm; allowed is request: true"
        yield Fault("unit", text)
    if spec.segments:
        yield Fault("segments", f"{only} nothing is known of a request but its arm and its status; leave them out")
    for i, step in enumerate(spec.steps):
        if step.mirror is not None:
            yield Fault(f"steps.{i}.mirror", f"{only} no two answers can be compared; allowed is weight")
    for i, metric in enumerate(spec.metrics):
        if metric.kind is not Kind.ERROR_RATE:
            text = f"{only} there is no journal for {metric.kind} to be read from; allowed is {Kind.ERROR_RATE}"
            yield Fault(f"metrics.{i}.kind", text)
    servers = spec.servers or Servers()
    if servers.template is not None:
        text = f"{only} the two servers are Services that its route names; allowed are champion and challenger"
        yield Fault("servers.template", text)
        return
    for arm, server in (("champion", servers.champion), ("challenger", servers.challenger)):
        if server is None or server.service is None:
            yield Fault(f"servers.{arm}.service", f"is missing; {only} it is a Service that the route names")
    a, b = servers.champion, servers.challenger
    if a and b and a.service is not None and (a.service, a.port) == (b.service, b.port) and spec.allow_same_version:
        yield Fault("servers.challenger.service", f"{b.service} is the champion's too; {only} each arm needs its own")
