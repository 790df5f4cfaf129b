"""Seeded streams with everything in them that real journals have, and the question that is asked about them.

Time is in µs from an arbitrary beginning. A world is the raw log: rows with the moment each became readable, in
several journals. ``deliveries`` cuts and shuffles it the way an engine may meet it.
"""

import random
from collections.abc import Iterator
from typing import Any, NamedTuple

from controller.core.cells import EpochPlan, MetricPlan, StatisticsQuery
from controller.edges.engine import ExposureRow, OutcomeRow, SampleRow
from controller.kinds import KINDS, LABELLED, Kind
from controller.status import Adjustment

SECOND = 1_000_000
GRACE = 20 * SECOND
MIRROR = 1
# Epoch → weight and reserved control, in basis points.
SHARES = {MIRROR: (0, 8_000), 2: (100, 8_000), 3: (1_000, 8_000), 4: (3_000, 8_000), 9: (8_000, 8_000)}


def plan(kind: Kind, name: str | None = None, frozen: bool = True, **fields: Any) -> MetricPlan:
    """A metric's plan with small blocks and windows."""
    rule = KINDS[kind]
    outcome = {"Proportion": "click", "Mean": "purchase"}.get(kind.value, "late" if rule.family in LABELLED else None)
    made = MetricPlan(
        name=name or kind.value,
        kind=kind,
        family=rule.family,
        decreasing=rule.goal == "Decrease",
        scale=rule.scale,
        outcome=outcome,
        window=60 * SECOND if outcome else 0,
        block=(10 if outcome else 5) * SECOND,
        margin=0.05 if outcome else 0.01,
        margin_relative=bool(outcome),
        harm_margin=0.0,
        harm_relative=False,
        frozen=frozen,
        tau=0.01 * rule.scale,
        cap=50_000 if kind is Kind.MEAN else None,
        edges=(500, 520, 540, 560, 580) if rule.family == "latency" else (),
        judged=(560, 565),
        p_hist=0.01,
    )
    return made._replace(**fields)


METRICS = (
    plan(Kind.PROPORTION),
    plan(Kind.MEAN, window=25 * SECOND),
    plan(Kind.ACCURACY),
    plan(Kind.LOG_LOSS, window=15 * SECOND, block=7 * SECOND),
    plan(Kind.BRIER),
    plan(Kind.PRECISION),
    plan(Kind.RECALL),
    plan(Kind.F1),
    plan(Kind.ABSOLUTE_ERROR, cap=300),
    plan(Kind.SQUARED_ERROR),
    plan(Kind.ERROR_RATE),
    plan(Kind.LATENCY),
    plan(Kind.RATIO, outcome="purchase", denominator="click", cap=40_000, window=40 * SECOND, block=7 * SECOND),
    plan(Kind.RATIO, "PerRequest", outcome="click", denominator="requests", window=30 * SECOND, block=10 * SECOND),
    plan(Kind.ACTIVE_UNITS, window=60 * SECOND, block=10 * SECOND),
    plan(Kind.DISAGREEMENT),
    plan(Kind.AUC, block=7 * SECOND),
    plan(Kind.THROUGHPUT),
    plan(Kind.RESOURCE, block=7 * SECOND, span=7 * SECOND),
    plan(Kind.LATENCY, "Latency limit", family="limit", span=20 * SECOND, quantile=0.9),
    plan(Kind.PROPORTION, "AdjustedShare", covariate="covariate.2"),
    plan(Kind.MEAN, "AdjustedMean", covariate="covariate.1", window=25 * SECOND, cap=30_000),
)
# What epochs take by a covariate; in one of them it is nothing.
ADJUSTMENTS = {
    2: {"AdjustedMean": Adjustment(centre=900_000, per=1_300_001, slope=-777, most=30_000)},
    3: {"AdjustedMean": Adjustment(centre=-5, per=3, slope=1, most=30_000)},
    4: {"AdjustedShare": Adjustment(centre=1_500_000, per=2_000_000, slope=123_457, most=1_000_000)},
    9: {"AdjustedShare": Adjustment(centre=0, per=7, slope=-1, most=250_000)},
}


