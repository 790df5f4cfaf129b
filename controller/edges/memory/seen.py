"""All events that came, settled in the order of their time and linked to each other.

What lies before the watermark is in order for good: the result does not depend on the order in which the rows came.
An exposure that comes when the watermark has passed it is late and takes no part.
"""

from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Collection, Iterator
from operator import attrgetter

from controller.core.cells import EpochCounts
from controller.edges.memory.events import Exposed, Label, Observation

_PLACE = attrgetter("place")
_TIME = attrgetter("t")


class AttemptSeen:
    """The settled exposures of one attempt, in order, and the counts of its epochs. ``mirrors``: its mirror epochs.

    ``entries``: by unit the exposures with which it entered its epochs, in order; ``requests``: all its hash-assigned
    ones.
    """

    def __init__(self) -> None:
        self.staged: list[Exposed] = []
        self.settled_to = 0
        self.exposures: list[Exposed] = []
        self.entries: dict[str, list[Exposed]] = {}
        self.requests: dict[str, list[Exposed]] = {}
        self.late = self.received = 0
        self._entered: dict[tuple[int, str, bool], Exposed] = {}
        self._first: set[str] = set()
        self._crossed: set[tuple[int, str]] = set()
        self._counts: dict[int, EpochCounts] = {}

    def add(self, e: Exposed, mirrors: Collection[int]) -> None:
        """Settle ``e``, which comes after all that was settled before."""
        self.exposures.append(e)
        if not e.hashed or e.unit is None:
            return
        if not e.mirror:
            self.requests.setdefault(e.unit, []).append(e)
        mirror = e.epoch in mirrors
        challenger = e.mirror if mirror else e.arm == "challenger" and not e.mirror
        self._count(
            e.epoch,
            champion_requests=e.arm == "champion" and not e.mirror,
            challenger_requests=challenger,
            fallbacks=e.fell_back,
        )
        entry = self._entered.setdefault((e.epoch, e.unit, e.mirror), e)
        if entry is e:
            self._enter(e, e.unit, mirror)
        elif e.evidence and entry.evidence and e.arm != entry.arm and not mirror:
            self._count(e.epoch, overlap=(e.epoch, e.unit) not in self._crossed)
            self._crossed.add((e.epoch, e.unit))

    def counts(self, epochs: Collection[int]) -> dict[int, EpochCounts]:
        """What is known of each of ``epochs`` so far."""
        return {number: self._counts[number] for number in epochs if number in self._counts}

    def _enter(self, e: Exposed, unit: str, mirror: bool) -> None:
        if not e.mirror:
            self.entries.setdefault(unit, []).append(e)
            if not mirror:
                if unit not in self._first and e.evidence:
                    self._count(e.epoch, first_champion=e.arm == "champion", first_challenger=e.arm == "challenger")
                self._first.add(unit)
        if e.evidence or mirror:
            challenger = e.mirror or e.arm == "challenger"
            self._count(e.epoch, champion_units=not challenger, challenger_units=challenger)

    def _count(self, number: int, **more: bool) -> None:
        old = self._counts.get(number) or EpochCounts(number)
        self._counts[number] = old._replace(**{name: getattr(old, name) + by for name, by in more.items()})


