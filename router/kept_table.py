"""A route table as an earlier life of the router kept it, which may have been one of another version."""

import json
from typing import Any

from pydantic import ValidationError

from router.table import Capture, RouteTable

# What the champion alone is served by. All else is that of a table that says nothing of it.
_CHAMPIONS = ("generation", "rollout", "attempt", "epoch", "salt", "champion", "unit")
# The header of a unit that no request has.
_NO_UNIT = {"header": "X-Understudy-No-Unit"}
_NO_BODIES = Capture(inputs_bp=0, answers_bp=0, failed=False)


def read_kept(content: bytes) -> tuple[RouteTable, str, ValidationError | None]:
    """The table; the names of its fields that this version does not know, which are passed over; and what else is
    wrong with it, where its champion alone can be served by it.

    Raises ValidationError where not even that is possible.
    """
    try:
        return RouteTable.model_validate_json(content), "", None
    except ValidationError as error:
        unknown = [fault["loc"] for fault in error.errors() if fault["type"] == "extra_forbidden"]
        if any(fault["type"] in ("json_invalid", "model_type") and not fault["loc"] for fault in error.errors()):
            raise
    raw = json.loads(content)
    for place in unknown:
        _forget(raw, place)
    names = ", ".join(sorted(".".join(map(str, place)) for place in unknown))
    try:
        return _read(raw), names, None
    except ValidationError as error:
        return _champion_alone(raw), names, error


def _read(raw: dict[str, Any]) -> RouteTable:
    return RouteTable.model_validate_json(json.dumps(raw))


def _forget(raw: Any, place: tuple[int | str, ...]) -> None:
    for part in place[:-1]:
        raw = raw[part]
    del raw[place[-1]]


def _champion_alone(raw: dict[str, Any]) -> RouteTable:
    """A table that sends everybody to the champion. What it does not know the limits of it does not do: no request is
    sent twice unless that was allowed, and no body is kept. Raises ValidationError.
    """
    kept = {name: raw[name] for name in _CHAMPIONS if name in raw}
    kept["replay_to_champion"] = raw.get("replay_to_champion", True) is True
    kept["capture"] = _NO_BODIES.model_dump()
    try:
        return _read(kept)
    except ValidationError:
        champion = kept.get("champion")
        if isinstance(champion, dict):
            kept["champion"] = {name: champion[name] for name in ("version", "upstreams") if name in champion}
        kept["unit"] = _NO_UNIT
        return _read(kept)
