"""The whole way from request bytes to response bytes for one loaded model. Thread-safe when the model is."""

from __future__ import annotations

import logging
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from controller.serving.answers import encode_answer
from controller.serving.faults import InputFault, ModelFault
from controller.serving.payload import Body, Table, TableReader, bad, parse_body
from controller.serving.signature import is_tensor_schema, read_columns, read_tensors
from controller.serving.tensors import TensorReader
from controller.serving.values import check_nested

_logger = logging.getLogger("understudy.serve")

Reader = Callable[[Body], tuple[Any, int | None]]
Predict = Callable[[Any, dict[str, Any] | None], Any]


class Scorer:
    """`score(bytes) -> bytes`; raises InputFault or ModelFault and nothing else."""

    def __init__(
        self, read: Reader, predict: Predict, check_params: Callable[[Any], Any], max_response_bytes: int
    ) -> None:
        self._read = read
        self._predict = predict
        self._check_params = check_params
        self._limit = max_response_bytes
        self.predict_seconds = 0.0

    def score(self, raw: bytes) -> bytes:
        body = parse_body(raw)
        params = self._check_params(body.params)
        data, rows = self._read(body)
        started = time.perf_counter()
        try:
            predictions = self._predict(data, params)
        except InputFault:
            raise
        except Exception:  # noqa: BLE001  a model may raise anything
            raise ModelFault("the model failed on this request", details=traceback.format_exc()) from None
        finally:
            # Only ever added to, and read for a counter: a lost update among threads would cost nothing but accuracy.
            self.predict_seconds += time.perf_counter() - started
        return encode_answer(predictions, rows, self._limit)


def frame(table: Table) -> Any:
    """The DataFrame MLflow would hand to the model, built without its casts: the columns are typed already."""
    import pandas as pd

    columns = table.columns
    arrays = list(columns.values())
    index = None if table.index is None else pd.Index(table.index)
    kinds = {array.dtype if isinstance(array, np.ndarray) else None for array in arrays}
    if len(kinds) == 1 and not kinds & {None, np.dtype(object)}:
        return pd.DataFrame(np.array(arrays).T, columns=list(columns), index=index, copy=False)
    return pd.DataFrame(columns, index=index)


def plain_array(table: Table) -> Any:
    """The (rows, columns) array that `DataFrame.to_numpy()` would give, in the same memory order."""
    return np.array(list(table.columns.values())).T


def table_reader(schema: list[dict[str, Any]], build: Callable[[Table], Any]) -> Reader:
    reader = TableReader(read_columns(schema))

    def read(body: Body) -> tuple[Any, int]:
        table = reader.read(body)
        return build(table), table.rows

    return read


def element_reader(schema: list[dict[str, Any]], validate: Callable[[Any], Any]) -> Reader:
    """For a model whose predict has a type hint `list[X]`: `inputs` is a list of X, and no DataFrame is built."""

    def read(body: Body) -> tuple[Any, int]:
        if body.form != "inputs" or not isinstance(body.value, list) or not body.value:
            raise bad(f"got {body.form}; allowed: inputs with a list of at least one element")
        for position, element in enumerate(body.value):
            check_nested(schema[0], element, f"inputs[{position}]", missing_ok=True)
        validate(body.value)
        return body.value, len(body.value)

    return read


def reader_for(schema: list[dict[str, Any]], build: Callable[[Table], Any] = frame) -> Reader:
    if is_tensor_schema(schema):
        return TensorReader(read_tensors(schema)).read
    return table_reader(schema, build)


def only_scalars(schema: list[dict[str, Any]]) -> bool:
    """True when our own check is at least as strict as MLflow's, so that MLflow's can be skipped."""
    return is_tensor_schema(schema) or all(column.is_scalar for column in read_columns(schema))
