"""Quantities as people write them in YAML: durations (`1h30m`), margins (`0.05pp`, `2%`, `0.01`), sizes (`2Gi`)."""

import re
from typing import Annotated, NamedTuple

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

SECOND = 1_000_000  # microseconds
_UNITS = {
    "ms": 1_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 86_400 * SECOND,
    "w": 7 * 86_400 * SECOND,
}
_DURATION = re.compile(r"(?:\d+(?:\.\d+)?(?:ms|s|m|h|d|w))+")
_PART = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d|w)")
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$"
MARGIN_PATTERN = r"^-?[0-9]+(\.[0-9]+)?(pp|%)?$"


def parse_duration(text: object) -> int:
    """Microseconds in ``text`` such as ``90s``, ``1h30m``, ``7d``. ValueError names what is allowed."""
    if isinstance(text, str) and _DURATION.fullmatch(text):
        return round(sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text)))
    raise ValueError(f"{text!r} is not a duration; write a number with ms, s, m, h, d or w, such as 30m or 1h30m")


def format_duration(microseconds: int) -> str:
    """The shortest text that ``parse_duration`` reads back to the same value (to the millisecond)."""
    rest, parts = round(microseconds / 1000), []
    for unit in ("d", "h", "m", "s", "ms"):
        size = _UNITS[unit] // 1000
        if rest >= size:
            parts.append(f"{rest // size}{unit}")
            rest %= size
    return "".join(parts) or "0s"


class Margin(NamedTuple):
    """A tolerance: ``relative`` to the champion's value, or absolute in the metric's own unit."""

    value: float
    relative: bool
    text: str


def parse_margin(text: object) -> Margin:
    """``0.05pp`` is absolute in percentage points, ``2%`` relative, a bare number in the metric's unit."""
    if isinstance(text, Margin):
        return text
    written = str(text) if isinstance(text, int | float) and not isinstance(text, bool) else text
    if isinstance(written, str) and re.fullmatch(MARGIN_PATTERN, written):
        number = float(re.match(r"-?[0-9.]+", written).group())  # type: ignore[union-attr]
        if written.endswith("pp"):
            return Margin(number / 100, False, written)
        return Margin(number / 100, True, written) if written.endswith("%") else Margin(number, False, written)
    raise ValueError(
        f"{text!r} is not a margin; write 0.05pp (absolute), 2% (relative) or a number in the metric's unit"
    )


def parse_percent(text: object) -> float:
    """A share as ``1%`` or as a bare number of percent; returns a fraction."""
    margin = parse_margin(text)
    if margin.text.endswith("pp"):
        raise ValueError(f"{text!r}: write a percentage such as 1%")
    return margin.value if margin.relative else margin.value / 100


_SIZES = {
    "": 1,
    "k": 10**3,
    "M": 10**6,
    "G": 10**9,
    "T": 10**12,
    "Ki": 2**10,
    "Mi": 2**20,
    "Gi": 2**30,
    "Ti": 2**40,
}


def parse_size(text: object) -> float:
    """A limit: a number, or a size such as ``512Mi`` or ``2Gi``."""
    found = re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?", str(text))
    if isinstance(text, bool) or not found:
        raise ValueError(f"{text!r} is not a limit; write a number or a size such as 512Mi or 2Gi")
    return float(found[1]) * _SIZES[found[2] or ""]


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": 32}),
    Field(description="microseconds; written as 10m, 1h30m, 7d"),
]
MarginField = Annotated[
    Margin,
    BeforeValidator(parse_margin),
    PlainSerializer(lambda m: m.text, return_type=str),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "pattern": MARGIN_PATTERN, "maxLength": 32}]}),
]
PercentField = Annotated[
    float,
    BeforeValidator(parse_percent),
    PlainSerializer(lambda f: f"{f * 100:.12g}%", return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number"},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%?$", "maxLength": 16},
            ]
        }
    ),
]
LimitField = Annotated[
    str,
    BeforeValidator(lambda v: (parse_size(v), str(v))[1]),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "maxLength": 32}]}),
]
