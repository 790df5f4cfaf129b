"""What the controller remembers of a rollout: ``RolloutStatus``, its conditions, and the closed set of reasons.

Status is the memory of the loop and the commit point of every decision: the process may die between any two lines
and the next tick goes on from here. Times are microseconds since the epoch. Large or fast-changing numbers live in
the journal, the engine and MLflow, not here.
"""

from enum import StrEnum
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from pydantic.alias_generators import to_camel

from router.table import Probe, RouteTable


class Kept(BaseModel):
    """Base of everything in status: immutable, camelCase, and an unknown field is an error."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Progress(StrEnum):
    """Where a rollout stands. The last three are terminal for the attempt."""

    PENDING = "Pending"  # versions or servers are not there yet
    RUNNING = "Running"  # mirror or weights
    PROMOTING = "Promoting"
    HOLDBACK = "Holdback"
    ROLLING_BACK = "RollingBack"
    PROMOTED = "Promoted"
    ROLLED_BACK = "RolledBack"
    HELD = "Held"  # an A/A run that ended

    @property
    def terminal(self) -> bool:
        return self in (Progress.PROMOTED, Progress.ROLLED_BACK, Progress.HELD)


# Users may meet the version on trial.
SPLIT = (Progress.RUNNING, Progress.PROMOTING, Progress.HOLDBACK, Progress.ROLLING_BACK)


class Verb(StrEnum):
    """What is decided at a tick."""

    HOLD = "Hold"
    ADVANCE = "Advance"
    PROMOTE = "Promote"
    ROLL_BACK = "RollBack"


class Reason(StrEnum):
    """Why. CamelCase, closed; people and alerts match on it."""

    # Hold
    REGISTRY_UNAVAILABLE = "RegistryUnavailable"
    MODEL_MISSING = "ModelMissing"
    VERSION_MISSING = "VersionMissing"
    SAME_VERSION = "SameVersion"
    NO_SIGNATURE = "NoSignature"
    SERVERS_NOT_READY = "ServersNotReady"
    NOT_CONFIRMED = "NotConfirmed"
    PAUSED = "Paused"
    AWAITING_APPROVAL = "AwaitingApproval"
    HOLD_TIME = "HoldTime"
    MIN_UNITS = "MinUnits"
    MIN_AGE = "MinAge"
    NO_DATA = "NoData"
    GATE = "Gate"  # an estimate is too far on the bad side to widen
    NOT_PROVEN = "NotProven"
    LAST_EPOCH_WORSE = "LastEpochWorse"
    CHALLENGER_UNAVAILABLE = "ChallengerUnavailable"
    SAMPLE_RATIO_MISMATCH = "SampleRatioMismatch"
    JOIN_LOSS = "JoinLoss"
    STALE = "Stale"
    OVERLAPPING_UNITS = "OverlappingUnits"
    SIGNAL = "Signal"  # a Signal metric is on the bad side; resumes by itself
    SAME_VERSION_ENDS = "SameVersionEnds"
    INVALID_SPEC = "InvalidSpec"  # on a cluster: the object is stored, and cannot be understood
    MODEL_TAKEN = "ModelTaken"  # on a cluster: another rollout releases this model
    ROUTE_TAKEN = "RouteTaken"  # on a cluster: another rollout splits this HTTPRoute between one of its Services
    MODEL_NOT_ALLOWED = "ModelNotAllowed"  # on a cluster: this namespace may not release this model
    # Advance, Promote
    GATE_MET = "GateMet"
    PROVEN = "Proven"
    BY_HAND = "ByHand"
    # RollBack
    SERVICE_HARM = "ServiceHarm"
    OUTCOME_HARM = "OutcomeHarm"
    SEGMENT_HARM = "SegmentHarm"
    LIMIT_BREACHED = "LimitBreached"
    BREAKER_OPEN = "BreakerOpen"
    INCONCLUSIVE = "Inconclusive"
    ABORTED = "Aborted"
    ALIAS_MOVED = "AliasMoved"
    SUPERSEDED = "Superseded"


class Frozen(Kept):
    """A metric's baseline, frozen before use (metric's integer units; edges are log buckets of microseconds)."""

    source: Literal["Declared", "Mirror", "Blocks"]
    mean: float = 0.0
    tau: float = 0.0
    p_hist: float = 0.0
    cap: int | None = None
    edges: tuple[int, ...] = ()
    judged: tuple[int, int] = (0, 0)
    from_block: int = -1
    from_epoch: int = -1


class Adjustment(Kept):
    """What an epoch takes from the value of a unit with the covariate c: slope (c − centre)/per, rounded, within ±most.

    Values in the metric's integer unit, covariates in millionths.
    """

    centre: int
    per: int
    slope: int
    most: int


class Epoch(Kept):
    """A maximal time of one allocation. ``means``: the centring mean per metric, ``adjustments``: what a covariate
    takes from its units; set once and never changed."""

    number: int
    kind: Literal["mirror", "weight", "holdback"]
    step: int
    weight_bp: int = 0
    mirror_bp: int = 0
    control_from_bp: int = 10_000
    counted_bp: int = 10_000
    pi_ppm: int = 0
    means: dict[str, int] = {}
    adjustments: dict[str, Adjustment] = {}
    opened_at: int


class ModelNames(Kept):
    """A registered model, and the references that named its versions."""

    name: str
    champion: str
    challenger: str


class Place(Kept):
    """A Service with a model server behind it, and how that is asked whether it is ready."""

    service: str
    port: int
    probe: Probe | None = None


class Places(Kept):
    """Where the versions of an attempt are served. One without a place is served by our own servers, which are asked
    by ``probe``."""

    champion: Place | None = None
    challenger: Place | None = None
    probe: Probe | None = None


class Attempt(Kept):
    """One challenger version on trial; the versions are pinned until the rollout ends, and so are whose they are
    (``model``) and where they are served (``places``). None: not known, as it was begun by an earlier release.
    """

    number: int
    champion: str
    challenger: str
    salt: str
    started_at: int
    model: ModelNames | None = None
    places: Places | None = None


class Replacement(Kept):
    """A champion that the spec names by number, and the version that was promoted in its place. An alias moves with a
    promotion and a number cannot: it goes on naming the version that lost."""

    model: str
    named: str
    version: str


OWN = ":"  # what an id of a request begins with that no person made


class PersonRequest(Kept):
    """What a person asked for: by whom, why, when. ``id`` is unique, so that it is obeyed once."""

    id: str
    verb: Literal["approve", "pause", "resume", "abort", "promote"]
    who: str = ""
    why: str = ""
    at: int = 0


class Observed(Kept):
    """The world as the last tick read it; the loop fills this in before the core decides.

    ``champion_alias`` / ``challenger_alias``: the versions the references resolve to now, None where they resolve to
    nothing. ``registry_error``: the registry did not answer; then aliases are those read last. ``model_missing``: it
    did, and ``registry_error`` is that it has no such model. ``served_upstreams``: of the version that serves between
    two attempts. ``confirmed``: newest table generation that every router
    worker serves, -1 unknown. ``overtaken``: the newest that a router holds where that is newer than ours (the store
    was restored from a backup), else 0. ``traffic_limits``: what this way to split the traffic cannot do.
    ``sent_bp``: what others than the champion really get, in basis points, None unknown. ``breaker_open_ms``: the
    worst worker's total. ``leaving``: the rollout is being deleted.
    """

    champion_alias: str | None = None
    challenger_alias: str | None = None
    challenger_signed: bool = True
    registry_error: str | None = None
    model_missing: bool = False
    champion_upstreams: tuple[str, ...] = ()
    challenger_upstreams: tuple[str, ...] = ()
    challenger_ready: bool = False
    champion_ready: bool = False
    servers_message: str = ""
    served_upstreams: tuple[str, ...] = ()
    confirmed: int = -1
    overtaken: int = 0
    traffic_error: str | None = None
    traffic_limits: tuple[str, ...] = ()
    sent_bp: int | None = None
    breaker_open: bool = False
    breaker_open_ms: int = 0
    leaving: bool = False
    requests: tuple[PersonRequest, ...] = ()


class Notice(Kept):
    """A message to people. ``key`` is unique per transition: uid/attempt/sequence. ``reason``: of the decision."""

    key: str
    reason: str = ""
    title: str
    text: str
    level: Literal["info", "warning", "error"] = "info"


class Condition(Kept):
    """As Kubernetes has it; ``observed_generation`` is an integer."""

    type: Literal["Ready", "Stalled", "Progressing", "Valid", "Paused", "Succeeded"]
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    observed_generation: int = 0
    last_transition_time: str = Field("", description="RFC 3339, to the second")


class AliasMove(Kept):
    """An alias that the controller is about to move, announced before it does. ``version`` None: removed."""

    alias: str
    version: str | None
    was: str | None


UNREAD = ""  # in ``past``: a challenger that was aborted while the registry did not answer
BASELINE_HAS = "its baseline has "  # what follows in a message is how much of the champion's traffic, of how much


class RolloutStatus(Kept):
    """The memory of one rollout.

    ``attempts`` counts the attempts begun. ``former``: the one before, while the table is still that one's.
    ``plan``: digest of what an attempt must not change under way. ``clock``: the latest time a tick has seen; a
    wall clock that steps back stands still here. ``step_elapsed``: time in this step while the step clock ran;
    ``active``: the same for the attempt. ``by_hand``: who asked to promote without waiting. ``replacement``: who is
    champion in place of the one that is declared, until another one is. ``promoted_traffic``: the promotion's
    allocation is asked for. ``rolled_at``: when the rollback was decided. ``alias_strange``: ticks in a row that
    showed an alias where nobody announced it. ``handled``: ids of people's requests already obeyed. ``notices``:
    written, not yet delivered.
    """

    uid: str
    rollout: str = ""
    generation: int = Field(0, alias="observedGeneration", description="of the spec that the last tick read")
    sequence: int = 0
    attempts: int = 0
    progress: Progress = Progress.PENDING
    attempt: Attempt | None = None
    former: Attempt | None = None
    plan: str = ""
    step: int = -1
    step_elapsed: int = 0
    active: int = 0
    clock: int = 0
    paused: bool = False
    approved: tuple[int, ...] = ()
    promotion_approved: bool = False
    by_hand: str = ""
    epochs: tuple[Epoch, ...] = ()
    epoch: int = -1
    baselines: dict[str, Frozen] = {}
    segment_values: tuple[str, ...] = ()
    mismatch_since: int | None = None
    promoted_traffic: bool = False
    holdback_since: int | None = None
    holdback_elapsed: int = 0
    rolled_at: int = 0
    decision: Verb = Verb.HOLD
    reason: Reason = Reason.SERVERS_NOT_READY
    message: str = ""
    metric: str | None = None
    segment: str | None = None
    decided_at: int = 0
    end: Literal["Promoted", "RolledBack", "Held"] | None = None
    table: RouteTable | None = None
    weight: float = Field(0.0, description="percent of the units that the version on trial serves; 100 once promoted")
    alias_moves: tuple[AliasMove, ...] = ()
    alias_strange: int = 0
    replacement: Replacement | None = None
    waits: str = Field("", description="why no attempt begins, though another challenger is named")
    run_id: str | None = None
    observed: Observed = Observed()
    handled: tuple[str, ...] = Field((), max_length=256)
    notices: tuple[Notice, ...] = ()
    conditions: tuple[Condition, ...] = ()
    past: tuple[str, ...] = Field(
        (),
        description="challenger versions of ended attempts, newest last; empty: the registry did not say which",
    )

    @classmethod
    def stored(cls, found: object) -> Self:
        """The status that ``found`` is, as it was stored. A field that nobody knows here is passed over: a newer
        release wrote it, and whoever goes back to this one goes on watching."""
        return cls.model_validate(found, extra="ignore")

    @property
    def measuring(self) -> str:
        """For people, where NoData only means that a baseline is still being measured; else empty."""
        waits = self.reason is Reason.NO_DATA and self.metric not in self.baselines
        has = self.message.partition(BASELINE_HAS)[2]
        return f"measuring the baseline of {self.metric}{has and f': {has}'}" if waits else ""

    @property
    def current_epoch(self) -> Epoch | None:
        """The allocation in force; None before the first."""
        return next((e for e in self.epochs if e.number == self.epoch), None)
