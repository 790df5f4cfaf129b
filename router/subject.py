"""Who a request is about: the unit and the attributes, taken from a header, a cookie or the body.

A source is compiled once per table into a function of the request; it returns None where the request does not
have the text, and never raises.
"""

import csv
import io
from collections.abc import Callable
from math import isfinite
from typing import Any, Final

from router.heads import Request
from router.table import LARGEST, Source

Extract = Callable[[Request], str | None]

UNIT_CHARS: Final = 512
ATTRIBUTE_CHARS: Final = 256
# The names and the first row of a table of CSV have at most so many characters together.
_CSV_CHARS: Final = 131_072
_FORMATS: Final = ("dataframe_split", "dataframe_records", "instances", "inputs")


def extractor(source: Source) -> Extract:
    """The function that finds a source's text in a request."""
    if source.header is not None:
        return _from_header(source.header)
    if source.cookie is not None:
        return _from_cookie(source.cookie)
    if source.json_pointer is not None:
        return _from_pointer(source.json_pointer)
    assert source.feature is not None
    return _from_feature(source.feature)


def needs_body(source: Source) -> bool:
    """Whether the source's text is in the body."""
    return source.json_pointer is not None or source.feature is not None


def _text(value: bytes) -> str | None:
    """Header bytes as text: UTF-8. What is not, is written out behind a blank, where no text of a header has one: so
    different bytes stay different, from each other and from whatever is sent as text.
    """
    value = value.strip(b" \t")
    if not value:
        return None
    try:
        return value.decode()
    except UnicodeDecodeError:
        return " " + value.replace(b"\\", rb"\\").decode("utf-8", "backslashreplace")


def _from_header(name: str) -> Extract:
    wanted = name.lower().encode("latin-1", "replace")

    def extract(request: Request) -> str | None:
        value = request.fields.get(wanted)
        return None if value is None else _text(value)

    return extract


def _from_cookie(name: str) -> Extract:
    wanted = name.encode("latin-1", "replace")

    def extract(request: Request) -> str | None:
        cookies = request.fields.get(b"cookie")
        if cookies is None:
            return None
        for pair in cookies.split(b";"):
            key, equals, value = pair.partition(b"=")
            if equals and key.strip(b" \t") == wanted:
                return _text(value.strip(b' \t"'))
        return None

    return extract


def _scalar(value: Any) -> str | None:
    """Text of a JSON scalar; a whole number reads the same however it was written (7, 7.0).

    Beyond 64 bits, or with a point or an exponent from 2^53 on, several numbers are read as one: none is anybody's id.
    """
    if isinstance(value, str):
        return value or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        if value.is_integer():
            return str(int(value)) if abs(value) <= LARGEST else None
        return repr(value) if isfinite(value) else None
    return str(value) if isinstance(value, int) and -(1 << 63) <= value < 1 << 64 else None


def _from_pointer(pointer: str) -> Extract:
    """RFC 6901; array positions without leading zeros, and no position behind the end."""
    steps = [part.replace("~1", "/").replace("~0", "~") for part in pointer.split("/")[1:]]

    def extract(request: Request) -> str | None:
        value = request.json()
        for step in steps:
            if isinstance(value, dict) and step in value:
                value = value[step]
            elif isinstance(value, list) and step.isascii() and step.isdigit() and str(int(step[:9])) == step:
                value = value[int(step)] if int(step) < len(value) else None
            else:
                return None
        return _scalar(value)

    return extract


def _from_feature(name: str) -> Extract:
    def extract(request: Request) -> str | None:
        if request.fields.get(b"content-type", b"").lower().startswith(b"text/csv"):
            return _csv_feature(request, name)
        body = request.json()
        if isinstance(body, dict):
            for form in _FORMATS:
                if form in body:
                    return _scalar(_first_value(form, body[form], name))
        return None

    return extract


def _first_value(form: str, rows: Any, name: str) -> Any:
    """Value of a column in the first row, by the shape of the body; None where there is none."""
    if form == "dataframe_split":
        if not isinstance(rows, dict):
            return None
        columns, data = rows.get("columns"), rows.get("data")
        if not (isinstance(columns, list) and isinstance(data, list) and data and isinstance(data[0], list)):
            return None
        place = columns.index(name) if name in columns else len(data[0])
        return data[0][place] if place < len(data[0]) else None
    row = rows[0] if isinstance(rows, list) and rows else rows
    value = row.get(name) if isinstance(row, dict) else None
    while isinstance(value, list):
        value = value[0] if value else None
    return value


def _csv_feature(request: Request, name: str) -> str | None:
    if not request.whole:
        return None
    # The first row may have line breaks inside quotes; the reader takes as many lines as it needs. What else Python
    # breaks lines at (U+2028, form feeds) is a character like others to whoever serves the table.
    text = request.body.decode("utf-8", "replace").removeprefix("\ufeff")
    lines = io.StringIO(text[:_CSV_CHARS], newline="")
    reader = csv.reader(lines)
    try:
        columns, row = next(reader), next(reader)
    except (StopIteration, csv.Error):
        return None
    if len(text) > _CSV_CHARS and not lines.read(1):
        return None  # cut within them
    place = columns.index(name) if name in columns else len(row)
    return (row[place] or None) if place < len(row) else None
