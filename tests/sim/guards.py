"""The guards of the loop that the checkers must miss when they are gone: each can be taken out, one at a time.

A guard is a few lines of a function; taking it out compiles the function again without them. Where the lines are not
found as they stand here, that is an error: this list has to follow the code.
"""

import inspect
import textwrap
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any, NamedTuple

from controller import loop
from controller.core import decide, endings, evolve
from tests.sim.faults import Fault


class Edit(NamedTuple):
    """``was`` stands exactly once in the function ``name`` of ``owner``; ``becomes`` is put in its place."""

    owner: ModuleType | type
    name: str
    was: str
    becomes: str


class Guard(NamedTuple):
    """``what`` the loop would no longer do without it, and under which faults (and truth) that shows soonest.

    ``first``: where the search for a seed begins; any would do, for a longer search.
    """

    name: str
    what: str
    edits: tuple[Edit, ...]
    shown_by: frozenset[Fault]
    truth: str | None = None
    first: int = 0


COMMIT = "version = self.store.commit(key, transition.status, stored.version, transition.record)"
ACT = "act(self, naming.pinned(spec, transition.status), transition.status)"
GUARDS = (
    Guard(
        "commit-before-act",
        "status and record stand before anything is done",
        (Edit(loop.Loop, "tick", f"{COMMIT}\n    {ACT}", f"{ACT}\n    {COMMIT}"),),
        frozenset({Fault.CRASH}),
    ),
    Guard(
        "version-check",
        "a decision on an old status is not committed",
        (
            Edit(
                loop.Loop,
                "tick",
                "stored.version, transition.record",
                "self.store.load(key).version, transition.record",
            ),
        ),
        frozenset({Fault.STALE_STORE}),
        first=15,
    ),
    Guard(
        "confirmed-before-widening",
        "more traffic only after every worker serves what was asked for",
        (
            Edit(decide, "_wish", "if not facts.confirmed:", "if False:"),
            Edit(evolve, "_clock", "if endings.confirmed(status):", "if True:"),
        ),
        frozenset({Fault.SLOW, Fault.RESTART}),
        first=3,
    ),
    Guard(
        "confirmed-before-alias",
        "the alias moves only after every worker serves the promotion",
        (Edit(endings, "_serves", "confirmed(status) and ", ""),),
        frozenset({Fault.SLOW, Fault.RESTART}),
        first=3,
    ),
    Guard(
        "read-back",
        "a promotion is over only when the aliases read back",
        (Edit(endings, "promoting", "if not _moved(spec, status):", "if False:"),),
        frozenset({Fault.REGISTRY_AWAY}),
        first=3,
    ),
    Guard(
        "monotone-clock",
        "a clock that steps back stands still",
        (Edit(evolve, "_clock", "later = max(now, status.clock)", "later = now"),),
        frozenset({Fault.CLOCK_BACKWARD}),
    ),
    Guard(
        "handled-once",
        "what a person asked is obeyed once",
        (Edit(evolve, "_obey", "if request.id in status.handled:", "if False:"),),
        frozenset({Fault.CRASH}),
        first=1,
    ),
    Guard(
        "kept-until-delivered",
        "a notice leaves status only when it was sent",
        (Edit(loop.Loop, "_deliver", "        continue  #", "        pass  #"),),
        frozenset({Fault.FAIL_BEFORE}),
        first=42,
    ),
    Guard(
        "alias-moved-stops",
        "an alias that somebody else moved ends the rollout",
        (Edit(evolve, "_live", "status = _aliases_watched(spec, status)", "pass"),),
        frozenset({Fault.CRASH}),
        first=7,
    ),
    Guard(
        "harm-before-validity",
        "proven harm rolls back, also while the evidence is invalid",
        (Edit(decide, "decide", "if harmed is not None:", "if harmed is not None and validity.reason is None:"),),
        frozenset({Fault.DROP, Fault.REORDER}),
        "errors",
    ),
    Guard(
        "terminal-stays",
        "what has ended is not decided again",
        (Edit(loop, "evolve", "elif not status.progress.terminal:", "else:"),),
        frozenset({Fault.CRASH}),
        first=15,
    ),
)
BY_NAME = {guard.name: guard for guard in GUARDS}


@contextmanager
def without(guard: Guard) -> Iterator[None]:
    """The loop and its core without ``guard``. ValueError where its lines are not there."""
    with ExitStack() as stack:
        for edit in guard.edits:
            stack.enter_context(_edited(guard.name, edit))
        yield


@contextmanager
def _edited(guard: str, edit: Edit) -> Iterator[None]:
    whole = getattr(edit.owner, edit.name)
    source = textwrap.dedent(inspect.getsource(whole))
    if source.count(edit.was) != 1:
        where = f"{edit.owner.__name__}.{edit.name}"
        raise ValueError(f"guard {guard}: {edit.was!r} stands {source.count(edit.was)} times in {where}, not once")
    made: dict[str, Any] = {}
    exec(compile(source.replace(edit.was, edit.becomes), f"<without {guard}>", "exec"), whole.__globals__, made)
    setattr(edit.owner, edit.name, made[edit.name])
    try:
        yield
    finally:
        setattr(edit.owner, edit.name, whole)
