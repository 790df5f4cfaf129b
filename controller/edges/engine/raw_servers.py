"""The cells of what looks at servers and not at units, from the raw log: the oracle of ``gauges``."""

from collections import Counter

import duckdb

from controller.core.cells import ArmCell, Block, GaugeCell, LatencyCell, MetricPlan, StatisticsQuery
from controller.edges.engine.terms import bucket


def server_blocks(
    con: duckdb.DuckDBPyConnection, query: StatisticsQuery, plan: MetricPlan, watermark: int, log: str
) -> list[Block]:
    """All final blocks of what looks at servers, by (block, epoch)."""
    final = f"(t // {plan.block} + 1) * {plan.block} <= {watermark}"
    cells: dict[tuple[int, int], dict[bool, ArmCell]] = {}
    if plan.family == "resource":
        known = ",".join(str(e.number) for e in query.epochs)
        found = con.execute(
            f"""
            WITH once AS (
                SELECT DISTINCT ON (challenger, t) * FROM samples
                WHERE attempt = {query.attempt} AND metric = ? AND epoch IN ({known}) AND {final} ORDER BY epoch, value
            )
            SELECT t // {plan.block}, epoch, challenger, count(*), sum(value) FROM once GROUP BY ALL
            """,
            [plan.name],
        ).fetchall()
        for block, epoch, challenger, *sums in found:
            cells.setdefault((block, epoch), {})[challenger] = GaugeCell(*map(int, sums))
    else:
        slow: dict[tuple[int, int], Counter[int]] = {}
        for block, epoch, latency in con.execute(
            f"""
            WITH {log}
            SELECT t // {plan.block} AS block, epoch, max(latency_us) FROM seen JOIN epochs USING (epoch)
            WHERE hashed AND (challenger OR mirror) AND {final} GROUP BY block, epoch, unit
            """
        ).fetchall():
            slow.setdefault((block, epoch), Counter())[bucket(latency)] += 1
        for at, buckets in slow.items():
            cells[at] = {True: LatencyCell(buckets.total(), tuple(sorted(buckets.items())))}
    return [
        Block(plan.name, "", epoch, block, arms.get(False), arms.get(True))
        for (block, epoch), arms in sorted(cells.items())
    ]
