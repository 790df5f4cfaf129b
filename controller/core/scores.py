"""The score e-process: units and labels under weights.

Weighted epochs: S = Σ (A−π)(y − m x) is a martingale difference sum under randomisation when the arms are equal,
whatever the trend and however the share π is chosen from the past. Its variance is clustered by unit over the whole
attempt, because a unit that returns in the next epoch keeps its arm. The Gaussian-mixture e-process of
``sequential`` turns (θ, se²) into log e-values (asymptotic; the guards say when there is too little to try).

Ratios (precision, recall, F1, a ratio of outcomes) are y/x where the challenger's answers may change x as well, so that
(A−π)(y − m x) has mean 0 only at m = the champion's ratio, which no epoch knows when it opens. There π gives way to the
share ρ of the denominators that are the challenger's: then m drops out of θ, which is the difference of the ratios,
and only serves its variance.

Where few units are most of the difference, a sample has none of it until it meets the first. So what is proven is
proven as if there were one unit more in the arm that would hide it. Of labels: of the challenger, with all its rows as
wrong as can be (without it one that was worse by the margin through a sure error in 500 rows was promoted in 12 to 17 %
of the rollouts, and in 97 of 200 where it had fifty such rows at once). Of a Mean, or a Ratio with a cap: at the cap,
of the challenger where less is better, else of the champion.

What a mirror shows is in ``pairs``.
"""

import math
from typing import NamedTuple, TypeVar

from controller.core import sequential
from controller.core.arrays import FloatArray
from controller.core.cells import PPM, Block, EpochPlan, MetricPlan, ScoreCell
from controller.core.covariates import Moments
from controller.core.throughput import Activity, relative_change
from controller.kinds import ERRORS, LARGEST, Kind

T = TypeVar("T", int, float)
Part = TypeVar("Part", float, FloatArray)
TAU_FACTORS = (1.0, 4.0, 16.0)
EXPECTED_EVENTS = 30
EXPECTED_NONZERO = 100
LEAST_UNITS = 30
HITS = frozenset({Kind.PROPORTION, Kind.ACTIVE_UNITS, Kind.ACCURACY, Kind.PRECISION, Kind.RECALL, Kind.F1})
ONE_ARM = "no units of both arms yet"
NO_SPREAD = "the values do not vary, which proves nothing"
TOO_FEW = "too few expected events yet"


class ArmSums(NamedTuple):
    """One arm in one epoch (integer units). ``y`` before an adjustment by a covariate, ``yy`` and ``xy`` after it."""

    units: int = 0
    x: int = 0
    y: int = 0
    yy: int = 0
    xy: int = 0
    xx: int = 0
    nonzero: int = 0
    covaried: Moments = Moments()

    @property
    def adjusted(self) -> int:
        """Σ y after the adjustment."""
        return self.y - self.covaried.taken

    def plus(self, cell: ScoreCell) -> "ArmSums":
        """With one more block."""
        sums = (a + b for a, b in zip(self[:7], cell[:7], strict=True))
        return ArmSums._make((*sums, self.covaried.plus(cell.covaried)))


class EpochScore(NamedTuple):
    """The two arms of one epoch, with the share and the centring mean that make them comparable."""

    epoch: int
    pi_ppm: int
    mean: int
    champion: ArmSums = ArmSums()
    challenger: ArmSums = ArmSums()


class ScoreFold(NamedTuple):
    """``unit`` and ``label`` kinds over weighted epochs. ``clustered``: of both arms, and of the challenger alone."""

    epochs: tuple[EpochScore, ...] = ()
    clustered: int = 0
    blocks: int = 0
    ever_harm: float = 0.0
    harm_block: int = -1
    last_block: int = -1
    last_epoch: int = -1
    clustered_challenger: int = 0


class Effect(NamedTuple):
    """θ (challenger − champion, integer units), its variance, and what to hold it against.

    ``guarded``: there is enough for tests; else ``note`` says what is missing, and the variance may be infinite.
    ``unseen``: the variance that a unit adds which was not met yet, for what is proven in the challenger's favour.
    """

    theta: float = 0.0
    se2: float = math.inf
    champion_mean: float = 0.0
    margin: float = 0.0
    harm_margin: float = 0.0
    guarded: bool = False
    note: str = ""
    unseen: float = 0.0

    def good(self, plan: MetricPlan) -> float:
        """θ in the good direction."""
        return -self.theta if plan.decreasing else self.theta


