"""Where the versions of an attempt are served: as was declared when it began, whatever is declared by now.

What is behind a Service nobody tells us. So a version stays at the one that served it, and the declaration of the
servers is read when an attempt begins, and not before.
"""

from controller import sections
from controller.spec import RolloutSpec, Servers
from controller.status import Attempt, Observed, Place, Places, RolloutStatus
from router.assignment import Arm
from router.table import Probe


def declared(spec: RolloutSpec) -> Places:
    """The places that ``spec`` declares."""
    servers = spec.servers or Servers()
    return Places(
        champion=_place(servers.champion),
        challenger=_place(servers.challenger),
        probe=_probe(servers.probe),
    )


def of(spec: RolloutSpec, attempt: Attempt | None) -> Places:
    """Those of ``attempt``; what is declared, where they are not known."""
    known = attempt.places if attempt is not None else None
    return declared(spec) if known is None else known


def of_version(spec: RolloutSpec, attempt: Attempt | None, arm: Arm, version: str) -> Place | None:
    """The Service that serves ``version``, which ``arm`` wants: where it was served when the attempt began, so that a
    promoted one is not looked for at the old champion's. None: it is ours to run, as the other is."""
    pinned: dict[Arm, str] = {"champion": attempt.champion, "challenger": attempt.challenger} if attempt else {}
    place = arm if pinned.get(arm) == version else next((a for a, v in pinned.items() if v == version), arm)
    found = of(spec, attempt)
    return found.champion if place == "champion" else found.challenger


def probe(spec: RolloutSpec, attempt: Attempt, arm: Arm) -> Probe | None:
    """How the server of ``arm`` is asked. Our own ones score the model's example when they are asked for their
    health."""
    adopted = getattr(spec.servers, arm, None)
    if adopted is not None and adopted.service is None:  # by its address, on one machine
        return _probe(adopted.probe)
    found = of(spec, attempt)
    place = found.champion if arm == "champion" else found.challenger
    return place.probe if place is not None else found.probe or Probe(path="/health")


def misplaced(spec: RolloutSpec, status: RolloutStatus) -> str:
    """Why no attempt may begin after this one with the servers that are declared: one of them would be looked for where
    the other was served. Empty: that is not so, or not known."""
    attempt, version = status.attempt, status.observed.champion_alias
    known = attempt.places if attempt is not None else None
    if attempt is None or known is None or version not in (attempt.champion, attempt.challenger):
        return ""
    home, other = known.champion, known.challenger
    if version == attempt.challenger != attempt.champion:
        home, other = other, home
    wanted = declared(spec)
    if home is None or other is None or _at(home) == _at(other):
        return ""
    itself = spec.allow_same_version and status.observed.challenger_alias == version
    if itself and wanted.champion == wanted.challenger == home:
        return ""
    if wanted.champion is not None and _at(wanted.champion) == _at(other):
        wrong = f"servers.champion is {_at(other)}, where another version was served"
    elif wanted.challenger is not None and _at(wanted.challenger) == _at(home):
        wrong = f"servers.challenger is {_at(home)}"
    else:
        return ""
    text = f"{wrong}; version {version}, the champion, is served by {_at(home)}: declare that for the champion"
    return f"{text}, and for the challenger a Service that nobody is sent to"


def _at(place: Place) -> str:
    return f"{place.service}:{place.port}"


def moved(spec: RolloutSpec, attempt: Attempt | None) -> bool:
    """Whether other servers are declared than those of ``attempt``."""
    known, now = of(spec, attempt), declared(spec)
    return (known.champion, known.challenger) != (now.champion, now.challenger)


def unseen(observed: Observed, *arms: Arm) -> Observed:
    """``observed`` without the servers of ``arms`` that were looked at: the attempt that begins has others."""
    nobody = {name: value for arm in arms for name, value in ((f"{arm}_upstreams", ()), (f"{arm}_ready", False))}
    return observed.model_copy(update=nobody)


def _place(server: sections.Server | None) -> Place | None:
    if server is None or server.service is None:
        return None
    return Place(service=server.service, port=server.port, probe=_probe(server.probe))


def _probe(asked: sections.Probe | None) -> Probe | None:
    return Probe(path=asked.path, body=asked.body) if asked is not None else None
