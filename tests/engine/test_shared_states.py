"""Many states in one DuckDB: each says what it would say alone, and what befalls one leaves the others."""

import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import duckdb
import pytest

from controller.core.cells import Block
from controller.edges.engine import Engine
from controller.edges.engine.schema import SharedStates, connect
from controller.errors import EdgeError
from tests.engine.equality import assert_equal
from tests.engine.worlds import deliveries, query, world

# Whole rollouts are played, some at once: a minute of a slow processor.
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def shared(tmp_path: Path) -> SharedStates:
    return SharedStates(tmp_path / "spill")


def _play(path: Path, shared: SharedStates, seed: int) -> None:
    """A rollout of its own, whose state is closed and opened again on the way."""
    made, asked, kept = world(seed, requests=400), query(), set[Block]()
    engine = Engine(path, shared=shared)
    for number, some in enumerate(deliveries(made, seed)):
        engine.ingest(some.exposures, some.outcomes, some.samples)
        if number % 5 == 4:
            engine.close()
            engine = Engine(path, shared=shared)
        said = engine.advance(asked, some.watermark)
        kept.update(engine.blocks())
    assert_equal(kept, said, asked, made)
    engine.close()


def test_rollouts_of_several_threads_are_kept_apart(tmp_path: Path, shared: SharedStates) -> None:
    def play(seed: int) -> None:
        _play(tmp_path / f"it's {seed}" / "state.duckdb", shared, seed)

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(play, (51, 52, 53)))


def test_a_hundred_share_the_threads_of_one(tmp_path: Path, shared: SharedStates) -> None:
    def threads() -> int:
        return len(list(Path("/proc/self/task").iterdir()))

    engines = [Engine(tmp_path / "0.duckdb", shared=shared)]
    with_one = threads()
    engines += [Engine(tmp_path / f"{number}.duckdb", shared=shared) for number in range(1, 100)]
    assert threads() == with_one
    for engine in engines:
        engine.close()


def test_where_one_finds_the_disk_full_the_others_go_on_and_it_makes_up_for_it(
    tmp_path: Path, shared: SharedStates
) -> None:
    made, asked, kept = world(61, requests=600), query(), set[Block]()
    full, other = (Engine(tmp_path / f"{name}.duckdb", shared=shared) for name in ("full", "other"))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    errors = 0
    for some in deliveries(made, 61):
        size = (tmp_path / "full.duckdb.wal").stat().st_size if (tmp_path / "full.duckdb.wal").exists() else 0
        resource.setrlimit(resource.RLIMIT_FSIZE, (size + 100, hard))
        try:
            full.ingest(some.exposures, some.outcomes, some.samples)
        except duckdb.Error:
            errors += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        other.ingest(some.exposures, some.outcomes, some.samples)
        full.ingest(some.exposures, some.outcomes, some.samples)
        said = [engine.advance(asked, some.watermark) for engine in (full, other)]
        assert said[0]._replace(losses=said[1].losses) == said[1]
        kept.update(full.blocks())
    assert errors > 0
    assert_equal(kept, said[1], asked, made)


@pytest.mark.parametrize("version", ["2", "none"])
def test_a_state_of_another_version_is_let_go(tmp_path: Path, shared: SharedStates, version: str) -> None:
    path = tmp_path / "state.duckdb"
    con, close = connect(path, shared)
    con.execute("UPDATE meta SET body = ? WHERE key = 'version'", [version])
    close()
    for _ in range(2):
        with pytest.raises(EdgeError, match=f"has version {version}, this program needs"):
            connect(path, shared)


def test_a_file_that_is_no_state_is_an_error_and_can_be_replaced(tmp_path: Path, shared: SharedStates) -> None:
    path = tmp_path / "state.duckdb"
    path.write_bytes(b"no database at all, but long enough to be looked at" * 500)
    with pytest.raises(EdgeError, match=r"statistics state .* cannot be opened"):
        connect(path, shared)
    path.unlink()
    con, close = connect(path, shared)
    con.execute("BEGIN")
    close()
    con, close = connect(path)
    assert con.execute("SELECT count(*) FROM meta").fetchone() == (1,)
    close()
