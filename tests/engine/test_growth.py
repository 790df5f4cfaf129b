"""A state that has outgrown SQLite goes on in DuckDB as if it had always been there."""

import random
import resource
import sqlite3
from pathlib import Path

import pytest

from controller.core.cells import Block
from controller.core.fold import EMPTY
from controller.edges.engine import Engine, JournalSource, schema
from controller.edges.engine.large import LargeTables
from controller.edges.engine.small import SmallTables, grow
from controller.edges.engine.states import small_file
from controller.errors import EdgeError
from tests.engine.equality import assert_equal
from tests.engine.logs import Log, Routers, exposure_event
from tests.engine.test_journals import ASKED, assert_each_line_was_counted_once
from tests.engine.worlds import METRICS, deliveries, query, world


def _small(folder: Path) -> SmallTables:
    return SmallTables(folder / "state.sqlite")


@pytest.mark.parametrize("seed", range(3))
def test_at_whatever_moment_it_grows_the_statistics_are_those_of_one_query_over_the_raw_log(
    tmp_path: Path, seed: int
) -> None:
    made, asked, rng = (
        world(seed + 900, units=[40, 6, 300][seed], requests=300, late_s=400),
        query(),
        random.Random(seed),
    )
    parts = list(deliveries(made, seed))
    moment, before_the_rest = rng.randrange(len(parts)), rng.random() < 0.5
    engine, kept, said = Engine(tables=lambda: _small(tmp_path)), set[Block](), EMPTY
    for number, some in enumerate(parts):
        engine.ingest(some.exposures, some.outcomes, some.samples)
        if not before_the_rest:
            said = engine.advance(asked, some.watermark)
        if number == moment:
            assert isinstance(engine.tables, SmallTables)
            grow(engine.tables, tmp_path / "state.duckdb")
            blocks = engine.blocks()
            engine.close()
            engine = Engine(tmp_path / "state.duckdb")
            assert engine.blocks() == blocks
        said = engine.advance(asked, some.watermark)
        kept.update(engine.blocks())
    assert_equal(kept, said, asked, made)
    engine.close()


def _outgrown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("controller.edges.engine.small.growth.MOST_ROWS", 300)


def test_a_reader_of_journals_goes_on_in_duckdb_and_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _outgrown(monkeypatch)
    made = world(300, requests=700)
    routers, state, rng = Routers(tmp_path / "journals", made, 3), tmp_path / "state.duckdb", random.Random(3)
    source, kept, kinds = JournalSource(tmp_path / "journals", state), set[Block](), []
    while not routers.done:
        source.read(ASKED, routers.go_on(rng.choice([1, 40, 150])))
        kept.update(source.engine.blocks())
        kinds.append(type(source.engine.tables))
        if rng.random() < 0.3:
            source.close()
            source = JournalSource(tmp_path / "journals", state)
    said = source.read(ASKED, routers.end(made.end))
    kept.update(source.engine.blocks())
    assert kinds == sorted(kinds, key=[SmallTables, LargeTables].index)
    assert set(kinds) == {SmallTables, LargeTables}
    assert not list(tmp_path.glob("*sqlite*"))
    assert_each_line_was_counted_once(said, made)
    assert_equal(kept, said, ASKED, made)
    source.close()


@pytest.mark.parametrize(("seconds", "kind"), [(20, LargeTables), (1_000, SmallTables)])
def test_what_comes_fast_is_counted_in_duckdb_and_as_much_after_a_pause_is_not(
    tmp_path: Path, seconds: int, kind: type
) -> None:
    (tmp_path / "journals").mkdir()
    log, asked = Log(tmp_path / "journals", "edge-w0", random.Random(1)), query(METRICS[:1])
    rows = world(303, requests=50).exposures[:1]
    for number in range(1_200):
        t = number * seconds * 1_000_000 // 1_200
        log.write(t, exposure_event(rows[0]._replace(t=t, request_id=str(number), attempt=asked.attempt), log._rng))
    log.mark(seconds * 1_000_000)
    source = JournalSource(tmp_path / "journals", tmp_path / "state.duckdb")
    said = source.read(asked, seconds * 1_000_000)
    assert (said.losses.received, type(source.engine.tables)) == (1_199 + (seconds * 1_000_000 > 1_199), kind)
    assert source.read(asked, seconds * 1_000_000) == said
    source.close()


