"""From bytes to plain values: the part of YAML that means one thing only, within bounds.

Read are mappings, lists, texts, ``true``, ``false``, ``null`` and decimal numbers (the core schema of YAML 1.2 without
its octal and hexadecimal numbers, and without infinities): ``no``, ``1:30``, ``2013-01-01`` and ``0777`` are texts.
Anchors and merge keys work, within the bound on values. Nothing is taken twice: a key that stands twice is a fault.
"""

import math
import re
from collections.abc import Iterator
from typing import Any

import yaml

from controller.errors import SpecError
from controller.specfile.words import place

LIMIT_BYTES = 256 * 1024
LIMIT_VALUES = 20_000
LIMIT_DEPTH = 32
LIMIT_DIGITS = 64

_WORDS = {"": None, "~": None, **dict.fromkeys(("null", "Null", "NULL"))}
_WORDS |= dict.fromkeys(("true", "True", "TRUE"), True) | dict.fromkeys(("false", "False", "FALSE"), False)
_WHOLE = re.compile(r"[-+]?(0|[1-9][0-9]*)")
_NUMBER = re.compile(r"[-+]?(\.[0-9]+|(0|[1-9][0-9]*)(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_NEVER = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
_SURROGATE = re.compile("[\ud800-\udfff]")

Path = tuple[str | int, ...]


def read(text: str | bytes, source: str) -> Any:
    """The one document in ``text``. SpecError has a line for each fault: its line or path, and what is allowed."""
    if len(text) > LIMIT_BYTES:
        raise SpecError(f"{source}: is larger than {LIMIT_BYTES // 1024} KiB, the most that a rollout may be")
    if isinstance(text, bytes):
        text = _decoded(text, source)
    text = text.removeprefix("\ufeff")
    found = _NEVER.search(text)
    if found:
        line = text.count("\n", 0, found.start()) + 1
        raise SpecError(f"{source}: line {line}: the control character U+{ord(found[0]):04X} is not allowed")
    try:
        return _Builder(text, source).document()
    except yaml.MarkedYAMLError as error:
        raise SpecError(f"{source}: {_said(error, text)}") from error
    except yaml.YAMLError as error:
        raise SpecError(f"{source}: not YAML: {' '.join(str(error).split())[:200]}") from error


def _decoded(content: bytes, source: str) -> str:
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise SpecError(
            f"{source}: line {line}: is not UTF-8 (byte 0x{content[error.start]:02x}); save the file as UTF-8"
        ) from error


def _said(error: yaml.MarkedYAMLError, text: str) -> str:
    mark = error.problem_mark or error.context_mark
    if mark is None:
        return f"not YAML: {error.problem}"
    lines = text.splitlines()
    at = f"line {mark.line + 1}, column {mark.column + 1}"
    if mark.line < len(lines) and lines[mark.line][mark.column : mark.column + 1] == "\t":
        return f"{at}: a tab; YAML is indented with spaces"
    return f"{at}: not YAML: {error.problem or error.context}"


class _Builder:
    """Builds the document from the parser's events; its own depth is bounded, so no document is too deep for it."""

    def __init__(self, text: str, source: str) -> None:
        self._events: Iterator[Any] = yaml.parse(text, Loader=yaml.SafeLoader)
        self._source = source
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._values = 0
        self._faults: list[str] = []

    def document(self) -> Any:
        """The only document. SpecError where there is none, or another."""
        next(self._events)
        if isinstance(next(self._events), yaml.StreamEndEvent):
            raise SpecError(f"{self._source}: is empty; a mapping with apiVersion, kind, metadata and spec is needed")
        made, _ = self._node(next(self._events), ())
        next(self._events)
        after = next(self._events)
        if not isinstance(after, yaml.StreamEndEvent):
            line = after.start_mark.line + 1
            raise SpecError(f"{self._source}: line {line}: another document begins; a file holds one rollout")
        if self._faults:
            raise SpecError(*self._faults)
        return made

    def _node(self, event: Any, path: Path) -> tuple[Any, int]:
        """A value, and how many values it is made of."""
        line = event.start_mark.line + 1
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self._anchors:
                raise SpecError(f"{self._source}: line {line}: nothing complete is called &{event.anchor} before here")
            made, size = self._anchors[event.anchor]
            self._count(size, line)
            return made, size
        self._count(1, line)
        if event.tag is not None:
            raise SpecError(f"{self._source}: line {line}: the tag {event.tag:.60} is not supported; leave it out")
        if len(path) > LIMIT_DEPTH:
            raise SpecError(f"{self._source}: line {line}: is nested deeper than {LIMIT_DEPTH} levels")
        before = self._values
        if isinstance(event, yaml.ScalarEvent):
            made = self._scalar(event, path)
        elif isinstance(event, yaml.SequenceStartEvent):
            made = self._list(path)
        else:
            made = self._mapping(path)
        size = self._values - before + 1
        if event.anchor is not None:
            self._anchors[event.anchor] = made, size
        return made, size

    def _count(self, size: int, line: int) -> None:
        self._values += size
        if self._values > LIMIT_VALUES:
            raise SpecError(f"{self._source}: line {line}: holds more than {LIMIT_VALUES} values, aliases included")

    def _list(self, path: Path) -> list[Any]:
        made: list[Any] = []
        while not isinstance(event := next(self._events), yaml.SequenceEndEvent):
            made.append(self._node(event, (*path, len(made)))[0])
        return made

    def _mapping(self, path: Path) -> dict[str, Any]:
        made: dict[str, Any] = {}
        merged: list[Any] = []
        lines: dict[str, int] = {}
        while not isinstance(event := next(self._events), yaml.MappingEndEvent):
            line = event.start_mark.line + 1
            if not isinstance(event, yaml.ScalarEvent):
                raise SpecError(f"{self._source}: line {line}: a key must be a text, not a mapping, list or alias")
            key = event.value
            here = (*path, key)
            value, _ = self._node(next(self._events), here)
            if key == "<<" and event.implicit[0]:
                merged += value if isinstance(value, list) else [value]
            elif key in lines:
                self._faults.append(f"{place(here)}: stands twice, in line {lines[key]} and in line {line}")
            else:
                made[key], lines[key] = value, line
        for other in merged:
            if not isinstance(other, dict):
                raise SpecError(
                    f"{self._source}: {place(path) or 'rollout'}: << takes a mapping, or a list of mappings"
                )
            made |= {k: v for k, v in other.items() if k not in made}
        return made

    def _scalar(self, event: Any, path: Path) -> Any:
        value: str = event.value
        if _SURROGATE.search(value):
            self._faults.append(f"{place(path)}: holds half a character (a lone surrogate)")
            return ""
        if not event.implicit[0]:
            return value
        if value in _WORDS:
            return _WORDS[value]
        if not _NUMBER.fullmatch(value):
            return value
        if len(value) > LIMIT_DIGITS:
            self._faults.append(f"{place(path)}: a number of {len(value)} characters; allowed are {LIMIT_DIGITS}")
            return 0
        if _WHOLE.fullmatch(value):
            return int(value)
        number = float(value)
        if not math.isfinite(number):
            self._faults.append(f"{place(path)}: {value} is too large a number")
        return number if math.isfinite(number) else 0
