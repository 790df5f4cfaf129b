"""Cells of final blocks: settled rows are put together to groups, and groups to cells as the engine in memory does."""

import json
import sqlite3
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TypeVar

from controller.core.cells import OVERALL, BaselineSums, Block, EpochPlan
from controller.edges.engine.segments import Segments
from controller.edges.engine.settling import HORIZON
from controller.edges.engine.small.gauges import server_blocks
from controller.edges.engine.small.rows import Entry, Request, Rows
from controller.edges.engine.small.values import Worth, is_evidence
from controller.edges.engine.span import Span
from controller.edges.memory import folding
from controller.edges.memory.events import ArmKey
from controller.edges.memory.losses import Values
from controller.edges.memory.tally import Group, Sums, merge
from controller.errors import EdgeError
from controller.kinds import ERRORS, MIRRORED, OF_SERVERS, UNMEASURED

Place = tuple[int, int]  # block and epoch
R = TypeVar("R", Request, Entry, Request | Entry)
_LARGEST_SUM = 1 << 127
_LEVELS = ("failures", "latency")  # families that ask what a unit has reached


class Cells:
    """Cells of one span, found in ``con``; what units scored or reached before is read and added to."""

    def __init__(self, con: sqlite3.Connection, segments: Segments) -> None:
        self._con, self._segments = con, segments
        self._rows = Rows(con)

    def let_go(self) -> None:
        """Rows are settled, or forgotten: what was read counts no more."""
        self._rows.let_go()

    def baseline(self, span: Span, sums: BaselineSums) -> BaselineSums:
        """``sums`` with the champion's: of mirrors alone where the plan is frozen."""
        if span.plan.family in UNMEASURED:
            return sums
        others = {} if span.plan.frozen else span.epochs(False)
        for group in self._groups(span, {**span.epochs(True), **others}):
            sums = folding.added_to(span.plan, sums, group)
        return sums

    def weighted(self, span: Span) -> list[Block]:
        """All blocks of weighted epochs; of what looks at servers those of mirrors as well."""
        if span.plan.family in OF_SERVERS:
            return server_blocks(self._rows, span)
        epochs, found = span.epochs(False), []
        if span.plan.family == "pair" or not epochs:
            return []
        for group in self._groups(span, epochs):
            if not is_evidence(span.plan, group.block, group.epoch):
                continue
            for segment, sums in group.sums.items():
                block = self._cell(span, epochs[group.epoch], group, segment, sums)
                found += [block] if block is not None else []
        return sorted(found, key=_order)

    def _cell(
        self, span: Span, epoch: EpochPlan, group: Group, segment: str, sums: Mapping[ArmKey, Values]
    ) -> Block | None:
        plan = span.plan
        before = self._known("worst" if plan.family in _LEVELS else "scores", span, segment, False, sums)
        failed = self._known("scores", span, segment, False, sums) if plan.family == "failures" else None
        block = folding.weighted(plan, epoch, group, segment, sums, before.units, failed.units if failed else {})
        for known in (before, failed):
            if known is not None:
                known.write()
        return _within(span, block)

    def paired(self, span: Span) -> list[Block]:
        """All blocks of mirror epochs that have a pair."""
        epochs, found = span.epochs(True), []
        if span.plan.family not in MIRRORED or not epochs:
            return []
        for group in self._pairs(span, epochs):
            for segment, sums in group.sums.items():
                table = "worst" if span.plan.family == "failures" else "scores"
                before = self._known(table, span, segment, True, sums)
                block = _within(
                    span, folding.paired(span.plan, epochs[group.epoch], group, segment, sums, before.units)
                )
                before.write()
                found += [block] if block is not None else []
        return sorted(found, key=_order)

    def _groups(self, span: Span, epochs: Mapping[int, EpochPlan]) -> Iterator[Group]:
        """What the arms' units contributed, by block and epoch, in their order."""
        worth, plan = Worth(span, self._rows), span.plan
        rows: Iterable[Request | Entry]
        if plan.family == "unit":
            rows = self._rows.entries(span.since, span.until)
        else:
            rows = (r for r in self._rows.requests(span.since, span.until) if r.hashed and not r.mirror)
        for (block, epoch), some in _by_place(span, rows, epochs):
            sums: Sums = {}
            errors: Counter[int] = Counter()
            shown = epochs[epoch].kind == "mirror"
            for row in some:
                key = _key(span, row, shown)
                if key is None:
                    continue
                values = worth.entered(row) if isinstance(row, Entry) else worth.alone(row)
                if plan.kind in ERRORS and isinstance(row, Request) and not row.challenger:
                    errors.update(worth.errors(row))
                if values is not None:
                    for segment in (OVERALL,) if shown else self._names(row.combo):
                        merge(plan, sums.setdefault(segment, {}), key, values)
            if sums:
                yield Group(block, epoch, sums, errors, self._numbers(worth, sums[OVERALL]))

    def _pairs(self, span: Span, epochs: Mapping[int, EpochPlan]) -> Iterator[Group]:
        """What units contributed whose requests were mirrored; a pair lies where its later answer does."""
        worth = Worth(span, self._rows)
        for (block, epoch), some in _by_place(span, self._rows.requests(span.since, span.until), epochs):
            if not is_evidence(span.plan, block, epoch):
                continue
            sums: Sums = {}
            for row in some:
                for other in self._rows.shadows(row, HORIZON):
                    champion, challenger = (other, row) if row.mirror else (row, other)
                    if not champion.hashed or champion.challenger:
                        continue
                    values = worth.both(champion, challenger)
                    if values is not None:
                        for segment in self._names(champion.combo):
                            merge(span.plan, sums.setdefault(segment, {}), ("pair", str(champion.unit)), values)
            if sums:
                yield Group(block, epoch, sums)

    def _numbers(self, worth: Worth, units: Iterable[ArmKey]) -> dict[str, int]:
        found = {unit: worth.number(int(unit)) for _, unit in units}
        return {unit: number for unit, number in found.items() if number is not None}

    def _names(self, combo: int) -> list[str]:
        return [self._segments.names[number] for number in self._segments.parts[combo]]

    def _known(self, table: str, span: Span, segment: str, pair: bool, sums: Mapping[ArmKey, Values]) -> "_Known":
        units = {unit for _, unit in sums}
        of = span.plan.name, int(pair), self._segments.numbers[segment]
        return _Known(self._con, table, of, units, span.plan.family == "latency")


