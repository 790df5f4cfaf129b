"""From the bytes of a request to checked, typed columns or tensors, in MLflow's protocol.

One of `dataframe_split`, `dataframe_records`, `instances` and `inputs` must be there, beside an optional `params`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence
from typing import Any

import orjson

from controller.serving.faults import InputFault, shown
from controller.serving.signature import Column
from controller.serving.values import typed_column

FORMATS = ("dataframe_split", "dataframe_records", "instances", "inputs")
_ONE_OF = f"allowed: a JSON object with exactly one of {', '.join(FORMATS)}, and optionally params"


@dataclasses.dataclass(frozen=True)
class Body:
    """A parsed request: which of the formats, its value, and the parameters (None when there are none)."""

    form: str
    value: Any
    params: dict[str, Any] | None


@dataclasses.dataclass(frozen=True)
class Table:
    """Typed columns in the signature's order, all of length `rows`; `index` only when the client sent one.

    `columns` maps a label to an array or list; an optional column that the client left out is not in it.
    """

    columns: dict[Hashable, Any]
    rows: int
    index: list[Any] | None = None


def bad(message: str) -> InputFault:
    return InputFault(message, error_code="INVALID_PARAMETER_VALUE")


def parse_body(raw: bytes) -> Body:
    """Strict JSON: NaN, Infinity, and numbers too large for a double are refused, which `json` would let pass."""
    try:
        document = orjson.loads(raw)
    except orjson.JSONDecodeError as error:
        raise InputFault(
            f"the body is not valid JSON: {error.msg} at line {error.lineno} column {error.colno}"
        ) from None
    if not isinstance(document, dict):
        raise InputFault(f"the body is {shown(document)}; {_ONE_OF}")
    unknown = [key for key in document if key not in FORMATS and key != "params"]
    if unknown:
        raise InputFault(f"unknown key {shown(unknown[0])}; {_ONE_OF}")
    forms = [key for key in document if key != "params"]
    if len(forms) != 1:
        raise InputFault(f"got {', '.join(forms) if forms else 'none of the input keys'}; {_ONE_OF}")
    params = document.get("params")
    if params is not None and not isinstance(params, dict):
        raise bad(f"params is {shown(params)}; allowed: a JSON object")
    return Body(form=forms[0], value=document[forms[0]], params=params)


class TableReader:
    """Reads a body into a Table for one fixed column signature."""

    def __init__(self, columns: Sequence[Column]) -> None:
        self._columns = tuple(columns)
        self._named = bool(columns) and columns[0].name is not None
        self._names = [column.name for column in columns]
        self._known = set(self._names)
        self._labels = [
            f"column {column.name!r}" if self._named else f"column {position}"
            for position, column in enumerate(columns)
        ]

    def read(self, body: Body) -> Table:
        """Raises InputFault naming the column (and row) and what is allowed."""
        index: list[Any] | None = None
        keys: list[Hashable] | None = None
        if body.form == "dataframe_split":
            given, keys, index = self._from_split(body.value)
        elif body.form == "dataframe_records":
            given = self._from_records(body.value, body.form)
        else:
            given = self._from_columns(body.value, body.form)
        rows = self._rows(given)
        if index is not None and len(index) != rows:
            raise bad(f"dataframe_split.index has {len(index)} entries for {rows} rows; allowed: one per row")
        typed: dict[Hashable, Any] = {}
        for position, (column, label) in enumerate(zip(self._columns, self._labels, strict=True)):
            key: Hashable = column.name if self._named else position
            if key in given:
                typed[keys[position] if keys else key] = typed_column(column, label, given[key])
        return Table(columns=typed, rows=rows, index=index)

    def _rows(self, given: dict[Hashable, Sequence[Any]]) -> int:
        counts = {key: len(values) for key, values in given.items()}
        rows = next(iter(counts.values()), 0)
        for key, count in counts.items():
            if count != rows:
                raise bad(f"column {key!r} has {count} values and others have {rows}; allowed: the same number")
        if rows == 0:
            raise bad("the request has no rows; allowed: at least one")
        return rows

    def _from_split(self, value: Any) -> tuple[dict[Hashable, Sequence[Any]], list[Hashable] | None, list[Any] | None]:
        """Cells by column; labels to put on unnamed columns, if given; the index, if given."""
        if not isinstance(value, dict) or "data" not in value or not value.keys() <= {"columns", "data", "index"}:
            raise bad(f"dataframe_split is {shown(value)}; allowed: an object with data, columns and optionally index")
        data, names, index = value["data"], value.get("columns"), value.get("index")
        if not isinstance(data, list) or not all(isinstance(row, list) for row in data):
            raise bad("dataframe_split.data is not a list of rows; allowed: a list of lists")
        if index is not None and not isinstance(index, list):
            raise bad(f"dataframe_split.index is {shown(index)}; allowed: a list with one entry per row")
        if names is not None and not isinstance(names, list):
            raise bad(f"dataframe_split.columns is {shown(names)}; allowed: a list of column names")
        if not self._named:
            cells: dict[Hashable, Sequence[Any]] = dict(enumerate(self._transposed(data, len(self._columns))))
            if names is not None and (
                len(set(map(str, names))) != len(self._columns)
                or not all(isinstance(name, str | int) for name in names)
            ):
                raise bad(f"dataframe_split.columns does not fit; allowed: {len(self._columns)} different names")
            return cells, names, index
        if names is None:
            raise bad(f"dataframe_split.columns is missing; allowed: {self._names}")
        if names != self._names:
            self._check_names(names)
        return dict(zip(names, self._transposed(data, len(names)), strict=True)), None, index

    def _transposed(self, data: list[list[Any]], width: int) -> list[Sequence[Any]]:
        for row, cells in enumerate(data):
            if len(cells) != width:
                raise bad(f"row {row} has {len(cells)} values; allowed: one per column, {width}")
        return list(zip(*data, strict=True)) if data else [()] * width

    def _check_names(self, names: Sequence[Any]) -> None:
        seen: set[Any] = set()
        for name in names:
            if not isinstance(name, str | int) or name not in self._known:
                raise bad(f"unknown column {shown(name)}; allowed: {self._names}")
            if name in seen:
                raise bad(f"column {name!r} is there twice; allowed: once")
            seen.add(name)
        for column, label in zip(self._columns, self._labels, strict=True):
            if column.required and column.name not in seen:
                raise bad(f"{label} is missing; allowed: {column.allowed}, and it is required")

    def _from_records(self, value: Any, form: str) -> dict[Hashable, Sequence[Any]]:
        if not isinstance(value, list) or not all(isinstance(record, dict) for record in value):
            raise bad(f"{form} is not a list of records; allowed: a list of JSON objects, one per row")
        if not self._named:
            raise bad(f"the model's columns have no names; allowed: inputs with a list of rows, not {form}")
        names = dict.fromkeys(key for record in value for key in record)
        if value:
            self._check_names(list(names))
        for row, record in enumerate(value):
            if len(record) != len(names):
                self._check_record(record, row)
        return {name: [record.get(name) for record in value] for name in names}

    def _check_record(self, record: dict[str, Any], row: int) -> None:
        for column, label in zip(self._columns, self._labels, strict=True):
            if column.required and column.name not in record:
                raise bad(f"{label} (row {row}) is missing; allowed: {column.allowed}, and it is required")

    def _from_columns(self, value: Any, form: str) -> dict[Hashable, Sequence[Any]]:
        """`instances` and `inputs`: an object of columns, a list of records, or the values of the only column."""
        if isinstance(value, dict) and self._named:
            self._check_names(list(value))
            if not any(isinstance(cells, list) for cells in value.values()):
                return {name: [cell] for name, cell in value.items()}
            return self._lists(value, form)
        if not isinstance(value, list):
            raise bad(f"{form} is {shown(value)}; allowed: a list of rows or an object of columns")
        if value and all(isinstance(item, dict) for item in value) and self._named:
            return self._from_records(value, form)
        if len(self._columns) == 1:
            key: Hashable = self._columns[0].name if self._named else 0
            unwrap = not self._named and all(isinstance(item, list) and len(item) == 1 for item in value)
            return {key: [item[0] for item in value] if unwrap else value}
        if self._named:
            raise bad(f"{form} has rows without column names; allowed: JSON objects with the columns {self._names}")
        if not all(isinstance(row, list) for row in value):
            raise bad(f"{form} is not a list of rows; allowed: a list of lists")
        return dict(enumerate(self._transposed(value, len(self._columns))))

    def _lists(self, value: dict[str, Any], form: str) -> dict[Hashable, Sequence[Any]]:
        by_name = {column.name: column for column in self._columns}
        whole_cells = any(not by_name[name].is_scalar for name in value)
        if whole_cells:
            # A cell of such a column may itself be a list, and MLflow reads the object as one row.
            return {name: [cell] for name, cell in value.items()}
        for name, cells in value.items():
            if not isinstance(cells, list):
                raise bad(f"column {name!r} in {form} is {shown(cells)} beside lists; allowed: a list in every column")
        return {name: cells for name, cells in value.items()}  # noqa: C416  widens the type of the keys
