"""Which of the two kinds of state a rollout has: a small one, until it has outgrown that."""

import logging
import sqlite3
from pathlib import Path

import duckdb

from controller.edges.engine.engine import Engine
from controller.edges.engine.schema import SharedStates
from controller.edges.engine.small import SmallTables, grow, outgrown
from controller.errors import EdgeError

log = logging.getLogger("understudy.statistics")
ERRORS = (OSError, duckdb.Error, sqlite3.Error)


def small_file(path: Path) -> Path:
    """Where the small state lies that becomes a large one at ``path``."""
    return path.with_suffix(".sqlite")


def opened(path: Path | None, shared: SharedStates | None) -> Engine:
    """The engine at ``path``, large if it is one already or is kept in memory (None). EdgeError as ``Engine``."""
    if path is None or path.exists():
        if path is not None:
            _forget(path)
        return Engine(path, shared=shared)
    small = small_file(path)
    return Engine(tables=lambda: SmallTables(small))


def grew(engine: Engine, path: Path, shared: SharedStates | None, dense: bool) -> Engine:
    """``engine``, or a large one at ``path`` with all that it has, where it is small and has outgrown that: it has too
    many rows, or they come too fast (``dense``). Where that cannot be made it stays as it is. EdgeError where the large
    one cannot be opened."""
    tables = engine.tables
    if not isinstance(tables, SmallTables) or not (dense or outgrown(tables)):
        return engine
    log.info("%s: more than %s is for, it goes on in DuckDB", path, small_file(path).name)
    try:
        grow(tables, path)
    except (*ERRORS, EdgeError) as error:
        log.warning("%s cannot be made: %s", path, error)
        return engine
    engine.close()
    return opened(path, shared)


def _forget(path: Path) -> None:
    """Delete the small state that the one at ``path`` was made of."""
    small = small_file(path)
    for suffix in ("", "-wal", "-shm"):
        small.with_name(small.name + suffix).unlink(missing_ok=True)
