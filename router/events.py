"""The events of the journal: one JSON object a line, append-only, one writer a journal.

Times ``t`` are microseconds since the epoch, never decreasing within a journal (a clock that steps back repeats the
last time). An exposure's ``t`` is the moment its answer was complete, so the last ``t`` of a journal is its
watermark: nothing earlier will follow. An outcome's ``t`` is when it happened, which may be long ago; in its journal
the time that never decreases is ``ingest_t``. ``seq`` counts a journal's lines from 1 without gaps; a gap is a loss.
A file begins with a ``Header`` and ends at its last newline; a torn tail is no event.

Idempotency: (journal, seq) identifies a line; ``request_id`` an exposure; ``outcome_id`` an outcome.
"""

import re
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from router.assignment import Arm
from router.table import Wire

JOURNAL_VERSION = 1
# What no identifier may hold: it could not be shown, and not be told from another one.
CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_VISIBLE = re.compile(r"[!-~]+")


def _without_control(text: str) -> str:
    if CONTROL.search(text):
        raise ValueError("control characters are not allowed")
    return text


def _visible(text: str) -> str:
    if not _VISIBLE.fullmatch(text):
        raise ValueError("visible ASCII characters are allowed, as in the header X-Request-Id")
    return text


_Text = Annotated[str, AfterValidator(_without_control)]


class FallbackReason(StrEnum):
    """Why the champion answered a request that was the challenger's."""

    ERROR = "Error"  # connection refused, reset, or cut
    STATUS = "Status"  # any answer that is not 2xx
    TIMEOUT = "Timeout"  # no complete answer within the challenger's deadline
    UNUSABLE = "Unusable"  # 2xx, but not JSON, NaN or infinity, or a wrong number of rows
    BREAKER_OPEN = "BreakerOpen"
    NOT_READY = "NotReady"
    OVERLOAD = "Overload"  # the challenger's share of connections was used up


class Header(Wire):
    """First line of every file of a journal."""

    type: Literal["journal"] = "journal"
    journal: str
    file: int = Field(ge=0)
    version: int = JOURNAL_VERSION
    seq: int = Field(ge=0, description="seq of the last line before this file; the next line has seq + 1")
    t: int


class Exposure(Wire):
    """A unit was served: by which arm it should have been, and by which it was.

    ``arm`` (assigned) decides all evidence. ``status`` and ``latency_us`` are of the first attempt, that is of the
    assigned arm; ``answer_status`` is what the client got. ``usable`` says whether the assigned arm's answer was fit
    to be shown and came within the challenger's deadline, by one rule for both arms (always false where the champion
    had to step in). ``mirror`` marks the challenger's unseen answer to a request that the champion served; it has the
    same ``request_id`` as the exposure it shadows.
    """

    type: Literal["exposure"] = "exposure"
    seq: int
    t: int
    request_id: str = Field(max_length=128)
    attempt: int
    epoch: int
    generation: int
    unit: str | None = Field(max_length=512)
    arm: Arm
    evidence: bool = Field(
        description="counts for its arm: hash-assigned, not between the arms, table not stale, not taken back"
    )
    assigned_by: Literal["hash", "override", "none"]
    served_by: Arm
    version: str = Field(description="version that made the answer the client got")
    attempts: int = Field(1, ge=1)
    fallback_reason: FallbackReason | None = None
    mirror: bool = False
    mirrored: bool = Field(False, description="a mirror of this request was sent")
    stale: bool = False
    unjudged: bool = False
    usable: bool
    status: int = Field(description="HTTP status of the first attempt; 0 without one")
    answer_status: int
    latency_us: int = Field(
        ge=0, description="first byte sent to last byte received, first attempt; deadline on timeout"
    )
    attributes: dict[str, str] = {}
    inputs: str | None = Field(
        None, description="request body, redacted and cut at capture_bytes; null where the request was not drawn"
    )
    answer: str | None = Field(
        None, description="body of the assigned arm's answer, likewise; null (and cut) where not drawn"
    )
    cut: bool = Field(False, description="inputs or answer were cut, or are not text")
    inputs_coding: str | None = Field(
        None, max_length=64, description="Content-Encoding of the request, whose body is withheld then; null without"
    )
    answer_coding: str | None = Field(
        None, max_length=64, description="the same of the assigned arm's answer, which nobody could judge either"
    )
    answer_cut: bool | None = Field(
        None, description="the same of the answer alone; null in journals of before, where cut speaks for both"
    )


def answer_incomplete(event: Mapping[str, Any]) -> bool:
    """Whether the answer in an exposure is not all of the one that was given, so that no score is missed in it."""
    known = event.get("answer_cut")
    return bool(event.get("cut", False) if known is None else known)


def stood_in(event: Mapping[str, Any]) -> bool:
    """Whether the champion answered, in this exposure, what the challenger should have.

    Not where it had no better answer to a challenger's bad status: then the request was to blame, as a client's that
    no model can read.
    """
    if event["arm"] != "challenger" or event.get("mirror") or event["served_by"] != "champion":
        return False
    return event.get("fallback_reason") != FallbackReason.STATUS or 200 <= int(event["answer_status"]) < 300


class Outcome(Wire):
    """A value observed later, for a unit or for one row of a request: it names one of the two."""

    type: Literal["outcome"] = "outcome"
    seq: int = 0
    t: int = Field(description="when it happened")
    ingest_t: int = Field(0, description="when the outcomes API accepted it")
    outcome_id: _Text = Field(min_length=1, max_length=128)
    unit: _Text | None = Field(None, min_length=1, max_length=512)
    request_id: Annotated[str, AfterValidator(_visible)] | None = Field(None, min_length=1, max_length=128)
    row: int = Field(0, ge=0, le=1_000_000)
    name: _Text = Field(min_length=1, max_length=63)
    value: float = Field(1.0, allow_inf_nan=False, ge=-1e9, le=1e9)

    @model_validator(mode="after")
    def _one_subject(self) -> Self:
        if self.unit is None and self.request_id is None:
            raise ValueError("unit or request_id is needed")
        if self.unit is not None and self.request_id is not None:
            raise ValueError("unit or request_id is needed, not both: a request's unit is known from its exposure")
        return self


class Mark(Wire):
    """Heartbeat of a journal (at least once a second, also when idle): moves the watermark, carries the losses."""

    type: Literal["mark"] = "mark"
    seq: int
    t: int
    dropped: int = Field(
        0, ge=0, description="events lost before the journal, since the writer started; a killed one's too"
    )
    no_unit: int = Field(0, ge=0, description="requests without a unit, since the writer started")
    started: int = Field(0, description="when the writer started; counters count from here")
    closed: bool = Field(False, description="the writer ended in good order; the journal is complete")


Event = Header | Exposure | Outcome | Mark
