"""Rows → staging tables: ids become 64-bit hashes, segments numbers, latencies log buckets, columns numpy arrays."""

from collections.abc import Iterable, Sequence
from itertools import compress
from typing import Any

import duckdb
import numpy as np

from controller.edges.engine.rows import ExposureRow, OutcomeRow, Scores
from controller.edges.engine.segments import Segments, identity
from controller.edges.engine.terms import buckets

Columns = dict[str, "np.ndarray[Any, Any]"]


def _identities(texts: Iterable[str | None]) -> "np.ndarray[Any, Any]":
    return np.fromiter(map(identity, texts), dtype=np.uint64)


def admit_exposures(con: duckdb.DuckDBPyConnection, segments: Segments, rows: Sequence[ExposureRow]) -> None:
    """Append exposures to the staging table."""
    if not rows:
        return
    by = ExposureRow(*map(list, zip(*rows, strict=True)))  # type: ignore[arg-type]  # a row of columns
    keys = [row.key for row in rows]
    columns: Columns = {
        "attempt": np.array(by.attempt, dtype=np.int32),
        "request_id": np.array(keys, dtype=object),
        "fell_back": np.array(by.fell_back, dtype=bool),
        "epoch": np.array(by.epoch, dtype=np.int32),
        "t": np.array(by.t, dtype=np.int64),
        "h": _identities(keys),
        "name": _identities(by.request_id),
        "unit": _identities(by.unit),  # type: ignore[arg-type]
        "challenger": np.array(by.challenger, dtype=bool),
        "hashed": np.array(by.hashed, dtype=bool),
        "evidence": np.array(by.evidence, dtype=bool),
        "mirror": np.array(by.mirror, dtype=bool),
        "usable": np.array(by.usable, dtype=bool),
        "bucket": buckets(by.latency_us),  # type: ignore[arg-type]
        "combo": np.fromiter(map(segments.combo, by.segments), dtype=np.int32),  # type: ignore[arg-type]
        "numbers": _number_texts(by.numbers),  # type: ignore[arg-type]
        **_score_columns(by.scores),  # type: ignore[arg-type]
    }
    con.execute(
        "INSERT INTO staged_exposures BY NAME SELECT * EXCLUDE (kept, score, more) "
        "REPLACE (CAST(numbers AS BIGINT[]) AS numbers), CASE WHEN more IS NOT NULL THEN CAST(more AS DOUBLE[]) "
        "WHEN kept THEN [CASE WHEN isnan(score) THEN NULL ELSE score END] END AS scores FROM columns"
    )
    del columns  # DuckDB finds it by its name


def _score_columns(scores: Sequence[Scores | None]) -> Columns:
    """One number for the usual request of one row; text for lists, which DuckDB reads back exactly."""
    kept = np.fromiter((s is not None for s in scores), dtype=bool, count=len(scores))
    single = np.full(len(scores), np.nan)
    single[kept] = np.fromiter(
        (s[0] if s and s[0] is not None else np.nan for s in compress(scores, kept)), dtype=np.float64
    )
    more = np.full(len(scores), None, dtype=object)
    for place, found in enumerate(scores):
        if found is not None and len(found) != 1:
            more[place] = "[" + ",".join("NULL" if x is None else repr(x) for x in found) + "]"
    return {"kept": kept, "score": single, "more": more}


def _number_texts(rows: Sequence[Sequence[int | None]]) -> "np.ndarray[Any, Any]":
    """Lists of numbers as text, which DuckDB reads back exactly; None where all are unknown."""
    texts = np.full(len(rows), None, dtype=object)
    for place, numbers in enumerate(rows) if any(rows) else ():
        if any(number is not None for number in numbers):
            texts[place] = "[" + ",".join("NULL" if x is None else str(x) for x in numbers) + "]"
    return texts


def admit_outcomes(con: duckdb.DuckDBPyConnection, rows: Sequence[OutcomeRow]) -> None:
    """Append outcomes to the staging table. One that names a request belongs to it alone: its unit is not looked at."""
    if not rows:
        return
    by = OutcomeRow(*map(list, zip(*rows, strict=True)))  # type: ignore[arg-type]  # a row of columns
    request = _identities(by.request_id)  # type: ignore[arg-type]
    unit = _identities(by.unit)  # type: ignore[arg-type]
    columns: Columns = {
        "h": _identities(by.outcome_id),
        "outcome_id": np.array(by.outcome_id, dtype=object),
        "t": np.array(by.t, dtype=np.int64),
        "ingest_t": np.array(by.ingest_t, dtype=np.int64),
        "name": np.array(by.name, dtype=object),
        "unit": np.where(request == 0, unit, np.uint64(0)),
        "request": request,
        "row": np.array(by.row, dtype=np.int32),
        "value": np.array(by.value, dtype=np.float64),
    }
    con.execute("INSERT INTO staged_outcomes SELECT * FROM columns")
    del columns


def admit_foreign(con: duckdb.DuckDBPyConnection, rows: Sequence[ExposureRow]) -> None:
    """Remember whose outcomes belong to another attempt."""
    if not rows:
        return
    columns = {
        "h": np.concatenate([_identities(r.request_id for r in rows), _identities(r.unit for r in rows)]),
        "t": np.tile(np.fromiter((r.t for r in rows), dtype=np.int64), 2),
    }
    con.execute("INSERT INTO foreign_ids SELECT * FROM columns WHERE h <> 0")
    del columns
