"""Ids become 64-bit hashes, and segments numbers."""

from typing import Any, Protocol

import xxhash

MOST_SEGMENTS = 1_000
MOST_COMBOS = 10_000


class Database(Protocol):
    """A connection to DuckDB or to SQLite."""

    def execute(self, query: str, parameters: Any = ..., /) -> Any: ...

    def executemany(self, query: str, parameters: Any, /) -> Any: ...


def identity(text: str | None) -> int:
    """The 64-bit hash that stands for an id; 0 only for None."""
    return 0 if text is None else xxhash.xxh64_intdigest(text.encode()) or 1


class Segments:
    """Numbers for the combinations of segments that exposures have; new ones are written as they appear.

    At most MOST_SEGMENTS segments and MOST_COMBOS combinations get a number: what comes later counts in everything
    only, so that an attribute with endless values cannot grow the state without bound. ``names`` of segments by
    number and ``numbers`` by name, ``parts``: the segments of each combination, ascending.
    """

    def __init__(self, con: Database) -> None:
        self._con = con
        found = con.execute("SELECT segment, name FROM segments").fetchall()
        self.names: dict[int, str] = dict(found)
        self.numbers = {name: number for number, name in found}
        self._combos: dict[tuple[str, ...], int] = {}
        self.parts: dict[int, tuple[int, ...]] = {}
        for combo, segment in con.execute("SELECT combo, segment FROM combos ORDER BY segment").fetchall():
            self.parts[combo] = (*self.parts.get(combo, ()), segment)
        self._known = {parts: combo for combo, parts in self.parts.items()}

    def combo(self, texts: tuple[str, ...]) -> int:
        """The number of a combination of ``name=value`` texts."""
        number = self._combos.get(texts)
        if number is None:
            if len(self._combos) >= 4 * MOST_COMBOS:
                self._combos.clear()
            number = self._combos[texts] = self._number(texts)
        return number

    def _number(self, texts: tuple[str, ...]) -> int:
        parts = tuple(sorted({0, *(self._segment(text) for text in texts)}))
        known = self._known.get(parts)
        if known is not None:
            return known
        if len(self._known) >= MOST_COMBOS:
            return 0
        number = self._known[parts] = len(self._known)
        self.parts[number] = parts
        self._con.executemany("INSERT INTO combos VALUES (?, ?)", [[number, part] for part in parts])
        return number

    def _segment(self, text: str) -> int:
        known = self.numbers.get(text)
        if known is None:
            if len(self.numbers) > MOST_SEGMENTS:
                return 0
            known = self.numbers[text] = len(self.numbers)
            self.names[known] = text
            self._con.execute("INSERT INTO segments VALUES (?, ?)", [known, text])
        return known