class ScoreTests(NamedTuple):
    """The score e-process read now: effect θ (challenger − champion, integer units), its variance, log e-values."""

    theta: float
    se2: float
    champion_mean: float
    margin: float
    guarded: bool
    harm: float
    non_inferior: float
    superior: float


def score_effect(plan: MetricPlan, state: ScoreFold) -> Effect:
    """θ = S/H with S = Σ (A−π)(y − m x) of adjusted values, H = Σ π(1−π) x, V = max(clustered, empirical, predictable).

    The estimand is the effect averaged over epochs with weights π(1−π)·x (overlap weights). Of labels and of a Ratio it
    is that of the ratios (``_ratio_effect``). Without units of both arms, or where nothing varies, θ is 0 with infinite
    variance.
    """
    if plan.family == "label" or plan.kind is Kind.RATIO:
        # The arms' rows are not as many as their units: answers decide which count, and people come back for good ones.
        return _ratio_effect(plan, state)
    if plan.family == "throughput":
        return _activity_effect(plan, state)
    s = h = v_a = v_b = v_pred = reference = 0
    x_a = x_b = rare = counted = 0
    for e in state.epochs:
        pi, co = e.pi_ppm, PPM - e.pi_ppm
        a, b = e.champion, e.challenger
        x_a, x_b = x_a + a.x, x_b + b.x
        s += co * (b.adjusted - e.mean * b.x) - pi * (a.adjusted - e.mean * a.x)
        weight = pi * co * (a.x + b.x)
        h += weight
        q_a, q_b = _squares(a, e.mean), _squares(b, e.mean)
        v_a, v_b = v_a + pi * pi * q_a, v_b + co * co * q_b
        v_pred += pi * co * (q_a + q_b)
        reference += weight * a.y // a.x if a.x else 0
        side, arm = (co, b) if hidden_in_challenger(plan) else (pi, a)
        rare, counted = rare + arm.units * side * side, counted + arm.units
    if x_a == 0 or x_b == 0 or h == 0:
        return Effect(note=ONE_ARM)
    variance = max(state.clustered, v_a + v_b, v_pred)
    found = _effect(plan, state, s * PPM / h, variance * PPM * PPM / (h * h), reference / h, (v_a, v_b))
    away = farthest(plan, abs(reference / h))
    return found._replace(unseen=rare / counted * (away * PPM / h) ** 2 if counted else 0.0)


def of_relative_margin(plan: MetricPlan, of_champion: Part) -> Part:
    """How much larger the variance is for a margin that is a share of the champion's mean.

    Against the share d it is (1 + d) y_A − y_B that is tried where less is better, whose champion's part varies
    (1 + d)² times as much as in y_B − y_A; ``of_champion`` is that part. Where more is better it is (1 − d) y_A, which
    varies less: left as it is.
    """
    share = max(plan.margin_relative * plan.margin, plan.harm_relative * plan.harm_margin)
    return 1 + of_champion * ((1 + share) ** 2 - 1)


def _effect(
    plan: MetricPlan, state: ScoreFold, theta: float, se2: float, champion_mean: float, parts: tuple[float, float]
) -> Effect:
    """The effect, with the margins at ``champion_mean`` and what its uncertainty adds to the variance, which has
    ``parts`` of champion and challenger."""
    margin, harm_margin = plan.margins_at(champion_mean)
    if (champion_mean > 0) == plan.decreasing and sum(parts) > 0:
        se2 *= of_relative_margin(plan, parts[0] / sum(parts))
    if se2 <= 0:
        return Effect(champion_mean=champion_mean, margin=margin, harm_margin=harm_margin, note=NO_SPREAD)
    guarded = _enough(plan, state)
    return Effect(theta, se2, champion_mean, margin, harm_margin, guarded, "" if guarded else TOO_FEW)


def _squares(arm: ArmSums, mean: T) -> T:
    """Σ (y − m x)² of the arm's units and blocks."""
    return arm.yy - 2 * mean * arm.xy + mean * mean * arm.xx


def _about_own(arm: ArmSums) -> float:
    """Σ (y − r x)² with the arm's own ratio r. In integers: of equal values it is 0, and no rounding."""
    x, y = arm.x, arm.y
    return (arm.yy * x * x - 2 * arm.xy * x * y + arm.xx * y * y) / (x * x) if x > 0 else 0.0


