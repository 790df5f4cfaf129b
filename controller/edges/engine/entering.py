"""Units enter epochs: which of the settled requests are the first of their unit, and what that adds to the counts.

A step has few requests beside all that is known, so only the entries of their units are looked up; what is then to be
told apart is told here, in arrays, and not by a query each.
"""

from collections.abc import Iterable
from typing import Any, NamedTuple

import duckdb
import numpy as np

from controller.edges.engine.settling import Counts

Column = np.ndarray[Any, np.dtype[Any]]


class _Rows(NamedTuple):
    """Entries that are known of some units, then the requests of the step in their order, as columns."""

    epoch: Column
    unit: Column
    mirror: Column
    challenger: Column
    evidence: Column
    weighted: Column

    def at(self, which: Column) -> "_Rows":
        return _Rows(*(column[which] for column in self))


def enter(con: duckdb.DuckDBPyConnection, mirrors: Iterable[int]) -> Counts:
    """Enter the units of ``settled`` into ``entries``, and units that changed their arm into ``crossed``; what all
    that adds to the counts of epochs."""
    columns = "epoch, unit, mirror, challenger, evidence"
    # Of all entries, written so that the units that came are hashed, and not the many that are known.
    met = con.execute(f"SELECT {columns} FROM entries e SEMI JOIN settled s ON s.unit = e.unit").fetchnumpy()
    new = con.execute(f"SELECT n, {columns}, hashed, fell_back FROM settled ORDER BY n").fetchnumpy()
    joined = (np.concatenate([met[name], new[name]]) for name in ("epoch", "unit", "mirror", "challenger", "evidence"))
    epoch, unit, mirror, challenger, evidence = joined
    shown = np.array(list(mirrors), dtype=epoch.dtype)
    rows = _Rows(epoch, unit, mirror, challenger, evidence, ~mirror & ~np.isin(epoch, shown))
    place = _numbered(epoch, unit, mirror)
    many = len(met["unit"])
    hashed = many + np.flatnonzero(new["hashed"])
    fresh = hashed[~np.isin(place[hashed], place[:many])]
    entered = np.sort(fresh[np.unique(place[fresh], return_index=True)[1]])
    _insert(con, new["n"][entered - many])
    counts = _requests(rows.at(hashed), new["fell_back"][hashed - many], shown)
    counts += _units(rows, entered, many, shown)
    return counts + _cross(con, rows, place, entered, many)


def _numbered(*columns: Column) -> Column:
    """A number for each row, equal where all columns are."""
    order = np.lexsort(columns)
    changes = np.zeros(len(order), dtype=bool)
    for column in columns:
        ordered = column[order]
        changes[1:] |= ordered[1:] != ordered[:-1]
    numbers = np.empty(len(order), dtype=np.int64)
    numbers[order] = np.cumsum(changes)
    return numbers


def _insert(con: duckdb.DuckDBPyConnection, numbers: Column) -> None:
    if len(numbers):
        columns = {"n": numbers}
        con.execute(
            "INSERT INTO entries SELECT epoch, unit, mirror, n, t, challenger, evidence, combo, numbers "
            "FROM settled SEMI JOIN columns USING (n) ORDER BY n"
        )
        del columns  # DuckDB finds it by its name


def _counted(epoch: Column, named: dict[str, Column]) -> Counts:
    """How many of each epoch there are under each name."""
    return [
        (int(number), name, int(np.count_nonzero(which & (epoch == number))))
        for number in np.unique(epoch)
        for name, which in named.items()
    ]


def _requests(rows: _Rows, fell_back: Column, shown: Column) -> Counts:
    plain = ~rows.mirror
    other = np.where(np.isin(rows.epoch, shown), rows.mirror, rows.challenger & plain)
    named = {"champion_requests": ~rows.challenger & plain, "challenger_requests": other, "fallbacks": fell_back}
    return _counted(rows.epoch, named)


def _units(rows: _Rows, entered: Column, many: int, shown: Column) -> Counts:
    """Units of the arms by epoch, and the sample ratio's: each at its first weighted entry of the attempt."""
    of = rows.at(entered)
    counts = np.isin(of.epoch, shown) | of.evidence
    other = of.challenger | of.mirror
    found = _counted(of.epoch, {"challenger_units": counts & other, "champion_units": counts & ~other})
    weighted = entered[of.weighted]
    earliest = weighted[np.unique(rows.unit[weighted], return_index=True)[1]]
    known = rows.unit[:many][rows.weighted[:many]]
    first = rows.at(earliest[~np.isin(rows.unit[earliest], known) & rows.evidence[earliest]])
    named = {"first_challenger": first.challenger, "first_champion": ~first.challenger}
    return found + _counted(first.epoch, named)


def _cross(con: duckdb.DuckDBPyConnection, rows: _Rows, place: Column, entered: Column, many: int) -> Counts:
    """Units that are evidence for an arm which is not the one they entered the epoch with."""
    counts = rows.evidence & rows.weighted
    entries = np.concatenate([np.arange(many), entered])
    entries = entries[counts[entries]]
    arm = np.full(len(place), -1, dtype=np.int8)
    arm[place[entries]] = rows.challenger[entries]
    seen = many + np.flatnonzero(counts[many:])
    other = arm[place[seen]]
    crossing = seen[(other >= 0) & (other != rows.challenger[seen])]
    if not len(crossing):
        return []
    crossing = crossing[np.unique(place[crossing], return_index=True)[1]]
    columns = {"epoch": rows.epoch[crossing], "unit": rows.unit[crossing]}
    found = con.execute("SELECT epoch, unit FROM columns ANTI JOIN crossed USING (epoch, unit)").fetchnumpy()
    columns = {"epoch": found["epoch"], "unit": found["unit"]}
    con.execute("INSERT INTO crossed SELECT * FROM columns")
    everyone = np.ones(len(columns["unit"]), dtype=bool)
    return _counted(columns["epoch"], {"overlap": everyone})
