"""The state of the engine: tables of one DuckDB file that a single process owns."""

import contextlib
import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import duckdb

from controller.errors import EdgeError

VERSION = 6
MEMORY = "512MB"

# Ids are 64-bit hashes (xxh64) of texts; 0 is none. Times are µs. ``h`` tells a request from all others, ``name`` is
# the id that outcomes know it by, which requests of several journals may share.
_EXPOSURE = """
    epoch INTEGER, t BIGINT, h UBIGINT, name UBIGINT, unit UBIGINT, challenger BOOLEAN, hashed BOOLEAN,
    evidence BOOLEAN, mirror BOOLEAN, usable BOOLEAN, bucket SMALLINT, combo INTEGER, scores DOUBLE[]"""
_OUTCOME = """
    h UBIGINT, outcome_id VARCHAR, t BIGINT, ingest_t BIGINT, name VARCHAR, unit UBIGINT, request UBIGINT,
    row INTEGER, value DOUBLE"""

TABLES = {
    # Read from the journals, and at or after the watermark: not in order yet.
    "staged_exposures": f"attempt INTEGER, request_id VARCHAR, fell_back BOOLEAN, numbers BIGINT[], {_EXPOSURE}",
    "staged_outcomes": _OUTCOME,
    # Exposures of the attempt before the watermark, in the order n of (t, request id); also who is a duplicate.
    "requests": f"n BIGINT, {_EXPOSURE}",
    # First hash-assigned exposure of a unit in an epoch, for the attempt's life; mirror rows only count.
    "entries": """epoch INTEGER, unit UBIGINT, mirror BOOLEAN, n BIGINT, t BIGINT, challenger BOOLEAN,
        evidence BOOLEAN, combo INTEGER, numbers BIGINT[]""",
    # Units that were evidence for both arms of an epoch.
    "crossed": "epoch INTEGER, unit UBIGINT",
    # Outcomes before the watermark that wait for their exposure, and those that found it (or need none).
    "pending": f"{_OUTCOME}, fresh BOOLEAN",
    "outcomes": f"{_OUTCOME}, request_n BIGINT, request_t BIGINT, credit_t BIGINT",
    "seen_outcomes": "h UBIGINT, ingest_t BIGINT",
    # Samples of gauges that were in time.
    "samples": "attempt INTEGER, metric VARCHAR, challenger BOOLEAN, t BIGINT, epoch INTEGER, value BIGINT",
    # Requests and units of other attempts: their outcomes are not unknown.
    "foreign_ids": "h UBIGINT, t BIGINT",
    # Combinations of segments that exposures have; segment 0 is everything.
    "segments": "segment INTEGER, name VARCHAR",
    "combos": "combo INTEGER, segment INTEGER",
    # Running scores of units, as additions (summed up now and then).
    "scores": "metric VARCHAR, pair BOOLEAN, segment INTEGER, unit UBIGINT, s HUGEINT",
    # The largest level that units have reached, as additions likewise (see ``service``).
    "worst": "metric VARCHAR, pair BOOLEAN, segment INTEGER, unit UBIGINT, level SMALLINT",
    "cells": "metric VARCHAR, segment VARCHAR, epoch INTEGER, block BIGINT, pair BOOLEAN, until BIGINT, body VARCHAR",
    # Texts by kind and key; of several the one with the largest n counts (see ``kept``).
    "kept": "n BIGINT, kind VARCHAR, key VARCHAR, body VARCHAR",
    "meta": "key VARCHAR, body VARCHAR",
}
OF_THE_ATTEMPT = ("requests", "entries", "crossed", "scores", "worst", "cells")


class Opened(NamedTuple):
    """A state, and what lets go of it."""

    con: duckdb.DuckDBPyConnection
    close: Callable[[], None]


class SharedStates:
    """One DuckDB to which the states of many rollouts are attached, for a process that has hundreds of them.

    They share its threads and its memory limit; alone, an empty state has eight threads and five megabytes. Its
    methods may be called by several threads, what ``connect`` returns by one. ``spill``: a folder for what does not
    fit into memory.
    """

    def __init__(self, spill: Path) -> None:
        config: dict[str, Any] = {"threads": 1, "memory_limit": MEMORY, "temp_directory": str(spill)}
        self._root = duckdb.connect(":memory:", config=config)
        self._lock = threading.Lock()
        self._numbers = itertools.count()

    def attach(self, path: Path) -> Opened:
        """Raises duckdb.Error."""
        with self._lock:
            name, file = f"state_{next(self._numbers)}", str(path).replace("'", "''")
            self._root.execute(f"ATTACH '{file}' AS {name}")
            con = self._root.cursor()
            con.execute(f"USE {name}")

        def close() -> None:
            # Here and not by letting go of it, which nobody else can do meanwhile.
            with contextlib.suppress(duckdb.Error):
                con.execute(f"CHECKPOINT {name}")
            con.close()
            # Where the checkpoint fails for want of space, what is committed is read from its log the next time.
            with self._lock, contextlib.suppress(duckdb.Error):
                self._root.execute(f"DETACH {name}")

        return Opened(con, close)


def connect(path: Path | None, shared: SharedStates | None = None) -> Opened:
    """Open or make the state at ``path`` (None: in memory), ``shared`` with others or by itself.

    Raises EdgeError where another process has it, where it cannot be opened, or where another version wrote it.
    """
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        if path is not None and shared is not None:
            opened = shared.attach(path)
        else:
            alone = duckdb.connect(str(path or ":memory:"), config={"threads": 1, "memory_limit": MEMORY})
            opened = Opened(alone, alone.close)
    except duckdb.Error as error:
        raise EdgeError(f"statistics state {path} cannot be opened: {error}") from error
    try:
        found = _prepared(opened.con)
    except duckdb.Error as error:
        opened.close()
        raise EdgeError(f"statistics state {path} cannot be opened: {error}") from error
    if found != str(VERSION):
        opened.close()
        raise EdgeError(f"statistics state {path} has version {found}, this program needs {VERSION}: move it away")
    return opened


def _prepared(con: duckdb.DuckDBPyConnection) -> str:
    """Its version, once all tables are there."""
    version = "SELECT body FROM meta WHERE key = 'version'"
    try:
        found = con.execute(version).fetchall()
    except duckdb.CatalogException:  # a new one
        con.execute("BEGIN")
        for name, columns in TABLES.items():
            con.execute(f"CREATE TABLE {name} ({columns})")
        con.execute("INSERT INTO meta VALUES ('version', ?)", [str(VERSION)])
        con.execute("INSERT INTO segments VALUES (0, '')")
        con.execute("INSERT INTO combos VALUES (0, 0)")
        con.execute("COMMIT")
        found = con.execute(version).fetchall()
    return str(found[0][0])
