"""The process on a cluster: watches that fill the queue, threads that empty it, and the lease that says who may."""

import logging
import threading
import time
from collections.abc import Callable, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import NamedTuple

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

from controller.edges.cluster.accepted import AcceptedStore
from controller.edges.cluster.access import Access
from controller.edges.cluster.changes import Views
from controller.edges.cluster.deployment_watch import DeploymentWatch
from controller.edges.cluster.events import EventNotifier
from controller.edges.cluster.lease import Leader
from controller.edges.cluster.leftovers import Leftovers
from controller.edges.cluster.pod_watch import ROUTERS, SERVERS, PodWatch
from controller.edges.cluster.records import Unrecorded
from controller.edges.cluster.slice_watch import SliceWatch
from controller.edges.cluster.watch import Watched
from controller.errors import Conflict, EdgeError
from controller.loop import Loop, attempt_quietly
from controller.operator.aliases import Known
from controller.operator.claims import Claims
from controller.operator.first_looks import RESTING_S, FirstLooks
from controller.operator.passes import Loops, Passed, Passes
from controller.operator.queue import Queue, Taken
from controller.settings import OperatorSettings
from controller.status import RolloutStatus
from controller.telemetry import Telemetry

log = logging.getLogger("understudy.operator")
FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 10.0
CONFLICT_PAUSE_S = 0.02
LATE_S = 0.5
ASKING_SHARE = 4  # between two queries of all aliases, in times of what the last one took
TOLD_AFTER = 7  # failures of a rollout's passes in a row, some 6 s, for its conditions to say so
LONGEST_TEXT = 500  # characters of what they say
STAYS_S, STAYS_LEASES = 300.0, 10  # at least, in seconds and in leases, until the lease is left to others again
HUNG_S = 300.0  # no pass takes that long: every call in it has a deadline


class Making(NamedTuple):
    """How the loop of a rollout is made, from the store, an access that writes only while we lead, and what is watched;
    and closed.
    ``aliases``: what every alias of every model names now."""

    make: Callable[[Access, AcceptedStore, Views], Callable[[str], Loop]]
    close: Callable[[Loop], None]
    aliases: Callable[[], Mapping[str, Mapping[str, str]]]


