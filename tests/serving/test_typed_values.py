"""Each column type takes its own JSON values and refuses all others, by name."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import pandas as pd
import pytest

from controller.serving.faults import InputFault
from controller.serving.signature import ALLOWED, Column
from controller.serving.values import check_nested, typed_column

GOOD: dict[str, list[Any]] = {
    "double": [1, -2.5, 0, 2**60],
    "float": [1, -2.5, 3.0e38],
    "integer": [1, -2.0, 2**31 - 1, -(2**31)],
    "long": [1, -2.0, 2**63 - 1, -(2**63)],
    "boolean": [True, False],
    "string": ["", "é"],
    "binary": [base64.b64encode(b"\x00\xff").decode(), base64.encodebytes(b"a" * 100).decode()],
    "datetime": ["2026-01-02", "2026-01-02T03:04:05.123456789", "2026-01-02 03:04:05"],
}
BAD: dict[str, list[Any]] = {
    "double": ["1", True, [1], {}, None],
    "float": ["1", True, 1e39, None],
    "integer": [1.5, "1", True, 2**31, -(2**31) - 1, 1e300, None],
    "long": [1.5, "1", False, 2**63, 1e18, None],
    "boolean": [0, 1, "true", None],
    "string": [1, True, None, ["a"]],
    "binary": ["***", 5, None],
    "datetime": ["2026-01-02T00:00:00Z", "yesterday", 0, "9999-01-01", "", None, "NaT"],
}


@pytest.mark.parametrize("kind", sorted(GOOD))
def test_a_column_takes_its_own_values(kind: str) -> None:
    typed = typed_column(Column("c", kind, required=True), "column 'c'", GOOD[kind])
    assert len(typed) == len(GOOD[kind])


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in sorted(BAD) for value in BAD[kind]])
def test_a_column_refuses_every_other_value_by_name_row_and_type(kind: str, value: Any) -> None:
    good = GOOD[kind][0]
    with pytest.raises(InputFault) as caught:
        typed_column(Column("c", kind, required=True), "column 'c'", [good, value])
    assert "column 'c' (row 1)" in caught.value.message
    assert ALLOWED[kind] in caught.value.message
    assert caught.value.status == 400


@pytest.mark.parametrize("kind", ["double", "float", "boolean", "string", "binary", "datetime"])
def test_null_is_taken_where_the_column_is_optional(kind: str) -> None:
    typed = typed_column(Column("c", kind, required=False), "column 'c'", [GOOD[kind][0], None])
    missing = np.array([bool(pd.isna(value)) for value in typed])
    assert missing.tolist() == [False, True]


def test_null_in_an_optional_integer_column_says_to_leave_it_out() -> None:
    with pytest.raises(InputFault, match="leave the column out"):
        typed_column(Column("c", "long", required=False), "column 'c'", [1, None])


def test_nested_values_are_checked_to_the_leaf_and_the_path_is_named() -> None:
    spec = {
        "type": "object",
        "properties": {
            "tags": {"type": "array", "items": {"type": "string"}, "required": True},
            "sizes": {"type": "map", "values": {"type": "double"}, "required": False},
        },
    }
    check_nested(spec, {"tags": ["a"], "sizes": {"b": 1}}, "column 'c'", missing_ok=False)
    check_nested(spec, {"tags": [], "sizes": None}, "column 'c'", missing_ok=False)
    for value, path in (
        ({"tags": ["a", 5]}, r"column 'c'\.tags\[1\] got the number 5"),
        ({"tags": [], "sizes": {"b": "1"}}, r"column 'c'\.sizes\.b got the string"),
        ({}, "misses the required property 'tags'"),
        ({"tags": [], "more": 1}, "unknown property 'more'"),
    ):
        with pytest.raises(InputFault, match=path):
            check_nested(spec, value, "column 'c'", missing_ok=False)
