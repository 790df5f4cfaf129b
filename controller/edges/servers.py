"""The model servers of one machine, as a table that two processes share.

The controller writes which version each arm wants, and reads what runs; the parent that owns the servers does it the
other way round (``controller.embedded``). So the death of the controller stops no server, and it finds them again.
"""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from controller.core.serving import Served
from controller.errors import EdgeError
from controller.ports import ServerObservation
from controller.spec import Servers
from router.assignment import Arm

_TABLES = """
CREATE TABLE IF NOT EXISTS declared (arm TEXT PRIMARY KEY, url TEXT NOT NULL) STRICT;
CREATE TABLE IF NOT EXISTS wanted (arm TEXT PRIMARY KEY, version TEXT) STRICT;
CREATE TABLE IF NOT EXISTS servers (
  version TEXT PRIMARY KEY, upstream TEXT, adopted INTEGER NOT NULL, ready INTEGER NOT NULL, message TEXT NOT NULL
  ) STRICT;
CREATE TABLE IF NOT EXISTS processes (version TEXT PRIMARY KEY, pid INTEGER NOT NULL, created REAL NOT NULL) STRICT;
"""


class ServerRow(NamedTuple):
    """The server of one version. ``upstream`` is ``host:port``, None before it listened anywhere; ``adopted``: it is
    somebody else's process."""

    version: str
    upstream: str | None
    adopted: bool
    ready: bool
    message: str = ""


class LocalServers:
    """``Workloads`` by the table in the file at ``path``, which is made if absent; and the other side of the table.

    Every method may raise EdgeError. Nothing in the file has to survive the machine: it is all wanted again at the
    next tick, and what runs is looked at again.
    """

    def __init__(self, path: Path, deadline_s: float = 5.0) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._translated():
            path.parent.mkdir(parents=True, exist_ok=True)
            self._db = sqlite3.connect(path, timeout=deadline_s, isolation_level=None, check_same_thread=False)
            self._db.execute("PRAGMA journal_mode = WAL")
            self._db.execute("PRAGMA synchronous = NORMAL")
            self._db.executescript(_TABLES)

    def ensure(self, arm: Arm, version: str | None) -> None:
        """Run ``version`` for ``arm``; returns before it does."""
        with self._held() as db:
            row = db.execute("SELECT version FROM wanted WHERE arm = ?", (arm,)).fetchone()
            if row is None or row[0] != version:
                db.execute("INSERT OR REPLACE INTO wanted VALUES (?, ?)", (arm, version))

    def observe(self, arm: Arm) -> ServerObservation:
        """What runs for ``arm``. One that was ready keeps its upstream while it is started again: requests that
        meet nobody there are the router's business, and a table that changes would end an epoch."""
        with self._held() as db:
            row = db.execute(
                "SELECT w.version, s.upstream, s.ready, s.message FROM wanted w LEFT JOIN servers s"
                " ON s.version = w.version WHERE w.arm = ?",
                (arm,),
            ).fetchone()
        if row is None or row[0] is None:
            return ServerObservation(None, (), False)
        version, upstream, ready, message = row
        if upstream is None:
            return ServerObservation(version, (), False, message or f"the server of version {version} is being started")
        return ServerObservation(version, (upstream,), bool(ready), message)

    def serving(self, served: Served) -> tuple[str, ...]:
        """Where the version runs, if it is ready."""
        row = self.rows().get(served.version)
        return (row.upstream,) if row is not None and row.upstream is not None and row.ready else ()

    def declare(self, servers: Servers | None) -> None:
        """Whose servers are adopted, by arm; with another address for it, an arm's server is looked for anew."""
        found = {"champion": servers and servers.champion, "challenger": servers and servers.challenger}
        urls = {arm: server.url.rstrip("/") for arm, server in found.items() if server and server.url}
        with self._held() as db:
            db.execute("BEGIN IMMEDIATE")
            db.execute("DELETE FROM declared")
            db.executemany("INSERT INTO declared VALUES (?, ?)", list(urls.items()))
            upstreams = {upstream_of(url) for url in urls.values()}
            for version, upstream in db.execute("SELECT version, upstream FROM servers WHERE adopted = 1").fetchall():
                if upstream not in upstreams:
                    db.execute("DELETE FROM servers WHERE version = ?", (version,))
            db.execute("UPDATE servers SET ready = 0, message = 'looked at again after a start'")
            db.execute("COMMIT")

    def declared(self) -> dict[str, str]:
        """Address of the adopted server, by arm."""
        with self._held() as db:
            return dict(db.execute("SELECT arm, url FROM declared").fetchall())

    def wanted(self) -> dict[str, str]:
        """Version by arm, for those arms that want one."""
        with self._held() as db:
            return dict(db.execute("SELECT arm, version FROM wanted WHERE version IS NOT NULL").fetchall())

    def rows(self) -> dict[str, ServerRow]:
        """Every server that is known, by version."""
        with self._held() as db:
            found = db.execute("SELECT version, upstream, adopted, ready, message FROM servers").fetchall()
        return {v: ServerRow(v, upstream, bool(a), bool(r), message) for v, upstream, a, r, message in found}

    def put(self, row: ServerRow) -> None:
        """Tell what runs."""
        with self._held() as db:
            db.execute(
                "INSERT OR REPLACE INTO servers VALUES (?, ?, ?, ?, ?)",
                (row.version, row.upstream, int(row.adopted), int(row.ready), row.message),
            )

    def forget(self, version: str) -> None:
        """Its server is gone."""
        with self._held() as db:
            db.execute("DELETE FROM servers WHERE version = ?", (version,))
            db.execute("DELETE FROM processes WHERE version = ?", (version,))

    def put_process(self, version: str, pid: int, created: float) -> None:
        """Tell which process of ours serves ``version``; ``created`` (seconds since 1970) tells it from a later one
        with its number."""
        with self._held() as db:
            db.execute("INSERT OR REPLACE INTO processes VALUES (?, ?, ?)", (version, pid, created))

    def processes(self) -> dict[str, tuple[int, float]]:
        """Process id, and when it was created, of each of our own servers that was started, by version."""
        with self._held() as db:
            return {v: (pid, at) for v, pid, at in db.execute("SELECT version, pid, created FROM processes").fetchall()}

    def close(self) -> None:
        with self._held() as db:
            db.close()

    @contextmanager
    def _held(self) -> Iterator[sqlite3.Connection]:
        with self._translated(), self._lock:
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise EdgeError(f"servers {self._path}: {error}") from error


def upstream_of(url: str) -> str:
    """The router's name of a server at ``http://host[:port]``: ``host:port``."""
    place = url.removeprefix("http://").rstrip("/")
    return place if place.rpartition(":")[2].isdigit() and ":" in place else f"{place}:80"