class Seen:
    """Everything that came, over all attempts. ``outcomes``: those that are settled, with their request if they name
    one. ``waiting``: outcomes whose subject is not known yet."""

    def __init__(self) -> None:
        self.attempts: dict[int, AttemptSeen] = {}
        self.outcomes: list[tuple[Observation, Exposed | None]] = []
        self.waiting: dict[str, Observation] = {}
        self.received = self.duplicates = self.clashes = 0
        self._strangers: Counter[str] = Counter()
        self._staged: list[Observation] = []
        self._requests: dict[tuple[str, bool], Exposed] = {}
        self._named: dict[str, list[Exposed]] = {}
        self._ids: set[str] = set()
        self._units: dict[str, list[Exposed]] = {}
        self._of_unit: dict[tuple[str, str], list[tuple[int, Label]]] = {}
        self._unit_only: dict[tuple[str, str], list[tuple[int, Label]]] = {}
        self._foreign: set[str] = set()  # requests and units of attempts that are over

    def attempt(self, number: int) -> AttemptSeen:
        """The exposures of attempt ``number``."""
        return self.attempts.setdefault(number, AttemptSeen())

    def hold_back(self, event: Exposed | Observation) -> None:
        """Keep an event until the watermark has passed it."""
        if isinstance(event, Exposed):
            self.attempt(event.attempt).staged.append(event)
        else:
            self._staged.append(event)

    def settle(self, attempt: int, until: int, mirrors: Collection[int]) -> None:
        """Settle what lies before ``until`` (µs)."""
        self._forget(attempt)
        seen = self.attempt(attempt)
        due = sorted((e for e in seen.staged if e.t < until), key=_PLACE)
        seen.staged = [e for e in seen.staged if e.t >= until]
        for e in due:
            known = self._requests.get((e.key, e.mirror))
            if known is not None:
                self.duplicates += 1
                self.clashes += known.unit != e.unit
            elif e.t < seen.settled_to:
                seen.late += 1
            else:
                seen.received += 1
                self._expose(seen, e, mirrors)
        seen.settled_to = max(seen.settled_to, until)
        fresh = sorted((o for o in self._staged if o.label.ingest_t < until), key=lambda o: (o.label[3], o.label[:3]))
        self._staged = [o for o in self._staged if o.label.ingest_t >= until]
        for o in fresh:
            self.duplicates += o.label.outcome_id in self._ids
            if o.label.outcome_id not in self._ids:
                self.received += 1
                self._ids.add(o.label.outcome_id)
                self.waiting[o.label.outcome_id] = o
        for o in list(self.waiting.values()):
            self._credit(o, until)

    def of_unit(self, name: str, unit: str) -> list[tuple[int, Label]]:
        """(when it is credited, outcome) called ``name`` of ``unit``, also those that name one of its requests."""
        return self._of_unit.get((name, unit), [])

    def labels(self, name: str, e: Exposed) -> Iterator[tuple[int, Label]]:
        """(row, outcome) called ``name`` of the request ``e``, also those of its unit while it was the latest."""
        for (called, row), labels in e.labels.items():
            if called == name:
                yield from ((row, label) for label in labels)
        for row, label in self._unit_only.get((name, e.unit or ""), ()):
            if self.latest(e.unit or "", label.t) is e:
                yield row, label

    def latest(self, unit: str, t: int) -> Exposed | None:
        """The unit's latest request at or before ``t``."""
        served = self._units.get(unit, [])
        place = bisect_right(served, t, key=_TIME)
        return served[place - 1] if place else None

    def _forget(self, attempt: int) -> None:
        """Exposures of earlier attempts are not counted any more, but their outcomes are not unknown."""
        for number, seen in self.attempts.items():
            if number < attempt:
                self._foreign.update(e.request_id for e in seen.staged)
                self._foreign.update(e.unit for e in seen.staged if e.unit is not None)
                seen.staged = []

    def _expose(self, seen: AttemptSeen, e: Exposed, mirrors: Collection[int]) -> None:
        self._requests[(e.key, e.mirror)] = e
        if not e.mirror:
            self._named.setdefault(e.request_id, []).append(e)
        partner = self._requests.get((e.key, not e.mirror))
        if partner is not None and partner.epoch == e.epoch:
            e.partner, partner.partner = partner, e
        if not e.mirror and e.unit is not None:
            insort(self._units.setdefault(e.unit, []), e, key=_PLACE)
        seen.add(e, mirrors)

    def unknown(self, names: Collection[str], before: int) -> int:
        """Outcomes called one of ``names`` that are about nothing we know: those of a unit at once, those of a request
        when they came in before ``before`` and still wait for it."""
        waiting = (o for o in self.waiting.values() if o.request_id is not None)
        return sum(self._strangers[name] for name in names) + sum(
            o.name in names and o.label.ingest_t < before for o in waiting
        )

    def _credit(self, o: Observation, until: int) -> None:
        name = o.label.outcome_id
        if o.request_id is not None:
            named = self._named.get(o.request_id)
            if named is not None:
                # Of several that were answered before it came in, whichever, as long as that is not the first of them.
                e = min(named, key=lambda e: (max(e.t - o.label.ingest_t, 0), e.drawn, e.place))
                del self.waiting[name]
                e.labels.setdefault((o.name, o.row), []).append(o.label)
                self._add(o, e.unit or "", max(o.label.t, e.t), e)
            elif o.request_id in self._foreign:
                del self.waiting[name]
        elif o.label.t < until:
            del self.waiting[name]
            unit = o.unit or ""
            self._strangers[o.name] += unit not in self._units and unit not in self._foreign
            self._unit_only.setdefault((o.name, unit), []).append((o.row, o.label))
            self._add(o, unit, o.label.t, None)

    def _add(self, o: Observation, unit: str, credit_t: int, e: Exposed | None) -> None:
        self._of_unit.setdefault((o.name, unit), []).append((credit_t, o.label))
        self.outcomes.append((o, e))
