"""Strict reading of tensors: nested JSON lists to numpy arrays of the promised dtype and shape."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from controller.serving.faults import shown
from controller.serving.payload import Body, bad
from controller.serving.signature import Tensor

_ALLOWED = {
    "f": "finite JSON numbers",
    "i": "whole JSON numbers in the range of the dtype",
    "u": "whole JSON numbers in the range of the dtype",
    "b": "true or false",
    "U": "JSON strings",
}


class TensorReader:
    """Reads a body into one array (unnamed signature) or a dict of arrays, and counts its rows."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        for tensor in tensors:
            if np.dtype(tensor.dtype).kind not in _ALLOWED:
                raise ValueError(f"tensors of dtype {tensor.dtype} cannot be written in JSON")
        self._tensors = tuple(tensors)
        self._names = [tensor.name for tensor in tensors]

    def read(self, body: Body) -> tuple[Any, int]:
        """(model input, number of rows). Raises InputFault naming the tensor and what is allowed."""
        if self._names[0] is None:
            array = _array(self._tensors[0], self._unnamed(body), body.form)
            return array, len(array)
        given = self._named(body)
        arrays = {
            tensor.name: _array(tensor, given[str(tensor.name)], f"tensor {tensor.name!r}") for tensor in self._tensors
        }
        return arrays, len(next(iter(arrays.values())))

    def _unnamed(self, body: Body) -> list[Any]:
        value = body.value
        if body.form == "dataframe_split" and isinstance(value, dict):
            value = value.get("data")
        elif body.form == "dataframe_records":
            raise bad("the model takes one unnamed tensor, not records; allowed: inputs with nested lists")
        if not isinstance(value, list) or not value:
            raise bad(f"{body.form} has no rows; allowed: nested lists of shape {self._tensors[0].shape}")
        return value

    def _named(self, body: Body) -> dict[str, Any]:
        value = body.value
        if body.form in ("instances", "dataframe_records") and isinstance(value, list) and value:
            records = value
            if not all(isinstance(record, dict) and record.keys() == value[0].keys() for record in records):
                raise bad(f"{body.form} has differing rows; allowed: objects with the tensors {self._names}")
            value = {name: [record[name] for record in records] for name in value[0]}
        if not isinstance(value, dict) or body.form == "dataframe_split":
            raise bad(f"{body.form} is {shown(value)}; allowed: inputs, an object with the tensors {self._names}")
        for name in value:
            if name not in self._names:
                raise bad(f"unknown tensor {shown(name)}; allowed: {self._names}")
        for name in self._names:
            if name not in value:
                raise bad(f"tensor {name!r} is missing; allowed: every one of {self._names}")
        return value


def _array(tensor: Tensor, value: Any, label: str) -> Any:
    dtype = np.dtype(tensor.dtype)
    allowed = f"nested lists of {_ALLOWED[dtype.kind]} ({tensor.dtype}) of shape {tensor.shape}"
    if not isinstance(value, list):
        raise bad(f"{label} is {shown(value)}; allowed: {allowed}")
    wrong = next(_wrong_leaves(value, _leaf_check(dtype)), None)
    if wrong is not None:
        raise bad(f"{label} got {shown(wrong[0])}; allowed: {allowed}")
    try:
        with np.errstate(over="ignore"):
            array = np.array(value, dtype=dtype)
    except (ValueError, OverflowError):
        raise bad(f"{label} has rows of different lengths; allowed: {allowed}") from None
    if dtype.kind == "f" and not np.isfinite(array).all():
        raise bad(f"{label} has a number too large for {tensor.dtype}; allowed: {allowed}")
    fits = len(array.shape) == len(tensor.shape) and all(
        want in (-1, have) for want, have in zip(tensor.shape, array.shape, strict=True)
    )
    if not fits:
        raise bad(f"{label} has the shape {array.shape}; allowed: {allowed}")
    if len(array) == 0:
        raise bad(f"{label} has no rows; allowed: at least one")
    return array


def _leaf_check(dtype: np.dtype[Any]) -> Callable[[Any], bool]:
    if dtype.kind == "f":
        return lambda leaf: type(leaf) in (float, int)
    if dtype.kind in "iu":
        limits = np.iinfo(dtype)
        return lambda leaf: (
            (type(leaf) is int or (type(leaf) is float and leaf.is_integer() and abs(leaf) <= 2**53))
            and int(limits.min) <= leaf <= int(limits.max)
        )
    kind = bool if dtype.kind == "b" else str
    return lambda leaf: type(leaf) is kind


def _wrong_leaves(value: list[Any], right: Callable[[Any], bool]) -> Iterator[tuple[Any]]:
    """Leaves of the wrong type, each in a tuple so that a null can be told from nothing found."""
    for item in value:
        if isinstance(item, list):
            yield from _wrong_leaves(item, right)
        elif not right(item):
            yield (item,)
