"""Cells of final blocks, from the settled rows: one query per metric and range of blocks.

Every family first becomes a relation of units, ``(segment, epoch, block, challenger, unit, …)``, one row for each
unit of a cell, and then sums. What a labelled row is worth is said in ``terms`` alone.
"""

from collections.abc import Iterable, Mapping
from itertools import combinations_with_replacement
from typing import Any

import duckdb

from controller.core.cells import (
    PPM,
    AreaCell,
    ArmCell,
    Block,
    PairAreaCell,
    PairCell,
    PairScoreCell,
)
from controller.edges.engine import gauges
from controller.edges.engine.baseline import BaselineCell, baseline_bucket, value_bucket
from controller.edges.engine.running import added, running
from controller.edges.engine.service import Found, Service, service_rows
from controller.edges.engine.span import Span, champions, evidence
from controller.edges.engine.terms import MOMENTS, quantities, score_cell, taken
from controller.edges.engine.values import (
    difference_rows,
    label_terms,
    pair_ranked_rows,
    pair_score_rows,
    ranked_rows,
    score_rows,
)
from controller.errors import EdgeError
from controller.kinds import DECIDED, ERRORS, MIRRORED, OF_SERVERS, UNMEASURED


class Cells:
    """Cells of one span, found in ``con``; what units scored or reached before is read and added to."""

    def __init__(self, con: duckdb.DuckDBPyConnection, names: Mapping[int, str]) -> None:
        self._con = con
        self._names = names
        self._service = Service(con)

    def weighted(self, span: Span) -> list[Block]:
        """All blocks of weighted epochs that have a row, in the order (segment, block, epoch); of what looks at servers
        those of mirrors as well."""
        if span.plan.family in OF_SERVERS:
            return gauges.blocks(self._con, span)
        if not span.epochs(False):
            return []
        if span.plan.family == "pair":
            return []
        found: Iterable[Found]
        if span.plan.family == "auc":
            found = self._areas(span)
        elif span.plan.family in ("unit", "label", "throughput"):
            found = [(*row[:4], score_cell(row[4:])) for row in self._scores(span)]
        else:
            found = self._service.weighted(span)
        arms: dict[tuple[int, int, int], dict[bool, ArmCell]] = {}
        for segment, block, epoch, challenger, cell in found:
            arms.setdefault((segment, block, epoch), {})[challenger] = cell
        return [
            Block(span.plan.name, self._names[segment], epoch, block, cells.get(False), cells.get(True))
            for (segment, block, epoch), cells in sorted(arms.items())
        ]

    def paired(self, span: Span) -> list[Block]:
        """All blocks of mirror epochs that have a pair, in the order (segment, block, epoch)."""
        if not span.epochs(True):
            return []
        cells: list[tuple[int, int, int, PairCell]]
        if span.plan.family == "failures":
            cells = self._service.paired(span)
        elif span.plan.family == "auc":
            cells = self._pair_areas(span)
        elif span.plan.family in MIRRORED:
            cells = self._pair_scores(span)
        else:
            return []
        return [
            Block(span.plan.name, self._names[segment], epoch, block, pair=cell)
            for segment, block, epoch, cell in sorted(cells)
        ]

    def _query(self, span: Span, sql: str, values: list[object] | None = None) -> list[tuple[Any, ...]]:
        try:
            return self._con.execute(sql, values or []).fetchall()
        except duckdb.OutOfRangeException as error:
            blocks = f"blocks {span.first} to {span.last}"
            raise EdgeError(
                f"{span.plan.name}: sums of {blocks} exceed 128 bits; a smaller cap prevents this ({error})"
            ) from error

    def _scores(self, span: Span) -> list[tuple[Any, ...]]:
        rows, values = score_rows(span, evidence(span), capped=True)
        plan, adjusted = span.plan, span.plan.covariate is not None
        shares = ",".join(
            str((e.number, e.pi_ppm, e.means.get(plan.name, 0), *quantities(e.adjustments.get(plan.name))))
            for e in span.epochs(False).values()
        )
        columns = "epoch, pi, mean, centre, per, slope, most"
        sql = f"""
            CREATE OR REPLACE TEMP TABLE scored AS
            SELECT u.*, CASE WHEN challenger THEN CAST({PPM} - pi AS HUGEINT) ELSE CAST(-pi AS HUGEINT) END
                * (z - CAST(mean AS HUGEINT) * x) AS s
            FROM (
                SELECT r.*, pi, mean, y - {taken("c") if adjusted else "0"} AS z
                FROM ({rows}) r JOIN (VALUES {shares}) e({columns}) USING (epoch)
            ) u
        """
        self._query(span, sql, values)
        found = self._query(
            span,
            running(span.plan.name, "block, epoch, challenger", False)
            + f"""
            SELECT segment, block, epoch, challenger, count(*), sum(x), sum(y), sum(z * z), sum(x * z), sum(x * x),
                count_if(y <> 0), sum(2 * old * s + s * s){f", {MOMENTS}, sum(y - z)" if adjusted else ""}
            FROM running GROUP BY ALL
            """,
        )
        self._query(span, added(span.plan.name, False))
        return found

    def _ranked(self, span: Span, rows: str, values: list[object], pair: bool) -> list[tuple[Any, ...]]:
        """Cells of the labelled ``rows``, which the table ``ranked`` holds from then on: (segment, block, epoch,
        challenger unless in a mirror, units, clustered)."""
        place = "block, epoch" if pair else "block, epoch, challenger"
        self._query(span, f"CREATE OR REPLACE TEMP TABLE ranked AS {rows}", values)
        self._query(
            span,
            f"CREATE OR REPLACE TEMP TABLE scored AS SELECT segment, {place}, unit, CAST(count(*) AS HUGEINT) AS s "
            "FROM ranked GROUP BY ALL",
        )
        sums = self._query(
            span,
            running(span.plan.name, place, pair)
            + f"SELECT segment, {place}, count(*), sum(2 * old * s + s * s) FROM running GROUP BY ALL",
        )
        self._query(span, added(span.plan.name, pair))
        return sums

    def _areas(self, span: Span) -> list[Found]:
        sums = self._ranked(span, *ranked_rows(span, evidence(span)), False)
        bins = self._query(
            span,
            "SELECT segment, block, epoch, challenger, positive, list((bin, n) ORDER BY bin) FROM ("
            "SELECT segment, block, epoch, challenger, positive, bin, count(*) AS n FROM ranked GROUP BY ALL"
            ") GROUP BY ALL",
        )
        by_label = {tuple(row[:5]): tuple((int(b), int(n)) for b, n in row[5]) for row in bins}
        return [
            (*at, AreaCell(int(n), int(clustered), by_label.get((*at, True), ()), by_label.get((*at, False), ())))
            for *at, n, clustered in sums
        ]

    def _pair_scores(self, span: Span) -> list[tuple[int, int, int, PairCell]]:
        plan = span.plan
        rows, values = (difference_rows(span), []) if plan.family == "pair" else pair_score_rows(span)
        means = ",".join(f"({e.number}, {e.means.get(plan.name, 0)})" for e in span.epochs(True).values())
        self._query(
            span,
            "CREATE OR REPLACE TEMP TABLE scored AS SELECT u.*, CAST(d - mean * CAST(more AS HUGEINT) AS HUGEINT) AS s "
            f"FROM ({rows}) u JOIN (VALUES {means}) e(epoch, mean) USING (epoch)",
            values,
        )
        totals = ("d", "more", "champion_y", "x")
        squares = [f", sum({a} * {b})" for a, b in combinations_with_replacement(totals, 2)][1:]
        found = self._query(
            span,
            running(span.plan.name, "block, epoch", True)
            + f"""
            SELECT segment, block, epoch, count(*), sum(x), sum(d), sum(d * d), sum(2 * old * s + s * s),
                sum(champion_y), sum(more){"".join(squares) if plan.kind in DECIDED else ""}
            FROM running GROUP BY ALL
            """,
        )
        self._query(span, added(span.plan.name, True))
        return [(*row[:3], PairScoreCell.of(row[3:])) for row in found]

    def _pair_areas(self, span: Span) -> list[tuple[int, int, int, PairCell]]:
        sums = self._ranked(span, *pair_ranked_rows(span), True)
        bins = self._query(
            span,
            "SELECT segment, block, epoch, positive, champion_bin, challenger_bin, count(*) FROM ranked GROUP BY ALL "
            "ORDER BY champion_bin, challenger_bin",
        )
        joint: dict[tuple[int, int, int, bool], list[tuple[int, int, int]]] = {}
        for segment, block, epoch, positive, *row in bins:
            champion, challenger, n = row
            joint.setdefault((segment, block, epoch, positive), []).append((champion, challenger, n))
        cells: list[tuple[int, int, int, PairCell]] = []
        for segment, block, epoch, units, clustered in sums:
            both = (tuple(joint.get((segment, block, epoch, positive), ())) for positive in (True, False))
            cells.append((segment, block, epoch, PairAreaCell(int(units), int(clustered), *both)))
        return cells

    def baseline(self, span: Span) -> list[tuple[int, int, BaselineCell]]:
        """(block, epoch, sums) of the champion in everything, ascending; see ``BaselineSums``."""
        if span.plan.family in UNMEASURED:
            return []
        rows = champions(span)
        if span.plan.family in ("unit", "label"):
            sql, values = score_rows(span, rows, capped=False)
            moments = f", {MOMENTS}" if span.plan.covariate is not None else ""
            found = self._query(
                span,
                f"SELECT block, epoch, abs(y), count(*), sum(x), sum(y), count_if(y <> 0){moments} "
                f"FROM ({sql}) WHERE segment = 0 GROUP BY ALL",
                values,
            )
        else:
            failed = "count_if(failed)" if span.plan.family == "failures" else "0"
            found = self._query(
                span,
                f"SELECT block, epoch, slowest, count(*), count(*), {failed}, {failed} "
                f"FROM ({service_rows(span, rows)}) WHERE segment = 0 GROUP BY ALL",
            )
        cells: dict[tuple[int, int], BaselineCell] = {}
        for block, epoch, value, *sums in found:
            cell = cells.get((block, epoch), BaselineCell())
            cells[block, epoch] = cell.plus(baseline_bucket(span.plan, int(value)), *map(int, sums))
        if span.plan.kind in ERRORS:
            for block, epoch, error, count in self._errors(span, rows):
                cells[block, epoch] = cells[block, epoch].placed(value_bucket(int(error)), int(count))
        return [(block, epoch, cell) for (block, epoch), cell in sorted(cells.items())]

    def _errors(self, span: Span, rows: str) -> list[tuple[Any, ...]]:
        """(block, epoch, error, rows): a cap on the error of a row comes from rows, not from units."""
        sql, values = label_terms(span, rows, capped=False)
        counted = "SELECT block, epoch, y, count(*)"
        return self._query(span, f"{counted} FROM ({sql}) WHERE segment = 0 GROUP BY ALL", values)
