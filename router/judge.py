"""Is an answer fit to be shown? A pure function of what was asked and what came back.

A model server is judged by its bodies: MLflow's answers 200 with NaN, and 400 where the model itself throws.
"""

from typing import Any, Final

import orjson

from router.heads import Request, Response

PREDICTIONS: Final = "predictions"


def passes_through(response: Response, limit: int) -> bool:
    """Whether an answer is not to be held until it is complete: a stream of events, or more than ``limit`` bytes."""
    return response.length > limit or response.event_stream


def judge(response: Response, body: bytes, request: Request) -> bool | None:
    """Whether a complete answer may be shown; None where that cannot be told (an encoded body, a
    stream of events).

    It has to be a 2xx, JSON where it says so (NaN and infinities are none), and to have as many predictions as
    rows were asked for, where both can be told. An answer without a body (to HEAD, or 204) has nothing that
    could be wrong.
    """
    if not response.successful:
        return False
    if request.method == b"HEAD" or response.status in (204, 205):
        return True
    if response.coding or response.event_stream:
        return None
    if not response.json:
        return True
    try:
        answer = orjson.loads(body)
    except ValueError:
        return False
    predictions = answer.get(PREDICTIONS) if isinstance(answer, dict) else None
    if not isinstance(predictions, list):
        return True
    asked = rows_asked(request.json())
    request.forget()
    return asked is None or asked == len(predictions)


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
