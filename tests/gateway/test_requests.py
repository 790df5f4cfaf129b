"""Requests that a gateway has counted are evidence: each once, for the allocation that served it, or for none."""

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from controller.core.cells import EpochCounts, EpochPlan, StatisticsQuery
from controller.core.counts import CountFold
from controller.core.fold import Statistics
from controller.core.plans import metric_plan
from controller.edges.gauges.requests import ARMS, SETTLE, Asked, RequestSource, Serving
from controller.edges.memory import MemorySource
from controller.errors import EdgeError
from controller.status import Frozen
from tests.decide.rollouts import rollout
from tests.gateway.scraped import SELECTOR, Scraped

TICK = 60_000_000
START = 1_760_000_040_000_000  # on a full minute
SPEC = rollout(metrics=[{"name": "errors", "kind": "ErrorRate", "margin": "0.5pp"}]).spec
FROZEN = Frozen(source="Declared", mean=0.01, p_hist=0.01)


def query(frozen: Frozen | None = FROZEN, epochs: int = 1, attempt: int = 1) -> StatisticsQuery:
    plans = tuple(EpochPlan(n, "weight", 100_000 * n, {"errors": 0}) for n in range(1, epochs + 1))
    return StatisticsQuery("late", attempt, plans, (metric_plan(SPEC, SPEC.metrics[0], frozen),), (), 0)


class Desk:
    """A source whose allocation and clock are set by hand. A tick a minute, with a scrape just before it."""

    def __init__(self, folder: Path, scraped: Scraped) -> None:
        self.scraped, self.now = scraped, START
        self.serving: Serving | None = Serving(1, 1, 1, 1)
        self._path = folder / "requests.sqlite"
        self.open()

    def open(self) -> None:
        """Also after ``close``: another life of the process."""
        asked = Asked(SELECTOR, "code", {arm: {"arm": arm} for arm in ARMS})
        self.source = RequestSource(self._path, self.scraped.prometheus, lambda: asked, self)

    def tick(self, asked: StatisticsQuery | None = None, scrape: bool = True, **requests: int) -> Statistics:
        """What is known after a minute in which the gateway answered ``requests``."""
        self.scraped.serve(**requests)
        self.now += TICK
        if scrape:
            self.scraped.scrape(self.now - 1)
        return self.source.read(asked or query(), self.now)


@pytest.fixture
def scraped() -> Iterator[Scraped]:
    made = Scraped()
    yield made
    made.close()


@pytest.fixture
def desk(tmp_path: Path, scraped: Scraped) -> Iterator[Desk]:
    made = Desk(tmp_path, scraped)
    yield made
    made.source.close()


def counted(said: Statistics, epoch: int = 1) -> tuple[int, int]:
    found = said.counts.get(epoch, EpochCounts(epoch))
    assert (found.champion_requests, found.first_champion) == (found.champion_units, found.champion_units)
    return found.champion_units, found.challenger_units


def failed(said: Statistics) -> tuple[int, int]:
    """Of blocks that are final."""
    found = said.folds["errors", ""]
    assert isinstance(found, CountFold)
    return sum(e.champion.events for e in found.epochs), sum(e.challenger.events for e in found.epochs)


def test_what_was_there_when_the_allocation_was_confirmed_is_nobodys_evidence(desk: Desk) -> None:
    assert counted(desk.tick(champion=1000, challenger=900)) == (0, 0)
    assert counted(desk.tick(champion=90, challenger=10)) == (0, 0)  # the first scrape that is late enough: a beginning
    assert counted(desk.tick(champion=90, challenger=10)) == (90, 10)


def test_a_scrape_too_soon_after_the_confirmation_is_no_beginning(desk: Desk) -> None:
    desk.tick(champion=10, challenger=10)
    desk.scraped.serve(champion=500)
    desk.scraped.scrape(desk.now + SETTLE - 1)
    desk.source.read(query(), desk.now + SETTLE)
    desk.scraped.serve(challenger=500)
    desk.scraped.scrape(desk.now + SETTLE)
    assert counted(desk.source.read(query(), desk.now + SETTLE)) == (0, 0)
    assert counted(desk.tick(champion=7, challenger=1)) == (7, 1)


def test_what_does_not_begin_with_2_has_failed(desk: Desk) -> None:
    for _ in range(2):
        desk.tick(champion=1, challenger=1)
    desk.tick(champion=90, champion_404=2, champion_503=3, challenger=10, challenger_499=4)
    assert failed(desk.tick()) == (5, 4)
    assert counted(desk.tick()) == (95, 14)


