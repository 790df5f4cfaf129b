"""What others would have decided on the very same draws.

* naive z: the two-proportion z test at 5 % on everything so far, at each look; worse → rollback, better or the end of
  the data → promotion.
* threshold: one number against a constant at each look, as Flagger's documented defaults do: the success rate of the
  challenger's requests of the last look must be at least 99.85 % (its usual 99 % would never see these rates), five
  failures roll back, ten looks a step promote.
"""

import math
from collections.abc import Sequence

from tests.error_rates.world import Look

THRESHOLD = 0.9985
FAILURES = 5
LOOKS_TO_PROMOTE = 40
HARMFUL = {"ctr": -1, "cvr": -1, "errors": 1, "slow": 1}


def naive_z(looks: Sequence[Look]) -> str:
    """``RollBack`` at the first look with any metric worse at z = 1.96, pooled over all looks; else ``Promote``."""
    a = b = 0
    events = {m: [0, 0] for m in HARMFUL}
    for look in looks:
        a, b = a + look.champion, b + look.challenger
        for metric, sign in HARMFUL.items():
            events[metric][0] += look.events[metric][0]
            events[metric][1] += look.events[metric][1]
            if _z(a, events[metric][0], b, events[metric][1]) * sign > 1.96:
                return "RollBack"
    return "Promote"


def _z(n_a: int, y_a: int, n_b: int, y_b: int) -> float:
    if not n_a or not n_b:
        return 0.0
    p = (y_a + y_b) / (n_a + n_b)
    se = math.sqrt(p * (1 - p) * (1 / n_a + 1 / n_b))
    return (y_b / n_b - y_a / n_a) / se if se > 0 else 0.0


def threshold(looks: Sequence[Look]) -> str:
    """A bound on the last look's success rate; failures are counted and never forgotten."""
    failed = 0
    for look in looks[:LOOKS_TO_PROMOTE]:
        if look.challenger and 1 - look.events["errors"][1] / look.challenger < THRESHOLD:
            failed += 1
        if failed >= FAILURES:
            return "RollBack"
    return "Promote"