def _ratio_effect(plan: MetricPlan, state: ScoreFold) -> Effect:
    """θ = Σ h (y_B/x_B − y_A/x_A) / Σ h over epochs, h = ρ(1−ρ) x, with the variance of the delta method.

    Its residuals are about the champion's ratio of the epoch. As in the score test the variance is the largest of the
    empirical, the predictable (what a redrawn split of these denominators would have) and, by each arm's ratio of
    clustered to independent squares, the one clustered by unit. The clustered squares are about the mean known when the
    epoch opened, the independent ones about what the arm had in it: where the level of both arms has moved, that is
    part of the former alone, and the variance rather too large. About one mean both would grow by it, but the former
    less for units that come again at another level, and their return would be hidden.
    """
    h = theta = reference = v_a = v_b = v_pred = alone_a = alone_b = 0.0
    rare = counted = 0.0
    for e in state.epochs:
        pi, a, b = e.pi_ppm, e.champion, e.challenger
        alone_a += pi * pi * _about_own(a)
        alone_b += (PPM - pi) * (PPM - pi) * _about_own(b)
        if a.x <= 0 or b.x <= 0:
            continue
        ratio, share = a.y / a.x, b.x / (a.x + b.x)
        weight = a.x * share
        h, theta, reference = h + weight, theta + weight * (b.y / b.x - ratio), reference + weight * ratio
        q_a, q_b = max(0.0, _squares(a, ratio)), max(0.0, _squares(b, ratio))
        v_a += share * share * q_a
        v_b += (1 - share) * (1 - share) * q_b
        v_pred += share * (1 - share) * (q_a + q_b)
        side, arm = (1 - share, b) if hidden_in_challenger(plan) else (share, a)
        rare, counted = rare + arm.units * (side * farthest(plan, abs(ratio))) ** 2, counted + arm.units
    if h == 0:
        return Effect(note=ONE_ARM)
    apart_a = _inflation(state.clustered - state.clustered_challenger, alone_a)
    apart_b = _inflation(state.clustered_challenger, alone_b)
    own_a, own_b = v_a * apart_a, v_b * apart_b
    found = _effect(plan, state, theta / h, max(own_a + own_b, v_pred) / (h * h), reference / h, (own_a, own_b))
    rows = _rows(state) if plan.family == "label" else 1.0
    return found._replace(unseen=rare / counted * (rows / h) ** 2)


def hidden_in_challenger(plan: MetricPlan) -> bool:
    """Whether harm that was not met is in a unit of the challenger; else the champion has what the challenger lost."""
    return plan.family == "label" or plan.decreasing


def farthest(plan: MetricPlan, usual: float) -> float:
    """How far from ``usual`` (size of the champion's value) a row of a label kind can be in the bad direction, or a
    unit of others; 0 where a value has no cap, or cannot be rare and large."""
    if plan.family == "label" and plan.kind in HITS:
        return usual
    return max(0.0, (worst_loss(plan) if plan.family == "label" else plan.cap or 0) - usual)


def _rows(state: ScoreFold) -> float:
    """Rows that a unit has in a block on average. Not weighted by them: that one unit has very many, as its variance
    says already, does not make the next one large."""
    arms = [arm for e in state.epochs for arm in (e.champion, e.challenger)]
    return sum([arm.x for arm in arms]) / sum([arm.units for arm in arms])


def worst_loss(plan: MetricPlan) -> float:
    """The most that one row can lose (integer units), where a rare row may be most of the loss; else 0."""
    if plan.kind in ERRORS:
        return plan.cap or 0
    return LARGEST[plan.kind] * plan.scale if plan.kind in (Kind.LOG_LOSS, Kind.BRIER) else 0


def activity(epoch: EpochScore) -> Activity:
    """A Throughput's active units by block in one epoch."""
    return Activity(epoch.pi_ppm, epoch.champion.x, epoch.challenger.x)


