"""A small engine's tables become those of a large one, once they are too many for it."""

from pathlib import Path
from typing import Any

import numpy as np

from controller.edges.engine import schema as large
from controller.edges.engine.small.settle import unsigned
from controller.edges.engine.small.tables import SmallTables

MOST_ROWS = 500_000
MOST_WAITING = 20_000  # rows that are all looked at in the step that settles them
_AT_ONCE = 20_000


def outgrown(tables: SmallTables, waiting: int) -> bool:
    """Whether there is more than a small engine is for; ``waiting``: rows that are not settled, or not matched."""
    if waiting > MOST_WAITING:
        return True
    # One by one: each is the end of an index, and both together were a look at every row.
    spans = (f"coalesce((SELECT max({n}) FROM {t}) - (SELECT min({n}) FROM {t}), 0)" for t, n in _NUMBERED)
    return bool(tables.con.execute(f"SELECT {' + '.join(spans)} > ?", (MOST_ROWS,)).fetchone()[0])


_NUMBERED = (("requests", "n"), ("outcomes", "rowid"))


def grow(tables: SmallTables, path: Path) -> None:
    """Write all that is committed in ``tables`` into a DuckDB file at ``path``, which is there whole or not at all.
    EdgeError, or an error of DuckDB, SQLite or the disk: it is not there."""
    new = path.with_name(f".{path.name}.new")
    _delete(new)
    try:
        _write(tables, new)
        new.replace(path)
    except BaseException:
        _delete(new)
        raise


def _delete(new: Path) -> None:
    for suffix in ("", ".wal"):
        new.with_name(new.name + suffix).unlink(missing_ok=True)


def _write(tables: SmallTables, new: Path) -> None:
    con, close = large.connect(new)
    try:
        con.execute("BEGIN")
        for table in ("segments", "combos"):
            con.execute(f"DELETE FROM {table}")
        for table in large.TABLES.keys() - {"meta"}:
            _copy(tables, con, table)
        con.execute("COMMIT")
        con.execute("CHECKPOINT")
    finally:
        close()


def _copy(tables: SmallTables, con: Any, table: str) -> None:
    """All rows of ``table``. Values go as texts, which both read back exactly."""
    types = {name: kind for name, kind, *_ in con.execute(f"DESCRIBE {table}").fetchall()}
    wanted = ", ".join(types)
    casts = ", ".join(f"CAST({name} AS {kind})" for name, kind in types.items())
    rows = tables.con.execute(
        f"SELECT {wanted} FROM {table}{' ORDER BY n' if table in ('requests', 'entries') else ''}"
    )
    while some := rows.fetchmany(_AT_ONCE):
        columns = {
            name: np.array([_text(value, kind) for value in values], dtype=object)
            for (name, kind), values in zip(types.items(), zip(*some, strict=True), strict=True)
        }
        con.execute(f"INSERT INTO {table} SELECT {casts} FROM columns")
        del columns  # DuckDB finds it by its name


def _text(value: Any, kind: str) -> str | None:
    if value is None:
        return None
    if kind == "UBIGINT":
        return str(unsigned(value))
    if kind.endswith("[]"):
        return str(value).replace("null", "NULL")  # JSON's word for it
    return repr(value) if isinstance(value, float) else str(value)
