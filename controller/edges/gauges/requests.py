"""Evidence of requests that a gateway has answered: how many of either arm, and how many of them failed.

All that is known is two counters by series (a proxy, a status) that a Prometheus scrapes. At every tick their last
scraped points are compared with those before; what was added is counted for the allocation that was in force all the
time between. So it is counted in a series from its first scrape on that came ``SETTLE`` after the allocation was
confirmed: requests of the one before, and of proxies that follow late, are nobody's evidence. A series that appears
later begins at 0; one that fell was begun again. While the allocation is not confirmed nothing counts.

Each request is a unit of its own: a unit of one block, at risk once, first seen where it is seen. Given how many came
to either arm, which of them failed is a fair draw where no request decides where another one goes, and that is all that
the tests of ``core.counts`` need. A client that tries again after a failure comes as another request.

What was counted is kept in a file, a row for each block. The counters' points are not: a process that begins takes
them anew, and what came in between is not counted. So nothing counts twice, whatever ends when.
"""

import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple, Protocol

from controller import gauge
from controller.core.cells import (
    OVERALL,
    PPM,
    BaselineSums,
    Block,
    CountCell,
    EpochCounts,
    EpochPlan,
    Losses,
    MetricPlan,
    StatisticsQuery,
)
from controller.core.fold import Fold, Statistics, fold
from controller.edges.gauges.prometheus import Point, Prometheus
from controller.errors import EdgeError
from router.assignment import Arm

SETTLE = 10_000_000  # µs after a confirmation until proxies are taken to have followed
ARMS: tuple[Arm, Arm] = ("champion", "challenger")
SCHEMA = """
CREATE TABLE IF NOT EXISTS counts (
    attempt INTEGER, epoch INTEGER, block INTEGER, t INTEGER,
    champion INTEGER, champion_failed INTEGER, challenger INTEGER, challenger_failed INTEGER,
    PRIMARY KEY (attempt, block, epoch)
)
"""


Labels = tuple[tuple[str, str], ...]


class Serving(NamedTuple):
    """The allocation that is confirmed now. ``generation``: changes with every table, ``written``: with every change of
    what splits the traffic, whoever made it."""

    generation: int
    written: int
    attempt: int
    epoch: int


class Splitter(Protocol):
    """Who splits the traffic. ``serving`` None: nothing is confirmed now that is evidence."""

    @property
    def serving(self) -> Serving | None: ...


class Asked(NamedTuple):
    """What is asked for: the selector of an arm's series, the label with their status, what tells the arms apart."""

    selector: str
    status_label: str
    arms: Mapping[Arm, Mapping[str, str]]

    def selectors(self) -> list[str]:
        return [gauge.substituted(self.selector, self.arms[arm]) for arm in ARMS]


class Row(NamedTuple):
    """Requests of one block of one epoch."""

    epoch: int
    block: int
    champion: int
    champion_failed: int
    challenger: int
    challenger_failed: int


class Counting:
    """Follows the series of both arms under one allocation, confirmed at ``since`` (µs)."""

    def __init__(self, allocation: Serving, since: int) -> None:
        self.allocation = allocation
        self._since = since + SETTLE
        self._last: dict[tuple[Arm, Labels], float] = {}
        self._begun: dict[Labels, int] = {}

    def added(self, points: Mapping[Arm, Sequence[Point]], status_label: str) -> tuple[int, int, int, int]:
        """Requests since the last time: the champion's and those of them that failed, the challenger's likewise.
        EdgeError where a series has no such label."""
        for arm in ARMS:
            for point in points[arm]:
                if status_label not in point.labels:
                    # Which labels it has may be another team's: the selector reaches all that is scraped.
                    raise EdgeError(f"a series of the {arm} has no label {status_label}")
        sums = []
        for arm in ARMS:
            more = [(self._more(arm, p), p.labels[status_label]) for p in points[arm] if p.t >= self._since]
            sums += [sum(n for n, _ in more), sum(n for n, status in more if not status.startswith("2"))]
        for point in (*points["champion"], *points["challenger"]):
            if point.t >= self._since:
                self._begun.setdefault(_target(point), point.t)
        return sums[0], sums[1], sums[2], sums[3]

    def _more(self, arm: Arm, point: Point) -> int:
        key = arm, tuple(sorted(point.labels.items()))
        last = self._last.get(key)
        self._last[key] = point.value
        if last is None:
            # It began after an earlier scrape that counts already, or it is the first that does.
            last = 0.0 if self._begun.get(_target(point), point.t) < point.t else point.value
        return round(point.value - last if point.value >= last else point.value)


