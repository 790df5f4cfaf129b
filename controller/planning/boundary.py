"""The tests of the rule over many drawn rollouts at once.

``Scores`` and ``Counts`` draw what arrives and fold it into the log e-values of ``controller.core.sequential``; rows
are rollouts, columns are looks in time order. The laws: arrivals Poisson, shares binomial, sums of other values
normal, latencies log-linear between known quantiles. There is no trend: what a rollout does under one is the error
rate harness' business, the plan asks for sizes.
"""

from typing import Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

from controller.core import sequential
from controller.core.areas import EXPECTED_ROWS
from controller.core.arrays import FloatArray, as_array
from controller.core.counts import EDGE_QUANTILES, SLOW_SHARE, absolute, slower_bucket
from controller.core.plans import GAMMA
from controller.core.scores import (
    EXPECTED_EVENTS,
    EXPECTED_NONZERO,
    LEAST_UNITS,
    TAU_FACTORS,
    farthest,
    hidden_in_challenger,
    of_relative_margin,
)
from controller.kinds import Kind
from controller.planning.champion import PRACTICALLY_NO_CAP, SHARES, VALUES, Champion, latency_place

Flags = npt.NDArray[np.bool_]
EPOCHS = 32  # more than a plan has allocations
Side = Literal["both", "harm", "proof"]


class Traffic(NamedTuple):
    """Expected units of both arms, blocks, and the challenger's share π; each broadcasts to (rows, looks).

    ``epoch``: the number of the allocation, by row.
    """

    champion: FloatArray
    challenger: FloatArray
    blocks: FloatArray
    pi: FloatArray
    epoch: FloatArray


class Reading(NamedTuple):
    """Log e-values, (rows, looks), and after the last look whether the gate of a step is open, (rows,).

    A side that was not asked for is 0 and, where tests fold, lost for the looks to come.
    """

    harm: FloatArray
    proof: FloatArray
    gate: Flags


class State(NamedTuple):
    """What the next looks need of the earlier ones; arrays by row, ``None`` before the first look."""

    sums: FloatArray | None = None
    harm: sequential.HarmFold | None = None
    bets: FloatArray | None = None
    against: FloatArray | None = None


class Simulated(Protocol):
    """One metric's draws and tests. ``harm`` is by row: how much worse the challenger is (see ``worst``)."""

    champion: Champion

    def fold(
        self, rng: np.random.Generator, state: State, harm: FloatArray, traffic: Traffic, side: Side = "both"
    ) -> tuple[State, Reading]: ...

    def worst(self) -> float: ...

    def margin(self) -> float: ...

    def gross(self) -> float: ...

    def first_guess(self, pi: float) -> float: ...


