"""What has to be true after all the kills: outcomes, aliases, messages, records."""

import json
import re
import threading
import time
import urllib.parse
import urllib.request
from collections import Counter
from http.client import HTTPException
from pathlib import Path

from controller.core import plans
from controller.core.replay import derive, inputs
from controller.edges.engine.ingest import identity
from controller.edges.engine.large import LargeTables
from controller.edges.engine.small import SmallTables
from controller.edges.engine.small.tables import signed
from controller.edges.engine.source import JournalSource
from controller.edges.store import SqliteStore
from controller.ports import Stored
from router.journal_reader import file_path, journals
from tests.embedded.registered import MODEL

_NOTICE = re.compile(r"understudy\.notice notice (\{.*\})$")


class AliasWatch:
    """Polls both aliases ten times a second and keeps every change that it sees."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._end = threading.Event()
        self.seen: dict[str, list[str | None]] = {"champion": [], "challenger": []}
        self._thread = threading.Thread(target=self._poll, daemon=True)

    def __enter__(self) -> "AliasWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        watched = self._thread.is_alive()
        self._end.set()
        self._thread.join(10)
        assert watched, "nobody has watched the aliases to the end"

    def _poll(self) -> None:
        while not self._end.is_set():
            aliases = read_aliases(self._address)
            if aliases is not None:
                for alias, seen in self.seen.items():
                    if not seen or seen[-1] != aliases.get(alias):
                        seen.append(aliases.get(alias))
            self._end.wait(0.1)


def read_aliases(address: str) -> dict[str, str] | None:
    """Alias → version; None where MLflow does not answer."""
    name = urllib.parse.quote(MODEL)
    try:
        with urllib.request.urlopen(f"{address}/api/2.0/mlflow/registered-models/get?name={name}", timeout=3) as answer:
            tree = json.loads(answer.read())
    except (OSError, ValueError, HTTPException):
        return None
    return {each["alias"]: str(each["version"]) for each in tree["registered_model"].get("aliases", [])}


def set_alias(address: str, alias: str, version: str, within: float = 60.0) -> None:
    """As a person would, until it is done."""
    body = json.dumps({"name": MODEL, "alias": alias, "version": version}).encode()
    end = time.monotonic() + within
    while True:
        request = urllib.request.Request(
            f"{address}/api/2.0/mlflow/registered-models/alias", body, {"content-type": "application/json"}
        )
        try:
            with urllib.request.urlopen(request, timeout=5):
                return
        except OSError:
            assert time.monotonic() < end
            time.sleep(0.2)


def journaled_outcomes(directory: Path) -> Counter[str]:
    """How often each outcome id stands in the journals."""
    found: Counter[str] = Counter()
    for journal, files in journals(directory).items():
        for file in files:
            for line in file_path(directory, journal, file.file).read_bytes().splitlines():
                if b'"outcome"' in line:
                    event = json.loads(line)
                    found[event["outcome_id"]] += event["type"] == "outcome"
    return found


def unknown_to_the_engine(state: Path, stored: Stored, acknowledged: set[str]) -> set[str]:
    """Acknowledged outcomes that the engine of the run does not have once it has read on to the end."""
    source = JournalSource(state / "journal", state / "engine.duckdb")
    try:
        query = plans.query(stored.rollout.metadata.name, stored.rollout.spec, stored.status)
        source.read(query, time.time_ns() // 1000)
        held = source.engine.tables
        assert isinstance(held, SmallTables | LargeTables)  # it grows where the machine is fast enough
        con, number = held.con, signed if isinstance(held, SmallTables) else identity
        tables = ("seen_outcomes", "staged_outcomes", "pending")
        known = {h for table in tables for (h,) in con.execute(f"SELECT h FROM {table}").fetchall()}
        total, distinct = con.execute("SELECT count(h), count(DISTINCT h) FROM seen_outcomes").fetchone() or (0, 0)
        assert total == distinct, "an outcome was counted twice"
    finally:
        source.close()
    return {outcome for outcome in acknowledged if number(outcome) not in known}


class Messages:
    """Notices as the log has them, against those that the records say there must be."""

    def __init__(self, state: Path, name: str) -> None:
        self.sent: Counter[str] = Counter()
        for log in (state / "logs").glob("controller.log*"):
            for line in log.read_text(errors="replace").splitlines():
                found = _NOTICE.search(line)
                if found is not None:
                    self.sent[json.loads(found[1])["key"]] += 1
        store = SqliteStore(state / "rollouts.sqlite")
        try:
            records = store.records(name)
        finally:
            store.close()
        self.promotions = sum(
            inputs(r).status.progress == "Running" and derive(r).status.progress == "Promoting" for r in records
        )
        due = [{n.key for n in derive(r).status.notices} for r in records]
        self.due: set[str] = set().union(*due)
        self.records = len(records)

    @property
    def missing(self) -> set[str]:
        return self.due - set(self.sent)

    @property
    def unexpected(self) -> set[str]:
        return set(self.sent) - self.due

    @property
    def repeats(self) -> int:
        return sum(count - 1 for count in self.sent.values())