def test_rows_that_wait_for_a_router_that_says_nothing_are_not_held_in_a_small_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.edges.engine.small.growth.MOST_WAITING", 100)
    made = world(304, requests=300)
    routers, source = (
        Routers(tmp_path / "journals", made, 3),
        JournalSource(tmp_path / "journals", tmp_path / "s.duckdb"),
    )
    said = source.read(ASKED, routers.go_on(400), ("edge-w9",))
    assert (said.watermark, type(source.engine.tables)) == (0, LargeTables)
    source.close()


def test_a_large_state_that_cannot_be_opened_at_first_is_by_the_next_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _outgrown(monkeypatch)
    made, state, kept = world(305, requests=500), tmp_path / "state.duckdb", set[Block]()
    routers = Routers(tmp_path / "journals", made, 3)
    source = JournalSource(tmp_path / "journals", state)
    connect = schema.connect

    def fails(path: Path, shared: schema.SharedStates | None = None) -> schema.Opened:
        if path == state:
            raise EdgeError("no descriptor is left")
        return connect(path, shared)

    with monkeypatch.context() as patch:
        patch.setattr("controller.edges.engine.schema.connect", fails)
        for lines in (900, 100):
            with pytest.raises(EdgeError, match="no descriptor is left"):
                source.read(ASKED, routers.go_on(lines))
    while not routers.done:
        routers.go_on(300)
    said = source.read(ASKED, routers.end(made.end))
    kept.update(source.engine.blocks())
    assert isinstance(source.engine.tables, LargeTables)
    assert_each_line_was_counted_once(said, made)
    assert_equal(kept, said, ASKED, made)
    source.close()


def test_where_the_disk_is_too_full_to_grow_it_stays_small_until_it_is_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made, state, kept = world(301, requests=700), tmp_path / "state.duckdb", set[Block]()
    routers = Routers(tmp_path / "journals", made, 3)
    source = JournalSource(tmp_path / "journals", state)
    source.read(ASKED, routers.go_on(600))
    _outgrown(monkeypatch)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    now = routers.go_on(1)
    small_file(state).with_name(small_file(state).name + "-wal").stat()
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, hard))
    try:
        tables = source.engine.tables
        assert isinstance(tables, SmallTables)
        with pytest.raises(Exception, match=r"(?i)too large|full|i/o|cannot"):
            grow(tables, state)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert sorted(path.suffix for path in tmp_path.iterdir() if "duckdb" in path.name) == []
    while not routers.done:
        source.read(ASKED, now)
        kept.update(source.engine.blocks())
        now = routers.go_on(300)
    said = source.read(ASKED, routers.end(made.end))
    kept.update(source.engine.blocks())
    assert isinstance(source.engine.tables, LargeTables)
    assert_equal(kept, said, ASKED, made)
    source.close()


def test_a_crash_between_the_two_files_leaves_the_large_one_in_force(tmp_path: Path) -> None:
    made, state = world(302, requests=300), tmp_path / "state.duckdb"
    routers = Routers(tmp_path / "journals", made, 3)
    source = JournalSource(tmp_path / "journals", state)
    said = source.read(ASKED, routers.go_on(300))
    assert isinstance(source.engine.tables, SmallTables)
    grow(source.engine.tables, state)
    source.close()
    assert small_file(state).exists()
    source = JournalSource(tmp_path / "journals", state)
    assert isinstance(source.engine.tables, LargeTables)
    assert not small_file(state).exists()
    assert source.read(ASKED, 1) == said
    source.close()


def test_a_state_of_another_version_or_program_is_refused(tmp_path: Path) -> None:
    _small(tmp_path).close()
    con = sqlite3.connect(tmp_path / "state.sqlite")
    con.execute("PRAGMA user_version = 7")
    con.close()
    with pytest.raises(EdgeError, match="has version 7, this program needs 1: move it away"):
        _small(tmp_path)
    (tmp_path / "state.sqlite").write_bytes(b"no database at all, but long enough to be looked at" * 500)
    with pytest.raises(EdgeError, match=r"statistics state .* cannot be opened"):
        _small(tmp_path)
    (tmp_path / "state.sqlite").unlink()
    con = sqlite3.connect(tmp_path / "state.sqlite")
    con.execute("CREATE TABLE others (x)")
    con.close()
    with pytest.raises(EdgeError, match=r"statistics state .* is no state of ours"):
        _small(tmp_path)
