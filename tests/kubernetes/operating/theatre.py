"""A world for operators: rollouts on the real API server, and the other edges in memory, shared by all replicas."""

import contextlib
import itertools
import json
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.changes import Views
from controller.edges.cluster.events import EventNotifier
from controller.edges.cluster.pod_watch import PodWatch
from controller.edges.cluster.resources import EVENTS, ROLLOUTS, Resource
from controller.edges.cluster.slice_watch import SliceWatch
from controller.edges.cluster.store import ClusterStore
from controller.edges.cluster.watch import Watched
from controller.edges.memory import MemoryNotifier, MemoryRegistry, MemorySource, MemoryTraffic, MemoryWorkloads
from controller.edges.notifier import Fanout
from controller.errors import EdgeError, NotFound
from controller.loop import Loop
from controller.operator.operator import Making, Operator
from controller.ports import ResolvedVersion, TickEntry, Workloads
from controller.settings import OperatorSettings
from controller.spec import ModelRollout
from controller.status import PersonRequest, Progress, RolloutStatus
from router.assignment import assign
from tests.kubernetes.control_plane import ControlPlane

LEASE_S = 3.0
SPEC: Node = {
    "model": {"name": "flights"},
    "unit": {"header": "x-unit"},
    "steps": [{"weight": 5, "hold": "100ms"}, {"weight": 50, "hold": "300ms"}],
    "metrics": [{"name": "errors", "kind": "ErrorRate", "margin": "20pp", "baseline": {"mean": 0.001}}],
    "decision": {"tick": "100ms", "grace": "0s", "minUnits": 5},
}
NAMESPACES = Resource("v1", "namespaces", "Namespace", namespaced=False)
STAY = [{"weight": 5, "hold": "100ms"}, {"weight": 50, "hold": "1h"}]  # steps that never end by themselves

UNREADABLE = (  # as requests: what no number, no text and no depth of ours can be
    '{"verb":"pause","order":1e999}',
    '{"verb":"pause","order":"1"}',
    '{"verb":"pause","at":1e999}',
    '{"verb":"pause","at":99999999999999999999999999}',
    '{"verb":"pause","at":-1}',
    '{"verb":"pause","why":"\\ud800"}',
    '{"verb":"pause","who":"\\udfff"}',
    '{"verb":"pause","\\ud800":1}',
    '{"verb":"pause","x":' + "[" * 1900,
    '{"verb":"pause","x":' + "[" * 900 + "]" * 900 + "}",
)


def until(holds: Callable[[], Any], what: str, within: float = 30.0) -> Any:
    """The first true answer of ``holds``; an edge that fails is asked again."""
    end = time.monotonic() + within
    while True:
        try:
            found = holds()
        except EdgeError as error:
            found, what = None, f"{what} ({error})"
        if found:
            return found
        assert time.monotonic() < end, f"not within {within:g} s: {what}"
        time.sleep(0.02)


