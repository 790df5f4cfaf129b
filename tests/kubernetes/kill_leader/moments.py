"""At which points of a rollout the leader is killed."""

from collections.abc import Callable
from typing import NamedTuple

from controller.status import Progress, RolloutStatus


class Moment(NamedTuple):
    """It has come when ``holds``; then a random time goes by, of at most ``spread_s`` seconds. ``recorded``: and then
    until the leader writes its next record, which it has not committed yet."""

    name: str
    holds: Callable[[RolloutStatus], bool]
    spread_s: float
    recorded: bool = False


def _unconfirmed(status: RolloutStatus) -> bool:
    return status.table is not None and status.observed.confirmed < status.table.generation


BEGINNING = Moment("beginning", lambda s: s.progress is Progress.PENDING, 1.0)
TABLE = Moment("table", lambda s: s.progress is Progress.RUNNING and _unconfirmed(s), 0.15)
RUNNING = Moment("running", lambda s: s.progress is Progress.RUNNING, 2.0)
RECORD = Moment("record", lambda s: s.progress is Progress.RUNNING, 1.0, recorded=True)
PROMOTION = Moment("promotion", lambda s: s.progress is Progress.PROMOTING, 0.3)
ALIAS = Moment("alias", lambda s: s.progress is Progress.PROMOTING and bool(s.alias_moves), 0.15)
PROMOTED = Moment("promoted", lambda s: s.progress is Progress.PROMOTED, 0.15)
ROLLBACK = Moment("rollback", lambda s: s.progress is Progress.ROLLING_BACK, 0.3)
ROLLED_BACK = Moment("rolled back", lambda s: s.progress is Progress.ROLLED_BACK, 0.15)

GOOD = (ALIAS, RUNNING, RECORD, PROMOTION, TABLE, BEGINNING, ALIAS, RECORD, PROMOTED)
HARMFUL = (ROLLBACK, TABLE, RECORD, ROLLED_BACK, RUNNING, BEGINNING)


def stands(status: RolloutStatus | None) -> str:
    """Where a rollout stands, for people."""
    if status is None:
        return "before the first tick"
    said = status.progress.value
    if status.progress is Progress.RUNNING:
        said = f"{said}, step {status.step + 1}"
    if status.alias_moves:
        return f"{said}, moving aliases"
    return f"{said}, a table under way" if _unconfirmed(status) else said
