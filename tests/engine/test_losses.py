"""What a journal lost is counted and stops nobody; the watermark waits for whoever still lives."""

import json
import random
from pathlib import Path
from typing import Any

import pytest

from controller.core.cells import EpochPlan, StatisticsQuery
from controller.core.fold import Statistics
from controller.edges.engine import ExposureRow, JournalSource, OutcomeRow
from controller.edges.engine.rows import Pointer, exposure_row, outcome_row
from controller.errors import EdgeError
from controller.kinds import Kind
from tests.engine.logs import Log, exposure_event, outcome_event
from tests.engine.worlds import SECOND, plan

ASKED = StatisticsQuery(
    "r", 1, (EpochPlan(1, "weight", 500_000, {}),), (plan(Kind.ERROR_RATE), plan(Kind.PROPORTION)), (), 10 * SECOND
)
RNG = random.Random(0)


def served(at: float, name: str) -> dict[str, Any]:
    """An exposure of a unit of its own at second ``at``."""
    return exposure_event(ExposureRow(1, 1, int(at * SECOND), name, f"unit of {name}", False, True, True), RNG)


class Journals:
    """A folder of journals, the state beside it, and somebody who reads."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.state = folder / "journals", folder / "state.duckdb"
        self.folder.mkdir()
        self.source = JournalSource(self.folder, self.state)

    def log(self, name: str = "edge-w0", seed: int = 0) -> Log:
        return Log(self.folder, name, random.Random(seed))

    def read(self, now: float) -> Statistics:
        return self.source.read(ASKED, int(now * SECOND))


@pytest.fixture
def journals(tmp_path: Path) -> Journals:
    return Journals(tmp_path)


def test_numbers_that_are_missing_are_lost_and_lines_that_are_none_are_malformed(journals: Journals) -> None:
    log = journals.log()
    log.write(1 * SECOND, served(1, "a"))
    log.lose(3)
    log.write(2 * SECOND, served(2, "b"))
    log.spoil()
    log.write(3 * SECOND, {"type": "nothing", "t": 3 * SECOND})
    log.write(4 * SECOND, {**served(4, "c"), "usable": "yes"})
    log.write(4 * SECOND, {**served(4, "d"), "epoch": -1})
    log.lose(2)
    log.mark(5 * SECOND)
    said = journals.read(5).losses
    assert (said.received, said.lost, said.malformed) == (2, 5, 4)


def test_a_gap_between_two_files_is_lost_and_what_was_gone_before_the_first_reading_is_not(journals: Journals) -> None:
    log = journals.log()
    log.lose(50)
    log.mark(1 * SECOND)
    assert journals.read(1).losses.lost == 0
    log.lose(7)
    log._left = 0  # the next line opens a file whose header says what came before
    log.mark(2 * SECOND)
    assert journals.read(2).losses.lost == 7


def test_the_writers_counters_are_taken_up_once_also_when_the_writer_starts_again(journals: Journals) -> None:
    log = journals.log()
    log.mark(1 * SECOND, started=1, dropped=2, no_unit=10)
    log.mark(2 * SECOND, started=1, dropped=5, no_unit=10)
    journals.read(2)
    journals.source.close()
    journals.source = JournalSource(journals.folder, journals.state)
    log.mark(3 * SECOND, started=1, dropped=5, no_unit=11)
    log.mark(4 * SECOND, started=3 * SECOND, dropped=1, no_unit=1)
    said = journals.read(4).losses
    assert (said.lost, said.no_unit) == (6, 12)


def test_an_exposure_behind_the_watermark_is_late_and_one_that_came_before_is_a_duplicate(journals: Journals) -> None:
    log, other = journals.log(), journals.log("edge-w1", 1)
    log.write(1 * SECOND, served(1, "a"))
    log.mark(100 * SECOND)
    assert journals.read(100).watermark == 100 * SECOND
    log.write(100 * SECOND, served(1, "a"))
    log.mark(100 * SECOND)
    other.write(3 * SECOND, served(3, "b"))
    other.mark(100 * SECOND)
    said = journals.read(101)
    assert (said.losses.received, said.losses.late, said.losses.duplicates) == (1, 1, 1)
    assert said.counts[1].champion_requests == 1


def test_a_request_with_the_id_of_another_units_is_a_clash_and_one_that_was_repeated_is_not(journals: Journals) -> None:
    log = journals.log()
    for at, unit in ((1, "u"), (2, "u"), (3, "v")):
        log.write(at * SECOND, {**served(at, "same"), "unit": unit})
    log.mark(10 * SECOND)
    said = journals.read(10).losses
    assert (said.received, said.duplicates, said.clashes) == (1, 2, 1)
    for at, unit in ((11, "u"), (12, "v"), (13, "w")):
        log.write(at * SECOND, {**served(at, "same"), "unit": unit})
    log.mark(20 * SECOND)
    said = journals.read(20).losses
    assert (said.received, said.duplicates, said.clashes) == (1, 5, 3)


def test_an_outcome_that_names_nothing_is_unknown_once_it_waited_for_the_grace(journals: Journals) -> None:
    log, said = journals.log(), journals.log("edge-outcomes", 1)
    said.write(5 * SECOND, outcome_event(OutcomeRow("1", 5 * SECOND, 5 * SECOND, "click", 1.0, None, "late-one")))
    said.write(5 * SECOND, outcome_event(OutcomeRow("2", 5 * SECOND, 5 * SECOND, "click", 1.0, None, "nobody")))
    for at, unknown in ((14, 0), (16, 2)):
        log.mark(at * SECOND)
        said.mark(at * SECOND)
        assert journals.read(at).losses.unknown == unknown
    log.write(17 * SECOND, served(17, "late-one"))
    log.mark(18 * SECOND)
    said.mark(18 * SECOND)
    assert journals.read(18).losses.unknown == 1


def test_an_outcome_for_a_final_block_is_late(journals: Journals) -> None:
    log = journals.log()
    log.write(1 * SECOND, served(1, "a"))
    log.mark(200 * SECOND)
    journals.read(200)
    log.write(201 * SECOND, outcome_event(OutcomeRow("o", 2 * SECOND, 201 * SECOND, "click", 1.0, None, "a")))
    log.mark(202 * SECOND)
    assert journals.read(202).losses.late == 1


def test_the_watermark_waits_for_a_silent_journal_and_gives_it_up_after_a_minute(journals: Journals) -> None:
    log, other = journals.log(), journals.log("edge-w1", 1)
    log.mark(10 * SECOND)
    other.mark(20 * SECOND)
    assert journals.read(20).watermark == 10 * SECOND
    other.mark(69 * SECOND)
    assert journals.read(69).watermark == 10 * SECOND
    other.mark(71 * SECOND)
    assert journals.read(71).watermark == 71 * SECOND


def test_the_watermark_waits_for_a_journal_that_may_have_grown_where_nobody_can_read_it(journals: Journals) -> None:
    log, other = journals.log(), journals.log("edge-w1", 1)
    log.mark(10 * SECOND)
    other.mark(10 * SECOND)
    assert journals.read(10).watermark == 10 * SECOND
    other.mark(100 * SECOND)
    for name in ("edge-w0", "of a router that we know no journal of"):
        assert journals.source.read(ASKED, 100 * SECOND, [name]).watermark == 10 * SECOND
    assert journals.read(100).watermark == 100 * SECOND


def test_a_closed_journal_does_not_hold_the_watermark_until_its_writer_is_back(journals: Journals) -> None:
    log, other = journals.log(), journals.log("edge-w1", 1)
    log.mark(10 * SECOND, closed=True)
    other.mark(20 * SECOND)
    assert journals.read(20).watermark == 20 * SECOND
    log.mark(25 * SECOND)
    other.mark(30 * SECOND)
    assert journals.read(30).watermark == 25 * SECOND


def test_when_all_writers_are_gone_everything_that_they_wrote_counts(journals: Journals) -> None:
    log, other = journals.log(), journals.log("edge-w1", 1)
    log.write(10 * SECOND, served(10, "a"))
    log.mark(10 * SECOND, closed=True)
    other.mark(4 * SECOND, closed=True)
    said = journals.read(10)
    assert (said.watermark, said.losses.received) == (10 * SECOND + 1, 1)


def test_no_journal_gives_no_watermark(tmp_path: Path) -> None:
    said = JournalSource(tmp_path / "none yet", None).read(ASKED, 5 * SECOND)
    assert (said.watermark, said.losses.received) == (0, 0)


def test_several_folders_are_read_as_one(tmp_path: Path) -> None:
    folders = [tmp_path / "a", tmp_path / "b"]
    for number, folder in enumerate(folders):
        folder.mkdir()
        log = Log(folder, "edge-w0", random.Random(number))
        log.write((1 + number) * SECOND, served(1 + number, f"r{number}"))
        log.mark(9 * SECOND)
    said = JournalSource(folders, None).read(ASKED, 10 * SECOND)
    assert (said.watermark, said.counts[1].champion_units) == (9 * SECOND, 2)


def test_what_is_committed_is_acknowledged_and_what_only_memory_holds_is_not(journals: Journals) -> None:
    log = journals.log()
    log.mark(1 * SECOND)
    journals.read(1)
    said = json.loads((journals.folder / "readers" / "controller.json").read_text())
    file = journals.folder / "edge-w0.00000001.jsonl"
    assert said == {"edge-w0": {"file": 1, "offset": file.stat().st_size}}
    JournalSource(journals.folder, None, reader="other").read(ASKED, 1 * SECOND)
    assert not (journals.folder / "readers" / "other.json").exists()


def test_a_file_that_lost_its_end_is_read_again_from_its_beginning_and_nothing_counts_twice(journals: Journals) -> None:
    log = journals.log()
    log.write(1 * SECOND, served(1, "a"))
    log.mark(2 * SECOND)
    size = (journals.folder / "edge-w0.00000001.jsonl").stat().st_size
    log.write(3 * SECOND, served(3, "b"))
    log.mark(4 * SECOND)
    journals.read(4)
    with (journals.folder / "edge-w0.00000001.jsonl").open("r+b") as file:
        file.truncate(size)
    log._seq -= 2
    log.t = 2 * SECOND
    assert journals.read(5).watermark == 4 * SECOND
    log.write(6 * SECOND, served(6, "c"))
    log.mark(7 * SECOND)
    said = journals.read(7)
    assert (said.losses.received, said.losses.lost, said.counts[1].champion_requests) == (3, 0, 3)


def test_a_line_without_an_end_is_an_error_that_names_the_journal(
    journals: Journals, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("controller.edges.engine.tailer.CHUNK", 64)
    monkeypatch.setattr("controller.edges.engine.tailer.LONGEST_LINE", 256)
    (journals.folder / "edge-w0.00000000.jsonl").write_bytes(b"x" * 300)
    with pytest.raises(EdgeError, match="edge-w0: no line ends within 256 bytes"):
        journals.read(1)


@pytest.mark.parametrize(
    ("pointer", "answer", "scores"),
    [
        ("/predictions/0", '{"predictions": [0.25, 1, true]}', (0.25, 1.0, 1.0)),
        ("/predictions/0", '{"predictions": [0.25, null, "late"]}', (0.25, None, None)),
        ("/predictions/0/late", '{"predictions": [{"late": 0.5}, {}]}', (0.5, None)),
        ("/predictions/0/1", '{"predictions": [[0.1, 0.9], [0.2]]}', (0.9, None)),
        ("/score", '{"score": 3}', (3.0,)),
        ("", "0.5", (0.5,)),
        ("/a~1b/~0c", '{"a/b": {"~c": 2}}', (2.0,)),
        ("/predictions/0", '{"other": []}', (None,)),
        ("/predictions/0", '{"predictions": {"0": 4}}', (4.0,)),
        ("/predictions/0", '{"predictions": []}', ()),
        ("/predictions/0", "no json", (None,)),
    ],
)
def test_the_pointer_finds_the_score_of_every_row(pointer: str, answer: str, scores: tuple[float | None, ...]) -> None:
    assert Pointer(pointer).scores(answer, whole=True) == scores


def test_an_answer_that_was_cut_has_no_score_rather_than_a_wrong_one() -> None:
    assert Pointer("/predictions/0").scores('{"predictions": [0.2', whole=False) is None
    assert Pointer("/predictions/0").scores('{"predictions": [0.2]}', whole=False) == (0.2,)


def test_a_pointer_that_is_none_is_refused_with_an_example() -> None:
    with pytest.raises(ValueError, match="'predictions' is no JSON pointer: it is empty or begins with /, such as"):
        Pointer("predictions")


@pytest.mark.parametrize(
    "change",
    [{"t": 2.5}, {"t": True}, {"epoch": -1}, {"arm": "both"}, {"unit": 7}, {"latency_us": 1 << 60}, {"mirror": None}],
)
def test_an_exposure_with_an_impossible_field_is_malformed(change: dict[str, Any]) -> None:
    assert exposure_row(served(1, "a"), (), None).request_id == "a"
    with pytest.raises((ValueError, TypeError)):
        exposure_row({**served(1, "a"), **change}, (), None)


@pytest.mark.parametrize(
    "change",
    [
        {"unit": None},
        {"value": 2e9},
        {"value": "x"},
        {"t": 400 * SECOND},
        {"row": -1},
        {"name": None},
        {"row": 1 << 40},
    ],
)
def test_an_outcome_with_an_impossible_field_is_malformed(change: dict[str, Any]) -> None:
    event = outcome_event(OutcomeRow("o", SECOND, SECOND, "click", 1.0, "a"))
    assert outcome_row(event) == OutcomeRow("o", SECOND, SECOND, "click", 1.0, "a")
    with pytest.raises((ValueError, TypeError)):
        outcome_row({**event, **change})
