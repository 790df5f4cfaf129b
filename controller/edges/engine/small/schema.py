"""The state of a small engine: the tables of ``engine.schema`` in one SQLite file that a single process owns.

Ids are the same hashes, as signed numbers, for SQLite has no others. Lists are JSON; a sum that does not fit into 64
bits is text.
"""

import sqlite3
from pathlib import Path

from controller.errors import EdgeError

APPLICATION = 0x554E4453  # marks the file as ours
VERSION = 1
CACHE_KIB = 128  # of each open state
BUSY_S = 1.0

_EXPOSURE = "epoch, t, h, name, unit, challenger, hashed, evidence, mirror, usable, bucket, combo, scores"
_OUTCOME = "h, outcome_id, t, ingest_t, name, unit, request, row, value"
TABLES = {
    "staged_exposures": f"attempt, request_id, fell_back, numbers, {_EXPOSURE}",
    "staged_outcomes": _OUTCOME,
    "requests": f"n INTEGER PRIMARY KEY, {_EXPOSURE}",
    "entries": "epoch, unit, mirror, n, t, challenger, evidence, combo, numbers, PRIMARY KEY (unit, epoch, mirror)",
    "crossed": "epoch, unit, PRIMARY KEY (epoch, unit)",
    # An id that comes again when it is no longer known is another outcome.
    "pending": f"{_OUTCOME}, fresh",
    "outcomes": f"{_OUTCOME}, request_n, request_t, credit_t",
    "seen_outcomes": "h, ingest_t, PRIMARY KEY (h)",
    "samples": "attempt, metric, challenger, t, epoch, value",
    "foreign_ids": "h, t, PRIMARY KEY (h)",
    "segments": "segment INTEGER PRIMARY KEY, name",
    "combos": "combo, segment",
    "scores": "metric, pair, segment, unit, s, PRIMARY KEY (metric, pair, segment, unit)",
    "worst": "metric, pair, segment, unit, level, PRIMARY KEY (metric, pair, segment, unit)",
    "cells": "metric, segment, epoch, block, pair, until, body",
    "kept": "n INTEGER PRIMARY KEY, kind, key, body, UNIQUE (kind, key)",
}
# What has a number of its own as its key is found by it; of the others the key is the table.
_BY_KEY = {name for name, columns in TABLES.items() if "PRIMARY KEY (" in columns}
INDEXES = {
    "requests_h": "requests (h)",
    "requests_name": "requests (name)",
    "requests_unit": "requests (unit, t)",
    "requests_t": "requests (t)",
    "entries_t": "entries (t)",
    "pending_h": "pending (h)",
    "pending_request": "pending (request, t)",
    "pending_fresh": "pending (request) WHERE fresh",
    "outcomes_unit": "outcomes (unit, name)",
    "outcomes_request": "outcomes (request_n) WHERE request_n IS NOT NULL",
    "samples_t": "samples (metric, t)",
}


def connect(path: Path | None) -> sqlite3.Connection:
    """Open or make the state at ``path`` (None: in memory). EdgeError where another process has it, where it cannot be
    opened, or where another version wrote it."""
    if path is not None:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        con = sqlite3.connect(path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False)
        try:
            _prepare(con)
            found, version = (
                con.execute(f"PRAGMA {name}").fetchone()[0] for name in ("application_id", "user_version")
            )
        except BaseException:
            con.close()
            raise
    except sqlite3.Error as error:
        raise EdgeError(f"statistics state {path} cannot be opened: {error}") from error
    if found != APPLICATION:
        con.close()
        raise EdgeError(f"statistics state {path} is no state of ours: move it away")
    if version != VERSION:
        con.close()
        raise EdgeError(f"statistics state {path} has version {version}, this program needs {VERSION}: move it away")
    return con


def _prepare(con: sqlite3.Connection) -> None:
    con.execute("PRAGMA locking_mode = EXCLUSIVE")
    con.execute("PRAGMA journal_mode = WAL")
    con.execute("PRAGMA synchronous = FULL")  # what is acknowledged to routers must survive the loss of power
    con.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
    con.execute("BEGIN EXCLUSIVE")
    if con.execute("SELECT count(*) FROM sqlite_schema").fetchone() == (0,):
        for name, columns in TABLES.items():
            con.execute(f"CREATE TABLE {name} ({columns}){' WITHOUT ROWID' if name in _BY_KEY else ''}")
        for name, on in INDEXES.items():
            con.execute(f"CREATE INDEX {name} ON {on}")
        con.execute("INSERT INTO segments VALUES (0, '')")
        con.execute("INSERT INTO combos VALUES (0, 0)")
        con.execute(f"PRAGMA application_id = {APPLICATION}")
        con.execute(f"PRAGMA user_version = {VERSION}")
    con.execute("COMMIT")
