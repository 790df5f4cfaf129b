"""What looks at servers and not at units: samples of gauges, and the latencies that a hard limit is held against."""

from collections.abc import Sequence

import duckdb
import numpy as np

from controller.core.cells import OVERALL, ArmCell, Block, GaugeCell, LatencyCell
from controller.edges.engine.rows import SampleRow
from controller.edges.engine.settle import within
from controller.edges.engine.span import Span


def admit(con: duckdb.DuckDBPyConnection, rows: Sequence[SampleRow], attempt: int, settled: int) -> None:
    """Keep the samples of ``attempt`` that do not lie before its watermark ``settled`` (µs), and all of later ones."""
    timely = [row for row in rows if (row.attempt == attempt and row.t >= settled) or row.attempt > attempt]
    if timely:
        by = SampleRow(*map(list, zip(*timely, strict=True)))  # type: ignore[arg-type]  # a row of columns
        columns = {
            "attempt": np.array(by.attempt, dtype=np.int32),
            "metric": np.array(by.metric, dtype=object),
            "challenger": np.array(by.challenger, dtype=bool),
            "t": np.array(by.t, dtype=np.int64),
            "epoch": np.array(by.epoch, dtype=np.int32),
            "value": np.array(by.value, dtype=np.int64),
        }
        con.execute("INSERT INTO samples SELECT * FROM columns")
        del columns  # DuckDB finds it by its name


def blocks(con: duckdb.DuckDBPyConnection, span: Span) -> list[Block]:
    """The blocks of a ``resource`` or ``limit`` in all epochs, mirrors among them, in the order (block, epoch)."""
    found: dict[tuple[int, int], dict[bool, ArmCell]] = {}
    if span.plan.family == "resource":
        for block, epoch, challenger, samples, total in con.execute(_samples(span), [span.plan.name]).fetchall():
            found.setdefault((block, epoch), {})[challenger] = GaugeCell(int(samples), int(total))
    else:
        histograms: dict[tuple[int, int], list[tuple[int, int]]] = {}
        for block, epoch, bucket, units in con.execute(_slowest(span)).fetchall():
            histograms.setdefault((block, epoch), []).append((bucket, units))
        for at, buckets in histograms.items():
            found[at] = {True: LatencyCell(sum(units for _, units in buckets), tuple(buckets))}
    return [
        Block(span.plan.name, OVERALL, epoch, block, arms.get(False), arms.get(True))
        for (block, epoch), arms in sorted(found.items())
    ]


def _samples(span: Span) -> str:
    """SQL: samples and their sum by window; what was read twice counts once."""
    return f"""
        SELECT t // {span.plan.block} AS block, epoch, challenger, count(*), sum(value) FROM (
            SELECT challenger, t, min(epoch) AS epoch, min(value) AS value FROM samples
            WHERE attempt = {span.query.attempt} AND metric = ? AND t >= {span.since} AND t < {span.until}
                AND epoch IN {_epochs(span)}
            GROUP BY challenger, t
        ) GROUP BY ALL
    """


def _slowest(span: Span) -> str:
    """SQL: the challenger's slowest requests by unit and block, as a histogram; mirrored ones as well."""
    return f"""
        SELECT block, epoch, bucket, count(*) FROM (
            SELECT t // {span.plan.block} AS block, epoch, unit, max(bucket) AS bucket FROM requests
            WHERE hashed AND (challenger OR mirror) AND t >= {span.since} AND t < {span.until}
                AND epoch IN {_epochs(span)}
            GROUP BY ALL
        ) GROUP BY ALL ORDER BY block, epoch, bucket
    """


def _epochs(span: Span) -> str:
    return within([*span.epochs(True), *span.epochs(False)])
