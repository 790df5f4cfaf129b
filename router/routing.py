"""A route table compiled for speed: from a request to its unit, arm and attributes in one call."""

from typing import Final, Literal, NamedTuple

from router.assignment import Arm, point
from router.breaker import Breaker
from router.counters import Findings
from router.events import CONTROL
from router.harmless import Harmless
from router.heads import Request
from router.pool import Backend
from router.redaction import DEFAULT_NAMES, Redactions, Redactor
from router.subject import ATTRIBUTE_CHARS, UNIT_CHARS, extractor, needs_body
from router.table import RouteTable

AssignedBy = Literal["hash", "override", "none"]


class Allotment(NamedTuple):
    """Where a request goes, and why; there are a few of them, and each is made once.

    ``mirror``: the challenger shall see it as well. ``mint``: its client needs a unit of its own.
    """

    arm: Arm
    evidence: bool
    assigned_by: AssignedBy
    mirror: bool = False
    mint: bool = False


_NO_UNIT: Final = Allotment("champion", False, "none")
_MINT: Final = Allotment("champion", False, "none", mint=True)
_OVERRIDE: Final = {
    b"champion": Allotment("champion", False, "override"),
    b"challenger": Allotment("challenger", False, "override"),
}
_STALE: Final = Allotment("champion", False, "hash")
_CHALLENGER: Final = {evidence: Allotment("challenger", evidence, "hash") for evidence in (False, True)}
_CHAMPION: Final = {
    (evidence, mirror): Allotment("champion", evidence, "hash", mirror)
    for evidence in (False, True)
    for mirror in (False, True)
}


class Routes:
    """One table at work. Equal tables allot equally, in every process.

    ``breaker``: of the attempt and challenger that the table is for, so that what was sent to the ones before does not
    count for it however late it ends.
    """

    def __init__(
        self,
        table: RouteTable,
        champion: Backend,
        challenger: Backend | None,
        redactions: Redactions,
        findings: Findings,
        breaker: Breaker,
    ) -> None:
        self.table = table
        self.breaker = breaker
        self.champion = champion
        self.challenger = challenger
        self.versions = {"champion": champion.version, "challenger": challenger.version if challenger else ""}
        self.generation = table.generation
        self.attempt = table.attempt
        self.epoch = table.epoch
        limits = table.limits
        self.replay_bytes = limits.replay_bytes
        self.judge_bytes = limits.judge_bytes
        self.capture_bytes = limits.capture_bytes
        self.capture = rules = table.capture
        self.redactions = redactions
        self.findings = findings
        self.redactor = Redactor((DEFAULT_NAMES if rules.redact_defaults else ()) + rules.redact)
        self.harmless: Harmless = self.redactor.harmless
        # Ends of journal lines, by what they depend on besides this table (``router.capture``).
        self.endings: dict[tuple[object, ...], bytes] = {}
        self.challenger_s = limits.challenger_timeout_ms / 1000
        self.champion_s = limits.champion_timeout_ms / 1000
        self.replay = table.replay_to_champion
        self._salt = table.salt
        self._weight = table.weight_bp
        self._control_from = table.control_from_bp
        self._counted = table.counted_bp
        self._mirror = table.mirror_bp
        self._unit = extractor(table.unit)
        self._unit_in_body = needs_body(table.unit)
        self.cookie = None if table.unit.cookie is None else table.unit.cookie.encode("latin-1", "replace")
        self._attributes = tuple((a.name, extractor(a.source)) for a in table.attributes)
        self.has_attributes = bool(self._attributes)
        self._attributes_in_body = any(needs_body(a.source) for a in table.attributes)
        # The headers that units and attributes are taken from.
        sources = [table.unit, *(a.source for a in table.attributes)]
        self.read = frozenset(s.header.lower().encode("latin-1", "replace") for s in sources if s.header is not None)
        override = table.override_header
        self.override = None if override is None else override.lower().encode("latin-1", "replace")

    def allot(self, request: Request, stale: bool) -> tuple[str | None, Allotment]:
        """Unit and arm of a request. A stale table sends everybody to the champion, as no evidence."""
        unit = self._unit(request)
        if self._unit_in_body:
            request.forget()
        if unit is not None and (len(unit) > UNIT_CHARS or (not unit.isprintable() and CONTROL.search(unit))):
            unit = None  # no outcome could name it
        if self.override is not None and self.override in request.fields:
            arm = request.fields[self.override].strip(b" \t")
            if arm == b"champion" or (arm == b"challenger" and self.challenger is not None and not stale):
                return unit, _OVERRIDE[arm]
        if unit is None:
            # Browsers ask by OPTIONS whether they may ask: without cookies, and without keeping any.
            return None, _NO_UNIT if self.cookie is None or request.method == b"OPTIONS" else _MINT
        if stale:
            return unit, _STALE
        place = point(self._salt, unit)
        if place < self._weight:
            return unit, _CHALLENGER[place < self._counted]
        return unit, _CHAMPION[place >= self._control_from, place < self._mirror]

    def attributes(self, request: Request) -> dict[str, str]:
        """The named texts that the request has."""
        found = {}
        for name, extract in self._attributes:
            value = extract(request)
            if value is not None:
                found[name] = value[:ATTRIBUTE_CHARS]
        if self._attributes_in_body:
            request.forget()  # its mirror may still be waiting
        return found