def query(metrics: tuple[MetricPlan, ...] = METRICS, attempt: int = 2) -> StatisticsQuery:
    """The question: a mirror, three weights, a holdback; every epoch with means of its own."""
    epochs = tuple(
        EpochPlan(
            number,
            "mirror" if number == MIRROR else "holdback" if number == 9 else "weight",
            0 if number == MIRROR else weight * 1_000_000 // (weight + 10_000 - control),
            {m.name: (number + 3) * m.scale // 20 for m in metrics},
            ADJUSTMENTS.get(number, {}),
        )
        for number, (weight, control) in SHARES.items()
    )
    return StatisticsQuery("flights", attempt, epochs, metrics, ("carrier", "hub"), GRACE)


class World(NamedTuple):
    """The raw log, and how long after its line time a row may be read at most."""

    exposures: list[ExposureRow]
    outcomes: list[OutcomeRow]
    end: int
    samples: list[SampleRow] = []


def world(seed: int, units: int = 40, requests: int = 1_500, span_s: int = 300, late_s: int = 170_000) -> World:
    """A random log of ``requests`` requests over ``span_s`` seconds, with outcomes up to ``late_s`` later."""
    rng = random.Random(seed)
    # Allocations change at odd moments, hence inside blocks; one comes back.
    order = [MIRROR, 2, 3, 2, 4, 9]
    changes = sorted(rng.randrange(span_s * SECOND) for _ in order[1:])
    places = {f"u{i}": rng.randrange(10_000) for i in range(units)}
    exposures: list[ExposureRow] = []
    outcomes: list[OutcomeRow] = []
    for i in range(requests):
        t = rng.randrange(span_s * 100) * 10_000  # coarse enough for two at the same time
        epoch = order[sum(t >= c for c in changes)]
        made = _request(rng, i, t, epoch, places)
        exposures += made
        outcomes += _outcomes(rng, i, made[0], late_s)
    for i in range(requests // 10):
        outcomes.append(_purchase(rng, f"x{i}", f"u{rng.randrange(units + 5)}", rng.randrange(span_s * SECOND)))
    exposures += rng.sample(exposures, requests // 20)
    outcomes += [
        o._replace(ingest_t=o.ingest_t + rng.randrange(3) * SECOND) for o in rng.sample(outcomes, len(outcomes) // 20)
    ]
    return World(exposures, outcomes, (late_s + 10 * span_s) * SECOND, _samples(seed, span_s, order, changes))


def _samples(seed: int, span_s: int, order: list[int], changes: list[int]) -> list[SampleRow]:
    """Samples of both servers, some twice (once with another value), some of another attempt or metric."""
    rng = random.Random(seed + 1_000)
    made = []
    for t in sorted(rng.sample(range(span_s * 10), span_s)):
        epoch = order[sum(t * 100_000 >= c for c in changes)]
        name = rng.choice(["Resource"] * 5 + ["other"])
        row = SampleRow(rng.choice([2] * 9 + [1]), epoch, name, rng.random() < 0.6, t * 100_000, rng.randrange(10**12))
        made.append(row)
        if rng.random() < 0.1:
            made.append(row._replace(value=rng.choice([row.value, 7])))
    return made


def sticky(made: World, share: float) -> World:
    """The same log, in which some units fail and others are slow whenever they come, and the rest hardly ever fail."""
    rng = random.Random(9)
    units = sorted({row.unit for row in made.exposures if row.unit is not None})
    failing, slow = (set(rng.sample(units, max(1, round(share * len(units))))) for _ in range(2))
    fine = {row.request_id: rng.random() > 0.01 for row in made.exposures}
    exposures = [
        row._replace(
            usable=row.unit not in failing and fine[row.request_id],
            latency_us=row.latency_us * (20 if row.unit in slow else 1),
        )
        for row in made.exposures
    ]
    return made._replace(exposures=exposures)


def shared(made: World) -> World:
    """The same log, in which each tenth request has the id of one of the other worker in the same attempt."""
    attempts = {row.request_id: row.attempt for row in made.exposures}
    pairs = ((f"q{i}", f"q{i - 1}") for i in range(1, len(attempts), 10))
    ids = {mine: other for mine, other in pairs if attempts[mine] == attempts[other]}
    return made._replace(
        exposures=[row._replace(request_id=ids.get(row.request_id, row.request_id)) for row in made.exposures],
        outcomes=[said._replace(request_id=ids.get(said.request_id or "", said.request_id)) for said in made.outcomes],
    )


def _request(rng: random.Random, i: int, t: int, epoch: int, places: dict[str, int]) -> list[ExposureRow]:
    unit: str | None = rng.choice(list(places))
    weight, control = SHARES[epoch]
    challenger = places[unit or ""] < weight
    hashed = rng.random() > 0.05
    if rng.random() < 0.02:
        unit, hashed = None, False
    if not hashed:
        challenger = rng.random() < 0.5
    segments = tuple(
        f"{name}={rng.choice(values)}" for name, values in (("carrier", "AB"), ("hub", "xyz")) if rng.random() < 0.8
    )
    rows = rng.choice([1, 1, 1, 3])
    row = ExposureRow(
        attempt=1 if rng.random() < 0.03 else 2,
        epoch=epoch,
        t=t,
        request_id=f"q{i}",
        unit=unit,
        challenger=challenger,
        hashed=hashed,
        evidence=hashed and (challenger or places[unit or ""] >= control or rng.random() < 0.01),
        usable=rng.random() > 0.1,
        fell_back=challenger and rng.random() < 0.1,
        latency_us=int(rng.lognormvariate(10, 1)),
        segments=segments,
        scores=_scores(rng, rows),
        numbers=_numbers(i),
        journal=f"edge-w{i % 2}",
    )
    if epoch != MIRROR or rng.random() < 0.2:
        return [row]
    later = t + rng.choice([-50_000, 0, 2 * SECOND, 9 * SECOND])
    shadow = row._replace(t=max(later, 0), mirror=True, usable=rng.random() > 0.2, scores=_scores(rng, rows))
    return [row, shadow]


def _numbers(i: int) -> tuple[int | None, ...]:
    """Two covariates, each now and then missing, huge, or below zero."""
    rng = random.Random(i)
    return tuple(
        None if rng.random() < 0.3 else rng.choice([0, 10**15, -(10**15), rng.randrange(-3_000_000, 5_000_000)])
        for _ in range(2)
    )


def _scores(rng: random.Random, rows: int) -> tuple[float | None, ...] | None:
    if rng.random() < 0.03:
        return None
    return tuple(None if rng.random() < 0.03 else rng.choice([rng.random(), 0.0, 1.0]) for _ in range(rows))


def _outcomes(rng: random.Random, i: int, of: ExposureRow, late_s: int) -> Iterator[OutcomeRow]:
    for k in range(rng.choice([0, 1, 1, 2, 4])):
        t = of.t + rng.choice([-SECOND, 0, 1, 3 * SECOND, 15 * SECOND, 60 * SECOND, 70 * SECOND])
        arrived = max(t, of.t) + rng.choice([0, SECOND, 5 * SECOND, 90 * SECOND, 120 * SECOND, late_s * SECOND])
        if rng.random() < 0.15:  # clocks differ: it came in before its time, and before its request was answered
            arrived = max(0, min(t, of.t) - rng.randrange(4 * SECOND))
        name = rng.choice(["late", "late", "click", "purchase", "nothing"])
        value = float(rng.choice([0, 1, 1, 1]) if name != "purchase" else round(rng.gauss(5, 20), 3))
        request, unit = (f"q{i}", None) if rng.random() < 0.7 else (None, of.unit or "u0")
        if rng.random() < 0.03:
            request, unit = f"nobody{i}", None
        yield OutcomeRow(
            f"o{i}.{k}", max(t, 0), max(arrived, 0), name, value, unit, request, rng.choice([0, 0, 0, 1, 2])
        )


def _purchase(rng: random.Random, name: str, unit: str, t: int) -> OutcomeRow:
    return OutcomeRow(name, t, t + rng.randrange(30) * SECOND, "purchase", float(rng.randrange(1, 90)), unit)


class Delivery(NamedTuple):
    """Rows that come together, and the watermark that holds after them."""

    exposures: list[ExposureRow]
    outcomes: list[OutcomeRow]
    samples: list[SampleRow]
    watermark: int


def deliveries(made: World, seed: int, lateness: int = 15 * SECOND) -> Iterator[Delivery]:
    """The log in random micro-batches, each row up to ``lateness`` after its line time, never behind a watermark."""
    rng = random.Random(seed)
    lines: list[tuple[int, int, ExposureRow | OutcomeRow | SampleRow]] = []
    lines += [(row.t + rng.randrange(lateness), row.t, row) for row in made.exposures]
    lines += [(row.ingest_t + rng.randrange(lateness), row.ingest_t, row) for row in made.outcomes]
    lines += [(row.t + rng.randrange(lateness), row.t, row) for row in made.samples]
    lines.sort(key=lambda item: item[0])
    # The earliest line time among what is still to come.
    ahead = [made.end] * (len(lines) + 1)
    for place in range(len(lines) - 1, -1, -1):
        ahead[place] = min(ahead[place + 1], lines[place][1])
    place = 0
    while place < len(lines):
        size = rng.choice([1, 7, 60, 200, 700])
        part = [row for _, _, row in lines[place : place + size]]
        place = min(place + size, len(lines))
        rng.shuffle(part)
        yield Delivery(
            [row for row in part if isinstance(row, ExposureRow)],
            [row for row in part if isinstance(row, OutcomeRow)],
            [row for row in part if isinstance(row, SampleRow)],
            rng.choice([ahead[place], ahead[place], max(0, ahead[place] - rng.randrange(40 * SECOND))]),
        )
    yield Delivery([], [], [], made.end)
