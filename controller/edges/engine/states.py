"""Which of the two kinds of state a rollout has: a small one, until it has outgrown that."""

import logging
import os
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


def outgrew(engine: Engine, dense: bool) -> bool:
    """Whether ``engine`` is small and has outgrown that: it has too many rows, or they come too fast (``dense``)."""
    tables = engine.tables
    return isinstance(tables, SmallTables) and (dense or outgrown(tables, engine.waiting))


def grow_into(path: Path, engine: Engine) -> bool:
    """Write what the small ``engine`` has to ``path``, from where a large one has to go on then; False where that
    cannot be done, and the small one goes on."""
    tables = engine.tables
    assert isinstance(tables, SmallTables)
    log.info("%s: there is more than %s is for, it goes on in DuckDB", path, small_file(path).name)
    try:
        grow(tables, path)
    except (*ERRORS, EdgeError) as error:
        log.warning("%s cannot be made: %s", path, error)
        return False
    return True


def _forget(path: Path) -> None:
    """Delete the small state that the one at ``path`` was made of, once that is on the disk for good."""
    small = small_file(path)
    if not small.exists():
        return
    try:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
        for suffix in ("-wal", "-shm", ""):
            small.with_name(small.name + suffix).unlink(missing_ok=True)
    except OSError as error:
        log.warning("%s is read no more and cannot be deleted: %s", small, error.strerror)
