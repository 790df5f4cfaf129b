"""Which versions the registry and the spec name, beside those that an attempt has pinned or promoted."""

from controller.core import serving
from controller.sections import Model
from controller.spec import RolloutSpec
from controller.status import SPLIT, Progress, Reason, Replacement, RolloutStatus

STRANGE_TICKS = 2  # an alias must be seen moved this often: one stale read is no person
EXTERNAL = "external"  # what a champion without a registry entry is named


def champion(model: Model, status: RolloutStatus) -> str:
    """What the champion is looked up by: as ``model`` declares it, or the version that was promoted in its place."""
    held = status.replacement
    return held.version if held is not None and _declares(model, held) else model.champion


def pinned(spec: RolloutSpec, status: RolloutStatus) -> RolloutSpec:
    """``spec`` with the model and the aliases that the attempt began with, from its first allocation to its end.

    Versions are numbers, and another model has the same ones: what one of them lost or won is no word on the other's
    aliases. What is declared by then is for the next attempt.
    """
    attempt = status.attempt
    if attempt is None or attempt.model is None or status.progress not in SPLIT:
        return spec
    return spec.model_copy(update={"model": spec.model.model_copy(update=attempt.model.model_dump())})


def replaced(model: Model, status: RolloutStatus) -> RolloutStatus:
    """``status``, whose attempt is promoted: where the champion is declared by number, that version is replaced."""
    attempt = status.attempt
    assert attempt is not None
    if not model.champion.isdigit():
        return status.model_copy(update={"replacement": None})
    held = Replacement(model=model.name, named=model.champion, version=attempt.challenger)
    text = f"model.champion is {held.named}: version {held.version} is champion in its place until another is declared"
    return status.model_copy(update={"replacement": held, "message": f"{status.message}; {text}"})


def redeclared(spec: RolloutSpec, status: RolloutStatus) -> RolloutStatus:
    """``status`` by what is declared now: another champion is meant. Under way that is for the next attempt."""
    held = status.replacement
    if held is None or _declares(spec.model, held) or status.progress in SPLIT:
        return status
    return status.model_copy(update={"replacement": None})


def _declares(model: Model, held: Replacement) -> bool:
    return (model.name, model.champion) == (held.model, held.named)


def strangely_named(spec: RolloutSpec, status: RolloutStatus) -> tuple[RolloutStatus, str | None]:
    """``status`` with the count of ticks that showed a move nobody announced, and which one, once that is enough."""
    o, attempt = status.observed, status.attempt
    if attempt is None or o.registry_error is not None:
        return status, None
    moves = {m.alias: m for m in status.alias_moves}
    strange = None
    references = [(spec.model.champion, attempt.champion, o.champion_alias)]
    if status.progress not in (Progress.PROMOTING, Progress.HOLDBACK):  # from then on it may name the next one
        references.append((spec.model.challenger, attempt.challenger, o.challenger_alias))
    for reference, pinned, now in references:
        move = moves.get(reference)
        under_way = {move.was, move.version} if move else {pinned}
        # The holdback began when they read back; from then on a move back is a move.
        allowed = {move.version} if move and status.progress is Progress.HOLDBACK else under_way
        if now not in allowed:
            strange = f"{reference} names {now or 'nothing'} now, not {pinned}; nobody here moved it"
    count = status.alias_strange + 1 if strange is not None else 0
    status = status.model_copy(update={"alias_strange": count})
    return status, strange if count >= STRANGE_TICKS else None


def looked_at(status: RolloutStatus) -> RolloutStatus:
    """``status`` with, where it is over, the count of looks that showed the champion at another version than the one
    that serves."""
    o, attempt = status.observed, status.attempt
    told = not status.progress.terminal or status.reason is Reason.ALIAS_MOVED
    if attempt is None or o.registry_error is not None or told:
        return status
    version, of = _served(status)
    strange = o.champion_alias != EXTERNAL and (o.champion_alias != version or bool(of))
    count = min(status.alias_strange + 1, STRANGE_TICKS) if strange else 0
    return status.model_copy(update={"alias_strange": count})


def astray(status: RolloutStatus) -> str:
    """For people, where a rollout is over and its champion was moved since; else empty. Users stay where they are: a
    version that nobody tries gets no traffic by a move of an alias alone. What ended by such a move has told of it.
    """
    if not status.progress.terminal or status.reason is Reason.ALIAS_MOVED or status.alias_strange < STRANGE_TICKS:
        return ""
    now, (version, of) = status.observed.champion_alias, _served(status)
    text = f"model.champion names {f'version {now}' if now else 'nothing'} now, and users are served by version"
    return f"{text} {version}{of} until the next attempt begins"


def _served(status: RolloutStatus) -> tuple[str | None, str]:
    """The version that everybody is sent to after the end, the champion that was found where there is no table; and
    of which model, for people, where that is another one's than the attempt's."""
    served, model = serving.in_force(status), serving.model_of(status.attempt)
    if served is None:
        return status.attempt.champion if status.attempt is not None else None, ""
    return served.version, f" of {served.model}" if None not in (served.model, model) and served.model != model else ""
