"""What the engine hands to the core: integer sums by block × arm × segment × metric, and the question it answers.

A *cell* belongs to one epoch and one block of it, so the share of the challenger, the centring mean and the cap are
constants of the cell. There is no operation that adds cells of different epochs: ``fold`` takes them one block at a
time, keyed by epoch, and that is the only consumer.

Integer units. A metric's value is an integer: ``round(value * scale)`` (``KINDS[kind].scale``). Shares are in
millionths (ppm). The score of a unit is ``s = (A - π)(y - m x)`` with A in {0, 1e6} and π in ppm, so an integer too.

How the engine counts (family of the kind):

* ``unit``: one value per unit and epoch. The unit enters an epoch at its first hash-assigned exposure there (time
  t0, ties by request id); that exposure gives arm, segment and block ``t0 // block``. An outcome is credited to the
  epoch the unit entered last at or before the outcome's time, and counts within ``window`` of t0 (ends included).
  Proportion: any outcome other than 0; Mean: the sum, each outcome rounded, cut to ±cap; x = 1. Ratio: y the sum of
  its numerators like a Mean's, x of its denominators in whole numbers not below 0, or of the unit's hash-assigned
  requests from t0 on. ActiveUnits: whether such a request came in a later block than t0 and within ``window``; the one
  that enters the next epoch still counts.
* ``label``: one term per labelled request row, in the block of the request (``t // block``); x = 1 per row, y its
  loss (Precision, Recall, F1: x and y are numerator and denominator, rows with x = 0 are left out). The label is the
  earliest outcome (time, then id) up to ``window`` after the request. An answer that was not usable, or that has no
  number where the score should be, counts as wrong (an error: as the cap); one that was not kept whole, or has no
  such row, does not count.
  A unit's terms of one block are summed before they are squared. In a mirror a row counts where both answers do;
  of Precision and F1 also where it has a denominator in one arm alone.
* ``failures``: a unit with requests in a service block is *at risk* there until the block of its first failure, that of
  a request without a usable answer of its arm. Beside that all units count that are *active*, and those of them with a
  failure, the first or not.
* ``auc``: labelled rows as for ``label``, by label and the bin of the score. No baseline.
* ``pair``: one per mirrored request, in the block of the later answer: 1 where the answers differ, which is where only
  one of them is usable, or where their rows do not lie on the same sides of the threshold. Requests without a usable
  answer, or of which one was not kept whole, do not count. No baseline.
* ``throughput``: one per unit and service block in which it made a request that is evidence. No baseline, and m is 0.
* ``resource``: the samples of a gauge of either arm's server, by the metric's block (its window). No baseline.
* ``limit``: what a hard limit on a Latency looks at: the challenger's requests assigned by hash, its mirrored ones
  among them, whether evidence or not, as for ``latency``; neither baseline nor segments.
* ``latency``: one per unit and service block: the log bucket of its slowest first attempt, in microseconds: the least
  b with 1.02**b >= latency. At each edge a unit is at risk until the first block with a slowest request above it.

Earlier is what lies in an earlier block, in the order (block, epoch), of the attempt's weighted epochs after the
baseline, in the same segment. There every hash-assigned request counts, also those that are no
evidence: a unit between the arms is served by the champion, and when a larger weight makes it the challenger's it
must have had the same chances to fail before as the units of the reserved control. In a mirror a unit counts for
``failures`` until the first block in which one arm alone failed it.

Segments: a unit of a ``unit`` kind has those of the exposure it entered with; other kinds count, in each segment,
only the requests that carry it. A single value, and a unit's sum of outcomes, lies within ±1e12 integer units.

Covariates: a unit's is the number that came with its first hash-assigned request of the attempt, in a mirror or not;
what later ones carry may be the answers' doing.

Outcomes: one that names a request belongs to that request and its unit, at the later of the two times; one of a unit
alone belongs to the unit, and as a label to the latest request of the unit at or before it. It counts if it came in
(``ingest_t``) before the block was final; whatever was exposed in the meantime makes no difference to a final cell.

Evidence comes only from exposures with ``evidence`` true that were assigned by hash under a table that was not stale;
in a mirror epoch from requests answered by both arms, whatever ``evidence`` says (hash-assigned champion requests and
their mirrors), in the block of the later of the two answers.
A block is final when every live journal's watermark passed its end (for outcome kinds: + window + grace); a final
cell never changes, what comes later is counted as late. Blocks without a row do not exist: they are neither folded
nor counted as blocks of a baseline. An exposure earlier than the watermark that holds when it is read is late.
A request id counts once (its first exposure), an outcome id once (the first that came in).
"""

