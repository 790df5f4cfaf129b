"""Asking model servers on a cluster: the model's own example, and which version they have.

Where they are and what they are asked is for those to say who may write a rollout, and they may see less than the
controller does. So of an answer nothing is told but its status, and a version where it is a number.
"""

import re
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import NamedTuple

from controller.edges.cluster.asking import PROMPT, SLOW
from controller.edges.exchange import Answer, Call, Exchange, finite, named_version
from controller.errors import EdgeError
from controller.spec import Probe

HEALTH = Probe(path="/health")  # our own model server scores the model's example there
NUMBER = r"[0-9]{1,10}"  # of a version, as MLflow gives it
UPSTREAMS = 256  # as many as a route table may name
VERSIONS = 4  # of which is known who has answered; two are asked in turn
AT_ONCE = 12  # servers that are asked in one look; the others have their turn in the next
CALLS = 64  # under way, to all servers of a rollout
PATIENCE_S = 0.2  # how long a look waits for answers; later ones are for the next


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


class Said(NamedTuple):
    """What a server's last answer told. ``fault`` None: it answered well; ``prompt``: within the patience of a look."""

    fault: Fault | None
    prompt: bool


class Question(NamedTuple):
    """What is asked: whether ``server`` serves ``version``, by ``probe``."""

    version: str
    server: Server
    probe: Probe


class Questions:
    """Asks every pod until it has answered well once; from then on its readiness is the kubelet's business and the
    routers', who ask again every second. What is no pod may be another server tomorrow, and is asked again in turn.

    It asks in the background. A look waits a moment for servers that are not known to be slow, and goes by what is
    known then; what an answer changes after that brings about the next look.
    """

    def __init__(
        self, deadline_s: float = 2.0, patience_s: float = PATIENCE_S, feed: Callable[[], None] = lambda: None
    ) -> None:
        """Seconds until a server is given up, and until a look goes on without it; ``feed`` asks for another look."""
        self._exchange = Exchange(deadline_s, at_once=CALLS)
        self._patience_s, self._feed = patience_s, feed
        self._changed = threading.Condition()
        self._closed = False
        # By version, and there in the order in which they answered last.
        self._said: dict[str, dict[tuple[Server, Probe], Said]] = {}
        self._asking: dict[Question, bool] = {}  # under way, and whether a look waits for it

    def faults(self, version: str, servers: tuple[Server, ...], probe: Probe) -> Mapping[str, Fault]:
        """What is wrong by upstream, of those of ``servers`` that have not answered yet as ``version`` has to.

        What answered for an earlier set of servers and is not among these is forgotten.
        """
        here = {(server, probe) for server in servers}
        with self._changed:
            self._said[version] = said = {k: s for k, s in self._said.pop(version, {}).items() if k in here}
            if len(self._said) > VERSIONS:
                del self._said[next(iter(self._said))]
            waited = self._ask(version, servers, probe, said)
            self._changed.wait_for(lambda: waited.isdisjoint(self._asking), self._patience_s)
            self._asking.update(dict.fromkeys(waited & self._asking.keys(), False))
            known = [(s.upstream, said[s, probe].fault if (s, probe) in said else UNASKED) for s in servers]
        # What is known of one says more than that another has not been asked.
        return dict(sorted(((u, f) for u, f in known if f is not None), key=lambda each: each[1].unasked))

    def close(self) -> None:
        with self._changed:
            self._closed = True
        self._exchange.close()

    def _ask(
        self, version: str, servers: tuple[Server, ...], probe: Probe, said: Mapping[tuple[Server, Probe], Said]
    ) -> set[Question]:
        """Have those asked whose turn it is; the questions whose answers are worth waiting for."""
        new = [server for server in servers if (server, probe) not in said]
        again = [server for (server, _), its in said.items() if its.fault is not None or not server.uid]
        due = [Question(version, server, probe) for server in (*new, *again)]
        room = AT_ONCE - sum(question.version == version for question in self._asking)
        waited = set()
        for question in [each for each in due if each not in self._asking][: max(room, 0)]:
            before = said.get((question.server, probe))
            self._asking[question] = prompt = before is None or before.prompt
            if prompt:
                waited.add(question)
            (PROMPT if prompt else SLOW).put(partial(self._answer, question))
        return waited

    def _answer(self, question: Question) -> None:
        """Ask one server, and note what it says."""
        version, server, probe = question
        began = time.monotonic()
        try:
            answer, named = self._exchange.all(_calls(f"http://{server.upstream}", probe))
            now = Said(_fault(answer, named, version, probe), time.monotonic() - began <= self._patience_s)
        except BaseException:  # a fault of ours: it may be asked again
            with self._changed:
                del self._asking[question]
                self._changed.notify_all()
            raise
        with self._changed:
            waited = self._asking.pop(question)
            said = self._said.get(version, {})
            before = said.pop((server, probe), None)
            said[server, probe] = now
            self._changed.notify_all()
            news = before is None or before.fault != now.fault
            late = news and not waited and not self._closed
        if late:
            self._feed()


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
