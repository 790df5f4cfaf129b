"""What became of a captured body before it was written, and how often."""

from typing import NamedTuple

REDACTED = "[redacted]"


class Redacted(NamedTuple):
    """A body as it may be written, and how many fields of it were replaced; ``withheld``: all of it was."""

    text: str
    fields: int = 0
    withheld: bool = False


WITHHELD = Redacted(REDACTED, withheld=True)


class Redactions:
    """What a worker's redactors did, counted by the journal's thread."""

    __slots__ = ("redacted", "withheld")

    def __init__(self) -> None:
        self.redacted = 0
        self.withheld = 0

    def note(self, done: Redacted) -> None:
        """Count one body."""
        self.redacted += done.fields
        self.withheld += done.withheld

    def counters(self) -> dict[str, float]:
        """How many fields were replaced and how many bodies withheld, by metric name."""
        return {"redacted_fields_total": self.redacted, "withheld_bodies_total": self.withheld}
