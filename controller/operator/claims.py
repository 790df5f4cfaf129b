"""Which rollout may release a model: one of a namespace that is allowed to, and of several the one that is at it. So it
is with an HTTPRoute: two that wrote weights of the same Services there would write against each other."""

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase

from controller.edges.cluster.watch import Entry, claim
from controller.status import Reason

EVERYWHERE = "*"


class Claims:
    """Judges by ``allowed``, rules such as ``shop=shop-*``; None: every namespace may release every model."""

    def __init__(self, allowed: Iterable[str] | None) -> None:
        self._allowed = None if allowed is None else [tuple(rule.split("=", 1)) for rule in allowed]

    def allows(self, key: str, model: str) -> bool:
        """Whether the rollout ``key`` is in a namespace that may release ``model``."""
        if self._allowed is None:
            return True
        namespace = key.partition("/")[0]
        return any(place in (EVERYWHERE, namespace) and fnmatchcase(model, names) for place, names in self._allowed)

    def forbids(self, key: str, model: str) -> str:
        """Why the rollout ``key`` may not release ``model``, whoever else does; empty: it may."""
        if self.allows(key, model):
            return ""
        namespace = key.partition("/")[0]
        text = f"model.name: namespace {namespace} may not release {model}; whoever runs the controller allows it"
        return f"{text} by --allow-models {namespace}={model}"

    def refusal(self, key: str, model: str, rivals: Mapping[str, Entry]) -> tuple[Reason, str] | None:
        """Why ``key`` may not release ``model``, of which ``rivals`` are all rollouts; None where it may.

        One that is not allowed to keeps nobody from it, whether it was first or is at work.
        """
        forbidden = self.forbids(key, model)
        if forbidden:
            return Reason.MODEL_NOT_ALLOWED, forbidden
        holder = taken_by(key, {k: e for k, e in rivals.items() if self.allows(k, model)})
        if holder is None:
            return None
        return Reason.MODEL_TAKEN, f"model.name: {model} is released by {holder}; delete one of the two rollouts"

    def taken_route(self, key: str, rivals: Mapping[str, Entry]) -> tuple[Reason, str] | None:
        """Why ``key`` may not split its HTTPRoute, which ``rivals`` split between the same Services; None where it
        may."""
        holder = taken_by(key, {k: e for k, e in rivals.items() if k == key or self.allows(k, e.model)})
        if holder is None:
            return None
        both = " and ".join(sorted(set(rivals[key].services) & set(rivals[holder].services)))
        where = f"traffic.gatewayAPI.httpRoute: {rivals[key].route}"
        return Reason.ROUTE_TAKEN, f"{where} is split by {holder}, with {both}; delete one of the two rollouts"


def taken_by(key: str, rivals: Mapping[str, Entry]) -> str | None:
    """The one of ``rivals``, all rollouts of the model or the route, that keeps ``key`` from it; None where nobody
    does.

    A live attempt is never kept from anything: to stop looking at a split that is under way would be worse.
    """
    staying = {k: e for k, e in rivals.items() if claim(e).stays}
    if key not in staying or staying[key].live:
        return None
    holder = min(staying, key=lambda k: claim(staying[k]))
    return holder if holder != key else None
