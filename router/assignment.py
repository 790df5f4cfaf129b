"""Unit → arm: a pure function of (salt, unit, allocation); sticky, and monotone in the weight.

The point of a unit is ``xxh64(f"{salt}:{unit}", seed=0) % 10000``, in basis points of the population. Units below
the weight belong to the challenger. Units at or above ``control_from_bp`` (the largest weight of the plan) never
meet the challenger during the rollout: they are the reserved control. Units between are served by the champion and
are evidence for neither arm, so nobody changes arm while one of their outcome windows is open.
"""

from typing import Final, Literal, NamedTuple

import xxhash

Arm = Literal["champion", "challenger"]
POINTS: Final = 10_000


class Assignment(NamedTuple):
    """Where a unit goes, and whether it is evidence for the arm it goes to."""

    arm: Arm
    evidence: bool
    point: int


def point(salt: str, unit: str) -> int:
    """Place of ``unit`` in the population drawn by ``salt``, in basis points: 0 … 9999."""
    return xxhash.xxh64_intdigest(f"{salt}:{unit}".encode()) % POINTS


def assign(salt: str, unit: str, weight_bp: int, control_from_bp: int, counted_bp: int = POINTS) -> Assignment:
    """Arm of ``unit`` at an allocation of ``weight_bp`` with the control reserved from ``control_from_bp`` on.

    All are basis points, ``0 <= weight_bp <= control_from_bp <= 10000``. Challenger units at or above ``counted_bp``
    are served by it without being evidence: in a holdback they may have met the champion while they were between.
    """
    place = point(salt, unit)
    if place < weight_bp:
        return Assignment("challenger", place < counted_bp, place)
    return Assignment("champion", place >= control_from_bp, place)


def challenger_share_ppm(weight_bp: int, control_from_bp: int) -> int:
    """π: the challenger's share among the units that are evidence, in millionths.

    Raises ValueError where no unit at all would be evidence.
    """
    counted = weight_bp + POINTS - control_from_bp
    if not 0 <= weight_bp <= control_from_bp <= POINTS or counted <= 0:
        raise ValueError(f"no allocation: weight {weight_bp} bp, control from {control_from_bp} bp")
    return (weight_bp * 1_000_000 + counted // 2) // counted