class _Known:
    """What ``units`` scored or reached in all earlier blocks; ``write`` keeps what they have now. Who has scored
    nothing, or has never failed, is not kept."""

    def __init__(
        self, con: sqlite3.Connection, table: str, of: tuple[str, int, int], units: Iterable[str], latency: bool
    ) -> None:
        self._con, self._table, self._of = con, table, of
        column = "s" if table == "scores" else "level"
        found = con.execute(
            f"SELECT unit, {column} FROM {table} WHERE metric = ? AND pair = ? AND segment = ? "
            "AND unit IN (SELECT value FROM json_each(?))",
            (*of, json.dumps(list(map(int, units)))),
        )
        self.units = {str(unit): int(value) for unit, value in found}
        self._before = dict(self.units)
        self._nothing = None if latency else 0

    def write(self) -> None:
        changed = [
            (*self._of, int(unit), value if abs(value) < 1 << 63 else str(value))
            for unit, value in self.units.items()
            if self._before.get(unit, self._nothing) != value
        ]
        self._con.executemany(f"INSERT OR REPLACE INTO {self._table} VALUES (?, ?, ?, ?, ?)", changed)


def _by_place(span: Span, rows: Iterable[R], epochs: Mapping[int, EpochPlan]) -> list[tuple[Place, list[R]]]:
    found: dict[Place, list[R]] = {}
    for row in rows:
        if row.epoch in epochs:
            found.setdefault((row.t // span.plan.block, row.epoch), []).append(row)
    return sorted(found.items())


def _key(span: Span, row: Request | Entry, shown: bool) -> ArmKey | None:
    """As whose the row counts; None where it counts nowhere."""
    unit = str(row.unit)
    if shown:
        return None if row.challenger else ("champion", unit)
    if row.evidence:
        return ("challenger" if row.challenger else "champion", unit)
    return ("unseen", unit) if span.plan.family in _LEVELS else None


def _within(span: Span, block: Block | None) -> Block | None:
    """``block``, the sums of which may not be larger than they may be in a large state. EdgeError."""
    for cell in (block.champion, block.challenger, block.pair) if block is not None else ():
        for total in cell if cell is not None else ():
            if isinstance(total, int) and abs(total) >= _LARGEST_SUM:
                raise EdgeError(
                    f"{span.plan.name}: sums of blocks {span.first} to {span.last} exceed 128 bits; a smaller cap "
                    "prevents this"
                )
    return block


def _order(block: Block) -> tuple[str, int, int]:
    return block.segment, block.block, block.epoch
