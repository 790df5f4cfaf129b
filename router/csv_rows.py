"""Tables in CSV, whatever separates their cells."""

import csv
import io

_DELIMITERS = ",;\t|"


def read(text: str) -> tuple[list[list[str]], str]:
    """The rows of a table, first the names of its columns, and what separates the cells. A row may be too short.

    Raises csv.Error, or ValueError where that is no table: there is one row only, a title above the names, or cells
    that may be separated by something else.
    """
    first = text.partition("\n")[0]
    delimiter = max(_DELIMITERS, key=first.count)
    rows = list(csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter))
    names = len(rows[0])
    doubtful = any(other in first for other in _DELIMITERS if other != delimiter)
    if len(rows) < 2 or any(len(row) > names or (doubtful and 0 < len(row) < names) for row in rows):
        raise ValueError("no table")
    return rows, delimiter


def written(rows: list[list[str]], delimiter: str) -> str:
    """The table again."""
    out = io.StringIO(newline="")
    csv.writer(out, lineterminator="\n", delimiter=delimiter).writerows(rows)
    return out.getvalue()
