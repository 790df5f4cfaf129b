"""The sections of a rollout that stand on their own: model, unit, segments, servers, traffic, steps, decision, the end.

What one field may be is said here; what they may be together, in ``spec``.
"""

import re
from enum import StrEnum
from typing import Annotated, Any, Literal, Self
from urllib.parse import urlsplit

from pydantic import BeforeValidator, Field, model_validator

from controller import declared, gauge
from controller.declared import Declared, Name, Pointer, Text, Token, exactly_one
from controller.quantities import SECOND, Duration, PercentField, within
from router.table import HiddenName, split_address

VERSION_PATTERN = r"^[A-Za-z0-9_-]+$"
LARGEST_VERSION = (1 << 31) - 1
MODEL_PATTERN = r"^[^/:\x00-\x1f\x7f]+$"
SERVICE_PATTERN = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"
URL_PATTERN = r"^http://[^/?#@\s\x00-\x1f\x7f]+(/[^?#\s\x00-\x1f\x7f]*)?$"
PATH_PATTERN = r"^/[!-~]*$"
LABEL_PATTERN = r"^[a-zA-Z_][a-zA-Z0-9_]*$"
PATTERNS = {
    **declared.PATTERNS,
    VERSION_PATTERN: "a version number from 1, or an alias of letters, digits, _ and -",
    MODEL_PATTERN: "the name of a registered model, without / and :",
    SERVICE_PATTERN: "the name of a Service or HTTPRoute: lower-case letters, digits, - and .",
    LABEL_PATTERN: "the name of a label: letters, digits and _, not a digit first",
    PATH_PATTERN: "a path such as /invocations, without spaces",
    URL_PATTERN: "an address such as http://127.0.0.1:8081",
}


def _version(value: object) -> str:
    """A version in its one spelling (``03`` is ``3``), or an alias. ValueError for what MLflow can never have."""
    allowed = PATTERNS[VERSION_PATTERN]
    written = str(value) if isinstance(value, int) and abs(value) <= LARGEST_VERSION else value
    if isinstance(value, bool) or not isinstance(written, str):
        raise ValueError(f"{value!r:.40} is neither; allowed is {allowed}")
    if not re.fullmatch(VERSION_PATTERN, written) or len(written) > 255:
        raise ValueError(f"{written!r:.60} is neither; allowed is {allowed}")
    number = re.fullmatch(r"([vV]?)(-?[0-9]+)", written)
    if number is None and written.lower() != "latest":
        return written
    if number is None or number[1]:
        hint = f"; write {number[2]} for the version" if number else ""
        raise ValueError(f"{written!r} is no alias, MLflow keeps it for itself{hint}; allowed is {allowed}")
    if len(number[2]) > 255 or not 1 <= int(number[2]) <= LARGEST_VERSION:
        raise ValueError(f"{written:.40} is no version number; allowed is {allowed}")
    return str(int(number[2]))


VersionOrAlias = Annotated[str, BeforeValidator(_version)]


class Model(Declared):
    """The registered model in MLflow, and which versions meet."""

    name: str = Field(max_length=255, pattern=MODEL_PATTERN, description="registered model in MLflow")
    champion: VersionOrAlias = Field("champion", description="version that serves; a promotion moves only an alias")
    challenger: VersionOrAlias = Field("challenger", description="alias or version number on trial")


class UnitSource(Declared):
    """What is randomised and counted once; exactly one of the four."""

    header: Token | None = Field(None, description="request header that names the unit")
    cookie: Token | None = Field(None, description="cookie that names the unit; minted when absent")
    json_pointer: Pointer | None = Field(None, alias="json", description="JSON pointer into the request body")
    request: Literal[True] | None = Field(
        None, description="each request is a unit of its own; with traffic.gatewayAPI, and only there"
    )

    @model_validator(mode="after")
    def _one(self) -> Self:
        return exactly_one(self, "header", "cookie", "json_pointer", "request")


class Segment(Declared):
    """A slice of requests by one attribute; exactly one source."""

    name: Name
    feature: Text | None = Field(None, max_length=128, description="model input column (first row)")
    header: Token | None = None
    json_pointer: Pointer | None = Field(None, alias="json")
    protected: bool = Field(False, description="harm in one of its values rolls back, with a share of rollbackAlpha")

    @model_validator(mode="after")
    def _one(self) -> Self:
        return exactly_one(self, "feature", "header", "json_pointer")


class Prediction(Declared):
    """Where the score is in an answer, and how a label reads it."""

    json_pointer: Pointer = Field("/predictions/0", alias="json", description="JSON pointer to the score")
    positive: float = Field(1, description="label value that counts as positive")
    threshold: float = Field(0.5, description="score at or above which the prediction is positive")


class Probe(Declared):
    """How every router worker asks a server whether it is ready."""

    path: str = Field("/invocations", max_length=1024, pattern=PATH_PATTERN, description="where the question goes")
    body: str | None = Field(
        None,
        min_length=1,
        max_length=64 << 10,
        description="the model's own example, posted as JSON; else the path is got",
    )


class Server(Declared):
    """A model server that exists already."""

    service: str | None = Field(
        None, max_length=253, pattern=SERVICE_PATTERN, description="Kubernetes Service in the rollout's namespace"
    )
    port: int = Field(8080, ge=1, le=65535)
    url: str | None = Field(
        None, max_length=2048, pattern=URL_PATTERN, description="address, on one machine; refused on a cluster"
    )
    external: bool = Field(False, description="champion only: a rule or service without a registry entry")
    probe: Probe | None = Field(None, description="asked once a second; a challenger not ready gets no traffic")

    @model_validator(mode="after")
    def _one(self) -> Self:
        exactly_one(self, "service", "url")
        if self.url is not None:
            address(self.url)
        return self


