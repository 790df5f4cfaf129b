"""Is an answer fit to be shown? A pure function of what was asked and what came back.

A model server is judged by its bodies: MLflow's answers 200 with NaN, and 400 where the model itself throws.
"""

from typing import Any

import orjson

from router.heads import Request, Response

PREDICTIONS = "predictions"
_EVENT_STREAM = b"text/event-stream"


def successful(response: Response) -> bool:
    """Whether the status is a 2xx."""
    return 200 <= response.status < 300


def passes_through(response: Response, limit: int) -> bool:
    """Whether an answer is not to be held until it is complete: a stream of events, or more than ``limit`` bytes."""
    return response.length > limit or response.content_type.startswith(_EVENT_STREAM)


def judge(response: Response, body: bytes, request: Request) -> bool | None:
    """Whether a complete answer may be shown; None where that cannot be told (an encoded body, a
    stream of events).

    It has to be a 2xx, JSON where it says so (NaN and infinities are none), and to have as many predictions as
    rows were asked for, where both can be told. An answer without a body (to HEAD, or 204) has nothing that
    could be wrong.
    """
    if not 200 <= response.status < 300:
        return False
    if request.method == b"HEAD" or response.status in (204, 205):
        return True
    if response.encoded or response.content_type.startswith(_EVENT_STREAM):
        return None
    if not is_json(response.content_type):
        return True
    try:
        answer = orjson.loads(body)
    except ValueError:
        return False
    given = rows_given(answer)
    if given is None:
        return True
    asked = rows_asked(request.json())
    return asked is None or asked == given


def is_json(content_type: bytes) -> bool:
    """Whether a (lower-case) media type is JSON: application/json, or with the suffix +json (RFC 6839)."""
    media = content_type.partition(b";")[0].strip(b" \t")
    return media in {b"application/json", b"text/json"} or media.endswith(b"+json")


def rows_given(answer: Any) -> int | None:
    """How many predictions an answer has; None where it has no list of them."""
    predictions = answer.get(PREDICTIONS) if isinstance(answer, dict) else None
    if isinstance(predictions, list):
        return len(predictions)
    return None


def rows_asked(body: Any) -> int | None:
    """How many rows a request in one of MLflow's formats asks for; None where it is none of them."""
    if not isinstance(body, dict):
        return None
    for name in ("dataframe_split", "dataframe_records", "instances", "inputs"):
        if name in body:
            return _rows(name, body[name])
    return None


def _rows(name: str, value: Any) -> int | None:
    if name == "dataframe_split":
        data = value.get("data") if isinstance(value, dict) else None
        return len(data) if isinstance(data, list) else None
    if isinstance(value, list):
        return len(value)
    if isinstance(value, dict) and value:
        lengths = {len(column) if isinstance(column, list) else None for column in value.values()}
        if len(lengths) == 1:
            return lengths.pop()
    return None
