"""Asking model servers on a cluster: the model's own example, and which version they have.

Where they are and what they are asked is for those to say who may write a rollout, and they may see less than the
controller does. So of an answer nothing is told but its status, and a version where it is a number.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import NamedTuple

from controller.edges.exchange import Answer, Call, Exchange, finite, named_version
from controller.errors import EdgeError
from controller.spec import Probe

HEALTH = Probe(path="/health")  # our own model server scores the model's example there
NUMBER = r"[0-9]{1,10}"  # of a version, as MLflow gives it
UPSTREAMS = 256  # as many as a route table may name
VERSIONS = 4  # of which is known who has answered; two are asked in turn
AT_ONCE = 12  # servers that are asked in one look; the others have their turn in the next


class Server(NamedTuple):
    """One server. ``uid``: of the pod behind the address, which another may get later; empty: that is not known."""

    upstream: str
    uid: str


class Fault(NamedTuple):
    """What is wrong with a server. ``stranger``: it has another version, and is sent nothing that is meant for ours.
    ``unasked``: nothing that we know of, but its turn has not come yet."""

    text: str
    stranger: bool = False
    unasked: bool = False


UNASKED = Fault("has not been asked yet", unasked=True)


class Questions:
    """Asks every pod until it has answered well once; from then on its readiness is the kubelet's business and the
    routers', who ask again every second. What is no pod may be another server tomorrow, and is asked again in turn."""

    def __init__(self, deadline_s: float = 2.0) -> None:
        self._exchange = Exchange(deadline_s)
        # By version, and there in the order in which they were asked last. None: it answered well.
        self._said: dict[str, dict[tuple[Server, Probe], Fault | None]] = {}

    def faults(self, version: str, servers: tuple[Server, ...], probe: Probe) -> Mapping[str, Fault]:
        """What is wrong by upstream, of those of ``servers`` that have not answered yet as ``version`` has to.

        What answered for an earlier set of servers and is not among these is forgotten.
        """
        here = {(server, probe) for server in servers}
        said = {key: fault for key, fault in self._said.pop(version, {}).items() if key in here}
        new = [server for server in servers if (server, probe) not in said]
        again = [server for (server, _), fault in said.items() if fault is not None or not server.uid]
        asked = [*new, *again][:AT_ONCE]
        calls = [call for server in asked for call in _calls(f"http://{server.upstream}", probe)]
        answers = self._exchange.all(calls)
        for i, server in enumerate(asked):
            said.pop((server, probe), None)
            said[server, probe] = _fault(answers[2 * i], answers[2 * i + 1], version, probe)
        self._said[version] = said
        if len(self._said) > VERSIONS:
            del self._said[next(iter(self._said))]
        faults = [(server.upstream, said.get((server, probe), UNASKED)) for server in servers]
        # What is known of one says more than that another has not been asked.
        return dict(sorted(((u, f) for u, f in faults if f is not None), key=lambda each: each[1].unasked))

    def close(self) -> None:
        self._exchange.close()


def _calls(url: str, probe: Probe) -> tuple[Call, Call]:
    body = probe.body.encode() if probe.body is not None else None
    return Call("GET" if body is None else "POST", url + probe.path, body), Call("GET", f"{url}/version")


def _fault(answer: Answer | EdgeError, named: Answer | EdgeError, version: str, probe: Probe) -> Fault | None:
    other = None if isinstance(named, EdgeError) else named_version(named.body)
    if other not in (None, version):
        shown = f"version {other}" if re.fullmatch(NUMBER, other or "") else "another version"
        return Fault(f"serves {shown}, wanted is {version}", stranger=True)
    if isinstance(answer, EdgeError):
        return Fault(f"{probe.path}: {answer}")
    if not 200 <= answer.status < 300:
        return Fault(f"{probe.path}: status {answer.status}")
    if probe.body is not None and not finite(answer.body):
        return Fault(f"{probe.path}: the answer to the model's own example is not JSON, or holds NaN")
    return None


def sent(servers: Iterable[Server], faults: Mapping[str, Fault], kept: Callable[[str], bool]) -> tuple[str, ...]:
    """Upstreams of ``servers`` that are sent requests: those without a fault, and of those that have not been asked yet
    the ones that are to be ``kept`` until then."""
    upstreams = (server.upstream for server in servers)
    return tuple(u for u in upstreams if u not in faults or (faults[u].unasked and kept(u)))[:UPSTREAMS]


def usable(upstreams: Iterable[str], faults: Mapping[str, Fault]) -> tuple[str, ...]:
    """Those of ``upstreams`` that may be sent requests by routers that judge them for themselves."""
    return tuple(u for u in upstreams if u not in faults or not faults[u].stranger)[:UPSTREAMS]
