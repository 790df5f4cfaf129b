"""What journals hold, read while they grow, gives the cells of the raw log; what they lost is counted."""

import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from controller.core.cells import Block
from controller.core.fold import Statistics
from controller.edges.engine import Engine, JournalSource
from controller.edges.engine.large import LargeTables
from controller.edges.engine.small import SmallTables
from controller.errors import EdgeError
from tests.engine.equality import assert_equal
from tests.engine.logs import Routers
from tests.engine.worlds import World, query, world

ASKED = query()._replace(prediction="/predictions/0/late")


@pytest.fixture(params=[SmallTables, LargeTables])
def state(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """Of either kind: one that there is already stays what it is."""
    path = tmp_path / "state.duckdb"
    if request.param is LargeTables:
        Engine(path).close()
    return path


def test_journals_read_while_they_grow_give_the_cells_of_the_raw_log(tmp_path: Path, state: Path) -> None:
    made = world(300, requests=700)
    routers, rng = Routers(tmp_path / "journals", made, 3), random.Random(3)
    source, kept = JournalSource(tmp_path / "journals", state), set[Block]()
    while not routers.done:
        now = routers.go_on(rng.choice([1, 40, 150, 300]))
        source.read(ASKED, now)
        kept.update(source.engine.blocks())
        if rng.random() < 0.2:
            source.close()
            source = JournalSource(tmp_path / "journals", state)
    now = routers.end(made.end)
    said = source.read(ASKED, now)
    kept.update(source.engine.blocks())
    assert said.watermark == made.end
    assert (said.losses.lost, said.losses.malformed) == (0, 0)
    assert_each_line_was_counted_once(said, made)
    assert_equal(kept, said, ASKED, made)
    source.close()


def test_what_is_read_counts_also_where_the_query_contradicts_what_was_judged(tmp_path: Path, state: Path) -> None:
    made = world(500, requests=700)
    routers = Routers(tmp_path / "journals", made, 5)
    source, kept = JournalSource(tmp_path / "journals", state), set[Block]()
    source.read(ASKED, routers.go_on(400))
    kept.update(source.engine.blocks())
    before = {name: (place.file, place.offset) for name, place in source.places.items()}
    now = routers.go_on(300)
    with pytest.raises(ValueError, match="its baseline was frozen"):
        source.read(ASKED._replace(metrics=tuple(m._replace(frozen=False) for m in ASKED.metrics)), now)
    source.close()
    source = JournalSource(tmp_path / "journals", state)
    after = {name: (place.file, place.offset) for name, place in source.places.items()}
    assert all(after[name] > place for name, place in before.items())
    while not routers.done:
        routers.go_on(300)
    said = source.read(ASKED, routers.end(made.end))
    kept.update(source.engine.blocks())
    assert_each_line_was_counted_once(said, made)
    assert_equal(kept, said, ASKED, made)
    source.close()


def test_a_reader_killed_at_any_moment_goes_on_where_its_last_transaction_ended(tmp_path: Path, state: Path) -> None:
    made, rng = world(400, requests=3_000, late_s=20_000), random.Random(4)
    routers = Routers(tmp_path / "journals", made, 4)
    clock = tmp_path / "now"
    kills = 0
    while not routers.done:
        clock.write_text(str(routers.go_on(400)))
        reader = _reader(tmp_path)
        assert reader.stdout is not None
        assert reader.stdout.readline() == "reading\n"
        time.sleep(rng.random() * 0.4)  # the moment of the kill, not a wait for anything
        reader.send_signal(signal.SIGKILL)
        reader.wait()
        reader.stdout.close()
        kills += 1
    clock.write_text(str(routers.end(made.end)))
    source = JournalSource(tmp_path / "journals", state)
    kept = set(source.engine.blocks())
    said = source.read(ASKED, made.end)
    kept.update(source.engine.blocks())
    assert kills >= 8
    assert_each_line_was_counted_once(said, made)
    assert_equal(kept, said, ASKED, made)
    source.close()


def test_a_full_disk_below_the_state_is_an_error_and_the_next_reading_makes_up_for_it(
    tmp_path: Path, state: Path
) -> None:
    made, kept = world(500, requests=600, late_s=20_000), set[Block]()
    routers = Routers(tmp_path / "journals", made, 5)
    source = JournalSource(tmp_path / "journals", state)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    errors = 0
    while not routers.done:
        now = routers.go_on(300)
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
        try:
            source.read(ASKED, now)
        except EdgeError:
            errors += 1
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        if errors:
            source.read(ASKED, now)
            kept.update(source.engine.blocks())
    said = source.read(ASKED, routers.end(made.end))
    kept.update(source.engine.blocks())
    assert errors > 0
    assert_each_line_was_counted_once(said, made)
    assert_equal(kept, said, ASKED, made)
    source.close()


def test_a_state_that_another_process_holds_is_an_error_that_names_it(tmp_path: Path, state: Path) -> None:
    (tmp_path / "journals").mkdir()
    (tmp_path / "now").write_text("0")
    reader = _reader(tmp_path)
    assert reader.stdout is not None
    assert reader.stdout.readline() == "reading\n"
    with pytest.raises(EdgeError, match=r"statistics state .*state\.(sqlite|duckdb) cannot be opened"):
        JournalSource(tmp_path / "journals", state)
    reader.kill()
    reader.wait()
    reader.stdout.close()
    JournalSource(tmp_path / "journals", state).close()


def assert_each_line_was_counted_once(said: Statistics, made: World) -> None:
    """Also where the reader began anew: no line is passed over, none is met again."""
    lines = sum(row.attempt == ASKED.attempt for row in made.exposures) + len(made.outcomes)
    assert said.losses.received + said.losses.duplicates == lines


def _reader(directory: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "tests.engine.reading", str(directory)], stdout=subprocess.PIPE, text=True
    )
