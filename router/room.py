"""Room for those who come: clients that take their time let go of what there is not enough of."""

from collections.abc import Callable
from operator import attrgetter
from time import monotonic
from typing import TYPE_CHECKING, Final

from router.worker_config import GOING

if TYPE_CHECKING:
    from router.downstream import Client
    from router.plane import Plane
    from router.pool import Pool

# This part of those who may go makes room at a time: looking for them costs, so it should be worth it.
_SHARE: Final = 64
# After a search it is not searched again for so long, seconds, where that may happen at every request.
_REST_S: Final = 0.1
# Where nobody can go for a new connection, so many of those that came with it are refused without another search.
_REFUSALS: Final = 32


class Room:
    """Of one worker. Nobody has to go before it has taken longer over one request or answer than ``head_s``, but
    those that are idle.
    """

    def __init__(self, plane: "Plane") -> None:
        self._plane = plane
        self._rest_until = 0.0
        self._refusals = 0

    def connection(self) -> bool:
        """Close the clients that have been answered and only have to go, but for the last ones, who may not have read
        it; and those that have been idle for the longest, or else those that have been sending one request or taking
        one answer for the longest. False where all that may be are busy.
        """
        plane, now = self._plane, monotonic()
        if self._refusals:
            self._refusals -= 1
            return False
        going = [client for client in plane.clients if client.going]
        staying = [client for client in going if not client.transport.is_closing()]
        for client in sorted(staying, key=attrgetter("due"))[: max(0, len(staying) + _REFUSALS - GOING)]:
            client.make_room()
        if len(plane.clients) - len(going) < plane.config.max_connections:
            return True
        found = self._idle(now) or _some(self._slow(lambda client: True))
        for client in found:
            client.make_room()
        if not found:
            self._refusals = _REFUSALS
            plane.loop.call_soon(self._search_again)
        return bool(found)

    def _search_again(self) -> None:
        self._refusals = 0

    def _idle(self, now: float) -> list["Client"]:
        """Some of those who ask nothing, the longest idle first."""
        idle = [each for each in self._plane.clients if each.idle and not each.crowded and not each.new(now)]
        found: list[Client] = []
        for client in sorted(idle, key=attrgetter("due")):
            # In a burst a client may have waited to be heard for longer than it is new.
            if not client.unheard():
                found.append(client)
                if len(found) * _SHARE >= len(idle):
                    break
        return found

    def body(self) -> bool:
        """Have those go that have been sending a body that is held, or taking its answer, for the longest, until what
        is held is not too much; False where it still is.
        """
        plane = self._plane
        most = plane.config.max_held_bytes
        if self._rested():
            # Who does not take an answer lets go of its body a moment later.
            held = plane.held_bytes
            for client in self._slow(lambda client: client.body_bytes() > 0):
                held -= client.body_bytes()
                client.make_room()
                if held <= most:
                    break
        return plane.held_bytes <= most

    def answers(self) -> None:
        """See how much is held of answers. Where it is too much, have those go that have been taking one for the
        longest; where it still is, no more is held of any.
        """
        plane = self._plane
        most = plane.config.max_held_answer_bytes
        held = sum(client.unread_bytes() for client in plane.clients if client.crowded)
        held += sum(call.holding for call in plane.calls())
        plane.held_answer_bytes = held
        if held > most:
            for client in self._slow(attrgetter("crowded")):
                held -= client.answer_bytes()
                client.make_room()
                if held <= most:
                    break
        plane.answers_full = held > most

    def server(self, pool: "Pool") -> None:
        """Somebody waits for a connection of ``pool``: those let go of theirs who keep it busy for the longest."""
        if self._rested():
            for client in _some(self._slow(lambda client: client.holds(pool))):
                client.make_room()

    def _rested(self) -> bool:
        now = monotonic()
        if now < self._rest_until:
            return False
        self._rest_until = now + _REST_S
        return True

    def _slow(self, wanted: Callable[["Client"], bool]) -> list["Client"]:
        """Who has taken too long, the longest first."""
        now = monotonic()
        found = [client for client in self._plane.clients if client.held_for(now) > 0 and wanted(client)]
        return sorted(found, key=lambda client: client.held_for(now), reverse=True)


def _some(found: list["Client"]) -> list["Client"]:
    return found[: max(1, len(found) // _SHARE)]
