"""Texts by kind and key in the table ``kept``: what the engine remembers beside its rows."""

import sqlite3


class Kept:
    """The texts in ``con``. What is ``put`` is in the table after ``write``; a transaction that fails leaves this
    object behind, and another has to be made."""

    def __init__(self, con: sqlite3.Connection) -> None:
        self._con = con
        self._new: dict[tuple[str, str], str] = {}

    def taken(self, kind: str) -> dict[str, str]:
        """The texts of ``kind``, by key."""
        return dict(self._con.execute("SELECT key, body FROM kept WHERE kind = ?", [kind]))

    def put(self, kind: str, key: str, body: str) -> None:
        self._new[kind, key] = body

    def forget(self, *kinds: str) -> None:
        """Nothing of ``kinds`` is kept."""
        self._new = {key: body for key, body in self._new.items() if key[0] not in kinds}
        self._con.executemany("DELETE FROM kept WHERE kind = ?", [(kind,) for kind in kinds])

    def write(self) -> None:
        """Add what was put."""
        changes = [(*key, body) for key, body in self._new.items()]
        self._con.executemany("INSERT OR REPLACE INTO kept (kind, key, body) VALUES (?, ?, ?)", changes)
        self._new = {}
