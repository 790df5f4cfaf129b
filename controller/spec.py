"""What a user declares: one ``ModelRollout``, the source of the CRD, the JSON Schema and the README's field table.

Every model is frozen and refuses unknown fields. YAML names are camelCase, Python names snake_case. ``specfile`` reads
them from YAML.
"""

from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel

from controller.declared import Declared, Name, exactly_one
from controller.kinds import KINDS
from controller.metric import Metric, Role
from controller.quantities import SECOND, Duration, PercentField

API_VERSION: Literal["understudy.dev/v1alpha1"] = "understudy.dev/v1alpha1"
VersionOrAlias = Annotated[
    str,
    BeforeValidator(lambda v: str(v) if isinstance(v, int) and not isinstance(v, bool) else v),
    Field(min_length=1, max_length=255, pattern=r"^[A-Za-z0-9_-]+$"),
]


class Model(Declared):
    """The registered model in MLflow, and which versions meet."""

    name: str = Field(min_length=1, max_length=255, description="registered model in MLflow")
    champion: VersionOrAlias = Field("champion", description="alias or version number that serves")
    challenger: VersionOrAlias = Field("challenger", description="alias or version number on trial")


class UnitSource(Declared):
    """What is randomised and counted once; exactly one of the three."""

    header: str | None = Field(None, max_length=128, description="request header that names the unit")
    cookie: str | None = Field(None, max_length=128, description="cookie that names the unit; minted when absent")
    json_pointer: str | None = Field(
        None, alias="json", max_length=512, description="JSON pointer into the request body"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        return exactly_one(self, "header", "cookie", "json_pointer")


class Segment(Declared):
    """A slice of requests by one attribute; exactly one source."""

    name: Name
    feature: str | None = Field(None, max_length=128, description="model input column (first row)")
    header: str | None = Field(None, max_length=128)
    json_pointer: str | None = Field(None, alias="json", max_length=512)
    protected: bool = Field(False, description="harm in one of its values rolls back, with a share of rollbackAlpha")

    @model_validator(mode="after")
    def _one(self) -> Self:
        return exactly_one(self, "feature", "header", "json_pointer")


class Prediction(Declared):
    """Where the score is in an answer, and how a label reads it."""

    json_pointer: str = Field("/predictions/0", alias="json", max_length=512, description="JSON pointer to the score")
    positive: float = Field(1, description="label value that counts as positive")
    threshold: float = Field(0.5, description="score at or above which the prediction is positive")


class Probe(Declared):
    """How every router worker asks a server whether it is ready."""

    path: str = Field("/invocations", max_length=1024, pattern=r"^/[!-~]*$", description="where the question goes")
    body: str | None = Field(
        None,
        min_length=1,
        max_length=64 << 10,
        description="the model's own example, posted as JSON; else the path is got",
    )


class Server(Declared):
    """A model server that exists already."""

    service: str | None = Field(None, max_length=253, description="Kubernetes Service in the rollout's namespace")
    port: int = Field(8080, ge=1, le=65535)
    url: str | None = Field(None, max_length=2048, pattern=r"^http://", description="address, on one machine")
    external: bool = Field(False, description="champion only: a rule or service without a registry entry")
    probe: Probe | None = Field(None, description="asked once a second; a challenger not ready gets no traffic")

    @model_validator(mode="after")
    def _one(self) -> Self:
        return exactly_one(self, "service", "url")


class Servers(Declared):
    """Model servers to adopt; without them the controller runs its own."""

    champion: Server | None = None
    challenger: Server | None = None
    template: dict[str, Any] | None = Field(None, description="pod template of the servers the controller owns")


class Capture(Declared):
    """What the router writes down of requests and answers."""

    inputs: float = Field(100, ge=0, le=100, description="percent of requests whose bodies are written down")
    answers: float = Field(
        100, ge=0, le=100, description="percent of requests whose answers are; model metrics need all of them"
    )
    failed: bool = Field(True, description="of requests without a usable answer both are written down anyway")
    redact: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = Field(
        (), max_length=128, description="names of fields of request bodies whose values are replaced at any depth"
    )
    redact_defaults: bool = Field(
        True, description="the usual ones as well: password, token, authorization, cookie, email, ssn, card number, …"
    )


class RouterTraffic(Declared):
    """Our router, and what it may hold and wait for."""

    timeout: Duration = Field(1 * SECOND, description="the challenger's deadline; then the champion answers")
    champion_timeout: Duration = Field(30 * SECOND, description="the champion's deadline")
    override_header: str | None = Field(None, max_length=128, description="header that names the arm by hand; off")
    replay_to_champion: bool = Field(True, description="a request the challenger failed goes to the champion")
    replay_bytes: int = Field(1 << 20, ge=0, le=1 << 30)
    judge_bytes: int = Field(1 << 20, ge=0, le=1 << 30)
    capture_bytes: int = Field(64 << 10, ge=0, le=1 << 24)
    capture: Capture = Capture()
    table_ttl: Duration = Field(15 * 60 * SECOND, description="without the controller this long, the champion serves")


class GatewayTraffic(Declared):
    """Weights of an HTTPRoute: no unit sticks, so only request-level evidence."""

    http_route: Name


class Traffic(Declared):
    """Who splits the traffic."""

    router: RouterTraffic | None = None
    gateway_api: GatewayTraffic | None = Field(None, alias="gatewayAPI")

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.router is not None and self.gateway_api is not None:
            raise ValueError("router and gatewayAPI exclude each other")
        return self


class Step(Declared):
    """One rung of the plan: a mirror or a weight, in percent."""

    mirror: float | None = Field(None, gt=0, le=100, description="percent of units whose requests are mirrored")
    weight: float | None = Field(None, gt=0, le=95, description="percent of units sent to the challenger")
    hold: Duration = Field(3600 * SECOND, description="least time in this step")
    approve: bool = Field(False, description="a person must approve before this step is applied")

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, "mirror", "weight")
        if abs(self.percent * 100 - round(self.percent * 100)) > 1e-9 or self.bp < 1:
            raise ValueError(f"{self.percent:g} is finer than 0.01, the smallest difference in weight")
        return self

    @property
    def percent(self) -> float:
        return self.weight if self.weight is not None else self.mirror or 0.0

    @property
    def bp(self) -> int:
        """The weight or mirror share in basis points."""
        return round(self.percent * 100)


