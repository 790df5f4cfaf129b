"""Who serves, whatever is declared: the version that the table in force names as the champion, and whose it is.

That is one thing, and what the next attempt will try, or whether it may begin at all, is another. Between two attempts,
and until the champion of the next one is ready, users stay with the version that they have, and the table goes on
following its servers.
"""

from typing import NamedTuple

from controller.status import Attempt, Place, RolloutStatus
from router.table import Probe


class Served(NamedTuple):
    """A version, and the attempt in which it got to serve."""

    attempt: Attempt
    version: str

    @property
    def model(self) -> str | None:
        """Whose version it is; None: not known."""
        return model_of(self.attempt)

    @property
    def place(self) -> Place | None:
        """The Service that serves it; None: our own servers, or not known."""
        found, promoted = self.attempt.places, self.version != self.attempt.champion
        if found is None:
            return None
        return found.challenger if promoted else found.champion

    @property
    def probe(self) -> Probe | None:
        """How it is asked, if that was declared."""
        found = self.attempt.places
        return found.probe if found is not None else None

    def known(self) -> tuple[str | None, tuple[Place | None] | None]:
        """Its model and its place, as far as they are."""
        return self.model, (self.place,) if self.attempt.places is not None else None


def model_of(attempt: Attempt | None) -> str | None:
    """Whose versions it is about; None: not known."""
    return attempt.model.name if attempt is not None and attempt.model is not None else None


def in_force(status: RolloutStatus) -> Served | None:
    """Who serves by the table in force; None without one, and where it is not known of which attempt it is."""
    table = status.table
    known = (status.attempt, status.former)
    of = None if table is None else next((a for a in known if a is not None and a.number == table.attempt), None)
    return None if table is None or of is None else Served(of, table.champion.version)


def between(status: RolloutStatus) -> Served | None:
    """Who serves where that is not for the attempt to say, as there is none or it has no table of its own yet."""
    served = in_force(status)
    return None if served is None or served.attempt is status.attempt else served


def takes_over(status: RolloutStatus) -> bool:
    """Whether the table may be the attempt's: its champion serves already, or is ready to."""
    served, attempt = between(status), status.attempt
    if served is None or attempt is None:
        return attempt is not None
    own = Served(attempt, attempt.champion)
    differs = any(a != b for a, b in zip(served.known(), own.known(), strict=True) if a is not None and b is not None)
    return (served.version == own.version and not differs) or status.observed.champion_ready
