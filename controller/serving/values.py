"""Strict conversion of JSON values to the typed arrays that a signature promises to the model.

MLflow's own server casts with numpy, so that "1.5" and true become numbers and 1.9 becomes the integer 1; here
every value must already be of the promised type. The one widening allowed is the one JSON itself needs: a number
without a fraction may be written with or without a point.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from controller.serving.faults import InputFault, shown
from controller.serving.signature import Column

_NUMPY = {"float": np.float32, "double": np.float64, "integer": np.int32, "long": np.int64}
_RANGES = {"integer": (-(2**31), 2**31 - 1), "long": (-(2**63), 2**63 - 1)}
_EXACT = 2**53  # beyond this a JSON number with a point does not name one integer any more


def typed_column(column: Column, label: str, values: Sequence[Any]) -> Any:
    """`values` (one per row) as the array or list a DataFrame column is made of.

    Raises InputFault naming `label`, the row, and what is allowed.
    """
    return _CONVERTERS[column.kind](column, label, values)


def type_fault(column: Column, label: str, row: int | None, value: object) -> InputFault:
    place = label if row is None else f"{label} (row {row})"
    verb = "is null" if value is None else f"got {shown(value)}"
    return InputFault(f"{place} {verb}; allowed: {column.allowed}", error_code="INVALID_PARAMETER_VALUE")


def _floats(column: Column, label: str, values: Sequence[Any]) -> Any:
    for row, value in enumerate(values):
        kind = type(value)
        if kind is not float and kind is not int and (value is not None or column.required):
            raise type_fault(column, label, row, value)
    if column.kind == "double":
        return np.array(values, dtype=np.float64)
    with np.errstate(over="ignore"):
        array = np.array(values, dtype=np.float32)
    if np.isinf(array).any():
        row = int(np.argmax(np.isinf(array)))
        raise type_fault(column, label, row, values[row])
    return array


def whole_number(kind: str, value: object) -> int | None:
    """`value` as an integer of `kind`, or None when it is not one."""
    low, high = _RANGES[kind]
    if type(value) is int:
        return value if low <= value <= high else None
    if type(value) is float and value.is_integer() and abs(value) <= _EXACT:
        return int(value) if low <= value <= high else None
    return None


def _integers(column: Column, label: str, values: Sequence[Any]) -> Any:
    whole: list[int] = []
    for row, value in enumerate(values):
        number = whole_number(column.kind, value)
        if number is None:
            if value is None and not column.required:
                raise InputFault(
                    f"{label} (row {row}) is null; allowed: {column.allowed.removesuffix(' or null')}, or leave the "
                    "column out: integers have no missing value",
                    error_code="INVALID_PARAMETER_VALUE",
                )
            raise type_fault(column, label, row, value)
        whole.append(number)
    return np.array(whole, dtype=_NUMPY[column.kind])


def _booleans(column: Column, label: str, values: Sequence[Any]) -> Any:
    for row, value in enumerate(values):
        if type(value) is not bool and (value is not None or column.required):
            raise type_fault(column, label, row, value)
    missing = any(value is None for value in values)
    return np.array(values, dtype=object if missing else np.bool_)


def _strings(column: Column, label: str, values: Sequence[Any]) -> Any:
    for row, value in enumerate(values):
        if type(value) is not str and (value is not None or column.required):
            raise type_fault(column, label, row, value)
    return list(values)


def decoded(value: object) -> bytes | None:
    """Bytes of a base64 string (line breaks allowed, as MLflow's own encoder writes them), or None."""
    if not isinstance(value, str):
        return None
    try:
        return base64.b64decode(value.replace("\n", ""), validate=True)
    except (binascii.Error, ValueError):
        return None


def _binaries(column: Column, label: str, values: Sequence[Any]) -> Any:
    out = np.empty(len(values), dtype=object)
    for row, value in enumerate(values):
        if value is None and not column.required:
            continue
        out[row] = decoded(value)
        if out[row] is None:
            raise type_fault(column, label, row, value)
    return out


def instant(value: object) -> Any:
    """A `pandas.Timestamp` in nanoseconds without a zone, or None when `value` is not such a time."""
    import pandas as pd

    if not isinstance(value, str):
        return None
    try:
        stamp = pd.to_datetime(value, format="ISO8601").as_unit("ns")
    except (ValueError, OverflowError):
        return None
    return None if pd.isna(stamp) or stamp.tzinfo is not None else stamp


def _datetimes(column: Column, label: str, values: Sequence[Any]) -> Any:
    import pandas as pd

    stamps: list[Any] = []
    for row, value in enumerate(values):
        stamp = pd.NaT if value is None and not column.required else instant(value)
        if stamp is None:
            raise type_fault(column, label, row, value)
        stamps.append(stamp)
    return pd.Series(stamps, dtype="datetime64[ns]").to_numpy()


def _nested(column: Column, label: str, values: Sequence[Any]) -> Any:
    for row, value in enumerate(values):
        if value is None and not column.required:
            continue
        check_nested(column.spec, value, f"{label} (row {row})", missing_ok=False)
    return list(values)


_CONVERTERS: dict[str, Callable[[Column, str, Sequence[Any]], Any]] = {
    "float": _floats,
    "double": _floats,
    "integer": _integers,
    "long": _integers,
    "boolean": _booleans,
    "string": _strings,
    "binary": _binaries,
    "datetime": _datetimes,
    "array": _nested,
    "object": _nested,
    "map": _nested,
    "any": _nested,
}

_LEAF_CHECKS: dict[str, Callable[[object], bool]] = {
    "float": lambda value: type(value) in (int, float),
    "double": lambda value: type(value) in (int, float),
    "integer": lambda value: whole_number("integer", value) is not None,
    "long": lambda value: whole_number("long", value) is not None,
    "boolean": lambda value: type(value) is bool,
    "string": lambda value: type(value) is str,
    "binary": lambda value: decoded(value) is not None,
    "datetime": lambda value: isinstance(value, str),
    "array": lambda value: isinstance(value, list),
    "object": lambda value: isinstance(value, dict),
    "map": lambda value: isinstance(value, dict),
    "any": lambda value: True,
}


def check_nested(spec: dict[str, Any], value: object, place: str, *, missing_ok: bool) -> None:
    """Check one nested value against MLflow's description of its type; InputFault names the path.

    `missing_ok`: leave absent properties to the model's own type, which may have defaults.
    """
    kind = spec.get("type", "any")
    required = bool(spec.get("required", True))
    if value is None and not required:
        return
    if kind not in _LEAF_CHECKS:
        return
    if not _LEAF_CHECKS[kind](value):
        raise type_fault(Column(name=None, kind=kind, required=required), place, None, value)
    if isinstance(value, list) and kind == "array":
        for index, item in enumerate(value):
            check_nested(spec["items"], item, f"{place}[{index}]", missing_ok=missing_ok)
    elif isinstance(value, dict) and kind == "map":
        for key, item in value.items():
            check_nested(spec["values"], item, f"{place}.{key[:40]}", missing_ok=missing_ok)
    elif isinstance(value, dict) and kind == "object":
        _check_properties(spec["properties"], value, place, missing_ok=missing_ok)


def _check_properties(
    properties: dict[str, dict[str, Any]], value: dict[str, Any], place: str, *, missing_ok: bool
) -> None:
    for key in value:
        if key not in properties:
            raise InputFault(
                f"{place} has the unknown property {key[:40]!r}; allowed: {sorted(properties)}",
                error_code="INVALID_PARAMETER_VALUE",
            )
    for key, spec in properties.items():
        if key in value:
            check_nested(spec, value[key], f"{place}.{key}", missing_ok=missing_ok)
        elif spec.get("required", True) and not missing_ok:
            raise InputFault(f"{place} misses the required property {key!r}", error_code="INVALID_PARAMETER_VALUE")