from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, SupportsInt

from controller.core.covariates import Moments
from controller.kinds import REQUESTS, Family, Kind
from controller.status import Adjustment

EpochKind = Literal["mirror", "weight", "holdback"]
OVERALL = ""  # the segment of everything
PPM = 1_000_000


class EpochPlan(NamedTuple):
    """One allocation: its number, kind, π in ppm (0 for a mirror), and per metric the centring mean (integer unit) and,
    where a covariate explains something, the adjustment by it."""

    number: int
    kind: EpochKind
    pi_ppm: int
    means: Mapping[str, int]
    adjustments: Mapping[str, Adjustment] = {}


class MetricPlan(NamedTuple):
    """One metric as it is counted and judged during an attempt.

    ``window`` and ``block`` in microseconds. ``margin``, ``harm_margin``: absolute in integer units (of a latency in
    milliseconds), or a fraction of the champion's mean where ``*_relative``. ``tau`` (integer units, 0 while
    unknown), ``cap``, ``edges`` (bucket numbers of p50 p90 p95 p99 p99.9), ``judged`` (bucket of the judged quantile
    q, bucket of q + margin) and ``p_hist`` come from the frozen baseline. ``frozen``: the baseline is known;
    before that the engine gathers ``BaselineSums`` and no evidence. Evidence begins after ``(from_block,
    from_epoch)`` in the order of blocks. ``query``: of a Resource; ``span``: length of the windows of a hard
    limit (µs). ``covariate``: the attribute of exposures that holds it.
    """

    name: str
    kind: Kind
    family: Family
    decreasing: bool
    scale: int
    outcome: str | None
    window: int
    block: int
    margin: float
    margin_relative: bool
    harm_margin: float
    harm_relative: bool
    frozen: bool = False
    from_block: int = -1
    from_epoch: int = -1
    tau: float = 0.0
    cap: int | None = None
    edges: tuple[int, ...] = ()
    judged: tuple[int, int] = (0, 0)
    quantile: float = 0.99
    p_hist: float = 0.0
    denominator: str | None = None
    query: str | None = None
    span: int = 0
    covariate: str | None = None

    def margins_at(self, mean: float) -> tuple[float, float]:
        """``margin`` and ``harm_margin`` in absolute terms where the champion's mean is ``mean`` (integer units)."""
        return (
            self.margin * abs(mean) if self.margin_relative else self.margin,
            self.harm_margin * abs(mean) if self.harm_relative else self.harm_margin,
        )

    @property
    def outcomes(self) -> tuple[str, ...]:
        """Names of the outcomes that it looks at."""
        return tuple(name for name in (self.outcome, self.denominator) if name not in (None, REQUESTS))


class StatisticsQuery(NamedTuple):
    """The question of a tick. ``segments`` are attribute names; their values become ``name=value`` segments."""

    rollout: str
    attempt: int
    epochs: tuple[EpochPlan, ...]
    metrics: tuple[MetricPlan, ...]
    segments: tuple[str, ...]
    grace: int
    prediction: str = "/predictions/0"
    positive: float = 1.0
    threshold: float = 0.5

    @property
    def covariates(self) -> tuple[str, ...]:
        """The attributes that hold covariates, in the order in which rows have their numbers."""
        return tuple(sorted({m.covariate for m in self.metrics if m.covariate is not None}))