class Mode(StrEnum):
    """What a challenger must show."""

    NON_INFERIOR = "NonInferior"
    SUPERIOR = "Superior"


class Ending(StrEnum):
    """What follows when time is up or the split is broken."""

    ROLL_BACK = "RollBack"
    HOLD = "Hold"


class Decision(Declared):
    """How much evidence, and how long."""

    mode: Mode = Mode.NON_INFERIOR
    promote_alpha: float = Field(0.05, gt=0, le=0.5, description="probability of promoting a worse challenger")
    rollback_alpha: float = Field(0.02, gt=0, le=0.5, description="probability of rolling back an equal challenger")
    min_units: int = Field(2000, ge=1, description="challenger units a step must have seen")
    min_age: Duration = Field(0)
    max_duration: Duration = Field(14 * 86_400 * SECOND, description="pauses and waits for people do not count")
    on_inconclusive: Ending = Ending.ROLL_BACK
    on_mismatch: Ending = Ending.ROLL_BACK
    mismatch_for: Duration = Field(3600 * SECOND, description="how long a sample-ratio mismatch may stand")
    max_fallback: PercentField = Field(0.01, description="challenger requests of a step that may fall back")
    approve_promotion: bool = False
    tick: Duration = Field(5 * SECOND, ge=100_000, description="how often the controller looks")
    block: Duration | None = Field(None, description="slice of evidence; default min(10m, shortest weighted hold / 30)")
    grace: Duration = Field(30 * SECOND, description="how late an outcome may be delivered after its window")


class Alert(Declared):
    """A bound on the promoted champion's own metric."""

    metric: Name
    below: PercentField | None = None
    above: PercentField | None = None
    for_: Duration = Field(3600 * SECOND, alias="for")


class Watch(Declared):
    """What the finished rollout keeps watching."""

    alerts: tuple[Alert, ...] = Field((), max_length=16)


