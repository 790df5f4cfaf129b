"""Rollouts, their status and their records in one SQLite file, for one machine.

Controller and command line use the file at the same time. A commit writes status and record in one transaction that
is on the disk before it returns (WAL, ``synchronous=FULL``): after a crash both are there or neither.
"""

import json
import sqlite3
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal, TypeVar

from pydantic import BaseModel, ValidationError

from controller.core.record import Record, canonical
from controller.edges.unreadable import unreadable
from controller.errors import Conflict, EdgeError, NotFound
from controller.ports import Stored
from controller.spec import ModelRollout
from controller.status import PersonRequest, RolloutStatus

_APPLICATION = 0x554E4453  # marks the file as ours
_LAYOUT = 1
_TABLES = """
CREATE TABLE rollouts (
  key TEXT PRIMARY KEY, uid TEXT NOT NULL, generation INTEGER NOT NULL, version INTEGER NOT NULL,
  rollout TEXT NOT NULL, status TEXT NOT NULL) STRICT;
CREATE TABLE requests (
  position INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL, id TEXT NOT NULL, request TEXT NOT NULL,
  UNIQUE (key, id)) STRICT;
CREATE TABLE records (
  uid TEXT NOT NULL, generation INTEGER NOT NULL, sequence INTEGER NOT NULL, record TEXT NOT NULL,
  PRIMARY KEY (uid, generation, sequence)) STRICT;
"""
_OPEN_REQUESTS = 1000
M = TypeVar("M", bound=BaseModel)