def test_a_series_that_appears_later_begins_at_none(desk: Desk) -> None:
    """The first failure makes a series; it has to count."""
    for _ in range(2):
        desk.tick(champion=10)
    desk.tick(champion=10, challenger=3, challenger_500=1)
    assert failed(desk.tick()) == (0, 1)
    assert counted(desk.tick()) == (10, 4)


def test_a_proxy_that_comes_later_counts_from_its_first_scrape_on(desk: Desk) -> None:
    for _ in range(2):
        desk.tick(champion=10, challenger=1)
    desk.scraped.serve("q", champion=1000, challenger=999)
    assert counted(desk.tick(champion=10, challenger=1)) == (10, 1)
    desk.scraped.serve("q", champion=9, challenger=1)
    assert counted(desk.tick()) == (19, 2)


def test_a_proxy_that_began_again_is_counted_from_none(desk: Desk) -> None:
    for _ in range(2):
        desk.tick(champion=100, challenger=100)
    desk.scraped.restart("p")
    assert counted(desk.tick(champion=5, challenger=2)) == (5, 2)


def test_nothing_counts_while_the_allocation_is_not_confirmed(desk: Desk) -> None:
    for _ in range(2):
        desk.tick(champion=10, challenger=10)
    assert counted(desk.tick(champion=90, challenger=10)) == (90, 10)
    desk.serving = None
    assert counted(desk.tick(champion=1000)) == (90, 10)
    desk.serving = Serving(1, 1, 1, 1)
    assert counted(desk.tick(champion=1000)) == (90, 10)  # settling
    assert counted(desk.tick(champion=1000)) == (90, 10)  # beginning
    assert counted(desk.tick(champion=9, challenger=1)) == (99, 11)


@pytest.mark.parametrize("changed", [Serving(2, 1, 1, 2), Serving(1, 2, 1, 1)])
def test_what_lies_across_a_change_of_the_split_belongs_to_neither_side(desk: Desk, changed: Serving) -> None:
    """Also where somebody has written the route and it was put right, all between two ticks."""
    asked = query(epochs=2)
    for _ in range(2):
        desk.tick(asked, champion=10, challenger=10)
    desk.tick(asked, champion=90, challenger=10)
    desk.serving = changed
    for _ in range(2):
        desk.tick(asked, champion=500, challenger=500)
    said = desk.tick(asked, champion=80, challenger=20)
    after = (80, 20) if changed.epoch == 2 else (0, 0)
    assert counted(said, 2) == after
    assert counted(said, 1) == ((90, 10) if changed.epoch == 2 else (170, 30))


def test_without_an_answer_nothing_newer_is_known_and_what_came_meanwhile_counts_later(desk: Desk) -> None:
    for _ in range(2):
        desk.tick(champion=10, challenger=10)
    before = desk.tick(champion=9, challenger=1)
    desk.scraped.away = True
    said = desk.tick(champion=9, challenger=1)
    assert said.watermark == before.watermark
    assert said.awaited == ("requests of the champion: Prometheus cannot answer (unavailable)",)
    assert said.troubles == {"errors": said.awaited[0]}
    desk.scraped.away = False
    assert counted(desk.tick(champion=9, challenger=1)) == (27, 3)


def test_a_gateway_that_is_not_scraped_any_more_makes_the_evidence_old(desk: Desk) -> None:
    before = desk.tick(champion=10, challenger=10)
    assert before.watermark == desk.now - 1
    assert desk.tick(champion=10, scrape=False).watermark == before.watermark


def test_a_selector_that_finds_nothing_is_told(desk: Desk) -> None:
    said = desk.tick(challenger=5)
    assert said.watermark == 0
    assert said.awaited == ('no series was scraped lately that is requests_total{arm="champion"}',)


def test_a_label_that_is_not_there_is_told(tmp_path: Path, scraped: Scraped) -> None:
    desk = Desk(tmp_path, scraped)
    asked = Asked(SELECTOR, "status", {arm: {"arm": arm} for arm in ARMS})
    source = RequestSource(tmp_path / "other.sqlite", scraped.prometheus, lambda: asked, desk)
    scraped.serve(champion=1)
    scraped.scrape(START)
    # Its other labels may be another team's: whoever wrote the selector is told none of them.
    assert source.read(query(), START).awaited == ("a series of the champion has no label status",)
    source.close()
    desk.source.close()