class AfterPromotion(Declared):
    """The old champion keeps a little traffic as the control for late harm."""

    holdback: float = Field(5, ge=0, le=50, description="percent that stays with the old champion; 0: none")
    hold: Duration = Field(7 * 86_400 * SECOND)
    watch: Watch | None = None


class OnRollback(Declared):
    """What follows a rollback."""

    diagnose: bool = True
    remedy: Literal["Off", "Suggest", "Build"] = "Suggest"


class SecretKey(Declared):
    """A key of a Secret; on one machine the variable ``UNDERSTUDY_SECRET_<NAME>_<KEY>``."""

    name: Name
    key: str = Field(min_length=1, max_length=253)


class Slack(Declared):
    """An incoming webhook."""

    secret_ref: SecretKey


class Notify(Declared):
    """Where news goes; always also to the log."""

    slack: Slack | None = None


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
        weights = [s.bp for s in self.steps if s.weight is not None]
        mirrors = [i for i, s in enumerate(self.steps) if s.mirror is not None]
        if not weights:
            raise ValueError("steps: at least one step needs a weight; a mirror alone cannot promote")
        if weights != sorted(weights):
            raise ValueError(f"steps: weights must not decrease, got {[w / 100 for w in weights]}")
        if mirrors != list(range(len(mirrors))):
            raise ValueError("steps: mirror steps come before every weight")
        for field, names in (
            ("metrics", [m.name for m in self.metrics]),
            ("segments", [s.name for s in self.segments]),
        ):
            twice = sorted({n for n in names if names.count(n) > 1})
            if twice:
                raise ValueError(f"{field}: names must differ, {', '.join(twice)} stands twice")
        if not any(m.role in (Role.SUCCESS, Role.GUARDRAIL) for m in self.metrics):
            raise ValueError("metrics: at least one Guardrail or Success is needed, else nothing could be proven")
        if self.decision.mode is Mode.SUPERIOR and not any(m.role is Role.SUCCESS for m in self.metrics):
            raise ValueError("decision.mode: Superior needs a metric with role Success")
        block = self.decision.block
        if block is not None and block < self.decision.tick:
            raise ValueError("decision.block: must not be shorter than decision.tick")
        same = self.model.champion == self.model.challenger
        if same and not self.allow_same_version:
            raise ValueError(
                f"model.challenger: is {self.model.challenger!r} like the champion; "
                "allowSameVersion: true makes it an A/A run"
            )
        if self.servers and self.servers.challenger and self.servers.challenger.external:
            raise ValueError("servers.challenger.external: only a champion may be external")
        router = self.traffic.router
        scored = [m.name for m in self.metrics if KINDS[m.kind].family in ("label", "pair")]
        if router is not None and router.capture.answers < 100 and scored:
            raise ValueError(
                f"traffic.router.capture.answers: {scored[0]} reads the score from every answer, so 100 is needed"
            )
        hold_back = self.after_promotion.holdback if self.after_promotion else 0
        if hold_back * 100 > 10_000 - max(weights):
            raise ValueError(
                f"afterPromotion.holdback: {hold_back:g} is more than the reserved control of "
                f"{100 - max(weights) / 100:g}"
            )
        return self

    @property
    def largest_bp(self) -> int:
        """w_max: the control is reserved from here on, in basis points."""
        return max(s.bp for s in self.steps if s.weight is not None)

    @property
    def block(self) -> int:
        """Length of an outcome block in microseconds: declared, or from the shortest weighted hold."""
        if self.decision.block is not None:
            return self.decision.block
        shortest = min(s.hold for s in self.steps if s.weight is not None)
        return max(min(600 * SECOND, shortest // 30), self.decision.tick)

    def metric(self, name: str) -> Metric:
        """The metric called ``name``; KeyError without one."""
        return next((m for m in self.metrics if m.name == name), None) or _missing(name)


class Metadata(Declared):
    """Name and labels, as Kubernetes has them; other fields of ObjectMeta are left to the server."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)

    name: Name
    namespace: str | None = None
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}


class ModelRollout(Declared):
    """One rollout, as applied."""

    api_version: Literal["understudy.dev/v1alpha1"] = API_VERSION
    kind: Literal["ModelRollout"] = "ModelRollout"
    metadata: Metadata
    spec: RolloutSpec


def _missing(name: str) -> Any:
    raise KeyError(name)
