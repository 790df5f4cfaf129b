"""Exposures and outcomes as the engine keeps them: who was served, by what, and what is known of it since."""

from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

import xxhash

from router.assignment import Arm
from router.events import answer_incomplete, stood_in

FUTURE = 300_000_000  # µs that an outcome may lie ahead of the moment it came in


class Label(NamedTuple):
    """An outcome's time (µs), id and value, and when it came in. Sorts by time, then id."""

    t: int
    outcome_id: str
    value: float
    ingest_t: int


class Exposed:
    """One exposure. ``partner``: of a champion's the mirror's answer to the same request, and the other way round.

    ``key`` tells the request from all others, also from one in another journal with its id; ``drawn`` is its hash.
    ``place`` is its order: by time, then key, a mirror after what it shadows. ``labels`` by (name, row).
    """

    __slots__ = (
        "answer", "answer_cut", "arm", "attempt", "attributes", "drawn", "epoch", "evidence", "fell_back", "hashed",
        "key", "labels", "latency", "mirror", "partner", "place", "request_id", "t", "unit", "usable",
    )  # fmt: skip

    def __init__(self, journal: str, event: Mapping[str, Any]) -> None:
        self.request_id: str = event["request_id"]
        self.key = f"{journal}/{self.request_id}" if journal else self.request_id
        self.drawn = xxhash.xxh64_intdigest(self.key.encode())
        self.t: int = event["t"]
        self.attempt: int = event["attempt"]
        self.epoch: int = event["epoch"]
        self.unit: str | None = event["unit"]
        self.arm: Arm = event["arm"]
        self.mirror: bool = event.get("mirror", False)
        self.hashed: bool = event["assigned_by"] == "hash" and not event.get("stale", False) and self.unit is not None
        self.evidence: bool = event["evidence"] and self.hashed
        self.usable: bool = event["usable"]
        self.fell_back: bool = stood_in(event)
        self.latency: int = event["latency_us"]
        self.attributes: Mapping[str, str] = event.get("attributes") or {}
        self.answer: str | None = event.get("answer")
        self.answer_cut: bool = answer_incomplete(event)
        self.labels: dict[tuple[str, int], list[Label]] = {}
        self.partner: Exposed | None = None
        self.place = (self.t, self.key, self.mirror)

    def segments(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """All traffic, and the segments that the exposure belongs to."""
        return ("", *(f"{n}={self.attributes[n]}" for n in names if n in self.attributes))


class Observation(NamedTuple):
    """An outcome as it came: for one row of a request, else for a unit."""

    name: str
    label: Label
    unit: str | None
    request_id: str | None
    row: int


def observation(event: Mapping[str, Any]) -> Observation:
    """The outcome in ``event``; its value is 1 unless said. ValueError where it lies in the future."""
    arrived = event.get("ingest_t") or event["t"]
    if event["t"] > arrived + FUTURE:
        raise ValueError("an outcome cannot lie more than five minutes in the future")
    label = Label(event["t"], event["outcome_id"], float(event.get("value", 1.0)), arrived)
    return Observation(event["name"], label, event.get("unit"), event.get("request_id"), event.get("row") or 0)


# Arm and unit; for failures and latency also ("unseen", unit): what the unit met without being evidence.
ArmKey = tuple[Arm | Literal["pair", "unseen"], str]
