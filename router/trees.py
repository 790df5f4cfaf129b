"""Bodies of requests as trees of JSON, as far as they are quickly read: everybody else waits meanwhile."""

import json
from typing import Any, Final

import orjson

# Objects and lists in a body that is read as JSON, counted by their brackets, wherever those stand. It is they that
# take time: a MiB of nothing else ten times as much as one of numbers, while everybody waits.
_MOST_NODES: Final = 65_536
# Python's own reader takes some thirty times as long where numbers are long.
_LONGEST_WITH_NAN: Final = 64 << 10


def tree_of(body: bytes) -> Any:
    """A body as JSON; None where it is none, or would take too long to read."""
    if len(body) > _MOST_NODES and body.count(b"{") + body.count(b"[") > _MOST_NODES:
        return None
    try:
        return orjson.loads(body)
    except ValueError:
        return _with_nan(body)


def _with_nan(body: bytes) -> Any:
    """What Python writes of features that are missing, and model servers read: JSON with NaN and infinities, which are
    null here. None for what is not that; nor is it where there may be half a letter (``\\ud800``).
    """
    if (
        len(body) > _LONGEST_WITH_NAN
        or (body.find(b"NaN") < 0 and body.find(b"Infinity") < 0)
        or body.lower().find(b"\\ud") >= 0
    ):
        return None
    try:
        return json.loads(body.decode(), parse_constant=lambda _: None)
    except (ValueError, RecursionError):
        return None