class Scores:
    """``unit``, ``label`` and ``auc`` kinds: the score e-process, every unit new.

    Harm is the difference of the means in the bad direction, in the metric's unit. A ratio whose rows are only some of
    all is the mean of these rows, an area a mean with the variance of an area: the tests of both are score tests of
    such differences.
    """

    def __init__(self, champion: Champion) -> None:
        self.champion = champion
        self.scale = champion.plan.scale
        self.tau = champion.plan.tau / self.scale

    def worst(self) -> float:
        """Nothing comes back at all; for kinds where less is better: ten times as much."""
        base, share = abs(self.champion.base), self.champion.metric.kind in SHARES
        if not self.champion.plan.decreasing:
            return base - (0.5 if self.champion.metric.kind is Kind.AUC else 0.0)
        return 1 - base if share else 9 * base

    def margin(self) -> float:
        """The metric's margin as a harm."""
        plan = self.champion.plan
        return plan.margin * abs(self.champion.base) if plan.margin_relative else plan.margin / self.scale

    def gross(self) -> float:
        """Half of the champion's value is gone (of an area: of what it has above chance), or it has doubled; never less
        than two margins."""
        usual = abs(self.champion.base) if self.champion.plan.decreasing else 0.5 * self.worst()
        return min(self.worst(), max(usual, 2 * self.margin()))

    def first_guess(self, pi: float) -> float:
        """Challenger units that one look at a fixed size would need."""
        return max(50.0, 6.2 * (self.champion.spread / self.margin()) ** 2 / (1 - pi)) / self.champion.rows

    def fold(
        self, rng: np.random.Generator, state: State, harm: FloatArray, traffic: Traffic, side: Side = "both"
    ) -> tuple[State, Reading]:
        """The score sums of the new looks on top of ``state``, and the three readings of the rule."""
        base, c = self.champion.base, self.champion
        mean_b = base + (harm if c.plan.decreasing else -harm)[:, None]
        shape = np.broadcast_shapes(traffic.challenger.shape, harm[:, None].shape)
        n_a = as_array(rng.poisson(np.broadcast_to(traffic.champion * c.rows, shape)))
        n_b = as_array(rng.poisson(np.broadcast_to(traffic.challenger * c.rows, shape)))
        y_a, q_a = self._values(rng, n_a, as_array(base))
        y_b, q_b = self._values(rng, n_b, mean_b)
        pi, co = traffic.pi, 1 - traffic.pi
        own = pi * pi * q_a
        new = np.stack([
            co * (y_b - base * n_b) - pi * (y_a - base * n_a),
            pi * co * (n_a + n_b),
            co * co * q_b + own,
            pi * co * (q_a + q_b),
            n_a,
            n_b,
            y_a,
            own,
        ])  # fmt: skip
        if state.sums is not None:
            new[..., 0] += state.sums
        sums = np.cumsum(new, axis=-1)
        return State(sums=sums[..., -1]), self.read(sums, side)

    def read(self, sums: FloatArray, side: Side = "both") -> Reading:
        """``core.scores.score_tests`` on arrays: S, H, two variances, units of both arms, the champion's total, and its
        part of the first variance."""
        s, h, empirical, predictable, n_a, n_b, y_a, own = sums
        plan, taus = self.champion.plan, [f * self.tau for f in TAU_FACTORS]
        with np.errstate(divide="ignore", invalid="ignore"):
            theta, se2 = s / h, np.maximum(empirical, predictable) / np.square(h)
            mean = np.abs(y_a / n_a)
            se2 = np.where((y_a > 0) == plan.decreasing, se2 * of_relative_margin(plan, own / empirical), se2)
        margin = plan.margin * mean if plan.margin_relative else plan.margin / self.scale
        beyond = plan.harm_margin * mean if plan.harm_relative else plan.harm_margin / self.scale
        good = -theta if plan.decreasing else theta
        enough = self._enough(n_a, n_b, y_a)
        harm = proof = np.zeros(good.shape)
        if side != "proof":
            harm = np.where(enough, as_array(sequential.log_e_one_sided_mixture(-good - beyond, se2, taus)), 0.0)
        if side != "harm":
            careful = se2 + np.square(self._one_more() / np.maximum(n_b if hidden_in_challenger(plan) else n_a, 1))
            proof = np.where(enough, as_array(sequential.log_e_one_sided(good + margin, careful, self.tau)), 0.0)
        with np.errstate(invalid="ignore"):
            shut: Flags = good[..., -1] + 2 * np.sqrt(se2[..., -1]) < -np.broadcast_to(margin, good.shape)[..., -1]
        return Reading(harm, proof, ~shut)

    def _one_more(self) -> float:
        """What one unit more can change: as in ``core.scores``, if all units have as many rows."""
        plan, base = self.champion.plan, abs(self.champion.base)
        if plan.cap is not None and plan.cap >= PRACTICALLY_NO_CAP:
            return 0.0  # a quantile of values that nobody has seen yet
        away = farthest(plan, base * self.scale) / self.scale
        return away * max(1.0, self.champion.rows) if plan.family == "label" else away

    def _values(self, rng: np.random.Generator, n: FloatArray, mean: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Sums of n values, and of their squares around the champion's mean."""
        base = self.champion.base
        if self.champion.metric.kind in SHARES:
            y = as_array(rng.binomial(n.astype(np.int64), np.broadcast_to(np.clip(mean, 0, 1), n.shape)))
            return y, y * (1 - base) ** 2 + (n - y) * base**2
        spread = self.champion.spread
        y = n * mean + np.sqrt(n) * spread * rng.standard_normal(n.shape)
        return y, n * (spread**2 + np.square(mean - base))

    def _enough(self, n_a: FloatArray, n_b: FloatArray, y_a: FloatArray) -> Flags:
        enough: Flags = (n_a >= LEAST_UNITS) & (n_b >= LEAST_UNITS)
        kind, share = self.champion.metric.kind, self.champion.share
        if kind in SHARES:
            hits, others = n_b * y_a, n_b * (n_a - y_a)
            if kind is Kind.F1:  # of each row below the line there are 2 − F, and a hit counts twice above it
                hits, others = hits * (1 - self.champion.base / 2), others * (2 - self.champion.base)
            return enough & (hits >= EXPECTED_EVENTS * n_a) & (others >= EXPECTED_EVENTS * n_a)
        if kind in VALUES:
            return enough & (n_b * self.champion.nonzero >= EXPECTED_NONZERO)
        if kind is Kind.AUC:
            return enough & (n_b * min(share, 1 - share) >= EXPECTED_ROWS)
        return enough


class Counts:
    """``failures`` and ``latency`` kinds: the counting tests.

    Harm is a difference of shares for ErrorRate; for Latency every answer takes 1 + harm times as long. A block
    without units of both arms says nothing, so only what falls into the other blocks is counted; all blocks of a look
    are taken at their usual composition.
    """

    def __init__(self, champion: Champion) -> None:
        self.champion = champion
        plan = champion.plan
        self.latency = plan.family == "latency"
        beyond = [slower_bucket(e, plan.harm_margin, plan.harm_relative) for e in plan.edges]
        self.cuts = sorted({*plan.edges, *beyond, *plan.judged}) if self.latency else [0]
        self.edges = [self.cuts.index(e) for e in plan.edges] if self.latency else [0]
        self.beaten = [self.cuts.index(e) for e in beyond] if self.latency else [0]
        self.judged = [self.cuts.index(e) for e in plan.judged] if self.latency else [0, 0]
        self.history = as_array([1 - q for q in EDGE_QUANTILES]) if self.latency else as_array([plan.p_hist])
        self.delta = (
            SLOW_SHARE * (1 - plan.quantile) if self.latency else absolute(plan, plan.margin, plan.margin_relative)
        )
        self.beyond = 0.0 if self.latency else absolute(plan, plan.harm_margin, plan.harm_relative)

    def worst(self) -> float:
        """Every request fails, or takes ten times as long."""
        return 9.0 if self.latency else 1 - self.champion.base

    def margin(self) -> float:
        """The metric's margin as a harm."""
        plan = self.champion.plan
        if not self.latency:
            return self.delta
        return plan.margin if plan.margin_relative else plan.margin / self.champion.base

    def gross(self) -> float:
        """30 % slower; two failures in a hundred or ten times as many as usual; never less than two margins."""
        base = self.champion.base
        usual = 0.3 if self.latency else max(0.02, 10 * base) - base
        return min(self.worst(), max(usual, 2 * self.margin()))

    def first_guess(self, pi: float) -> float:
        """Challenger units that one look at a fixed size would need, and the time the bets need in any case."""
        p = float(self.tails(np.zeros(1))[0, self.judged[0]])
        return max(50.0, 3 / self.delta, 6.2 * p / self.delta**2 / (1 - pi))

    def tails(self, harm: FloatArray) -> FloatArray:
        """P(above each cut) for a challenger that is worse by ``harm``, (rows, cuts)."""
        if not self.latency:
            return np.clip(self.champion.base + harm[:, None], 0, 1)
        latencies = self.champion.latencies
        at = [[latency_place(latencies, _milliseconds(c) / (1 + h)) for c in self.cuts] for h in np.unique(harm)]
        return as_array(ndtr(-as_array(at)))[np.unique(harm, return_inverse=True)[1]]

    def fold(
        self, rng: np.random.Generator, state: State, harm: FloatArray, traffic: Traffic, side: Side = "both"
    ) -> tuple[State, Reading]:
        """The new looks on top of ``state``."""
        telling_a, telling_b = telling(traffic)
        shape = np.broadcast_shapes(traffic.challenger.shape, harm[:, None].shape)
        n_a = as_array(rng.poisson(np.broadcast_to(traffic.champion * telling_a, shape)))
        n_b = as_array(rng.poisson(np.broadcast_to(traffic.challenger * telling_b, shape)))
        above_a = _nested(rng, n_a, self.tails(np.zeros(1)))
        above_b = _nested(rng, n_b, self.tails(harm))
        return self.read(state, (n_a, above_a), (n_b, above_b), traffic.epoch, side)

    def read(
        self,
        state: State,
        champion: tuple[FloatArray, FloatArray],
        challenger: tuple[FloatArray, FloatArray],
        epoch: FloatArray,
        side: Side = "both",
    ) -> tuple[State, Reading]:
        """``core.counts.fold_counts`` on arrays: by arm its units (rows, looks), those above (rows, cuts, looks)."""
        (n_a, above_a), (n_b, above_b) = champion, challenger
        y_a, y_b = above_a[:, self.edges], above_b[:, self.beaten]
        ours, theirs = above_a[:, self.judged[0]], above_b[:, self.judged[1]]
        folded, bets, against = state.harm, state.bets, state.against
        log_e = proof = np.zeros(n_b.shape)
        if side != "proof" and self.beyond > 0:  # the arms are exchanged: the bet is that the challenger is worse
            against, log_e = sequential.fold_count_non_inferior(against, n_b, theirs, n_a, ours, None, -self.beyond)
        elif side != "proof":
            prior = np.broadcast_to(self.history, y_a.shape[:2])
            folded, by_edge = sequential.fold_harm_counts(folded, n_a[:, None], y_a, n_b[:, None], y_b, prior)
            log_e = as_array(sequential.log_mean_exp(by_edge, axis=1))
        if side != "harm":
            bets, proof = sequential.fold_count_non_inferior(bets, n_a, ours, n_b, theirs, None, self.delta)
            if not self.latency:
                proof = np.minimum(proof, self._every(state.sums, epoch, n_a, ours, n_b, theirs))
        sums = self._by_epoch(state.sums, epoch, n_a, ours, n_b, theirs)
        return State(sums, folded, bets, against), Reading(log_e, proof, self._gate(sums))

    def _every(self, old: FloatArray | None, epoch: FloatArray, *counts: FloatArray) -> FloatArray:
        """``core.repeats`` at each look, (rows, looks), where no unit fails twice."""
        here = as_array(epoch)[:, None] == np.arange(EPOCHS)
        known = np.zeros((4, len(counts[2]), EPOCHS)) if old is None else old
        before = _strata(*np.where(here, 0.0, known)).sum(axis=-1)[..., None]
        now = np.where(here, known, 0.0).sum(axis=-1)[..., None] + np.cumsum(np.stack(counts), axis=-1)
        total, change, own, pooled, one_more, units = before + _strata(*now)
        with np.errstate(divide="ignore", invalid="ignore"):
            variance = (np.maximum(own, pooled) + 4 * one_more / units) / np.square(total)
            return as_array(sequential.log_e_one_sided(self.delta - change / total, variance, self.delta))

    def _by_epoch(self, old: FloatArray | None, epoch: FloatArray, *counts: FloatArray) -> FloatArray:
        """Units and events of both arms, (4, rows, epochs); shares of different epochs are never pooled."""
        here = as_array(epoch)[:, None] == np.arange(EPOCHS)
        new = np.stack([c.sum(axis=-1)[:, None] * here for c in counts])
        return new if old is None else old + new

    def _gate(self, sums: FloatArray) -> Flags:
        n_a, y_a, n_b, y_b = sums
        with np.errstate(divide="ignore", invalid="ignore"):
            both = (n_a > 0) & (n_b > 0)
            w = np.where(both, n_a * n_b / (n_a + n_b), 0.0)
            p_a, p_b = (y_a + 0.5) / (n_a + 1), (y_b + 0.5) / (n_b + 1)
            theta = np.where(both, w * (y_b / n_b - y_a / n_a), 0.0).sum(axis=-1)
            variance = np.where(both, w * w * (p_a * (1 - p_a) / n_a + p_b * (1 - p_b) / n_b), 0.0).sum(axis=-1)
            total = w.sum(axis=-1)
            shut: Flags = theta / total - 2 * np.sqrt(variance) / total > self.delta
        return ~shut


def _strata(n_a: FloatArray, y_a: FloatArray, n_b: FloatArray, y_b: FloatArray) -> FloatArray:
    """What ``core.repeats`` adds up over epochs: h, hθ, the arms' own variance and the pooled one, and for one more
    failure h²/n_b and n_b; 0 without units of both arms."""
    both = (n_a > 0) & (n_b > 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        h, p_a, p_b, p = n_a * n_b / (n_a + n_b), y_a / n_a, y_b / n_b, (y_a + y_b) / (n_a + n_b)
        own = h * h * (p_a * (1 - p_a) / n_a + p_b * (1 - p_b) / n_b)
        sums = np.stack([h, h * (p_b - p_a), own, h * p * (1 - p), h * h / n_b, n_b])
    return np.where(both, sums, 0.0)


def telling(traffic: Traffic) -> tuple[FloatArray, FloatArray]:
    """The shares of champion and of challenger units that fall into blocks with units of both arms."""
    a, b = traffic.champion / traffic.blocks, traffic.challenger / traffic.blocks
    return as_array(-np.expm1(-b)), as_array(-np.expm1(-a))


def _nested(rng: np.random.Generator, n: FloatArray, tails: FloatArray) -> FloatArray:
    """How many of n (rows, looks) lie above each of the ascending cuts, (rows, cuts, looks)."""
    said, left, before = [], n.astype(np.int64), np.ones((tails.shape[0], 1))
    for cut in range(tails.shape[1]):
        now = tails[:, cut : cut + 1]
        share = np.divide(now, before, out=np.zeros_like(now), where=before > 0)
        left = rng.binomial(left, np.broadcast_to(np.clip(share, 0, 1), left.shape))
        before = now
        said.append(as_array(left))
    return np.stack(said, axis=1)


def _milliseconds(bucket: int) -> float:
    return float(GAMMA**bucket / 1000)
