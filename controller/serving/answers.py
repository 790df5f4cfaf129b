"""From what a model returned to the bytes of `{"predictions": ...}`, or a ModelFault."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import orjson

from controller.serving.faults import ModelFault


def count_rows(predictions: Any) -> int | None:
    """How many rows an answer has; None when it is not a collection of rows. Raises ModelFault for uneven columns."""
    if isinstance(predictions, np.ndarray):
        return len(predictions) if predictions.ndim else None
    if isinstance(predictions, dict):
        counts = {len(value) for value in predictions.values() if isinstance(value, list | tuple | np.ndarray)}
        if len(counts) > 1:
            raise ModelFault("the model's answer has columns of different lengths")
        return counts.pop() if counts else None
    if isinstance(predictions, str | bytes) or not hasattr(predictions, "__len__"):
        return None
    return len(predictions)


def encode_answer(predictions: Any, rows: int | None, limit: int) -> bytes:
    """The response body, at most `limit` bytes, with one prediction per row of the request.

    A NaN or an infinity anywhere in it is the model's fault: JSON has no such numbers, and a null would hide it.
    """
    have = count_rows(predictions)
    if rows is not None and (have if have is not None else 1) != rows:
        what = "one value" if have is None else f"{have} rows"
        raise ModelFault(f"the model answered {what} to a request of {rows}")
    body = _encode(predictions)
    if len(body) > limit:
        raise ModelFault(f"the model's answer has {len(body)} bytes, more than the limit of {limit}")
    return body


def _encode(predictions: Any) -> bytes:
    if isinstance(predictions, np.ndarray) and predictions.dtype.kind in "fiub":
        if predictions.dtype.kind == "f" and not np.isfinite(predictions).all():
            raise ModelFault("the model's answer has NaN or Infinity in it")
        # tolist() first: a 32-bit float is written with the digits of the double it becomes, as MLflow does.
        return orjson.dumps({"predictions": predictions.tolist()})
    try:
        text = _ENCODER.encode({"predictions": _plain(predictions)})
    except ValueError as error:
        if "JSON compliant" in str(error):
            raise ModelFault("the model's answer has NaN or Infinity in it") from None
        raise ModelFault("the model's answer cannot be written as JSON", details=str(error)) from None
    except (TypeError, RecursionError) as error:
        raise ModelFault("the model's answer cannot be written as JSON", details=str(error)) from None
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ModelFault("the model's answer cannot be written as JSON", details=str(error)) from None


def _plain(predictions: Any) -> Any:
    import pandas as pd

    if isinstance(predictions, np.ndarray):
        return predictions.tolist()
    if isinstance(predictions, pd.Series):
        predictions = predictions.to_frame()
    if isinstance(predictions, pd.DataFrame):
        return predictions.to_dict(orient="records")
    return predictions


class _Encoder(json.JSONEncoder):
    """MLflow's own encoder for what plain JSON does not know, but never NaN, Infinity or NaT."""

    def default(self, o: Any) -> Any:
        import pandas as pd
        from mlflow.utils.proto_json_utils import NumpyEncoder

        if o is pd.NaT:
            raise ValueError("NaT is not JSON compliant")
        return NumpyEncoder().default(o)  # type: ignore[no-untyped-call]


_ENCODER = _Encoder(allow_nan=False)
