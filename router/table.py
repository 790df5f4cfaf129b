"""RouteTable: what the controller tells the routers; the wire type of the control API and of the table on disk."""

import re
from typing import Annotated, Literal, Self

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from router.assignment import Arm
from router.hidden_names import words_of

BasisPoints = Annotated[int, Field(ge=0, le=10_000)]
# What every reader of JSON takes for the same number (RFC 8259, section 6).
LARGEST = (1 << 53) - 1
Whole = Annotated[int, Field(ge=0, le=LARGEST)]
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


def _is_token(given: str) -> str:
    """A cookie's name is written into the head of answers as it is; a line break would begin a field of its own."""
    if not _TOKEN.fullmatch(given):
        raise ValueError(f"{given!r} is no name; letters, digits and !#$%&'*+-.^_`|~ are allowed")
    return given


# The name of a header or a cookie (RFC 9110, section 5.6.2; RFC 6265, section 4.1.1).
Token = Annotated[str, Field(max_length=128), AfterValidator(_is_token)]


def _hides(given: str) -> str:
    """Names are looked for by their words: what has none would be taken, and what it was to hide written down."""
    if not words_of(given):
        raise ValueError(f"{given!r:.60} has no letter or digit and would hide nothing; allowed is a name with one")
    return given


# No pattern says it: which signs stand for a letter (ligatures, those in circles) is for Unicode to say.
HiddenName = Annotated[str, Field(min_length=1, max_length=128), AfterValidator(_hides)]


def split_address(address: str) -> tuple[str, int]:
    """Host and port of ``host:port``, ``[v6]:port`` or either after ``http://``. Raises ValueError."""
    plain = address.removeprefix("http://").removesuffix("/")
    host, colon, port = plain.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or not 0 < int(port) < 65_536:
        if "://" in plain or "/" in plain or (colon and not plain.endswith("]")):
            raise ValueError(f"upstream {address!r}: host:port or http://host:port is allowed")
        host, port = plain, "80"
    host = host.removeprefix("[").removesuffix("]")
    if not host or not host.isascii() or any(c in host for c in " /@\r\n\t\\"):
        raise ValueError(f"upstream {address!r}: host:port or http://host:port is allowed")
    try:
        host.encode("idna")  # as a look at its address would
    except UnicodeError:
        raise ValueError(f"upstream {address!r}: no label of a name is empty or longer than 63") from None
    return host, int(port)


class Wire(BaseModel):
    """Base of all wire types: immutable, and a field nobody knows is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Source(Wire):
    """Where a text is found in a request: exactly one of the four."""

    header: Token | None = Field(None, description="request header")
    cookie: Token | None = Field(None, description="cookie; minted by the router when absent")
    json_pointer: str | None = Field(None, max_length=512, description="JSON pointer into the request body")
    feature: str | None = Field(None, max_length=128, description="model input column, first row")

    @model_validator(mode="after")
    def _exactly_one(self) -> Self:
        named = [n for n in ("header", "cookie", "json_pointer", "feature") if getattr(self, n) is not None]
        if len(named) != 1:
            raise ValueError(f"exactly one of header, cookie, json_pointer, feature is needed, not {named or 'none'}")
        return self


class Attribute(Wire):
    """A named text taken from every request into its exposure (segments, covariates)."""

    name: str = Field(max_length=63)
    source: Source


class Probe(Wire):
    """How a model server is asked whether it is ready: the model's own example, or a path that scores it."""

    path: str = Field(max_length=1_024, pattern=r"^/[!-~]*$", description="where the question goes")
    body: str | None = Field(None, max_length=64 << 10, description="posted; without one the path is got")
    content_type: str = Field("application/json", max_length=128, pattern=r"^[!-~][ -~]*$")


