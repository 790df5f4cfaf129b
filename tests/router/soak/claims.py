"""What has to hold at the end of a soak, judged from what was seen; each claim that does not hold is a line."""

import statistics
from collections.abc import Sequence
from typing import NamedTuple

from tests.router.soak.ledger import Ledger, Windows
from tests.router.soak.reading import Reading

# The least of everything in every minute, so that nothing can pass for want of load. Of quick requests it is this part
# of what the rate asks for.
OF_RATE = 0.3
LEAST = {
    "mirrors": 300, "faults": 10, "faults met": 100, "table changes": 40,
    "upload": 20, "stream": 20, "slow": 6, "left": 60,
}  # fmt: skip
MEANS = {"plain": "quick requests", "upload": "uploads", "stream": "event streams", "slow": "slow readers"}


class Look(NamedTuple):
    """The processes of the router at one moment: the workers together, and their supervisor."""

    workers_mb: float
    workers_descriptors: int
    supervisor_mb: float
    supervisor_descriptors: int


class Bound(NamedTuple):
    """How much the median of the last quarter may be above that of the second: a part of it and so much more."""

    part: float
    more: float
    unit: str


# The first quarter is for warming up. What one turn of faults and tables needs more than another is in both medians,
# where a quarter has all of them.
FLAT = {
    "workers_mb": Bound(0.05, 4, "MB"),
    "workers_descriptors": Bound(0.1, 10, "descriptors"),
    "supervisor_mb": Bound(0.05, 2, "MB"),
    "supervisor_descriptors": Bound(0.1, 4, "descriptors"),
}
# Of shorter ones one may have the faults that take connections, and the other not: so many times as much is allowed.
_PART_OF_A_TURN = 4


def least(seconds: float, rate: float) -> dict[str, int]:
    """The least of everything in a window of so many seconds; of each at least one."""
    asked = {"plain": rate * 60 * OF_RATE, **LEAST}
    return {name: max(1, int(number * seconds / 60)) for name, number in asked.items()}


def idle(windows: Windows, number: int, rate: float) -> list[str]:
    """What was done too little in one of the first ``number`` windows."""
    found = []
    for name, wanted in least(windows.length, rate).items():
        seen = windows.least(name, number)
        if seen < wanted:
            what = MEANS.get(name, name)
            found.append(f"load: {seen} {what} in one of the windows of {windows.length:g} s, at least {wanted}")
    return found


def quarters(looks: Sequence[Look], field: str) -> tuple[float, float]:
    """The medians of the second and of the last quarter."""
    numbers = [float(getattr(look, field)) for look in looks]
    size = max(1, len(numbers) // 4)
    return statistics.median(numbers[size : 2 * size] or numbers), statistics.median(numbers[-size:])


def grown(looks: Sequence[Look], *, turns: bool = True) -> list[str]:
    """What is not flat; ``turns``: a quarter of the time has all faults."""
    if len(looks) < 8:
        return [f"flat: {len(looks)} looks at the processes are too few"]
    found = []
    for field, bound in FLAT.items():
        early, late = quarters(looks, field)
        allowed = early * (1 + bound.part) + bound.more * (1 if turns else _PART_OF_A_TURN)
        if late > allowed:
            whose = field.partition("_")[0]
            found.append(
                f"flat: {whose} had {early:.1f} {bound.unit} in the second quarter and {late:.1f} in the last, "
                f"at most {allowed:.1f}"
            )
    return found


def unmatched(ledger: Ledger, reading: Reading) -> list[str]:
    """What does not agree between clients and journals."""
    found = [f"requests: {number} {what}: {ledger.shown[what]}" for what, number in ledger.wrong.items()]
    missing, dropped = ledger.missing + ledger.missing_mirrors, reading.dropped
    if missing > dropped:
        found.append(
            f"events: {ledger.missing} answers without an exposure and {ledger.missing_mirrors} mirrors without one, "
            f"{dropped} counted as dropped: {ledger.shown.get('missing')} {ledger.shown.get('missing mirrors')}"
        )
    if dropped > missing + ledger.silent:
        found.append(f"events: {dropped} counted as dropped, {missing + ledger.silent} requests without one")
    if reading.gaps or reading.leaks or reading.unclosed:
        found.append(
            f"journals: {reading.gaps} gaps, {reading.leaks} hidden fields in them, not closed: {reading.unclosed}"
        )
    return found
