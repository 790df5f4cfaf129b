"""Which of several rollouts may release a model: the one that is at it, else the oldest."""

from collections.abc import Mapping

from controller.edges.cluster.watch import Entry


def taken_by(key: str, rivals: Mapping[str, Entry]) -> str | None:
    """The one of ``rivals``, all rollouts of the model, that keeps ``key`` from it; None where nobody does.

    A live attempt is never kept from anything: to stop looking at a split that is under way would be worse.
    """
    staying = {k: e for k, e in rivals.items() if e.live or not e.going}
    if key not in staying or staying[key].live:
        return None
    holder = min(staying, key=lambda k: (not staying[k].live, staying[k].created, staying[k].uid))
    return holder if holder != key else None
