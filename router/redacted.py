"""What became of a captured body before it was written, and how often; and how long reading them may take."""

from typing import NamedTuple

from router.allowance import Allowance

REDACTED = "[redacted]"


class Redacted(NamedTuple):
    """A body as it may be written, and how many fields of it were replaced; ``withheld``: all of it was."""

    text: str
    fields: int = 0
    withheld: bool = False


WITHHELD = Redacted(REDACTED, withheld=True)
# The same, of one that nobody took the time for.
UNREAD = Redacted(REDACTED, withheld=True)


# From so many bytes on a body is large: to read it takes up to some milliseconds of the interpreter, which answers
# requests besides; other alphabets take longer. To take a smaller one apart may take as long. All that is read of large
# ones, and all that is taken apart, together may take a quarter of a second in each.
_LARGE, _LARGE_UNICODE = 16 << 10, 1 << 10
# A shorter one takes less than the request that brought it, whatever is in it, and is always read.
SLIGHT = 256
_SHARE, _SAVED_S = 0.25, 0.5


def is_large(body: bytes) -> bool:
    """Whether reading it takes long enough to be counted."""
    return len(body) >= _LARGE or (len(body) >= _LARGE_UNICODE and not body.isascii())


class Redactions:
    """What a worker's redactors did, counted by the journal's thread; ``reading`` is its time for bodies."""

    __slots__ = ("reading", "redacted", "unread", "withheld")

    def __init__(self) -> None:
        self.redacted = 0
        self.withheld = 0
        self.unread = 0
        self.reading = Allowance(_SHARE, _SAVED_S)

    def note(self, done: Redacted) -> None:
        """Count one body."""
        self.redacted += done.fields
        self.withheld += done.withheld
        self.unread += done is UNREAD

    def counters(self) -> dict[str, float]:
        """How many fields were replaced and how many bodies withheld, by metric name."""
        return {
            "redacted_fields_total": self.redacted,
            "withheld_bodies_total": self.withheld,
            "unread_bodies_total": self.unread,
        }