class Target(Wire):
    """One arm: the pinned version and where it is served."""

    version: str = Field(max_length=63)
    upstreams: tuple[str, ...] = Field(min_length=1, max_length=256, description="host:port, or http://host:port")
    probe: Probe | None = Field(None, description="each upstream is asked this by every worker; null: not at all")

    @field_validator("upstreams")
    @classmethod
    def _addresses(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        """A table that a worker could not use must not be kept: the next one to start would serve nobody."""
        for address in given:
            split_address(address)
        return given


class Limits(Wire):
    """What the router may hold, and how long it may wait. Bytes and milliseconds."""

    replay_bytes: Whole = Field(1 << 20, description="largest request kept for fallback and mirror")
    judge_bytes: Whole = Field(1 << 20, description="largest challenger answer held until it is judged")
    capture_bytes: Whole = Field(64 << 10, description="prefix of each body that goes into the journal")
    challenger_timeout_ms: int = Field(1_000, ge=1, le=LARGEST)
    champion_timeout_ms: int = Field(
        30_000, ge=1, le=LARGEST, validate_default=True, description="at least challenger_timeout_ms"
    )

    @field_validator("champion_timeout_ms")
    @classmethod
    def _as_long_for_both(cls, given: int, found: ValidationInfo) -> int:
        """Both arms are judged by the challenger's deadline: with less, the champion would fail where that does not."""
        least = found.data.get("challenger_timeout_ms", 1)
        if given < least:
            raise ValueError(f"{given} is below challenger_timeout_ms; allowed is at least {least}")
        return given


class Capture(Wire):
    """Which bodies go into the journal, and which of their fields never do.

    A request is drawn by its id, so the shares are the same for both arms, and in a mirror for both answers.
    """

    redact: tuple[HiddenName, ...] = Field(
        (),
        max_length=128,
        description="names of fields, with a letter or digit, whose values are replaced wherever they stand in a body",
    )
    redact_defaults: bool = Field(True, description="the router's own list of such names applies as well")
    inputs_bp: BasisPoints = Field(10_000, description="share of requests whose bodies are kept")
    answers_bp: BasisPoints = Field(10_000, description="share of requests whose answers are kept")
    failed: bool = Field(True, description="of a request that its arm did not answer usably both are kept anyway")


class RouteTable(Wire):
    """One allocation of traffic, complete: a router needs nothing else to serve it.

    ``generation`` grows by one with every table of a router's life; a router refuses an older one than it has.
    ``champion`` and ``challenger`` name the versions pinned for the attempt until the rollout ends.
    """

    generation: Whole
    rollout: str = Field(max_length=253, description="name of the rollout")
    attempt: Whole = 0
    epoch: Whole = Field(0, description="the allocation's number within the rollout")
    salt: str = Field(max_length=253)
    champion: Target
    challenger: Target | None = None
    weight_bp: BasisPoints = 0
    control_from_bp: BasisPoints = 10_000
    counted_bp: BasisPoints = Field(
        10_000, description="challenger units from here on are served by it without being evidence (holdback)"
    )
    mirror_bp: BasisPoints = Field(0, description="share of units whose requests the challenger answers unseen")
    unit: Source
    attributes: tuple[Attribute, ...] = Field((), max_length=16)
    override_header: Token | None = Field(None, description="header that names the arm by hand; off when null")
    replay_to_champion: bool = Field(
        True,
        description="a request the challenger failed is sent again to the champion; off: the failure passes on",
    )
    limits: Limits = Limits()
    capture: Capture = Capture()
    ttl_s: int = Field(
        900, ge=1, le=LARGEST, description="without word from the controller this long, the champion serves all"
    )

    @model_validator(mode="after")
    def _coherent(self) -> Self:
        if self.challenger is None and (self.weight_bp or self.mirror_bp):
            raise ValueError("weight_bp and mirror_bp need a challenger")
        if self.weight_bp > self.control_from_bp:
            raise ValueError(f"weight_bp {self.weight_bp} is above control_from_bp {self.control_from_bp}")
        return self


class WorkerState(Wire):
    """What one router worker says of itself."""

    worker: str
    generation: int = Field(ge=-1, le=LARGEST)
    breaker: Literal["closed", "open", "half-open"] = "closed"
    breaker_open_ms: int = Field(0, ge=0, le=LARGEST, description="total time open in this attempt")
    dropped: int = Field(0, ge=0, description="exposures that never reached the journal")


class RouterState(Wire):
    """Answer of ``GET /v1/state``: which table every worker serves, and its breaker."""

    router: str
    generation: int = Field(ge=-1, le=LARGEST)
    workers: tuple[WorkerState, ...]

    @property
    def confirmed(self) -> int:
        """The newest generation that every worker serves; -1 without workers."""
        return min((w.generation for w in self.workers), default=-1)


__all__ = [
    "Arm",
    "Attribute",
    "Capture",
    "Limits",
    "Probe",
    "RouteTable",
    "RouterState",
    "Source",
    "Target",
    "WorkerState",
]
