"""Quantities as people write them in YAML: durations (`1h30m`), margins (`0.05pp`, `2%`, `0.01`), sizes (`2Gi`)."""

import math
import re
from decimal import Decimal
from typing import Annotated, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, WithJsonSchema

SECOND = 1_000_000  # microseconds
_UNITS = {
    "ms": 1_000,
    "s": SECOND,
    "m": 60 * SECOND,
    "h": 3600 * SECOND,
    "d": 86_400 * SECOND,
    "w": 7 * 86_400 * SECOND,
}
_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]+)?(?:ms|s|m|h|d|w))+")
_PART = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|d|w)")
LONGEST = 3650 * 86_400 * SECOND
WRITTEN = 32  # characters of a quantity
SMALLEST, LARGEST = 1e-12, 1e15  # sizes of a number that is no zero
DURATION_PATTERN = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h|d|w))+$"
MARGIN_PATTERN = r"^-?[0-9]+(\.[0-9]+)?(pp|%)?$"


def parse_duration(text: object) -> int:
    """Microseconds in ``text`` such as ``90s``, ``1h30m``, ``7d``. ValueError names what is allowed."""
    if not (isinstance(text, str) and len(text) <= WRITTEN and _DURATION.fullmatch(text)):
        raise ValueError(
            f"{_shown(text)} is not a duration; write a number with ms, s, m, h, d or w, such as 30m or 1h30m"
        )
    found = sum(float(number) * _UNITS[unit] for number, unit in _PART.findall(text))
    if found > LONGEST:
        raise ValueError(f"{text} is longer than {format_duration(LONGEST)}, the longest duration")
    return round(found)


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
    written = _number_text(text)
    found = re.fullmatch(MARGIN_PATTERN, written) if len(written) <= WRITTEN and written.isascii() else None
    if found is None:
        raise ValueError(
            f"{_shown(text)} is not a margin; write 0.05pp (absolute), 2% (relative) or a number in the metric's unit"
        )
    number = float(written.removesuffix("pp").removesuffix("%"))
    if number and not SMALLEST <= abs(number) <= LARGEST:
        raise ValueError(f"{written} is out of range; a number has a size from {SMALLEST:g} to {LARGEST:g}")
    if written.endswith("pp"):
        return Margin(number / 100, False, written)
    return Margin(number / 100, True, written) if written.endswith("%") else Margin(number, False, written)


def parse_percent(text: object) -> float:
    """A share as ``1%`` or as a bare number of percent, from 0 to 100; returns a fraction."""
    try:
        margin = parse_margin(text)
    except ValueError:
        margin = Margin(-1.0, False, "")
    share = margin.value if margin.relative else margin.value / 100
    if margin.text.endswith("pp") or not 0 <= share <= 1:
        raise ValueError(f"{_shown(text)} is not a percentage; write one from 0% to 100%, such as 1%")
    return share


def _shown(value: object) -> str:
    """What was written, short."""
    text = "nothing" if value is None else str(value).lower() if isinstance(value, bool) else repr(value)
    return text if len(text) <= 48 else f"{text[:40]}… ({len(text)} characters)"


def _number_text(value: object) -> str:
    """A text as it stands, and a number as people write it; empty for anything else."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return ""
    if isinstance(value, int):
        return str(value) if abs(value) <= LARGEST else ""
    return format(Decimal(repr(value)), "f") if abs(value) <= LARGEST else ""


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


_SIZE = re.compile(r"([0-9]+(?:\.[0-9]+)?)(k|M|G|T|Ki|Mi|Gi|Ti)?")
_ABOVE_0 = r"([0-9]*[1-9][0-9]*(\.[0-9]+)?|[0-9]+\.[0-9]*[1-9][0-9]*)"
CAP_PATTERN = rf"^(p0?0\.[0-9]*[1-9][0-9]*|p(0?[1-9]|[1-9][0-9])(\.[0-9]+)?|{_ABOVE_0})$"


def parse_size(text: object) -> float:
    """A limit: a number, or a size such as ``512Mi`` or ``2Gi``."""
    written = _number_text(text)
    found = _SIZE.fullmatch(written) if len(written) <= WRITTEN else None
    if not found:
        raise ValueError(f"{_shown(text)} is not a limit; write a number or a size such as 512Mi or 2Gi")
    return float(found[1]) * _SIZES[found[2] or ""]


def format_size(size: float) -> str:
    """A number of bytes for people, such as ``1.9 GiB``."""
    for unit, factor in (("TiB", 2**40), ("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if abs(size) >= factor:
            return f"{size / factor:.3g} {unit}"
    return f"{size:.3g} bytes"


def _limit(value: object) -> str:
    parse_size(value)
    return _number_text(value)


def _cap(value: object) -> str:
    written = _number_text(value)
    if len(written) > WRITTEN or not re.fullmatch(CAP_PATTERN, written):
        raise ValueError(
            f"{_shown(value)} is not a cap; write a quantile between p0 and p100, such as p99.9, or a number above 0"
        )
    return written


def within(least: int, most: int) -> AfterValidator:
    """A duration's bounds, in microseconds; the refusal says them as people write them."""

    def check(value: int) -> int:
        if not least <= value <= most:
            allowed = f"a duration from {format_duration(least)} to {format_duration(most)}"
            raise ValueError(f"{format_duration(value)} is out of range; allowed is {allowed}")
        return value

    return AfterValidator(check)


Duration = Annotated[
    int,
    BeforeValidator(parse_duration),
    PlainSerializer(format_duration, return_type=str),
    WithJsonSchema({"type": "string", "pattern": DURATION_PATTERN, "maxLength": WRITTEN}),
    Field(description="microseconds; written as 10m, 1h30m, 7d"),
]
MarginField = Annotated[
    Margin,
    BeforeValidator(parse_margin),
    PlainSerializer(lambda m: m.text, return_type=str),
    WithJsonSchema(
        {"anyOf": [{"type": "number"}, {"type": "string", "pattern": MARGIN_PATTERN, "maxLength": WRITTEN}]}
    ),
]
PercentField = Annotated[
    float,
    BeforeValidator(parse_percent),
    PlainSerializer(lambda f: f"{f * 100:.12g}%", return_type=str),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": 100},
                {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?%?$", "maxLength": WRITTEN},
            ]
        }
    ),
]
LimitField = Annotated[
    str,
    BeforeValidator(_limit),
    WithJsonSchema({"anyOf": [{"type": "number"}, {"type": "string", "maxLength": WRITTEN}]}),
]
CapField = Annotated[
    str,
    BeforeValidator(_cap),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": SMALLEST, "maximum": LARGEST},
                {"type": "string", "pattern": CAP_PATTERN, "maxLength": WRITTEN},
            ]
        }
    ),
]
