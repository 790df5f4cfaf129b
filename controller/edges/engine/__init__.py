"""Journals → statistics: the incremental metric engine on one file, and the batch query that checks it.

``JournalSource`` tails journals, ``Engine`` counts rows, ``oracle`` says the same cells as one query over the raw log.
The rows lie in ``tables`` of two kinds: ``small`` ones in SQLite, and ``large`` ones in DuckDB once those are outgrown.

Order of things: a line becomes a row (``rows``), rows are staged (``ingest``) with the reader's position in the same
transaction, settled once the watermark has passed them (``settle``), and summed to cells when their block is final
(``blocks``). Nothing before the watermark ever changes, so a cell is a pure function of the rows, however they were
cut into batches, shuffled, repeated, or interrupted by a crash.

Limits: ids are compared by 64-bit hashes. A request id that comes again with a time more than ten minutes later is a
new request, and the two answers of a mirrored request lie within ten minutes. Requests are kept for the longest
window, the grace and a day (an hour, when there are more than forty million of them), so no outcome can name an older
one. Units and their running scores are kept for the attempt. An attribute has part in at most a thousand segments.
"""

from controller.edges.engine.engine import Engine
from controller.edges.engine.rows import ExposureRow, OutcomeRow, SampleRow
from controller.edges.engine.source import JournalSource

__all__ = ["Engine", "ExposureRow", "JournalSource", "OutcomeRow", "SampleRow"]
