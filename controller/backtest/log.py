"""A backtest of logged exposures and outcomes."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import duckdb

from controller.backtest import tables
from controller.backtest.allocations import NO_EPOCH, Allocations, logged
from controller.backtest.player import Feed, Past, Player, Progressed
from controller.backtest.result import Result
from controller.core.covariates import units_of
from controller.edges.engine import ExposureRow, OutcomeRow
from controller.errors import SpecError
from controller.kinds import KINDS, REQUESTS
from controller.metric import Covariate, Metric, Role
from controller.quantities import SECOND
from controller.spec import ModelRollout, RolloutSpec, RouterTraffic
from controller.specfile import unsupported

ATTEMPT, BEFORE = 1, 0
DEFAULT_TICK = 60 * SECOND
MOST_TICKS = 1_000
_CHUNK = 10_000
_COLUMN = {"label": "prediction", "auc": "prediction", "failures": "status", "latency": "latency_ms"}
Warned = Callable[[str], None]


class _Log:
    """Two checked tables and what the spec asks of them."""

    def __init__(self, spec: RolloutSpec, exposures: Path, outcomes: Path, warned: Warned) -> None:
        self.spec = spec
        self.con = tables.connect()
        self.shown = tables.Table(self.con, "exposures", exposures)
        self._sources = spec.covariates
        tables.exposures(self.shown, [_column(c) for c in self._sources])
        self.seen = tables.Table(self.con, "outcomes", outcomes)
        tables.outcomes(self.seen)
        self._check(warned)
        self.reserved = "control" in self.shown.columns
        self.allocations = self._allocations()

    def _check(self, warned: Warned) -> None:
        """Every metric that decides has its data; what is missing otherwise is said."""
        names = {row[0] for row in self.con.execute("SELECT DISTINCT name FROM seen").fetchall()}
        kept = []
        for metric in self.spec.metrics:
            try:
                self._check_metric(metric, names)
                kept.append(metric)
            except SpecError as error:
                if metric.role in (Role.SUCCESS, Role.GUARDRAIL):
                    raise
                warned(f"{error}; {metric.name} is left out")
        self.spec = self.spec.model_copy(update={"metrics": tuple(kept)})
        by_request = self.con.execute("SELECT count(request_id) FROM seen").fetchone()
        if by_request != (0,):
            self.shown.need(("request_id",), "the outcomes name requests")
        if self.spec.segments and "segment" not in self.shown.columns:
            warned(f"{self.shown.path} has no column segment: no segment is looked at")
        (largest,) = self.con.execute("SELECT max(weight_bp) FROM shown").fetchone() or (0,)
        if largest <= 100 < self.spec.largest_bp:
            warned("no weight is above 1: weights are percentages, 5 and not 0.05")

    def _check_metric(self, metric: Metric, names: set[str]) -> None:
        column = _COLUMN.get(KINDS[metric.kind].family)
        if column is not None:
            self.shown.need((column,), f"metric {metric.name} is of kind {metric.kind}")
        if metric.covariate is not None:
            self.shown.need((_column(metric.covariate),), f"metric {metric.name} is adjusted by it")
        if column == "latency_ms":
            tables.need_latency(self.shown)
        if KINDS[metric.kind].family == "pair":
            raise SpecError(f"metric {metric.name}: {metric.kind} compares answers of a mirror, which a log has not")
        if KINDS[metric.kind].family == "resource":
            raise SpecError(f"metric {metric.name}: a {metric.kind} is measured at servers, which a log has not")
        for name in (metric.outcome, metric.numerator, metric.denominator):
            if name not in names | {None, REQUESTS}:
                raise SpecError(
                    f"--outcomes: {self.seen.path} has no outcome {name!r}, which metric {metric.name} counts; "
                    f"it has {', '.join(sorted(names)[:20])}"
                )

    def _allocations(self) -> Allocations:
        changes = self.con.execute(
            "SELECT t, weight_bp FROM (SELECT t, weight_bp, lag(weight_bp) OVER (ORDER BY t, weight_bp) AS was "
            "FROM shown) WHERE weight_bp IS DISTINCT FROM was ORDER BY t, weight_bp"
        ).fetchall()
        # Of several at one moment the last is in force.
        last = self.con.execute("SELECT max(t) FROM shown WHERE weight_bp BETWEEN 1 AND 9999").fetchone()
        return logged(self.spec, list(dict(changes).items()), int(last[0] or 0) if last else 0, self.reserved)

    def exposures(self) -> Iterator[ExposureRow]:
        """In the order of time. What was served before the rollout is of an earlier attempt: known, not counted."""
        epochs = {e.weight_bp: e.number for e in self.allocations.epochs}
        limits = self.spec.traffic.router or RouterTraffic()
        begin, reserved = self.allocations.begin, self.reserved
        places = [self._sources.index(c) for c in self.spec.covariates]
        columns = "t, request_id, unit, challenger, control, weight_bp, score, latency_us, status, segment, numbers"
        for t, request, unit, challenger, control, weight, score, latency, status, segment, numbers in _rows(
            self.con, columns, "shown"
        ):
            usable = status is None or 200 <= status < 300
            epoch = epochs.get(weight, NO_EPOCH)
            deadline = limits.timeout if challenger else limits.champion_timeout
            yield ExposureRow(
                ATTEMPT if t >= begin else BEFORE,
                epoch,
                t,
                request,
                unit,
                challenger,
                unit is not None,
                unit is not None and epoch != NO_EPOCH and (challenger or control or not reserved),
                usable=usable,
                latency_us=deadline if latency is None else latency,
                segments=self._segments(segment),
                scores=(score,) if usable and score is not None else None,
                numbers=tuple(units_of(numbers[i]) for i in places),
            )

    def _segments(self, text: str | None) -> tuple[str, ...]:
        """``name=value`` of what the spec declares: the value alone where it is one, else pairs with ``;``."""
        names = [s.name for s in self.spec.segments]
        if text is None or not names:
            return ()
        if len(names) == 1 and not text.startswith(f"{names[0]}="):
            return (f"{names[0]}={text}",)
        pairs = (part.strip() for part in text.split(";"))
        return tuple(p for p in pairs if p.partition("=")[0] in names and p.partition("=")[2])

    def outcomes(self) -> Iterator[OutcomeRow]:
        """In the order of time; each is known as soon as it happened."""
        for outcome, t, name, value, unit, request in _rows(
            self.con, "outcome_id, t, name, value, unit, request_id", "seen"
        ):
            yield OutcomeRow(outcome, t, t, name, value, None if request is not None else unit, request)


def _column(covariate: Covariate) -> str:
    """The column of exposures that has it."""
    return f"covariate.{covariate.text}"


def _rows(con: duckdb.DuckDBPyConnection, columns: str, table: str) -> Iterator[tuple[Any, ...]]:
    """The rows of a table in the order in which it was made, without holding all of them."""
    cursor = con.cursor()
    cursor.execute(f"SELECT {columns} FROM {table} ORDER BY rowid")
    while found := cursor.fetchmany(_CHUNK):
        yield from found


def run_log(
    rollout: ModelRollout,
    exposures: Path,
    outcomes: Path,
    *,
    tick: int | None = None,
    stop_at_decision: bool = False,
    progressed: Progressed | None = None,
    warned: Warned = lambda text: None,
) -> Result:
    """What the rule of ``rollout`` would have decided on a log.

    ``exposures``: CSV or Parquet with the columns unit, arm, ts, weight (percent) and optionally segment, request_id,
    prediction, latency_ms, status, control; ``outcomes``: unit or request_id, name, ts and value (without: 1). ``ts``
    is an ISO time (UTC without a zone) or seconds since 1970. Rows may be in any order. Rows of weight 0 before the
    first other weight are from before the rollout. ``tick`` (µs) is the time between two looks, by default a minute,
    or longer where that would be more than MOST_TICKS looks.

    Raises SpecError for a file that is no such log, naming row and column, and for a metric without its data;
    EdgeError where sums overflow.
    """
    problems = unsupported(rollout.spec)
    if problems:
        raise SpecError(*problems)
    log = _Log(rollout.spec, exposures, outcomes, warned)
    try:
        span = log.allocations.last - log.allocations.begin
        past = Past(
            rollout.metadata.name,
            ATTEMPT,
            log.allocations,
            Feed(log.exposures(), lambda row: row.t),
            Feed(log.outcomes(), lambda row: row.ingest_t),
            Feed([], lambda row: row.t),
            no_unit=sum(log.con.execute("SELECT count(*) FROM shown WHERE unit IS NULL").fetchone() or ()),
        )
        chosen = tick or max(DEFAULT_TICK, -(-span // MOST_TICKS // DEFAULT_TICK) * DEFAULT_TICK)
        return Player(log.spec, past, chosen, progressed).play(stop_at_decision)
    finally:
        log.con.close()
