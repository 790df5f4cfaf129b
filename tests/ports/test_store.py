"""The store in one SQLite file: the contract, several processes at once, kill -9, damaged and foreign files."""

import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from controller.edges.store import SqliteStore
from controller.errors import EdgeError
from tests.ports.contracts.rollouts import record, rollout
from tests.ports.contracts.store import StoreContract

ROOT = Path(__file__).resolve().parents[2]
KEY = "flight-delay"
_COMMITTER = """
import sys
from pathlib import Path
from controller.edges.store import SqliteStore
from controller.errors import Conflict
from tests.ports.contracts.rollouts import advanced, record
store, wanted = SqliteStore(Path(sys.argv[1])), int(sys.argv[2])
done = 0
while done < wanted:
    stored = store.load("flight-delay")
    sequence = stored.status.sequence + 1
    handled = tuple(r.id for r in stored.requests)
    status = advanced(stored.status, sequence, handled=(stored.status.handled + handled)[-256:])
    try:
        store.commit("flight-delay", status, stored.version, record(status.uid, sequence))
    except Conflict:
        continue
    done += 1
    print(sequence, *handled, flush=True)
"""
_SUBMITTER = """
import sys
from pathlib import Path
from controller.edges.store import SqliteStore
from tests.ports.contracts.rollouts import request
store = SqliteStore(Path(sys.argv[1]))
for number in range(int(sys.argv[2])):
    store.submit("flight-delay", request(f"{sys.argv[3]}{number}"))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "understudy.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    opened = SqliteStore(path)
    yield opened
    opened.close()


class TestSqliteStore(StoreContract):
    """The contract; the fixtures are above."""


def _start(code: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _ended(process: "subprocess.Popen[str]") -> list[list[str]]:
    out, err = process.communicate(timeout=60)
    assert process.returncode == 0, err
    return [line.split() for line in out.splitlines()]


def test_what_was_committed_is_there_when_the_file_is_opened_again(path: Path, store: SqliteStore) -> None:
    store.put(rollout())
    stored = store.load(KEY)
    store.commit(KEY, stored.status, stored.version, record(stored.status.uid, 1))
    expected, records = store.load(KEY), store.records(KEY)
    store.close()
    again = SqliteStore(path)
    assert (again.load(KEY), again.records(KEY)) == (expected, records)
    again.close()


def test_processes_that_commit_and_submit_at_once_lose_nothing(path: Path, store: SqliteStore) -> None:
    store.put(rollout())
    committers = [_start(_COMMITTER, path, 60) for _ in range(2)]
    submitters = [_start(_SUBMITTER, path, 60, name) for name in "ab"]
    for process in submitters:
        _ended(process)
    lines = [line for process in committers for line in _ended(process)]
    # Each sequence number was committed by exactly one of the two.
    assert sorted(int(line[0]) for line in lines) == list(range(1, 121))
    assert [r.sequence for r in store.records(KEY)] == list(range(1, 121))
    obeyed = [identity for line in lines for identity in line[1:]]
    waiting = [r.id for r in store.load(KEY).requests]
    assert sorted(obeyed + waiting) == sorted(f"{name}{n}" for name in "ab" for n in range(60))


def test_processes_that_make_the_file_at_the_same_time_all_succeed(path: Path) -> None:
    code = "import sys; from pathlib import Path; from controller.edges.store import SqliteStore\n"
    code += "print(len(SqliteStore(Path(sys.argv[1])).keys()))"
    assert [_ended(process) for process in [_start(code, path) for _ in range(4)]] == [[["0"]]] * 4


def test_a_process_killed_at_any_moment_has_committed_status_and_record_or_neither(
    path: Path, store: SqliteStore
) -> None:
    store.put(rollout())
    moments = random.Random(7)
    acknowledged = 0
    for _ in range(8):
        process = _start(_COMMITTER, path, 1_000_000)
        assert process.stdout is not None
        first = process.stdout.readline()  # it commits from here on
        time.sleep(moments.uniform(0.0, 0.05))  # the moment of the kill, not a wait for anything
        process.send_signal(signal.SIGKILL)
        out, _err = process.communicate(timeout=30)
        # The kill may have cut the last line short.
        acknowledged = int([line for line in (first + out).split("\n")[:-1] if line][-1].split()[0])
        stored = SqliteStore(path)
        sequence = stored.load(KEY).status.sequence
        assert sequence >= acknowledged
        assert [r.sequence for r in stored.records(KEY)] == list(range(1, sequence + 1))
        assert stored.load(KEY).version == str(sequence + 1)
        stored.close()
    assert acknowledged >= 8


@pytest.mark.parametrize(
    "content", [b"not a database at all, but long enough to be read as one" * 20, b"SQLite format 3\0" + b"\xff" * 4096]
)
def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    with pytest.raises(
        EdgeError, match=r"state\.db: the file is damaged .*restore it, or start anew in another folder"
    ):
        SqliteStore(path)
    assert path.read_bytes() == content


def test_damage_in_the_middle_of_the_file_is_found_when_it_is_opened(path: Path, store: SqliteStore) -> None:
    for number in range(50):
        store.put(rollout(f"r{number}"))
    store.close()
    content = bytearray(path.read_bytes())
    content[4096 : 4 * 4096] = b"\xa5" * (3 * 4096)
    path.write_bytes(content)
    with pytest.raises(EdgeError, match="the file is damaged"):
        SqliteStore(path)


def test_the_database_of_another_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE runs (id TEXT)")
    db.close()
    before = path.read_bytes()
    with pytest.raises(EdgeError, match=r"mlflow\.db: is a database of another program"):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_a_layout_of_a_later_release_is_refused(path: Path, store: SqliteStore) -> None:
    store.close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    db.close()
    with pytest.raises(EdgeError, match="has layout 99"):
        SqliteStore(path)


def test_who_goes_back_to_an_older_release_goes_on_with_what_that_knows(path: Path, store: SqliteStore) -> None:
    store.put(rollout())
    before = store.load(KEY)
    with sqlite3.connect(path) as db:
        db.execute("UPDATE rollouts SET status = json_set(status, '$.mood', 'good', '$.observed.mood', 'good')")
    assert SqliteStore(path).load(KEY) == before


def test_a_status_that_this_release_cannot_read_is_named_with_its_field(path: Path, store: SqliteStore) -> None:
    store.put(rollout())
    with sqlite3.connect(path) as db:
        db.execute("UPDATE rollouts SET status = json_set(status, '$.reason', 'NobodyKnewOfThis')")
    db.close()
    with pytest.raises(EdgeError, match=r"RolloutStatus of rollout 'flight-delay' cannot be read: reason"):
        store.load(KEY)


def test_a_file_held_by_another_process_is_an_error_within_the_deadline(path: Path, store: SqliteStore) -> None:
    hurried = SqliteStore(path, deadline_s=0.2)
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    began = time.monotonic()
    with pytest.raises(EdgeError, match="another process has held it"):
        hurried.put(rollout())
    assert time.monotonic() - began < 2
    holder.execute("ROLLBACK")
    holder.close()
    assert hurried.put(rollout()) == 1
    hurried.close()


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(EdgeError, match=r"file/state\.db: Not a directory|file/state\.db: File exists"):
        SqliteStore(tmp_path / "file" / "state.db")
