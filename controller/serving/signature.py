"""A model's signature, read from MLflow's own description of it (`Schema.to_dict()`); no MLflow import.

Three shapes exist: columns (a DataFrame goes in), tensors (arrays go in) and elements (a list of values typed by
a Python type hint goes in).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

SCALAR_KINDS = ("boolean", "integer", "long", "float", "double", "string", "binary", "datetime")

ALLOWED = {
    "boolean": "true or false (boolean)",
    "integer": "a whole JSON number from -2147483648 to 2147483647 (integer)",
    "long": "a whole JSON number that fits 64 bits (long)",
    "float": "a finite JSON number that fits 32 bits (float)",
    "double": "a finite JSON number (double)",
    "string": "a JSON string (string)",
    "binary": "base64 in a JSON string (binary)",
    "datetime": "an ISO 8601 time without a zone in a JSON string (datetime)",
    "array": "a JSON list (array)",
    "object": "a JSON object (object)",
    "map": "a JSON object (map)",
    "any": "any JSON value (any)",
}


@dataclasses.dataclass(frozen=True)
class Column:
    """One column. `name` is None in a signature without names, and may be a number (a DataFrame without names);

    `spec` is MLflow's own description of the type.
    """

    name: str | int | None
    kind: str
    required: bool
    spec: dict[str, Any] = dataclasses.field(default_factory=dict, compare=False)

    @property
    def is_scalar(self) -> bool:
        return self.kind in SCALAR_KINDS

    @property
    def allowed(self) -> str:
        return ALLOWED[self.kind] + (" or null" if not self.required else "")


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor; -1 in `shape` means any length."""

    name: str | None
    dtype: str
    shape: tuple[int, ...]


def read_columns(schema: Sequence[dict[str, Any]]) -> tuple[Column, ...]:
    """The columns of a column-based schema."""
    return tuple(
        Column(
            name=entry.get("name"),
            kind=entry["type"] if entry["type"] in ALLOWED else "any",
            required=bool(entry.get("required", True)),
            spec=entry,
        )
        for entry in schema
    )


def read_tensors(schema: Sequence[dict[str, Any]]) -> tuple[Tensor, ...]:
    """The tensors of a tensor-based schema."""
    return tuple(
        Tensor(
            name=entry.get("name"),
            dtype=entry["tensor-spec"]["dtype"],
            shape=tuple(entry["tensor-spec"]["shape"]),
        )
        for entry in schema
    )


def is_tensor_schema(schema: Sequence[dict[str, Any]]) -> bool:
    return bool(schema) and schema[0]["type"] == "tensor"