@contextlib.contextmanager
def running(watch: Watched | SliceWatch | PodWatch) -> Iterator[None]:
    """A watch on a thread of its own. It is not waited for: it ends at its next event."""
    end = threading.Event()
    thread = threading.Thread(target=watch.run, args=(end,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        end.set()


def gone(access: Access, resource: Resource, namespace: str | None, name: str) -> bool:
    """Whether there is no such object any more."""
    try:
        access.get(resource, namespace, name)
    except NotFound:
        return True
    return False


class Line(Access):
    """A way to the API server that may be cut, or let no new watch through."""

    cut: threading.Event
    deaf: threading.Event

    def _send(self, method: str, path: str, query: dict[str, str], *rest: Any) -> Any:
        if self.cut.is_set() or (self.deaf.is_set() and "watch" in query):
            raise EdgeError(f"{method} {path}: cut off")
        return super()._send(method, path, query, *rest)


class AwayRegistry(MemoryRegistry):
    """A registry that may be away; ``asked``: how often what is named was looked up."""

    away = False
    asked = 0
    defect: Exception | None = None  # what no registry should raise
    refuses = False  # to move an alias, though it answers

    def resolve(self, model: str, reference: str) -> ResolvedVersion | None:
        self.asked += 1
        if self.defect is not None:
            raise self.defect
        if self.away:
            raise EdgeError("the registry is away")
        return super().resolve(model, reference)

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        if self.defect is not None:
            raise self.defect
        return super().log(rollout, entry)

    def set_alias(self, model: str, alias: str, version: str) -> None:
        self._writable()
        super().set_alias(model, alias, version)

    def delete_alias(self, model: str, alias: str, version: str) -> None:
        self._writable()
        super().delete_alias(model, alias, version)

    def _writable(self) -> None:
        if self.refuses:
            raise EdgeError("403: PERMISSION_DENIED")

    def all_aliases(self) -> dict[str, dict[str, str]]:
        if self.away:
            raise EdgeError("the registry is away")
        names = {move.model for move in self.moves}
        return {n: {a: v for a in ("champion", "challenger") if (v := self.alias(n, a)) is not None} for n in names}


class Scene(NamedTuple):
    """What one rollout acts on."""

    source: MemorySource
    traffic: MemoryTraffic
    workloads: MemoryWorkloads
    lines: Iterator[int]

    def live(self, requests: int = 60, errors: float = 0.0) -> None:
        """Let ``requests`` users come now; the challenger fails a share ``errors`` of its own."""
        table, now = self.traffic.routers[0].workers[0].table, time.time_ns() // 1000
        for number in range(requests if table is not None else 0):
            assert table is not None
            unit = f"{now}-{number}"
            place = assign(table.salt, unit, table.weight_bp, table.control_from_bp, table.counted_bp)
            usable = place.arm == "champion" or number % 100 >= errors * 100
            self.source.ingest(
                "router",
                {
                    "type": "exposure", "t": now + number, "seq": next(self.lines), "request_id": unit, "unit": unit,
                    "attempt": table.attempt, "epoch": table.epoch, "generation": table.generation, "arm": place.arm,
                    "evidence": place.evidence, "assigned_by": "hash", "mirrored": False, "attributes": {},
                    "served_by": place.arm if usable else "champion", "usable": usable, "status": 200,
                    "answer_status": 200, "version": "", "latency_us": 1000, "answer": None,
                    "fallback_reason": None if usable else "Status",
                },
            )  # fmt: skip
        self.source.ingest("router", {"type": "mark", "t": now + requests, "started": 1, "seq": next(self.lines)})


class Theatre:
    """One namespace, and the operators in it."""

    def __init__(self, access: Access, kubeconfig: Path, namespace: str, folder: Path) -> None:
        self.access, self.kubeconfig, self.namespace, self._folder = access, kubeconfig, namespace, folder
        self.operating = kubeconfig  # who the operators are
        self.registry = AwayRegistry()
        self.notifier = MemoryNotifier()
        self.scenes: dict[str, Scene] = {}
        self.operators: list[Operator] = []
        self.lines: dict[Operator, threading.Event] = {}
        self.deaf = threading.Event()  # no operator can begin a watch
        self.workloads: Callable[[Access, ClusterStore, str, Views], Workloads] | None = None  # others than in memory
        self._numbers = itertools.count(1)
        self.model("flights")

    def model(self, name: str, challenger: str = "2") -> None:
        """A registered model with three versions, the first of which serves."""
        self.registry.register(name, ("1", "2", "3"))
        self.registry.move(name, "champion", "1", "owner")
        self.registry.move(name, "challenger", challenger, "owner")

    def scene(self, name: str) -> Scene:
        return self._scene(self.key(name))

    def _scene(self, key: str) -> Scene:
        return self.scenes.setdefault(
            key, Scene(MemorySource(), MemoryTraffic(), MemoryWorkloads(), itertools.count(1))
        )

    def operator(self, *, lease: str = "one", namespaced: bool = True, start: bool = True, **more: Any) -> Operator:
        """A replica. Those with the same ``lease`` take turns."""
        number = next(self._numbers)
        settings = OperatorSettings.model_validate(
            {
                "state_dir": self._folder / f"replica-{number}",
                "namespace": self.namespace if namespaced else None,
                "lease_name": lease,
                "lease_namespace": self.namespace,
                "lease_s": LEASE_S,
                "call_s": LEASE_S / 2,
                "ticks": 2,
                "alias_s": 0.2,
                "drain_s": 5,
                **more,
            }
        )
        access = Line(self.operating, deadline_s=settings.call_s)
        access.cut, access.deaf = threading.Event(), self.deaf
        made = Operator(access, settings, f"replica-{number}", self.making(settings))
        self.operators.append(made)
        self.lines[made] = access.cut
        if start:
            made.start()
        return made

    def operator_for_all(self, **more: Any) -> Operator:
        """A replica for all namespaces, and a model that no other test has: their rollouts may still be there."""
        self.model(self.namespace)
        return self.operator(namespaced=False, lease=self.namespace, lease_namespace="default", **more)

    def making(self, settings: OperatorSettings) -> Making:
        """How the loops of an operator are made."""
        return Making(self._making, lambda _: None, self.registry.all_aliases)

    def _making(self, access: Access, store: ClusterStore, views: Views) -> Callable[[str], Loop]:
        def make(key: str) -> Loop:
            namespace, _, name = key.partition("/")
            events = EventNotifier(access, namespace, name, store.load(key).status.uid, "tests")
            scene = self._scene(key)
            notifier = Fanout({"memory": self.notifier, "events": events})
            workloads = self.workloads(access, store, key, views) if self.workloads is not None else scene.workloads
            return Loop(store, scene.source, scene.traffic, workloads, self.registry, notifier)

        return make

    def apply(self, name: str = "late", labels: dict[str, str] | None = None, **spec: Any) -> Node:
        """`kubectl apply` of a rollout, by another field manager than ours."""
        body = {
            "metadata": {"namespace": self.namespace, "name": name, "labels": labels or {}},
            "spec": {**SPEC, **spec},
        }
        return Access(self.kubeconfig, manager="people").apply(ROLLOUTS, body)

    def object(self, name: str = "late") -> Node:
        return self.access.get(ROLLOUTS, self.namespace, name)

    def gone(self, name: str = "late") -> bool:
        return gone(self.access, ROLLOUTS, self.namespace, name)

    def status(self, name: str = "late") -> RolloutStatus:
        """As it is stored now; empty before the first tick."""
        found = self.object(name)
        held = found["status"]
        return RolloutStatus.stored(held) if held["uid"] else RolloutStatus(uid=found["metadata"]["uid"])

    def reaches(
        self, progress: Progress, name: str = "late", *, within: float = 30.0, step: int | None = None, **live: Any
    ) -> RolloutStatus:
        """Wait until the rollout stands there, with the traffic that ``live`` describes; its status."""
        end = time.monotonic() + within
        while True:
            self.scene(name).live(**live)
            status = self.status(name)
            if status.progress is progress and step in (None, status.step):
                return status
            where = f"{status.progress} in step {status.step}, {status.reason}: {status.message}"
            assert time.monotonic() < end, f"{name} is not {progress} within {within:g} s but {where}"
            time.sleep(0.02)

    def store(self) -> ClusterStore:
        """As the command line uses it."""
        return ClusterStore(self.access, Watched(self.access, self.namespace), self._folder / "cli")

    def ask(self, verb: str, name: str = "late") -> None:
        """What a person asks for by an annotation."""
        asked = {"id": f"{verb}-{next(self._numbers)}", "verb": verb, "who": "ada", "why": "to see", "at": 1}
        self.store().submit(self.key(name), PersonRequest.model_validate(asked))

    def rests(self, operator: Operator, name: str = "late", seconds: float = 1.0) -> str:
        """Wait until passes over the ended rollout have written nothing for so long; its resource version."""
        version, since = "", time.monotonic()
        while time.monotonic() - since < seconds:
            operator.queue.add(self.key(name))
            found = self.object(name)["metadata"]["resourceVersion"]
            if found != version:
                version, since = found, time.monotonic()
            time.sleep(0.05)
        return version

    def key(self, name: str = "late") -> str:
        return f"{self.namespace}/{name}"

    def weight(self, name: str = "late") -> int:
        """Basis points that the routers really send to the challenger."""
        return max(self.scene(name).traffic.weights())

    def events(self, name: str = "late") -> list[Node]:
        found = self.access.list(EVENTS, self.namespace).items
        return [e for e in found if e["regarding"]["name"] == name]

    def close(self) -> None:
        """End the operators, and leave nothing behind for those of other tests."""
        for operator in self.operators:
            self.lines[operator].clear()
            operator.stop()
        for key in list(self.store().keys()):
            meta = {"namespace": self.namespace, "name": key.partition("/")[2]}
            self.access.patch(ROLLOUTS, {"metadata": {**meta, "finalizers": []}})
            with contextlib.suppress(NotFound):
                self.access.delete(ROLLOUTS, self.namespace, meta["name"])


def deep(theatre: Theatre, plane: ControlPlane, levels: int, name: str) -> None:
    """Make a rollout whose template is nested so deeply; the server takes up to ten thousand levels."""
    spec = {**SPEC, "model": {"name": f"{name}-deep"}, "servers": {"template": "HERE"}}
    body = {"apiVersion": ROLLOUTS.api, "kind": ROLLOUTS.kind, "metadata": {"name": name}, "spec": spec}
    text = json.dumps(body).replace('"HERE"', '{"a":' * levels + "1" + "}" * levels)
    command = [*plane.command, "-n", theatre.namespace, "create", "-f", "-"]
    done = subprocess.run(command, input=text, text=True, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