def _target(point: Point) -> Labels:
    """What was scraped: all of its series have one time."""
    return tuple((name, point.labels.get(name, "")) for name in ("job", "instance"))


class Folding:
    """One ErrorRate's fold over rows, and its baseline; made anew where what they are folded with has changed."""

    def __init__(self) -> None:
        self._plan: MetricPlan | None = None
        self._used: dict[int, EpochPlan] = {}
        self._reset()

    def _reset(self) -> None:
        self._used, self._done = {}, 0
        self.fold: Fold | None = None
        self.baseline = BaselineSums()

    def advance(self, plan: MetricPlan, epochs: Mapping[int, EpochPlan], rows: Sequence[Row]) -> None:
        """Fold the rows that are new."""
        if plan != self._plan or any(epochs.get(n) != e for n, e in self._used.items()):
            self._reset()
        self._plan = plan
        for row in rows[self._done :]:
            epoch = epochs.get(row.epoch)
            if epoch is None:
                break
            self._used[row.epoch] = epoch
            self._done += 1
            if not plan.frozen:
                self.baseline = _baseline(self.baseline, row)
            elif (row.block, row.epoch) > (plan.from_block, plan.from_epoch):
                self.fold = fold(plan, epoch, self.fold, _block(plan, epoch, row))


def _baseline(old: BaselineSums, row: Row) -> BaselineSums:
    if not row.champion:
        return old
    return old._replace(
        blocks=old.blocks + 1,
        last_block=row.block,
        last_epoch=row.epoch,
        units=old.units + row.champion,
        x=old.x + row.champion,
        y=old.y + row.champion_failed,
        nonzero=old.nonzero + row.champion_failed,
    )


def _block(plan: MetricPlan, epoch: EpochPlan, row: Row) -> Block:
    champion = _cell(row.champion, row.champion_failed, epoch.pi_ppm)
    challenger = _cell(row.challenger, row.challenger_failed, PPM - epoch.pi_ppm)
    return Block(plan.name, OVERALL, epoch.number, row.block, champion, challenger)


def _cell(requests: int, failed: int, side: int) -> CountCell | None:
    """Every request is at risk, active, and seen once; ``side``: |A − π| in ppm."""
    return CountCell(requests, failed, requests, failed, failed * side * side) if requests else None


