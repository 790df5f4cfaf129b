"""What a router's workers count, put together while workers come and go."""

from collections.abc import Mapping

from router.telemetry import is_counter

_LOST = "journal_dropped_total"


class Counted:
    """Counters of workers that have ended, which go on without them.

    What was lost in a worker's journal is counted on by whoever writes it next; until then, what was said last holds.
    """

    def __init__(self) -> None:
        self._ended: dict[str, float] = {}
        self._lost: dict[str, float] = {}

    def ended(self, worker: str, counters: Mapping[str, float]) -> None:
        """A worker has ended, and counted this."""
        kept = {name: value for name, value in counters.items() if is_counter(name)}
        self.told(worker, kept.pop(_LOST, 0.0))
        _add(self._ended, kept)

    def told(self, worker: str, lost: float) -> None:
        """So many events were lost in the journal of workers of a name, all in all."""
        self._lost[worker] = max(lost, self._lost.get(worker, 0.0))

    def with_living(self, counters: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
        """The sums, with what living workers count, by their names."""
        merged = dict(self._ended)
        for counted in counters.values():
            _add(merged, counted)
        for worker, lost in self._lost.items():
            if _LOST not in counters.get(worker, {}):
                _add(merged, {_LOST: lost})
        return merged


def _add(total: dict[str, float], more: Mapping[str, float]) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value
