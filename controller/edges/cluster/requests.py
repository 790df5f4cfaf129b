"""What people ask for, as annotations of the rollout: ``understudy.dev/request.<id>`` = JSON of verb, who, why, at.

Verb and who come first, so that an admission policy can hold ``who`` to the authenticated user by the text's beginning
(no name stands twice in what is accepted here).
"""

import json
import re
from typing import Any

from pydantic import ValidationError

from controller.errors import SpecError
from controller.status import PersonRequest

PREFIX = "understudy.dev/request."
IDENTITY = r"[A-Za-z0-9]([A-Za-z0-9._-]{0,53}[A-Za-z0-9])?"
LONGEST = 2_000  # characters of one annotation
OPEN = 100  # requests that may wait, and that are read at once
TOLD = 3  # of the annotations that are no requests, how many are told by name
LONGEST_FAULT = 200  # characters of what is told of one
NUMBERS = 1 << 53  # times and orders are below it: what every reader of JSON can hold


def written(request: PersonRequest, order: int) -> tuple[str, str]:
    """Name and value of the annotation. ``order`` tells requests of one microsecond apart. SpecError for what no
    annotation can hold."""
    if not re.fullmatch(IDENTITY, request.id):
        raise SpecError(f"request {request.id!r}: an id is 1 to 55 letters, digits, -, _ and .")
    fields = {"verb": request.verb, "who": request.who, "why": request.why, "at": request.at, "order": order}
    text = json.dumps(fields, ensure_ascii=False, separators=(",", ":"))
    if len(text) > LONGEST:
        raise SpecError(f"--why: {len(request.why)} characters are too many; all of a request may have {LONGEST}")
    return PREFIX + request.id, text


def read(annotations: dict[str, str]) -> tuple[list[PersonRequest], dict[str, str]]:
    """The requests, oldest first; and what is wrong with those that are none, by the annotation's name.

    Of more than ``OPEN`` the oldest: the others have their turn when these are handled. Every abort is among them, as
    nobody is to keep one waiting by a crowd of other requests.
    """
    found: list[tuple[int, int, PersonRequest]] = []
    wrong: dict[str, str] = {}
    for name, text in sorted(annotations.items()):
        if not name.startswith(PREFIX):
            continue
        try:
            fields = json.loads(text[: LONGEST + 1], object_pairs_hook=_once)
            order = fields.pop("order", 0)
            request = PersonRequest.model_validate({**fields, "id": name.removeprefix(PREFIX)})
            _storable(request, order)
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            wrong[name] = _fault(error)
        else:
            found.append((request.at, order, request))
    found.sort(key=lambda each: each[:2])
    return [request for i, (_, _, request) in enumerate(found) if i < OPEN or request.verb == "abort"], wrong


def told(wrong: dict[str, str]) -> str:
    """A line about annotations that are no requests, however many there are; empty: there are none."""
    named = [f"annotation {name} is no request: {' '.join(wrong[name].split())[:LONGEST_FAULT]}" for name in wrong]
    more = len(named) - TOLD
    return "; ".join([*named[:TOLD], *([f"and {more} more"] if more > 0 else [])])


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len({name for name, _ in pairs}) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _storable(request: PersonRequest, order: object) -> None:
    """ValueError for what can be read, and could never be written into a status: it would fail every commit."""
    for name, number in (("at", request.at), ("order", order)):
        if not isinstance(number, int) or not 0 <= number < NUMBERS:
            raise ValueError(f"{name}: a whole number from 0 to {NUMBERS - 1} is needed")
    for name, text in (("who", request.who), ("why", request.why)):
        if not _encodable(text):
            raise ValueError(f"{name}: half of a surrogate pair is no character")


def _encodable(text: str) -> bool:
    return text.isascii() or text.encode(errors="replace").decode() == text


def _fault(error: Exception) -> str:
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        told = f"{'.'.join(str(part) for part in first['loc'])}: {first['msg']}"
        return told.encode(errors="replace").decode()
    return f'{error}; write JSON such as {{"verb":"approve","who":"ada","why":"…"}}'