@pytest.mark.parametrize(
    ("said", "told"),
    [
        ({"errorType": "bad_data", "error": "1:5: parse error: unexpected )"}, "refuses the query: 1:5: parse error"),
        ({"errorType": "execution", "error": 'duplicate series: {customer="ACME"}'}, "cannot answer (execution)"),
        ({"errorType": "ACME", "error": "ACME"}, "cannot answer"),
        ({"errorType": ["ACME"], "error": "ACME"}, "cannot answer"),
    ],
    ids=["of the query", "of series", "of another kind", "of no kind"],
)
def test_of_an_error_only_what_is_about_the_query_is_told(desk: Desk, said: dict[str, Any], told: str) -> None:
    """Errors of evaluation quote the series that they met, whose labels may be another team's."""
    desk.scraped.away, desk.scraped.error = True, said
    (awaited,) = desk.tick().awaited
    assert awaited.startswith(f"requests of the champion: Prometheus {told}")
    assert "ACME" not in awaited


def test_a_comment_in_a_selector_does_not_hide_that_counters_are_asked_for(tmp_path: Path, scraped: Scraped) -> None:
    """Else the rest would be any query, with whatever its errors tell."""
    desk = Desk(tmp_path, scraped)
    asked = Asked("a * on (x) b #", "code", {arm: {"arm": arm} for arm in ARMS})
    source = RequestSource(tmp_path / "other.sqlite", scraped.prometheus, lambda: asked, desk)
    source.read(query(), START)
    assert scraped.asked[-1].splitlines() == ["a * on (x) b #", "[90s]"]
    source.close()
    desk.source.close()


def test_another_life_of_the_process_goes_on_and_counts_nothing_twice(desk: Desk) -> None:
    for _ in range(2):
        desk.tick(champion=10, challenger=10)
    desk.tick(champion=90, challenger=10, challenger_500=2)
    before = desk.tick(champion=90, challenger=10)
    desk.source.close()
    desk.open()
    assert counted(desk.tick(champion=1000, challenger=1000)) == counted(before)
    desk.tick(champion=1000, challenger=1000)
    desk.tick(champion=9, challenger=1)
    said = desk.tick()
    assert counted(said) == (189, 23)
    assert failed(said) == (0, 2)


def test_another_attempt_begins_with_nothing(desk: Desk) -> None:
    for _ in range(3):
        desk.tick(champion=10, challenger=10)
    desk.serving = Serving(2, 1, 2, 1)
    said = desk.tick(query(attempt=2), champion=10, challenger=10)
    assert (said.counts, said.folds) == ({}, {})


def test_a_file_that_cannot_be_kept_is_named(tmp_path: Path, scraped: Scraped) -> None:
    (tmp_path / "requests.sqlite").mkdir()
    with pytest.raises(EdgeError, match=r"requests\.sqlite: unable to open"):
        Desk(tmp_path, scraped)


def exposures(block: int, requests: dict[str, int], epoch: int) -> Iterator[dict[str, object]]:
    """The same requests as a router would have written them down, each by a unit of its own."""
    for what, number in requests.items():
        arm, _, status = what.partition("_")
        for i in range(number):
            name = f"{block}-{what}-{i}"
            yield {
                "type": "exposure", "t": block * TICK + i, "seq": 0, "request_id": name, "unit": name, "attempt": 1,
                "epoch": epoch, "generation": 1, "arm": arm, "evidence": True, "assigned_by": "hash",
                "mirrored": False, "attributes": {}, "served_by": arm, "usable": not status, "status": 200,
                "answer_status": 200, "version": "", "latency_us": 1000, "answer": None, "fallback_reason": None,
            }  # fmt: skip


@pytest.mark.parametrize("measured", [False, True])
def test_the_evidence_is_that_of_a_journal_in_which_every_request_is_a_unit(desk: Desk, measured: bool) -> None:
    rng = random.Random(7)
    frozen = None if measured else FROZEN
    journal, asked = MemorySource(), query(frozen, epochs=2)
    for _ in range(2):
        desk.tick(asked, champion=1, challenger=1, champion_500=1, challenger_500=1)
    lines = 0
    for n in range(24):
        if n == 14:  # two minutes of another allocation
            desk.serving = Serving(2, 2, 1, 2)
            for _ in range(2):
                desk.tick(asked, champion=5, challenger=5)
        arms = {what: rng.randrange(60) for what in ("champion", "challenger")}
        arms |= {f"{what}_500": rng.randrange(3) for what in ("champion", "challenger")}
        said = desk.tick(asked, **arms)
        for event in exposures(desk.now // TICK, arms, 1 if n < 14 else 2):
            lines += 1
            journal.ingest("router", {**event, "seq": lines})
    said = desk.tick(asked)
    journal.ingest("router", {"type": "mark", "t": desk.now, "started": 1, "seq": lines + 1})
    expected = journal.read(asked, desk.now)
    if measured:
        assert said.baselines["errors"] == expected.baselines["errors"]
        assert said.baselines["errors"].blocks == 24
    assert dict(said.folds) == dict(expected.folds)
    assert dict(said.counts) == dict(expected.counts)
