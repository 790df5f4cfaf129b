"""Asking model servers on a cluster: the model's own example, and which version they have."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from controller.edges.exchange import Answer, Call, Exchange, finite, named_version
from controller.errors import EdgeError
from controller.spec import Probe

HEALTH = Probe(path="/health")  # our own model server scores the model's example there
UPSTREAMS = 256  # as many as a route table may name
VERSIONS = 4  # of which is known who has answered; two are asked in turn
AT_ONCE = 12  # servers that are asked in one look; the rest is asked in the next


class Server(NamedTuple):
    """One server. ``uid``: of the pod behind the address, which another may get later; empty: that is not known."""

    upstream: str
    uid: str


class Fault(NamedTuple):
    """What is wrong with a server. ``stranger``: it has another version, and is sent nothing that is meant for ours."""

    text: str
    stranger: bool = False


class Questions:
    """Asks every pod until it has answered well once; from then on its readiness is the kubelet's business and the
    routers', who ask again every second. What is no pod is asked every time."""

    def __init__(self, deadline_s: float = 2.0) -> None:
        self._exchange = Exchange(deadline_s)
        self._answered: dict[str, set[tuple[Server, Probe]]] = {}

    def faults(self, version: str, servers: tuple[Server, ...], probe: Probe) -> Mapping[str, Fault]:
        """What is wrong by upstream, of those of ``servers`` that have not answered yet as ``version`` has to.

        What answered for an earlier set of servers and is not among these is forgotten.
        """
        known = self._answered.get(version, set()) & {(server, probe) for server in servers}
        unknown = [server for server in servers if (server, probe) not in known]
        said = {server.upstream: Fault("has not been asked yet") for server in unknown[AT_ONCE:]}
        calls = [call for server in unknown[:AT_ONCE] for call in _calls(f"http://{server.upstream}", probe)]
        answers = self._exchange.all(calls)
        for i, server in enumerate(unknown[:AT_ONCE]):
            fault = _fault(answers[2 * i], answers[2 * i + 1], version, probe)
            if fault is not None:
                said[server.upstream] = fault
            elif server.uid:
                known.add((server, probe))
        self._answered.pop(version, None)
        self._answered[version] = known
        if len(self._answered) > VERSIONS:
            del self._answered[next(iter(self._answered))]
        return said

    def close(self) -> None:
        self._exchange.close()


def _calls(url: str, probe: Probe) -> tuple[Call, Call]:
    body = probe.body.encode() if probe.body is not None else None
    return Call("GET" if body is None else "POST", url + probe.path, body), Call("GET", f"{url}/version")


def _fault(answer: Answer | EdgeError, named: Answer | EdgeError, version: str, probe: Probe) -> Fault | None:
    other = None if isinstance(named, EdgeError) else named_version(named.body)
    if other not in (None, version):
        return Fault(f"serves version {other}, wanted is {version}", stranger=True)
    if isinstance(answer, EdgeError):
        return Fault(f"{probe.path}: {answer}")
    if not 200 <= answer.status < 300:
        said = " ".join(answer.body[:200].decode(errors="replace").split())
        return Fault(f"{probe.path}: status {answer.status}: {said}")
    if probe.body is not None and not finite(answer.body):
        return Fault(f"{probe.path}: the answer to the model's own example is not JSON, or holds NaN")
    return None


def usable(upstreams: Iterable[str], faults: Mapping[str, Fault]) -> tuple[str, ...]:
    """Those of ``upstreams`` that may be sent requests by routers that judge them for themselves."""
    return tuple(u for u in upstreams if u not in faults or not faults[u].stranger)[:UPSTREAMS]