def address(url: str) -> tuple[str, int]:
    """Host and port of a server, as the routers read them. ValueError where they could not use it."""
    try:
        host, port = split_address(urlsplit(url).netloc)
    except ValueError:
        raise ValueError(f"{url} has no host and port that can be; allowed is {PATTERNS[URL_PATTERN]}") from None
    return host.lower(), port


class Servers(Declared):
    """Model servers to adopt, or how ours are run; without them the controller runs its own."""

    champion: Server | None = None
    challenger: Server | None = None
    template: dict[str, Any] | None = Field(
        None, description="on a cluster: pod template of the servers the controller owns; its first container serves"
    )
    replicas: int | None = Field(
        None, ge=1, le=1000, description="pods such a server begins with, at least as many as the other has; else 1"
    )
    probe: Probe | None = Field(None, description="how such a server is asked; else its /health")

    @model_validator(mode="after")
    def _of_template(self) -> Self:
        given = [name for name in ("replicas", "probe") if getattr(self, name) is not None]
        if given and self.template is None:
            raise ValueError(f"{given[0]} is about the servers of template, which is missing")
        adopted = [name for name in ("champion", "challenger") if getattr(self, name) is not None]
        if adopted and self.template is not None:
            # The promoted version is the next champion: it would be looked for where another is served.
            raise ValueError(
                f"template is for both servers, so {adopted[0]} has to go; or adopt both without a template"
            )
        return self


class Capture(Declared):
    """What the router writes down of requests and answers."""

    inputs: float = Field(100, ge=0, le=100, description="percent of requests whose bodies are written down")
    answers: float = Field(
        100, ge=0, le=100, description="percent of requests whose answers are; model metrics need all of them"
    )
    failed: bool = Field(True, description="of requests without a usable answer both are written down anyway")
    redact: tuple[HiddenName, ...] = Field(
        (),
        max_length=128,
        description="names of fields of bodies, with a letter or digit, whose values are replaced at any depth",
    )
    redact_defaults: bool = Field(
        True, description="the usual ones as well: password, token, authorization, cookie, email, ssn, card number, …"
    )


class RouterTraffic(Declared):
    """Our router, and what it may hold and wait for."""

    timeout: Annotated[Duration, within(1_000, 3600 * SECOND)] = Field(
        1 * SECOND, description="the challenger's deadline; then the champion answers"
    )
    champion_timeout: Annotated[Duration, within(1_000, 3600 * SECOND)] = Field(
        30 * SECOND, description="the champion's deadline; at least timeout"
    )
    override_header: Token | None = Field(None, description="header that names the arm by hand; off")
    replay_to_champion: bool = Field(True, description="a request the challenger failed goes to the champion")
    replay_bytes: int = Field(1 << 20, ge=0, le=1 << 30)
    judge_bytes: int = Field(1 << 20, ge=0, le=1 << 30)
    capture_bytes: int = Field(64 << 10, ge=0, le=1 << 24)
    capture: Capture = Capture()
    table_ttl: Duration = Field(15 * 60 * SECOND, description="without the controller this long, the champion serves")


class GatewayTraffic(Declared):
    """Weights of an HTTPRoute: no unit sticks, so the only evidence is how many requests of either arm failed."""

    http_route: str = Field(
        max_length=253, pattern=SERVICE_PATTERN, description="HTTPRoute of the rollout's namespace, with both Services"
    )
    requests: Text = Field(
        max_length=2048,
        description="PromQL selector of an arm's counter of requests; $service, $arm tell the arms apart",
    )
    status_label: str = Field(
        "code",
        max_length=128,
        pattern=LABEL_PATTERN,
        description="its label with the HTTP status; what does not begin with 2 has failed",
    )

    @model_validator(mode="after")
    def _selector(self) -> Self:
        strange = gauge.strangers(self.requests, gauge.OF_A_SERVICE)
        if strange:
            allowed = ", ".join(f"${name}" for name in gauge.OF_A_SERVICE)
            raise ValueError(f"{strange[0]} stands for nothing; allowed are {allowed}")
        if not {"arm", "service"} & gauge.placeholders(self.requests):
            raise ValueError("the selector says the same of both arms; $service or $arm in it tells them apart")
        return self


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
    promote_alpha: float = Field(0.05, ge=0.0001, le=0.5, description="probability of promoting a worse challenger")
    rollback_alpha: float = Field(
        0.02, ge=0.0001, le=0.5, description="probability of rolling back an equal challenger"
    )
    min_units: int = Field(2000, ge=1, le=1_000_000_000, description="challenger units a step must have seen")
    min_age: Duration = Field(0)
    max_duration: Duration = Field(14 * 86_400 * SECOND, description="pauses and waits for people do not count")
    on_inconclusive: Ending = Ending.ROLL_BACK
    on_mismatch: Ending = Ending.ROLL_BACK
    mismatch_for: Duration = Field(3600 * SECOND, description="how long a sample-ratio mismatch may stand")
    max_fallback: PercentField = Field(0.01, description="challenger requests of a step that may fall back")
    approve_promotion: bool = False
    tick: Annotated[Duration, within(SECOND // 10, 86_400 * SECOND)] = Field(
        5 * SECOND, description="how often the controller looks"
    )
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

    diagnose: bool = False
    remedy: Literal["Off", "Suggest", "Build"] = "Suggest"


class SecretKey(Declared):
    """A key of a Secret; on one machine the variable ``UNDERSTUDY_SECRET_<NAME>_<KEY>``."""

    name: Name
    key: Text = Field(max_length=253)


class Slack(Declared):
    """An incoming webhook."""

    secret_ref: SecretKey


class Notify(Declared):
    """Where news goes; always also to the log."""

    slack: Slack | None = None
