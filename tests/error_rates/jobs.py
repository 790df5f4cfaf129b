"""The jobs of a campaign as functions of one argument, where worker processes can find them."""

from tests.error_rates import journalled, single
from tests.error_rates.world import Ending, Truth, play


def rollout(job: tuple[int, Truth]) -> Ending:
    """A whole rollout: (seed, truth)."""
    return play(*job)


def journalled_rollout(job: tuple[int, journalled.Rates]) -> journalled.Replayed:
    """A whole rollout through journals and engine: (seed, the challenger's rates)."""
    return journalled.replay(*job)


def errors_found(job: tuple[int, float]) -> int:
    """Challenger requests until a gross error rate is found: (seed, weight in percent)."""
    return single.errors_found_after(*job)


def slowness_found(job: tuple[int, float]) -> int:
    """Challenger requests until slower answers are found: (seed, weight in percent)."""
    return single.slowness_found_after(*job)
