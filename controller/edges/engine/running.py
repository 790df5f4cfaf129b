"""What each unit scored in all earlier blocks, so that one that returns is one unit: SQL on the table ``scores``."""


def quoted(text: str) -> str:
    """``text`` as it stands inside an SQL literal."""
    return text.replace("'", "''")


def running(metric: str, order: str, pair: bool) -> str:
    """SQL, to begin a query: ``running``, the rows of ``scored`` (segment, unit, s, …), each with the ``old`` score of
    its unit: of the blocks that are folded and of its rows before it in ``order``."""
    return f"""
        WITH base AS (
            SELECT segment, unit, sum(s) AS s FROM scores
            WHERE metric = '{quoted(metric)}' AND pair = {pair} AND unit IN (SELECT unit FROM scored)
            GROUP BY ALL
        ),
        running AS (
            SELECT c.*, COALESCE(b.s, CAST(0 AS HUGEINT)) + COALESCE(
                sum(c.s) OVER (PARTITION BY c.segment, c.unit ORDER BY {order}
                    ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), CAST(0 AS HUGEINT)) AS old
            FROM scored c LEFT JOIN base b ON b.segment = c.segment AND b.unit = c.unit
        )
    """


def added(metric: str, pair: bool) -> str:
    """SQL: keep the scores of ``scored`` for the blocks to come."""
    return (
        f"INSERT INTO scores SELECT '{quoted(metric)}', {pair}, segment, unit, sum(s) FROM scored "
        "GROUP BY segment, unit HAVING sum(s) <> 0"
    )
