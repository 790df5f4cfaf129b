"""Reasons to distrust evidence. Invalid evidence never widens and never promotes, and says why."""

import math
from typing import NamedTuple

from controller.core.cells import PPM, EpochCounts
from controller.core.fold import Statistics
from controller.core.sequential import log_e_dirichlet
from controller.spec import RolloutSpec
from controller.status import Reason, RolloutStatus

MISMATCH_ALPHA = 0.001
MISMATCH_CONCENTRATION = 1e4
LOSS_LIMIT = 0.01  # of the events that should be there
UNKNOWN_LIMIT = 0.1  # of the events; outcomes of other systems' requests are not rare
OVERLAP_LIMIT = 0.001  # of the units of an epoch
STALE_TICKS = 4
STALE_LEAST = 60_000_000


class Validity(NamedTuple):
    """``reason`` None: nothing speaks against the evidence. ``mismatch_log_e``: of the sample-ratio test."""

    reason: Reason | None = None
    message: str = ""
    mismatch_log_e: float = 0.0


def judge(spec: RolloutSpec, status: RolloutStatus, statistics: Statistics, now: int) -> Validity:
    """The first reason that holds, gravest first. A mismatch is sticky within the attempt. ``now``: of the wall
    clock, which may have been set back behind the latest time that was seen (``status.clock``)."""
    log_e = sample_ratio(status, statistics)
    if status.mismatch_since is not None or log_e >= -math.log(MISMATCH_ALPHA):
        return Validity(Reason.SAMPLE_RATIO_MISMATCH, _counts(status, statistics), log_e)
    epoch = status.current_epoch
    live = statistics.counts.get(epoch.number, EpochCounts(0)) if epoch else EpochCounts(0)
    units = live.champion_units + live.challenger_units
    if epoch and epoch.kind != "mirror" and live.overlap > max(1, OVERLAP_LIMIT * units):
        text = f"{live.overlap} of {units} units were seen in both arms within one epoch"
        return Validity(Reason.OVERLAPPING_UNITS, text, log_e)
    if epoch is None:
        return Validity(mismatch_log_e=log_e)
    limit = max(STALE_LEAST, STALE_TICKS * spec.decision.tick)
    behind, lag = status.clock - now, max(now, status.clock) - max(statistics.watermark, epoch.opened_at)
    if behind > limit:
        # Journals repeat the latest time as well: what happens now belongs to a block that cannot end before.
        text = f"the clock was set back by {behind / 1e6:.0f} s: nothing is judged before it has caught up"
        return Validity(Reason.STALE, text, log_e)
    if lag > limit:
        return Validity(Reason.STALE, "; ".join([f"no events for {lag / 1e6:.0f} s", *statistics.awaited]), log_e)
    return _losses(statistics, log_e)


def _losses(statistics: Statistics, log_e: float) -> Validity:
    gone = statistics.losses.lost + statistics.losses.late
    due = statistics.losses.received + statistics.losses.lost
    if gone > LOSS_LIMIT * due:
        return Validity(Reason.JOIN_LOSS, f"{gone} of {due} events were lost or came too late", log_e)
    clashes = statistics.losses.clashes
    if clashes > LOSS_LIMIT * (due + clashes):
        text = (
            f"{clashes} requests had the id of another unit's request and were not counted: X-Request-Id is not unique"
        )
        return Validity(Reason.JOIN_LOSS, text, log_e)
    if statistics.losses.unknown > UNKNOWN_LIMIT * due:
        text = f"{statistics.losses.unknown} outcomes name nothing that was served"
        return Validity(Reason.JOIN_LOSS, text, log_e)
    return Validity(mismatch_log_e=log_e)


def sample_ratio(status: RolloutStatus, statistics: Statistics) -> float:
    """Log e-value that units do not arrive in the arms as allocated; each unit once, epochs add."""
    total = 0.0
    for epoch in status.epochs:
        counts = statistics.counts.get(epoch.number)
        if counts is None or not 0 < epoch.pi_ppm < PPM:
            continue
        share = epoch.pi_ppm / PPM
        pair = (counts.first_champion, counts.first_challenger)
        total += float(log_e_dirichlet(pair, (1 - share, share), MISMATCH_CONCENTRATION))
    return total


def _counts(status: RolloutStatus, statistics: Statistics) -> str:
    said = []
    for epoch in status.epochs:
        c = statistics.counts.get(epoch.number)
        if c is not None and epoch.pi_ppm and c.first_champion + c.first_challenger:
            got = 100 * c.first_challenger / (c.first_champion + c.first_challenger)
            said.append(f"epoch {epoch.number}: {got:.2f} % instead of {epoch.pi_ppm / 1e4:.2f} % challenger units")
    return "; ".join(said) or "units do not arrive in the arms as allocated"
