"""From a line of a journal to a row that can be counted: only what the statistics need, checked, nothing more.

An exposure row keeps neither the inputs nor the answer: of the answer it takes the scores, found by a JSON pointer.
``/predictions/0`` names the score of row 0; the first ``0`` in a pointer that stands for a place in a list is the
row, so that ``/predictions/0/late`` reads ``late`` of every row.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import orjson

from controller.core.covariates import units_of
from router.events import answer_incomplete, stood_in

LONGEST_SEGMENT = 128
FUTURE = 300_000_000  # µs that an outcome may lie ahead of the moment it came in
LARGEST_SAMPLE = 1 << 60
_LARGEST_TIME = 1 << 53

Scores = tuple[float | None, ...]


class ExposureRow(NamedTuple):
    """One exposure, ready to be counted. Times in µs.

    ``hashed``: the unit's place was decided by its hash, under a table that was not stale. ``evidence`` as the router
    said it, never without ``hashed``. ``fell_back``: the champion stood in for the challenger. ``segments``:
    texts ``name=value``. ``scores`` by row of the request: None in it where the answer holds no number there (counts
    as wrong); None altogether where the answer was not kept whole (does not count). ``numbers``: the covariates that
    the statistics ask for, in millionths; None in it where the request had none. ``journal``: where it stands; no two
    requests in one have the same id, while those in two may, where a client uses one for several.
    """

    attempt: int
    epoch: int
    t: int
    request_id: str
    unit: str | None
    challenger: bool
    hashed: bool
    evidence: bool
    mirror: bool = False
    usable: bool = True
    fell_back: bool = False
    latency_us: int = 0
    segments: tuple[str, ...] = ()
    scores: Scores | None = None
    numbers: tuple[int | None, ...] = ()
    journal: str = ""

    @property
    def key(self) -> str:
        """What tells the request from all others; its mirror has the same."""
        return f"{self.journal}/{self.request_id}" if self.journal else self.request_id


class OutcomeRow(NamedTuple):
    """One outcome: for ``row`` of the request if one is named, else for the unit. Times in µs."""

    outcome_id: str
    t: int
    ingest_t: int
    name: str
    value: float = 1.0
    unit: str | None = None
    request_id: str | None = None
    row: int = 0


class SampleRow(NamedTuple):
    """One sample of a Resource: of the server of an arm, at ``t`` (µs), in the metric's integer unit."""

    attempt: int
    epoch: int
    metric: str
    challenger: bool
    t: int
    value: int


class Pointer:
    """A JSON pointer to the score of row 0, able to find those of all rows.

    Raises ValueError for a text that is no JSON pointer (RFC 6901).
    """

    def __init__(self, text: str) -> None:
        if text and not text.startswith("/"):
            raise ValueError(f"{text!r} is no JSON pointer: it is empty or begins with /, such as /predictions/0")
        steps = [part.replace("~1", "/").replace("~0", "~") for part in text.split("/")[1:]]
        at = steps.index("0") if "0" in steps else len(steps)
        self._before, self._after = steps[:at], steps[at + 1 :]
        self._by_row = at < len(steps)

    def scores(self, answer: str | None, whole: bool) -> Scores | None:
        """The score of every row of ``answer``; see ExposureRow. ``whole``: nothing of it was cut away."""
        try:
            found = _walk(orjson.loads(answer or ""), self._before)
        except (ValueError, TypeError, LookupError):
            return (None,) if whole else None
        if self._by_row and isinstance(found, list):
            return tuple(_number(row, self._after) for row in found)
        rest = ["0", *self._after] if self._by_row else []
        return (_number(found, rest),)


def _walk(value: Any, steps: Sequence[str]) -> Any:
    for step in steps:
        value = value[int(step)] if isinstance(value, list) else value[step]
    return value


def _number(value: Any, steps: Sequence[str]) -> float | None:
    if steps:
        try:
            value = _walk(value, steps)
        except (ValueError, TypeError, LookupError):
            return None
    return float(value) if isinstance(value, int | float) else None


def exposure_row(
    event: Mapping[str, Any],
    segments: Sequence[str],
    pointer: Pointer | None,
    covariates: Sequence[str] = (),
    journal: str = "",
) -> ExposureRow:
    """The row of an exposure event of ``journal``. Raises ValueError, TypeError or KeyError where it is malformed.

    Without a ``pointer`` (no metric looks at predictions) the scores are left out.
    """
    unit, arm, usable, mirror = event["unit"], event["arm"], event["usable"], event["mirror"]
    hashed = event["assigned_by"] == "hash" and not event["stale"] and unit is not None
    if arm not in ("champion", "challenger") or not isinstance(usable, bool) or not isinstance(mirror, bool):
        raise ValueError("arm, usable or mirror is none")
    scores = None
    if pointer is not None and usable:
        scores = pointer.scores(event["answer"], not answer_incomplete(event))
    attributes = event["attributes"]
    return ExposureRow(
        _integer(event["attempt"]),
        _integer(event["epoch"]),
        _integer(event["t"]),
        _text(event["request_id"]),
        None if unit is None else _text(unit),
        arm == "challenger",
        hashed,
        hashed and event["evidence"] is True,
        mirror,
        usable,
        stood_in(event),
        _integer(event["latency_us"]),
        tuple(segment_texts(attributes, segments)) if attributes and segments else (),
        scores,
        tuple(units_of(attributes.get(name)) for name in covariates),
        journal,
    )


def sample_row(event: Mapping[str, Any]) -> SampleRow:
    """The row of a sample event. Raises ValueError, TypeError or KeyError where it is malformed."""
    if event["arm"] not in ("champion", "challenger"):
        raise ValueError("arm is none")
    value = event["value"]
    if type(value) is not int or abs(value) > LARGEST_SAMPLE:
        raise ValueError("value is no integer, or too large")
    return SampleRow(
        _integer(event["attempt"]),
        _integer(event["epoch"]),
        _text(event["metric"]),
        event["arm"] == "challenger",
        _integer(event["t"]),
        value,
    )


def segment_texts(attributes: Mapping[str, Any], names: Sequence[str]) -> list[str]:
    """``name=value`` for each attribute that the exposure has; a value too long to be one is left out."""
    found = []
    for name in names:
        value = attributes.get(name)
        if isinstance(value, str) and len(value) <= LONGEST_SEGMENT:
            found.append(f"{name}={value}")
    return found


def outcome_row(event: Mapping[str, Any]) -> OutcomeRow:
    """The row of an outcome event. Raises ValueError, TypeError or KeyError where it is malformed."""
    unit, request = event.get("unit"), event.get("request_id")
    t, value = _integer(event["t"]), float(event.get("value", 1.0))
    arrived = _integer(event.get("ingest_t") or t)
    if (unit is None and request is None) or not math.isfinite(value) or abs(value) > 1e9:
        raise ValueError("an outcome needs a unit or a request_id, and a value within 1e9")
    if t > arrived + FUTURE:
        raise ValueError("an outcome cannot lie more than five minutes in the future")
    return OutcomeRow(
        _text(event["outcome_id"]),
        t,
        arrived,
        _text(event["name"]),
        value,
        None if unit is None else _text(unit),
        None if request is None else _text(request),
        _integer(event.get("row", 0), 1_000_000),
    )


def _integer(value: Any, largest: int = _LARGEST_TIME) -> int:
    if type(value) is not int or not 0 <= value <= largest:
        raise ValueError(f"{value!r} is no whole number from 0 to {largest}")
    return value


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value