class ScoreCell(NamedTuple):
    """One arm's sums of a ``unit`` or ``label`` kind. ``clustered`` = Σ over units of (old + s)² − old², in ppm²,
    where old is the unit's summed score in all earlier blocks of the attempt (any epoch); of a unit that is in both
    arms of a block the champion's comes before the challenger's. With a covariate ``yy``, ``xy`` and the scores are of
    adjusted values, ``y`` and ``nonzero`` of those before."""

    units: int = 0
    x: int = 0
    y: int = 0
    yy: int = 0
    xy: int = 0
    xx: int = 0
    nonzero: int = 0
    clustered: int = 0
    covaried: Moments = Moments()


class CountCell(NamedTuple):
    """One arm's units at risk in a service block, and those among them with a failure, hence their first.

    Of failures also the units that are ``active`` in it, at risk or not, and those with a failure, ``failing``;
    ``clustered`` = Σ over units of (old + s)² − old², in ppm²: s is A − π where the unit fails, else 0, and old the sum
    of all its earlier ones in the attempt.
    """

    units: int = 0
    events: int = 0
    active: int = 0
    failing: int = 0
    clustered: int = 0

    def plus(self, other: "CountCell") -> "CountCell":
        """The sums of both."""
        return CountCell._make(a + b for a, b in zip(self, other, strict=True))


def _above(histogram: tuple[tuple[int, int], ...], edge: int) -> int:
    total = 0
    for bucket, units in reversed(histogram):
        if bucket <= edge:
            break
        total += units
    return total


class LatencyCell(NamedTuple):
    """One arm's units of a service block, as histograms by log bucket: ((bucket, units), …) ascending.

    ``buckets``: the slowest request in this block, of all units. Of those seen in an earlier block, ``before`` has the
    slowest request until then, and ``again`` the lesser of that and the slowest in this block.
    """

    units: int = 0
    buckets: tuple[tuple[int, int], ...] = ()
    before: tuple[tuple[int, int], ...] = ()
    again: tuple[tuple[int, int], ...] = ()

    def at(self, edge: int) -> CountCell:
        """Units never seen above the bucket ``edge`` in an earlier block, and those among them that now are."""
        slow, risen, repeated = (_above(histogram, edge) for histogram in (self.buckets, self.before, self.again))
        return CountCell(self.units - risen, slow - repeated)


class PairScoreCell(NamedTuple):
    """Mirror: d = y_challenger − y_champion over ``x`` rows of a label kind, or the requests of ``x`` whose answers
    differ; ``dd`` = Σ d² per unit and block.

    Precision and F1 (x and y are those of the champion): ``more`` = x_challenger − x_champion, and ``squares`` the sums
    over units of d·more, d·y, d·x, more², more·y, more·x, y², y·x and x². ``clustered`` as in ScoreCell, of the score
    d − m·more.
    """

    units: int = 0
    x: int = 0
    d: int = 0
    dd: int = 0
    clustered: int = 0
    champion_y: int = 0
    more: int = 0
    squares: tuple[int, ...] = (0,) * 9

    @classmethod
    def of(cls, sums: Sequence[SupportsInt]) -> "PairScoreCell":
        """From the fields before ``squares`` and, if there are any, these one by one."""
        units, x, d, dd, clustered, champion_y, more, *squares = map(int, sums)
        return cls(units, x, d, dd, clustered, champion_y, more, tuple(squares) or (0,) * 9)


class PairCountCell(NamedTuple):
    """Mirror, failures: units of the block for which no earlier one told the arms apart; those where now only the
    challenger failed, and only the champion."""

    units: int = 0
    worse: int = 0
    better: int = 0


Histogram = tuple[tuple[int, int], ...]


