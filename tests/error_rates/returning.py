"""Users who come back in every epoch with nearly the same value (intraclass correlation .9), over an eight-step ramp.

The trap of a ramp: a user's values of eight epochs are not eight users. Two of the steps have the same weight and so
share an epoch, in which a user has one value.
"""

import numpy as np

from controller.core import plans
from controller.core.cells import PPM, BaselineSums, Block, EpochCounts, Losses, ScoreCell
from controller.core.evolve import evolve
from controller.core.fold import Fold, Statistics, fold
from controller.spec import RolloutSpec
from controller.specfile import parse
from controller.status import Progress, RolloutStatus
from tests.error_rates.world import FIRST_BLOCK, MINUTE, begin

USERS = 20_000
SHARE_WITHIN = 0.9
LOOKS_A_STEP = 10
WEIGHTS = (1, 2, 5, 5, 10, 20, 35, 50)
STEPS = ", ".join(f"{{weight: {w}, hold: {LOOKS_A_STEP}m}}" for w in WEIGHTS)
SPEC: RolloutSpec = parse(f"""
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {{name: returning}}
spec:
  model: {{name: drawn}}
  unit: {{header: x-unit-id}}
  steps: [{STEPS}]
  metrics:
    - {{name: minutes, kind: Mean, outcome: watched, window: 1s, margin: 5%, harmMargin: 0%, role: Success,
       baseline: {{mean: 10, cap: 100}}}}
  decision: {{tick: 60s, block: 60s, minUnits: 20, maxDuration: 2h, grace: 0s}}
""").spec


def play(seed: int) -> Progress:
    """An A/A rollout; where it stands at its decision or after the last look."""
    rng = np.random.default_rng(seed)
    own = rng.normal(size=USERS) * np.sqrt(SHARE_WITHIN)
    place = rng.random(USERS) * 10_000
    scores = np.zeros(USERS)
    state: Fold | None = None
    counts: dict[int, EpochCounts] = {}
    status, now = begin(SPEC)
    epoch_drawn, when = -1, np.zeros(USERS, dtype=int)
    values = np.zeros(USERS, dtype=np.int64)
    for look in range(LOOKS_A_STEP * len(WEIGHTS) + 30):
        epoch = status.current_epoch
        assert epoch is not None
        if epoch.number != epoch_drawn:  # every user enters the new epoch once, at a time of his own
            epoch_drawn, when = epoch.number, look + rng.integers(0, LOOKS_A_STEP, USERS)
            noise = rng.normal(size=USERS) * np.sqrt(1 - SHARE_WITHIN)
            values = np.clip(np.rint(1000 * (10 + 4 * (own + noise))), 0, 100_000).astype(np.int64)
        here = when == look
        b, a = here & (place < epoch.weight_bp), here & (place >= epoch.control_from_bp)
        plan_epoch = plans.query("returning", SPEC, status).epochs[-1]
        plan = plans.query("returning", SPEC, status).metrics[0]
        if plan.frozen and (a.any() or b.any()):
            mean = plan_epoch.means[plan.name]
            cells = [
                _cell(values, scores, m, share, mean) for m, share in ((a, -epoch.pi_ppm), (b, PPM - epoch.pi_ppm))
            ]
            block = Block(plan.name, "", epoch.number, FIRST_BLOCK + look, *cells)
            state = fold(plan, plan_epoch, state, block)
        _count(counts, status, int(a.sum()), int(b.sum()), look < LOOKS_A_STEP)
        now += MINUTE
        folds = {(plan.name, ""): state} if state is not None else {}
        known = Statistics(folds, {}, {"minutes": BaselineSums()}, counts, Losses(received=10**6), now)
        status = evolve(SPEC, status, known, now).status
        if status.progress is not Progress.RUNNING:
            break
    return status.progress


def _cell(values: np.ndarray, scores: np.ndarray, mask: np.ndarray, share: int, mean: int) -> ScoreCell:
    y = values[mask]
    s = share * (y - mean).astype(float)
    old = scores[mask]
    scores[mask] = old + s
    clustered = int(np.sum((old + s) ** 2 - old**2))
    n = int(mask.sum())
    return ScoreCell(n, n, int(y.sum()), int((y * y).sum()), int(y.sum()), n, int((y != 0).sum()), clustered)


def _count(counts: dict[int, EpochCounts], status: RolloutStatus, a: int, b: int, first: bool) -> None:
    old = counts.get(status.epoch, EpochCounts(status.epoch))
    counts[status.epoch] = old._replace(
        champion_units=old.champion_units + a,
        challenger_units=old.challenger_units + b,
        challenger_requests=old.challenger_requests + b,
        first_champion=old.first_champion + (a if first else 0),
        first_challenger=old.first_challenger + (b if first else 0),
    )