class Operator:
    """Runs until ``end`` is set. Replicas that do not lead keep their view of the rollouts warm, and wait."""

    def __init__(self, access: Access, settings: OperatorSettings, identity: str, making: Making) -> None:
        self.end = threading.Event()
        self.telemetry = Telemetry()
        self.leader = Leader(
            access,
            settings.home(access.namespace),
            settings.lease_name,
            identity,
            seconds=settings.lease_s,
            write_s=settings.call_s,
            changed=self._leads,
        )
        self._access, self._guarded = access, access.guarded(self.leader.check)
        self.watched = Watched(access, settings.namespace, self._feed)
        hands = settings.ticks
        self.queue = Queue(waits=self._waits, aside=max(1, hands // 4), slow=max(1, hands // 2))
        self.store = AcceptedStore(self._guarded, self.watched, settings.record_dir)
        claims = Claims(settings.allow_models)
        self.store.forbids = claims.forbids
        routers, servers = (PodWatch(access, settings.namespace, kind, self._hear) for kind in (ROUTERS, SERVERS))
        made = DeploymentWatch(access, settings.namespace)
        views = Views(routers.changes, servers.changes, made.changes)
        self._loops = Loops(making.make(self._guarded, self.store, views), making.close)
        self._passes = Passes(self.store, self.watched, self._loops, claims, self._tell, settings.idle_s)
        self._drain_s = settings.drain_s
        self._failures: dict[str, int] = {}
        self._sequences: dict[str, int] = {}
        self._under_way: dict[str, float] = {}
        self._leading = False
        self._stays_until, self._lease_s = 0.0, settings.lease_s
        self.leftovers = Leftovers(settings.statistics_dir, settings.record_dir, of_all=settings.namespace is None)
        self._led: int | None = None  # transitions of the lease when leading began the last time
        self._first_looks = FirstLooks(self._over)
        self._resting: set[str] = set()
        self._let_go = threading.Event()
        slices = self._slices = SliceWatch(access, settings.namespace, self._hear_of)
        self._threads = [
            threading.Thread(target=self.watched.run, args=(self.end,), name="watch", daemon=True),
            threading.Thread(target=self.leader.run, args=(self._let_go,), name="lease", daemon=True),
            *(
                threading.Thread(target=w.run, args=(self.end,), name=f"pods-{i}", daemon=True)
                for i, w in enumerate((routers, servers))
            ),
            threading.Thread(target=slices.run, args=(self.end,), name="slices", daemon=True),
            threading.Thread(target=made.run, args=(self.end,), name="deployments", daemon=True),
            threading.Thread(target=self._ask, args=(making.aliases, settings.alias_s), name="aliases", daemon=True),
            *(threading.Thread(target=self._work, name=f"tick-{i}", daemon=True) for i in range(settings.ticks)),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> bool:
        """Finish the passes under way, then give the lease back; False where one did not end in time."""
        self.end.set()
        self.queue.close()
        done = self.queue.idle(self._drain_s)
        self._let_go.set()
        self._threads[1].join(self._drain_s)
        if done:
            self._loops.close()
        return done

    def healthy(self) -> str:
        """What is broken in a way that only a new process mends; empty: nothing."""
        dead = [t.name for t in self._threads if not t.is_alive()] if not self.end.is_set() else []
        hung = [k for k, began in list(self._under_way.items()) if time.monotonic() - began > HUNG_S]
        back = ["the API server is older than it was, as after a backup"] if self.leader.went_back else []
        return "; ".join([*back, *(f"thread {name} ended" for name in dead), *(f"{key} hangs" for key in hung)])

    def ready(self) -> str:
        """What is missing before this replica could lead; empty: nothing."""
        return "" if self.watched.synced.is_set() else "the rollouts are not listed yet"

    def metrics(self) -> bytes:
        """All metrics, as Prometheus reads them."""
        calls = dict(self.calls)
        self.telemetry.operates(self.leader.leads(), len(self.queue), self.queue.dropped, self.watched.lists, calls)
        return generate_latest(self.telemetry.registry)

    @property
    def calls(self) -> Mapping[tuple[str, str], int]:
        """Calls to the API server so far, by verb and kind."""
        return self._access.calls

    def _leads(self, leads: bool) -> None:
        """Leading began: everything is looked at. It ended: nothing is."""
        self._first_looks.begin()
        if leads and self._led not in (None, self.leader.transitions):
            self.store.handed_over()
        self._led = self.leader.transitions if leads else self._led
        self._leading = leads
        if not leads:
            self.queue.clear()
            return
        for key in self.watched.known():
            self._feed(key)

    def _feed(self, key: str, due: float | None = None) -> None:
        """Something about ``key`` changed: it is looked at ``due`` (seconds, monotonic), or now."""
        if self._leading and not self.queue.add(key, self._first_looks.due(key) or due):
            log.error("%s: there are more rollouts than there is room for; it is not looked at", key)

    def _over(self, key: str) -> bool:
        entry = self.watched.heard_of(key)
        return entry is not None and entry.ended

    def _waits(self, key: str) -> bool:
        """Whether others come first."""
        return self.watched.waits(key) and not self._first_looks.urgent(key)

    def _hear(self, key: str, new: bool) -> None:
        """A router or a model server of ``key`` changed, or a pod that says to be one."""
        word = self._first_looks.changed(key, new)
        if word.counts and self.watched.heard_of(key) is not None:
            self._feed(key, word.due)

    def _hear_of(self, namespace: str, service: str) -> None:
        """An endpoint of a Service changed, behind which may be the model servers of any number of rollouts. Those
        that are not at work come one after another, or a thousand of them would keep the few that are waiting."""
        due = time.monotonic()
        for key in self.watched.naming(namespace, service):
            entry, word = self.watched.heard_of(key), self._first_looks.changed(key, self._slices.listed)
            if entry is None or not word.counts:
                continue
            if entry.live:
                self._feed(key)
            else:
                self._feed(key, word.due or due)
                due += RESTING_S

    def _tell(self, key: str, uid: str, reason: str, text: str) -> None:
        """A Warning Event on a rollout that is not ticked."""
        namespace, _, name = key.partition("/")
        events = EventNotifier(self._guarded, namespace, name, uid, self.leader.identity)
        attempt_quietly("tell it by an Event", lambda: events.tell(f"{uid}/{text}", True, reason, text))

    def _ask(self, aliases: Callable[[], Mapping[str, Mapping[str, str]]], every_s: float) -> None:
        """Feed the rollouts of models whose aliases moved: those that are over hear of a new challenger by this."""
        before: Mapping[str, Mapping[str, str]] | None = None
        pause = every_s
        while not self.end.wait(pause):
            self._tidy()
            began = time.monotonic()
            try:
                now = aliases() if self._leading else None
                self._passes.known = None if now is None else Known(now, began)
            except EdgeError as error:
                self._passes.known = None
                log.warning("it is not known which aliases moved: %s", error)
                continue
            finally:
                # A registry of thousands of models takes seconds, and has others to answer.
                pause = max(every_s, ASKING_SHARE * (time.monotonic() - began))
            if before is not None and now is not None:
                for model in before.keys() | now.keys():
                    if before.get(model) != now.get(model):
                        for key in self.watched.of_model(model):
                            if self._over(key):  # not who waits for a model that is another's
                                self._first_looks.moved(key)
                            self._feed(key)
            before = now

    def _tidy(self) -> None:
        """Delete what is kept of rollouts that have been gone for long."""
        if not self.watched.synced.is_set() or not self.leftovers.due():
            return
        heard = map(self.watched.heard_of, self.watched.known())
        try:
            if gone := self.leftovers.sweep({entry.uid for entry in heard if entry is not None}):
                log.info("deleted what was kept of rollouts that are gone: %s", ", ".join(gone))
        except OSError as error:
            log.warning("what is kept of rollouts that are gone cannot be deleted: %s", error)

    def _work(self) -> None:
        queue = self.queue
        # Before all are listed it is not known who else releases a model, and each would be read by itself.
        while not self.watched.synced.wait(1.0):
            if self.end.is_set():
                return
        while not self.end.is_set():
            taken = queue.take(1.0)
            if taken is None:
                continue
            pause: float | None = None
            try:
                if self.leader.leads():
                    pause = self._pass(taken)
                elif self._leading:  # the lease is late, and may yet be renewed
                    pause = LATE_S
            finally:
                queue.give_back(taken.key, None if pause is None else time.monotonic() + pause)

    def _pass(self, taken: Taken) -> float | None:
        """One pass; seconds until the next. A fault of ours costs the pass, and leaves its trace in the log."""
        key, telemetry = taken.key, self.telemetry
        self._first_looks.looked(key)
        began = self._under_way[key] = time.monotonic()
        telemetry.lagged(self._over(key), began - taken.due)
        try:
            passed = self._passes.over(key, time.time_ns() // 1000)
        except Conflict as error:
            log.info("%s: read again: %s", key, error)
            return self._again(key, "conflict", began, taken, CONFLICT_PAUSE_S)
        except Exception as error:
            ours = not isinstance(error, EdgeError)
            if isinstance(error, Unrecorded):
                self._leave_it_to_others()
            log.log(logging.ERROR if ours else logging.WARNING, "%s: the tick failed: %s", key, error, exc_info=ours)
            pause = self._again(key, "failed", began, taken, FIRST_PAUSE_S)
            if self._failures[key] >= TOLD_AFTER:
                self._told(key, f"{type(error).__name__}: {error}" if ours else str(error))
            return pause
        finally:
            del self._under_way[key]
        self._failures.pop(key, None)
        now = time.monotonic()
        self._show(key, passed, now - began, began - taken.due)
        if not passed.rests or passed.pause is None:
            self._resting.discard(key)
            return passed.pause
        self._resting.add(key)
        return max(passed.pause, RESTING_S * len(self._resting))

    def _leave_it_to_others(self) -> None:
        """Another replica has a disk of its own. Where there is none, this one leads again soon, and for long: the
        servers have to be followed, whether or not anything can be decided."""
        now = time.monotonic()
        if now >= self._stays_until:
            self._stays_until = now + max(STAYS_S, STAYS_LEASES * self._lease_s)
            log.error("the lease is left to another replica, if there is one: decisions cannot be recorded here")
            self.leader.stand_back()

    def _again(self, key: str, result: str, began: float, taken: Taken, first: float) -> float:
        """Seconds until the next try, which grow with every failure in a row."""
        failures = self._failures[key] = self._failures.get(key, 0) + 1
        self.telemetry.ticked(key, result, time.monotonic() - began, began - taken.due)
        return min(first * 2.0 ** min(failures - 1, 20), LONGEST_PAUSE_S)

    def _told(self, key: str, fault: str) -> None:
        """Whoever looks at a rollout whose passes fail sees that, and why; nobody looks into our log for it."""
        fault = fault.encode(errors="replace").decode()[:LONGEST_TEXT]
        text = f"the tick fails and is tried again: {fault}"

        try:
            if self.store.fails(key, "TickFailed", text, time.time_ns() // 1000):
                self._tell(key, self.watched.get(key).uid, "TickFailed", text)
        except EdgeError as error:
            log.info("%s: could not tell that the tick failed: %s", key, error)
        except Exception:  # whatever broke the pass may break this too, and the thread has others to serve
            log.exception("%s: could not tell that the tick failed", key)

    def _show(self, key: str, passed: Passed, seconds: float, late: float) -> None:
        """Log line and metrics. Of what is over nothing is said any more, or ten thousand of them would be told of."""
        status, telemetry = passed.status, self.telemetry
        over = passed.gone or status is None or status.progress.terminal
        if status is not None and self._sequences.get(key) != status.sequence:
            self._decided(key, status, counts=not over)
        if over or status is None:
            telemetry.forget(key)
            if passed.gone:
                self._sequences.pop(key, None)
                self._first_looks.gone(key)
            return
        telemetry.ticked(key, "ok", seconds, late)
        telemetry.shows(status, passed.metrics)

    def _decided(self, key: str, status: RolloutStatus, counts: bool) -> None:
        self._sequences[key] = status.sequence
        if counts:
            self.telemetry.decided(status)
        metric = f" ({status.metric})" if status.metric else ""
        log.info("%s: %s %s%s: %s", key, status.decision, status.reason, metric, status.message)


def serve(operator: Operator, host: str, port: int) -> ThreadingHTTPServer:
    """/healthz, /readyz and /metrics on a thread. EdgeError where the port is taken."""
    pages: dict[str, Callable[[], tuple[int, bytes, str]]] = {
        "/healthz": lambda: _probe(operator.healthy()),
        "/readyz": lambda: _probe(operator.ready()),
        "/metrics": lambda: (200, operator.metrics(), CONTENT_TYPE_LATEST),
    }

    class Handler(BaseHTTPRequestHandler):
        timeout = 5.0

        def do_GET(self) -> None:
            page = pages.get(self.path.partition("?")[0])
            status, body, kind = page() if page else (404, b"there is /healthz, /readyz and /metrics\n", "text/plain")
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Probes are no news."""

    try:
        server = ThreadingHTTPServer((host, port), Handler)
    except OSError as error:
        raise EdgeError(f"--health-port {port}: {error.strerror}") from error
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()
    return server


def _probe(fault: str) -> tuple[int, bytes, str]:
    return 503 if fault else 200, f"{fault or 'ok'}\n".encode(), "text/plain; charset=utf-8"