def _activity_effect(plan: MetricPlan, state: ScoreFold) -> Effect:
    """The relative difference in activity (``throughput``), in units of ``scale``."""
    clustered = (state.clustered - state.clustered_challenger, state.clustered_challenger)
    found = relative_change([activity(e) for e in state.epochs], clustered, plan.scale)
    if found is None:
        return Effect(note=ONE_ARM)
    theta, se2 = found.theta * plan.scale, found.se2 * plan.scale**2
    margin, harm_margin = plan.margin * plan.scale, plan.harm_margin * plan.scale
    return Effect(theta, se2, plan.scale, margin, harm_margin, found.enough, "" if found.enough else TOO_FEW)


def _inflation(clustered: float, alone: float) -> float:
    """How much more an arm's scores vary for units that come back; at least 1."""
    return max(1.0, clustered / alone) if alone > 0 else 1.0


def log_e_harm(plan: MetricPlan, effect: Effect) -> float:
    """Log e-value of harm beyond the harm margin, mixed over τ; 0 where the guards allow no test."""
    if not effect.guarded or plan.tau <= 0:
        return 0.0
    taus = [f * plan.tau for f in TAU_FACTORS]
    return sequential.log_e_one_sided_mixture(-effect.good(plan) - effect.harm_margin, effect.se2, taus)


def score_tests(plan: MetricPlan, state: ScoreFold) -> ScoreTests:
    """All tests of one effect; ``evidence`` reads those of many metrics at once."""
    e = score_effect(plan, state)
    proof = superior = 0.0
    if e.guarded and plan.tau > 0:
        proof = float(sequential.log_e_one_sided(e.good(plan) + e.margin, e.se2 + e.unseen, plan.tau))
        superior = float(sequential.log_e_one_sided(e.good(plan), e.se2 + e.unseen, plan.tau))
    return ScoreTests(e.theta, e.se2, e.champion_mean, e.margin, e.guarded, log_e_harm(plan, e), proof, superior)


def _enough(plan: MetricPlan, state: ScoreFold) -> bool:
    """The guards count what the champion's rate leads one to expect of the challenger, never what it showed."""
    units_a = units_b = x_a = x_b = y_a = nonzero_a = 0
    for e in state.epochs:
        a, b = e.champion, e.challenger
        units_a, x_a, y_a, nonzero_a = units_a + a.units, x_a + a.x, y_a + a.y, nonzero_a + a.nonzero
        units_b, x_b = units_b + b.units, x_b + b.x
    if units_a < LEAST_UNITS or units_b < LEAST_UNITS or x_a == 0:
        return False
    if plan.kind in HITS:
        return expected_hits(plan, x_a, y_a, x_b)
    if plan.kind in (Kind.MEAN, Kind.RATIO):
        return units_b * nonzero_a >= EXPECTED_NONZERO * units_a
    return True


def expected_hits(plan: MetricPlan, x_a: int, y_a: int, x_b: int) -> bool:
    """Whether the champion's share of hits, ``y_a`` in ``x_a``, leads one to expect enough of both sorts in ``x_b``."""
    needed = EXPECTED_EVENTS * x_a * plan.scale
    # F1 counts a hit above twice.
    once = 2 if plan.kind is Kind.F1 else 1
    return x_b * y_a >= once * needed and x_b * (x_a * plan.scale - y_a) >= needed


def fold_score(plan: MetricPlan, epoch: EpochPlan, state: ScoreFold, block: Block) -> ScoreFold:
    """``state`` after one block of a weighted epoch, with its ever-harm."""
    champion = block.champion if isinstance(block.champion, ScoreCell) else ScoreCell()
    challenger = block.challenger if isinstance(block.challenger, ScoreCell) else ScoreCell()
    old = next((e for e in state.epochs if e.epoch == epoch.number), None)
    now = old or EpochScore(epoch.number, epoch.pi_ppm, epoch.means.get(plan.name, 0))
    now = now._replace(champion=now.champion.plus(champion), challenger=now.challenger.plus(challenger))
    epochs = tuple(now if e is old else e for e in state.epochs) if old else (*state.epochs, now)
    state = state._replace(
        epochs=epochs,
        clustered=state.clustered + champion.clustered + challenger.clustered,
        clustered_challenger=state.clustered_challenger + challenger.clustered,
        blocks=state.blocks + 1,
        last_block=block.block,
        last_epoch=block.epoch,
    )
    harm = log_e_harm(plan, score_effect(plan, state))
    return state._replace(ever_harm=harm, harm_block=block.block) if harm > state.ever_harm else state
