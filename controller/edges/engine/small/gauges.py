"""What looks at servers and not at units: samples of gauges, and the latencies that a hard limit is held against."""

from collections import Counter

from controller.core.cells import OVERALL, ArmCell, Block, GaugeCell, LatencyCell
from controller.edges.engine.small.rows import Rows
from controller.edges.engine.span import Span

Place = tuple[int, int]  # block and epoch


def server_blocks(rows: Rows, span: Span) -> list[Block]:
    """The blocks of a ``resource`` or ``limit`` in all epochs, mirrors among them, in the order (block, epoch)."""
    found = _sampled(rows, span) if span.plan.family == "resource" else _slowest(rows, span)
    return [
        Block(span.plan.name, OVERALL, epoch, block, arms.get(False), arms.get(True))
        for (block, epoch), arms in sorted(found.items())
    ]


def _sampled(rows: Rows, span: Span) -> dict[Place, dict[bool, ArmCell]]:
    """Samples and their sum by window; what was read twice counts once."""
    plan, epochs = span.plan, {**span.epochs(True), **span.epochs(False)}
    once: dict[tuple[int, int], tuple[int, int]] = {}
    for challenger, t, epoch, value in rows.samples(span.query.attempt, plan.name, span.since, span.until):
        if epoch in epochs:
            least, low = once.get((challenger, t), (epoch, value))
            once[challenger, t] = min(least, epoch), min(low, value)
    found: dict[Place, dict[bool, ArmCell]] = {}
    sums: dict[tuple[int, int, bool], list[int]] = {}
    for (challenger, t), (epoch, value) in once.items():
        sums.setdefault((t // plan.block, epoch, bool(challenger)), []).append(value)
    for (block, epoch, challenger), values in sums.items():
        found.setdefault((block, epoch), {})[challenger] = GaugeCell(len(values), sum(values))
    return found


def _slowest(rows: Rows, span: Span) -> dict[Place, dict[bool, ArmCell]]:
    """The challenger's slowest requests by unit and block, as a histogram; mirrored ones as well."""
    epochs = {**span.epochs(True), **span.epochs(False)}
    slowest: dict[tuple[int, int, int], int] = {}
    for row in rows.requests(span.since, span.until):
        if row.hashed and row.epoch in epochs and (row.challenger or row.mirror):
            at = (row.t // span.plan.block, row.epoch, row.unit)
            slowest[at] = max(slowest.get(at, 0), row.bucket)
    histograms: dict[Place, Counter[int]] = {}
    for (block, epoch, _), bucket in slowest.items():
        histograms.setdefault((block, epoch), Counter())[bucket] += 1
    return {at: {True: LatencyCell(h.total(), tuple(sorted(h.items())))} for at, h in histograms.items()}
