"""Texts by kind and key in one table: what the engine remembers beside its rows.

A text that changed is added, and the last one counts: all that a transaction changes is one INSERT, where an update by
key would be several times as dear. What was superseded goes when it is more than what counts.
"""

from collections.abc import Sequence

import duckdb

SUM_UP_FROM = 500
_AT_ONCE = 200

Key = tuple[str, str]  # kind and key


def insert(con: duckdb.DuckDBPyConnection, table: str, rows: Sequence[Sequence[object]]) -> None:
    """Add a few rows of plain values."""
    for start in range(0, len(rows), _AT_ONCE):
        part = rows[start : start + _AT_ONCE]
        marks = ",".join(["(" + ",".join("?" * len(part[0])) + ")"] * len(part))
        con.execute(f"INSERT INTO {table} VALUES {marks}", [value for row in part for value in row])


class Kept:
    """The texts in ``con``. What is ``put`` is in the table after ``write``; a transaction that fails leaves this
    object behind, and another has to be made."""

    def __init__(self, con: duckdb.DuckDBPyConnection) -> None:
        self._con = con
        found = con.execute("SELECT kind, key, arg_max(body, n), max(n), count(*) FROM kept GROUP BY kind, key")
        rows = found.fetchall()
        self._read: dict[Key, str] = {(kind, key): body for kind, key, body, _, _ in rows}
        self._known = set(self._read)
        self._last = max((n for *_, n, _ in rows), default=0)
        self._rows = sum(count for *_, count in rows)
        self._new: dict[Key, str] = {}

    def taken(self, kind: str) -> dict[str, str]:
        """The texts of ``kind`` that were there at first, by key; they are held no longer."""
        return {key: self._read.pop((of, key)) for of, key in list(self._read) if of == kind}

    def put(self, kind: str, key: str, body: str) -> None:
        self._new[kind, key] = body

    def forget(self, *kinds: str) -> None:
        """Nothing of ``kinds`` is kept."""
        for kind in kinds:
            self._con.execute("DELETE FROM kept WHERE kind = ?", [kind])
            self._new = {key: body for key, body in self._new.items() if key[0] != kind}
            self._known = {key for key in self._known if key[0] != kind}

    def write(self) -> None:
        """Add what was put."""
        if not self._new:
            return
        insert(self._con, "kept", [(self._last + i, *key, body) for i, (key, body) in enumerate(self._new.items(), 1)])
        self._last += len(self._new)
        self._rows += len(self._new)
        self._known |= self._new.keys()
        self._new = {}
        if self._rows > 2 * len(self._known) + SUM_UP_FROM:
            self._con.execute("DELETE FROM kept WHERE n NOT IN (SELECT max(n) FROM kept GROUP BY kind, key)")
            self._rows = len(self._known)
