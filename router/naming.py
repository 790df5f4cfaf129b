"""What fields are called, in the formats of model servers, that hold names of other fields, or what is beside them."""

import re
from typing import Any

# What fields are called that hold a name whose value stands beside it (``{"name": "email", "data": ["…"]}``), and what
# those are called that hold the value.
NAMING = ("name", "key", "field", "column", "feature", "header", "attribute", "property", "label", "id")
# A name of one field also stands under these, and under "k".
NAMING_ONE = (*NAMING, "type", "kind", "system", "title", "param", "parameter")
VALUE = re.compile("data|val|content|text|string|raw|byte|body|array|^v$")
# What lists of names are called whose values stand beside them at the same places.
LISTS = (*NAMING, *(f"{name}s" for name in NAMING), "schema", "cols", "vars", "variables")
# What those are called that can only be the names of columns, and not of rows.
OF_COLUMNS = ("columns", "cols", "names", "features", "fields", "header", "headers", "vars", "variables", "schema")
# Fields beside such a list that are about it, and hold no values.
ABOUT = frozenset({"index", "shape", "type", "types", "dtype", "dtypes", "datatype"})


def has_rows(value: Any) -> bool:
    """Whether a value is a table, of rows of one width."""
    if not (isinstance(value, list) and value and isinstance(value[0], list)):
        return False
    width = len(value[0])
    return all(isinstance(row, list) and len(row) == width for row in value)


def only_numbers(value: Any) -> bool:
    """Whether an index says nothing about anybody."""
    return isinstance(value, list) and not any(isinstance(item, str | dict | list) for item in value)
