"""What applications tell us later: read, checked as a whole, remembered for a while, durable before
acknowledged.
"""

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import xxhash
from pydantic import ValidationError

from router.events import Outcome
from router.table_store import problems

# How far ahead of us a client's clock may be.
FUTURE_US = 5 * 60 * 1_000_000
# Earlier times are seconds or milliseconds taken for microseconds.
EARLIEST_US = 946_684_800_000_000
_PROBLEMS_SHOWN = 20
_OURS = ("seq", "ingest_t")
_FIELDS = tuple(name for name in Outcome.model_fields if name not in _OURS)


class BadOutcomes(ValueError):
    """A request with outcomes of which at least one cannot be taken; none of it was.

    ``problems`` holds one entry a fault: ``index`` of the outcome within the request, ``field``, ``message``.
    """

    def __init__(self, found: list[dict[str, Any]]) -> None:
        self.problems = found[:_PROBLEMS_SHOWN]
        self.count = len(found)
        super().__init__(self.problems[0]["message"])


class Taken(NamedTuple):
    """What became of a request's outcomes. ``conflicts``: ids that came before with another content, which
    holds.
    """

    accepted: int
    written: int
    duplicates: int
    conflicts: list[dict[str, Any]]


class RecentIds:
    """The content of recent outcome ids, as hashes: at least the last ``window // 2``, at most ``window`` of
    them.
    """

    def __init__(self, window: int) -> None:
        self._half = window // 2
        self._young: dict[int, int] = {}
        self._old: dict[int, int] = {}

    def known(self, identity: int) -> int | None:
        content = self._young.get(identity)
        return self._old.get(identity) if content is None else content

    def add(self, identity: int, content: int) -> None:
        if not self._half:
            return
        if len(self._young) >= self._half:
            self._old, self._young = self._young, {}
        self._young[identity] = content


class Outcomes:
    """Takes outcomes into one journal. ``take`` may be called from several threads."""

    def __init__(self, append: Callable[[list[dict[str, Any]], float], None], window: int, batch: int) -> None:
        self._append = append
        self._batch = batch
        self._recent = RecentIds(window)
        self._lock = threading.Lock()
        self._counted: Counter[str] = Counter()

    def counters(self) -> dict[str, float]:
        """Outcomes since the start by what became of them, by metric name."""
        fates = ("written", "duplicate", "conflict", "refused")
        return {f'outcomes_total{{result="{fate}"}}': self._counted[fate] for fate in fates}

    def take(self, body: bytes, *, lines: bool, timeout: float) -> Taken:
        """Check a request's outcomes and write the new ones; returns once they are on disk.

        ``body`` is JSON (a list, or an object with a list ``outcomes``), or with ``lines`` one object a line.
        Raises BadOutcomes, and OSError where the journal does not take them: the client is to send all of
        them again.
        """
        try:
            outcomes = self._checked(parse_lines(body, self._batch) if lines else parse(body, self._batch))
        except BadOutcomes as error:
            with self._lock:
                self._counted["refused"] += error.count
            raise
        moment = time.time_ns() // 1000
        fresh: dict[int, tuple[int, dict[str, Any]]] = {}
        duplicates, conflicts = 0, []
        with self._lock:
            for index, outcome in enumerate(outcomes):
                event = outcome.model_dump()
                identity = xxhash.xxh64_intdigest(outcome.outcome_id.encode())
                content = xxhash.xxh64_intdigest(orjson.dumps(event))
                known = fresh[identity][0] if identity in fresh else self._recent.known(identity)
                if known is None:
                    event["ingest_t"] = moment
                    fresh[identity] = (content, event)
                elif known == content:
                    duplicates += 1
                else:
                    conflicts.append({"index": index, "outcome_id": outcome.outcome_id})
        # Two requests with the same new id at the same time are both written: neither may be answered before
        # its own write is durable, and the reader counts an id once.
        self._append([event for _, event in fresh.values()], timeout)
        with self._lock:
            for identity, (content, _) in fresh.items():
                self._recent.add(identity, content)
            self._counted["written"] += len(fresh)
            self._counted["duplicate"] += duplicates
            self._counted["conflict"] += len(conflicts)
        return Taken(len(outcomes), len(fresh), duplicates, conflicts)

    def _checked(self, items: list[Any]) -> list[Outcome]:
        latest = time.time_ns() // 1000 + FUTURE_US
        good, found = [], []
        for index, item in enumerate(items):
            try:
                if isinstance(item, dict):
                    _refuse_unknown(item)
                outcome = Outcome.model_validate(item, strict=True)
                _refuse_time(outcome.t, latest)
                good.append(outcome)
            except ValidationError as error:
                found += [_problem(index, fault["field"], fault["message"]) for fault in problems(error)]
            except _FieldFault as fault:
                found.append(_problem(index, fault.field, f"{fault.field}: {fault}"))
        if found:
            raise BadOutcomes(found)
        return good


class _FieldFault(ValueError):
    def __init__(self, field: str, message: str) -> None:
        self.field = field
        super().__init__(message)


def _refuse_unknown(item: dict[str, Any]) -> None:
    """Refuse the first field that has no place here; there may be a great many."""
    for name in item:
        if name in _OURS:
            raise _FieldFault(name, "is set by the router; leave it out")
        if name not in _FIELDS:
            raise _FieldFault(name[:128], f"is no field of an outcome; those are {', '.join(_FIELDS)}")


def _refuse_time(t: int, latest: int) -> None:
    if t > latest:
        ahead = (t - latest + FUTURE_US) / 1e6
        raise _FieldFault("t", f"is {ahead:.0f} s in the future; at most {FUTURE_US // 1_000_000} s are allowed")
    if t < EARLIEST_US:
        raise _FieldFault("t", f"{t} is before the year 2000: microseconds since 1970 are meant")


def parse(body: bytes, most: int) -> list[Any]:
    """The outcomes of a JSON body, at most so many. Raises BadOutcomes."""
    try:
        content = orjson.loads(body)
    except ValueError as error:
        raise BadOutcomes([_problem(None, "", f"no JSON: {error}")]) from None
    if isinstance(content, dict):
        unknown = sorted(content.keys() - {"outcomes"})
        if unknown or "outcomes" not in content:
            names = ", ".join(map(repr, unknown)) or "nothing"
            raise BadOutcomes([_problem(None, "outcomes", f"an object with outcomes is needed, not with {names}")])
        content = content["outcomes"]
    if not isinstance(content, list):
        raise BadOutcomes([_problem(None, "outcomes", "a list of outcomes is needed")])
    if len(content) > most:
        raise _too_many(most)
    return content


def parse_lines(body: bytes, most: int) -> list[Any]:
    """The outcomes of an NDJSON body, at most so many, blank lines left out. Raises BadOutcomes."""
    items: list[Any] = []
    found: list[dict[str, Any]] = []
    for line in body.split(b"\n"):
        if not line.strip():
            continue
        index = len(items) + len(found)
        if index == most:
            raise _too_many(most)
        try:
            items.append(orjson.loads(line))
        except ValueError as error:
            found.append(_problem(index, "", f"no JSON: {error}"))
    if found:
        raise BadOutcomes(found)
    return items


def _too_many(most: int) -> BadOutcomes:
    return BadOutcomes([_problem(None, "outcomes", f"more than {most} outcomes in one request, {most} are allowed")])


def _problem(index: int | None, field: str, message: str) -> dict[str, Any]:
    place = "" if index is None else f"outcomes[{index}]: "
    return {"index": index, "field": field, "message": place + message}