class RequestSource:
    """``StatisticsSource`` of the requests that ``prometheus`` has counters of, under what ``splitter`` serves.

    ``path`` keeps what was counted; ``asked`` says how both arms are asked for now, which the next attempt may change.
    Raises EdgeError where it cannot be used.
    """

    def __init__(self, path: Path, prometheus: Prometheus, asked: Callable[[], Asked], splitter: Splitter) -> None:
        self._prometheus, self._asked, self._splitter = prometheus, asked, splitter
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise EdgeError(f"{path}: {error}") from error
        self._attempt = -1
        self._counting: Counting | None = None
        self._rows: list[Row] = []  # of blocks that are final
        self._open: list[Row] = []
        self._counts: dict[int, EpochCounts] = {}  # of the former
        self._foldings: dict[str, Folding] = {}
        self._watermark = self._t = 0

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        """As the port says. Where Prometheus does not answer nothing newer is final, and ``awaited`` says why."""
        (length,) = {plan.block for plan in query.metrics}  # all are counted by the tick
        try:
            if query.attempt != self._attempt:
                self._load(query.attempt)
            self._t = max(self._t, now)
            fault = self._count(length)
        except sqlite3.Error as error:
            raise EdgeError(f"counts of requests cannot be kept: {error}") from error
        self._close_blocks(self._t // length)
        return self._statistics(query, fault)

    def close(self) -> None:
        """Let go of the file and of connections."""
        self._file.close()
        self._prometheus.close()

    def _load(self, attempt: int) -> None:
        """The rows of ``attempt``; those of another one are forgotten. What was there when we began is final."""
        self._file.execute("DELETE FROM counts WHERE attempt != ?", [attempt])
        found = self._file.execute("SELECT t, epoch, block, champion, champion_failed, challenger, challenger_failed "
                                   "FROM counts ORDER BY block, epoch").fetchall()  # fmt: skip
        self._attempt, self._counting, self._foldings = attempt, None, {}
        self._rows, self._open = [Row(*row[1:]) for row in found], []
        self._counts = _counted({}, self._rows)
        self._watermark = self._t = max((row[0] for row in found), default=0)

    def _count(self, length: int) -> str:
        """Take what was added since the last tick; why that cannot be said, if it cannot."""
        serving = self._splitter.serving
        if serving is None or serving.attempt != self._attempt:
            self._counting = None
        elif self._counting is None or self._counting.allocation != serving:
            self._counting = Counting(serving, self._t)
        try:
            asked = self._asked()
            points = self._scraped(asked.selectors())
            if self._counting is not None:
                more = self._counting.added(points, asked.status_label)
                self._add(self._counting.allocation.epoch, length, more)
        except EdgeError as error:
            return str(error)
        self._watermark = max(self._watermark, *(point.t for point in points["champion"]))
        return ""

    def _scraped(self, selectors: list[str]) -> dict[Arm, list[Point]]:
        """The points of both arms. EdgeError where they cannot be had, or there is none of the champion's."""
        points: dict[Arm, list[Point]] = {}
        for arm, said in zip(ARMS, self._prometheus.scraped(selectors), strict=True):
            if isinstance(said, EdgeError):
                raise EdgeError(f"requests of the {arm}: {said}")
            points[arm] = said
        if not points["champion"]:
            raise EdgeError(f"no series was scraped lately that is {selectors[0]}")
        return points

    def _add(self, epoch: int, length: int, more: tuple[int, int, int, int]) -> None:
        if not any(more):
            return
        # A block that was folded never changes.
        block = max(self._t // length, self._rows[-1].block + 1 if self._rows else 0)
        old = next((row for row in self._open if row[:2] == (epoch, block)), None)
        row = Row(epoch, block, *(a + b for a, b in zip(more, old[2:] if old else (0,) * 4, strict=True)))
        self._file.execute(
            "INSERT OR REPLACE INTO counts VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [self._attempt, epoch, block, self._t, *row[2:]],
        )
        self._open = [*(each for each in self._open if each is not old), row]

    def _close_blocks(self, until: int) -> None:
        """Blocks before ``until`` are final."""
        closed = sorted((row for row in self._open if row.block < until), key=lambda row: (row.block, row.epoch))
        self._rows += closed
        self._counts = _counted(self._counts, closed)
        self._open = [row for row in self._open if row.block >= until]

    def _statistics(self, query: StatisticsQuery, fault: str) -> Statistics:
        epochs = {epoch.number: epoch for epoch in query.epochs}
        for plan in query.metrics:
            self._foldings.setdefault(plan.name, Folding()).advance(plan, epochs, self._rows)
        counts = _counted(self._counts, self._open)
        return Statistics(
            folds={(p.name, OVERALL): f for p in query.metrics if (f := self._foldings[p.name].fold) is not None},
            pairs={},
            baselines={plan.name: self._foldings[plan.name].baseline for plan in query.metrics},
            counts=counts,
            losses=Losses(received=sum(c.champion_units + c.challenger_units for c in counts.values())),
            watermark=self._watermark,
            troubles={plan.name: fault for plan in query.metrics if fault},
            awaited=(fault,) if fault else (),
        )


def _counted(before: Mapping[int, EpochCounts], rows: Sequence[Row]) -> dict[int, EpochCounts]:
    """Live counts by epoch after ``rows``: each request is a unit that was never seen before."""
    found = dict(before)
    for row in rows:
        old = found.get(row.epoch, EpochCounts(row.epoch))
        a, b = old.champion_units + row.champion, old.challenger_units + row.challenger
        found[row.epoch] = EpochCounts(
            epoch=row.epoch,
            champion_units=a,
            challenger_units=b,
            champion_requests=a,
            challenger_requests=b,
            first_champion=a,
            first_challenger=b,
        )
    return found