class SqliteStore:
    """``RolloutStore`` in the file at ``path``, which is made if absent. A rollout's key is its name.

    Every method may raise EdgeError: the file is busy for longer than ``deadline_s``, full, damaged, or not ours.
    """

    def __init__(self, path: Path, deadline_s: float = 5.0) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._lock = threading.RLock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=deadline_s, isolation_level=None, check_same_thread=False)
            try:
                self._prepare()
            except BaseException:
                self._db.close()
                raise

    def keys(self) -> list[str]:
        """Names of all rollouts, sorted."""
        with self._reading() as db:
            return [key for (key,) in db.execute("SELECT key FROM rollouts ORDER BY key")]

    def load(self, key: str) -> Stored:
        with self._reading() as db:
            db.execute("BEGIN")
            try:
                row = db.execute(
                    "SELECT rollout, generation, status, version FROM rollouts WHERE key = ?", (key,)
                ).fetchone()
                found = db.execute("SELECT request FROM requests WHERE key = ? ORDER BY position", (key,)).fetchall()
            finally:
                db.execute("ROLLBACK")
        if row is None:
            raise self._missing(key)
        requests = tuple(self._parse(PersonRequest, text, key) for (text,) in found)
        rollout = self._parse(ModelRollout, row[0], key)
        status = self._parse(RolloutStatus, row[2], key, extra="ignore")  # what only a newer release knew
        return Stored(rollout, row[1], status, str(row[3]), requests)

    def commit(self, key: str, status: RolloutStatus, version: str, record: Record | None) -> str:
        """As the port says. Conflict, too, where the record's key exists with another content."""
        with self._writing() as db:
            held = db.execute("SELECT version, uid FROM rollouts WHERE key = ?", (key,)).fetchone()
            if held is None:
                raise self._missing(key)
            if str(held[0]) != version or held[1] != status.uid:
                raise Conflict(
                    f"rollout {key!r}: version {version} of {status.uid} is old, {held[0]} of {held[1]} is stored"
                )
            db.execute(
                "UPDATE rollouts SET status = ?, version = version + 1 WHERE key = ?",
                (status.model_dump_json(by_alias=True), key),
            )
            if record is not None:
                self._write(db, record)
            handled = [(key, identity) for identity in status.handled]
            db.executemany("DELETE FROM requests WHERE key = ? AND id = ?", handled)
            return str(held[0] + 1)

    def submit(self, key: str, request: PersonRequest) -> None:
        """As the port says; an id that the status calls handled changes nothing either. EdgeError where
        a thousand requests wait already."""
        with self._writing() as db:
            row = db.execute("SELECT status FROM rollouts WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise self._missing(key)
            if request.id in self._parse(RolloutStatus, row[0], key).handled:
                return
            waiting = db.execute("SELECT count(*) FROM requests WHERE key = ?", (key,)).fetchone()[0]
            if waiting >= _OPEN_REQUESTS:
                raise EdgeError(f"rollout {key!r}: {waiting} requests wait already; is the controller running?")
            db.execute(
                "INSERT INTO requests (key, id, request) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (key, request.id, request.model_dump_json(by_alias=True)),
            )

    def put(self, rollout: ModelRollout) -> int:
        """Declare ``rollout`` and return its generation, which grows with every change of the spec and with nothing
        else. A new one gets a uid of its own and an empty status."""
        key, text = rollout.metadata.name, rollout.model_dump_json(by_alias=True)
        with self._writing() as db:
            row = db.execute("SELECT rollout, generation FROM rollouts WHERE key = ?", (key,)).fetchone()
            if row is None:
                uid = str(uuid.uuid4())
                status = RolloutStatus(uid=uid).model_dump_json(by_alias=True)
                db.execute("INSERT INTO rollouts VALUES (?, ?, 1, 1, ?, ?)", (key, uid, text, status))
                return 1
            before, generation = json.loads(row[0]), int(row[1])
            if before == json.loads(text):
                return generation
            # Compared as stored, so that a default that a later release changes counts as a change of the spec.
            generation += canonical(before["spec"]) != canonical(rollout.spec)
            db.execute(
                "UPDATE rollouts SET rollout = ?, generation = ?, version = version + 1 WHERE key = ?",
                (text, generation, key),
            )
            return generation

    def records(self, key: str) -> list[Record]:
        """Every record of the rollout, oldest first. NotFound without the rollout."""
        with self._reading() as db:
            row = db.execute("SELECT uid FROM rollouts WHERE key = ?", (key,)).fetchone()
            if row is None:
                raise self._missing(key)
            found = db.execute(
                "SELECT record FROM records WHERE uid = ? ORDER BY generation, sequence", (row[0],)
            ).fetchall()
        return [Record(**json.loads(text)) for (text,) in found]

    def delete(self, key: str) -> None:
        """Forget the rollout with its status, requests and records. NotFound without it."""
        with self._writing() as db:
            row = db.execute("DELETE FROM rollouts WHERE key = ? RETURNING uid", (key,)).fetchone()
            if row is None:
                raise self._missing(key)
            db.execute("DELETE FROM requests WHERE key = ?", (key,))
            db.execute("DELETE FROM records WHERE uid = ?", row)

    def close(self) -> None:
        with self._translated(), self._lock:
            self._db.close()

    def _prepare(self) -> None:
        db = self._db
        db.execute("PRAGMA synchronous = FULL")
        db.execute("BEGIN IMMEDIATE")
        try:
            (application,) = db.execute("PRAGMA application_id").fetchone()
            (layout,) = db.execute("PRAGMA user_version").fetchone()
            (tables,) = db.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if tables == 0:
                for statement in _TABLES.split(";")[:-1]:
                    db.execute(statement)
                db.execute(f"PRAGMA application_id = {_APPLICATION}")
                db.execute(f"PRAGMA user_version = {_LAYOUT}")
            elif application != _APPLICATION:
                raise EdgeError(f"store {self._path}: is a database of another program; name another file")
            elif layout != _LAYOUT:
                raise EdgeError(f"store {self._path}: has layout {layout}, this release reads {_LAYOUT}")
        except BaseException:
            db.execute("ROLLBACK")
            raise
        db.execute("COMMIT")
        self._log_ahead()
        (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise sqlite3.DatabaseError(verdict)

    def _log_ahead(self) -> None:
        # SQLite does not wait for others here; once one process has done it, it stays done.
        end = time.monotonic() + self._deadline_s
        while True:
            try:
                self._db.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > end:
                    raise
                time.sleep(0.01)

    def _write(self, db: sqlite3.Connection, record: Record) -> None:
        text = json.dumps(record._asdict(), sort_keys=True)
        place = (record.uid, record.generation, record.sequence)
        db.execute("INSERT INTO records VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING", (*place, text))
        (held,) = db.execute(
            "SELECT record FROM records WHERE uid = ? AND generation = ? AND sequence = ?", place
        ).fetchone()
        if held != text:
            raise Conflict(f"record {record.key} is written already, with another content")

    def _parse(self, model: type[M], text: str, key: str, extra: Literal["ignore"] | None = None) -> M:
        try:
            return model.model_validate_json(text, extra=extra)
        except ValidationError as error:
            raise unreadable(f"store {self._path}: the {model.__name__} of rollout {key!r}", error) from error

    def _missing(self, key: str) -> NotFound:
        return NotFound(f"there is no rollout {key!r} in {self._path}")

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._held():
            yield self._db

    @contextmanager
    def _writing(self) -> Iterator[sqlite3.Connection]:
        """One transaction; the lock on the file is taken at once, so that what is read in it stays true."""
        with self._translated(), self._held():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _held(self) -> Iterator[None]:
        if not self._lock.acquire(timeout=self._deadline_s):
            raise EdgeError(f"store {self._path}: busy for more than {self._deadline_s:g} s")
        try:
            yield
        finally:
            self._lock.release()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise EdgeError(f"store {self._path}: {self._explained(error)}") from error
        except OSError as error:
            raise EdgeError(f"store {self._path}: {error.strerror or error}") from error

    def _explained(self, error: sqlite3.Error) -> str:
        code = getattr(error, "sqlite_errorcode", -1) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return f"another process has held it for more than {self._deadline_s:g} s"
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or type(error) is sqlite3.DatabaseError:
            return f"the file is damaged or no SQLite database ({error}); restore it, or start anew in another folder"
        return str(error)
