"""When what is missing may be expected: from what came so far, if it goes on like that."""

import math
from collections.abc import Sequence

from controller.core import sequential
from controller.core.cells import PPM
from controller.core.evidence import Evidence
from controller.core.sequential import e_bh
from controller.status import Epoch

FURTHEST = 1000.0  # times the data so far; beyond that nobody should wait
FALSE_DISCOVERIES = 0.05
_HALVINGS = 40


def until_proof(e: Evidence, decreasing: bool, elapsed: int, alpha: float) -> int | None:
    """µs until ``e`` is proven not worse than its margin at ``alpha``, after ``elapsed`` µs of evidence; 0 where it is.

    At the rate of information so far, and if the estimate stays. None where it would never be, or nothing is known.
    """
    needed = -math.log(alpha)
    if e.log_e_non_inferior >= needed:
        return 0
    if e.paired or not e.compared or elapsed <= 0 or not all(e.units) or not math.isfinite(e.se) or e.se <= 0:
        return None
    if e.service:
        # The bets' logarithm grows in proportion to the data.
        more = needed / e.log_e_non_inferior if e.log_e_non_inferior > 0 else math.inf
        return round(elapsed * (more - 1)) if more <= FURTHEST else None
    room = (-e.estimate if decreasing else e.estimate) + e.margin
    if room <= 0 or e.margin <= 0 or _proof(e, room, FURTHEST) < needed:
        return None
    low, high = 1.0, FURTHEST
    for _ in range(_HALVINGS):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if _proof(e, room, middle) >= needed else (middle, high)
    return round(elapsed * (high - 1))


def informed(epochs: Sequence[Epoch], clock: int, wait: int) -> int:
    """µs of weighted epochs with final data at ``clock``, ``wait`` µs after the event, as if all had brought as much
    information as the present one does; 0 where that brings none.

    With steady traffic it grows in proportion to w (1−π): the challenger's weight times the champion's share of what is
    compared. A day at 1 % is not worth an hour at 50 %.
    """
    weighted = [e for e in epochs if e.kind != "mirror"]
    rates = [e.weight_bp * (PPM - e.pi_ppm) for e in weighted]
    if not rates or rates[-1] == 0:
        return 0
    ends = [*(e.opened_at for e in weighted[1:]), clock]
    times = [max(0, min(end, clock - wait) - e.opened_at) for e, end in zip(weighted, ends, strict=True)]
    return sum(t * rate for t, rate in zip(times, rates, strict=True)) // rates[-1]


def _proof(e: Evidence, room: float, more: float) -> float:
    return float(sequential.log_e_one_sided(room, e.se**2 / more + e.unseen / more**2, e.margin))


def discoveries(evidence: tuple[Evidence, ...]) -> list[Evidence]:
    """Segments in which the challenger is worse, with a false discovery rate of at most 5 % among those named.

    For reading: over all metrics and values of segments together (e-BH, Wang and Ramdas 2022), whatever their
    dependence. That needs e-values, which the largest e-values ever are not; one over them is a p-value at any time,
    and 1/(2√p) of a p-value is an e-value (Vovk and Wang 2021). What may roll back is in ``decide``.
    """
    parts = [e for e in evidence if e.segment]
    found = e_bh([max(0.0, e.log_e_harm) / 2 - math.log(2) for e in parts], FALSE_DISCOVERIES)
    return [parts[i] for i in found.indices]