class AreaCell(NamedTuple):
    """One arm's labelled rows of an Auc by the bin of their score (``areas.score_bin``): ((bin, rows), …) ascending.
    ``clustered`` = Σ over units of (old + n)² − old², n the unit's rows and old those of all earlier blocks."""

    units: int = 0
    clustered: int = 0
    positives: Histogram = ()
    negatives: Histogram = ()


JointHistogram = tuple[tuple[int, int, int], ...]


class PairAreaCell(NamedTuple):
    """Mirror: labelled rows of an Auc by the bins of both scores: ((champion's bin, challenger's bin, rows), …)
    ascending. ``clustered`` as in AreaCell."""

    units: int = 0
    clustered: int = 0
    both_positives: JointHistogram = ()
    both_negatives: JointHistogram = ()


class GaugeCell(NamedTuple):
    """One arm's ``samples`` of a Resource in a window, and their sum."""

    samples: int = 0
    total: int = 0

    @property
    def mean(self) -> int:
        """In the metric's integer unit, rounded down; of at least one sample."""
        return self.total // self.samples


ArmCell = AreaCell | ScoreCell | CountCell | LatencyCell | GaugeCell
PairCell = PairAreaCell | PairScoreCell | PairCountCell


class Block(NamedTuple):
    """All of one metric and segment in one block of one epoch. Weighted epochs have two arms, mirrors a pair."""

    metric: str
    segment: str
    epoch: int
    block: int
    champion: ArmCell | None = None
    challenger: ArmCell | None = None
    pair: PairCell | None = None


class BaselineSums(NamedTuple):
    """The champion before evidence: final ``blocks`` seen, the last one, and integer sums; ``buckets`` are log buckets
    of |y| before any cap, per unit (Mean) or row (errors), or of latency (Latency); the bucket 0 of a value holds the
    zeros, and nothing else. ``covaried`` is of y before any cap, too. ``blocks`` counts pairs of block and epoch with a
    unit of the champion: its evidence in weighted epochs while the plan is not frozen, all its hash-assigned traffic in
    a mirror always."""

    blocks: int = 0
    last_block: int = -1
    last_epoch: int = -1
    units: int = 0
    x: int = 0
    y: int = 0
    nonzero: int = 0
    buckets: tuple[tuple[int, int], ...] = ()
    covaried: Moments = Moments()


class EpochCounts(NamedTuple):
    """Live counts of one epoch, not only of final blocks.

    ``first_*``: units whose first exposure of the attempt was evidence for that arm, here (sample ratio).
    ``overlap``: units seen as evidence of both arms within the epoch. ``fallbacks``: challenger requests answered by
    the champion. Units are those that are evidence; requests all that were assigned by hash, also between the arms.
    In a mirror all hash-assigned units and requests are the champion's, and those that were mirrored also count for
    the challenger; only exposures of other epochs can be a unit's first.
    """

    epoch: int
    champion_units: int = 0
    challenger_units: int = 0
    champion_requests: int = 0
    challenger_requests: int = 0
    fallbacks: int = 0
    first_champion: int = 0
    first_challenger: int = 0
    overlap: int = 0


class Losses(NamedTuple):
    """What should have been evidence and was not, since the attempt began.

    ``received``: exposures of the attempt and outcomes, each once. ``lost``: gaps in the numbers of a journal's lines,
    and what its writer says it dropped. ``late``: exposures earlier than the watermark, and outcomes that came in after
    the block was final to which they would have counted. ``unknown``: outcomes, of names that some metric looks at,
    without an exposure (of any attempt): those of a unit at once, those of a request once they waited for the grace,
    unless the request appears after all. ``duplicates``: ids that came again; ``clashes``: those of them, of
    requests, that another unit had. ``malformed``: lines that are no event.
    ``misread``: covariates of exposures that are no number within ±1e9; their units count as without one.
    """

    received: int = 0
    lost: int = 0
    late: int = 0
    unknown: int = 0
    duplicates: int = 0
    no_unit: int = 0
    malformed: int = 0
    misread: int = 0
    clashes: int = 0
