"""Which law draws a metric, and which tests read it."""

from controller.planning.boundary import Counts, Scores, Simulated
from controller.planning.champion import Champion
from controller.planning.differences import Differences


def simulated(champion: Champion) -> Simulated:
    """The draws and tests of a metric."""
    if champion.plan.family == "pair":
        return Differences(champion)
    return Counts(champion) if champion.service else Scores(champion)
