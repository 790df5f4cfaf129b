"""The one module that knows every edge: ``build`` puts the loop of one machine together, ``build_cluster`` the loops
of the rollouts of a cluster. Nothing below knows the difference.
"""

import os
import re
import time
import uuid
from collections.abc import Callable
from functools import partial

from controller import specfile
from controller.core import places
from controller.edges.cluster import deployments
from controller.edges.cluster.accepted import AcceptedStore
from controller.edges.cluster.access import Access
from controller.edges.cluster.adopted import NO_ADDRESS
from controller.edges.cluster.changes import Views
from controller.edges.cluster.events import EventNotifier
from controller.edges.cluster.gateway import GatewayTraffic
from controller.edges.cluster.journals import ClusterJournals
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.router_set import NAME_LENGTH, RouterSet
from controller.edges.cluster.routers import ClusterTraffic
from controller.edges.cluster.slack import SecretSlack
from controller.edges.cluster.tokens import Tokens
from controller.edges.cluster.workloads import ClusterWorkloads
from controller.edges.engine.late import LateSource
from controller.edges.engine.schema import SharedStates
from controller.edges.engine.shelf import Shelf
from controller.edges.engine.source import JournalSource
from controller.edges.gauges import Prometheus, SampledSource
from controller.edges.gauges.journal import SampleJournal
from controller.edges.gauges.requests import ARMS, Asked, RequestSource
from controller.edges.notifier import Fanout, LogNotifier, SlackNotifier
from controller.edges.registry import MlflowRegistry
from controller.edges.routes import RouterTraffic
from controller.edges.servers import LocalServers
from controller.edges.store import SqliteStore
from controller.errors import EdgeError, NotFound, SpecError
from controller.kinds import Kind
from controller.loop import Loop
from controller.ports import Notifier, Stored
from controller.settings import OperatorSettings, Settings, environment_name, slack_address
from controller.spec import RolloutSpec, Servers
from controller.status import RolloutStatus

SHOWN_AGAIN = 3_600_000_000  # µs after its end


def build(settings: Settings) -> Loop:
    """The loop of one machine: all memory in ``settings.state_dir``, one router, MLflow over HTTP.

    SpecError for a missing address or secret; EdgeError where a file of the state folder cannot be used.
    """
    tracking_uri = _given("tracking_uri", settings.tracking_uri)
    control_url = _given("control_url", settings.control_url)
    store = SqliteStore(settings.rollouts_file)
    registry = MlflowRegistry(tracking_uri)
    notifiers: dict[str, Notifier] = {"log": LogNotifier()}
    keys = store.keys()
    for key in keys:
        stored = store.load(key)
        if settings.prometheus_url is None and specfile.of_prometheus(stored.rollout.spec):
            raise SpecError(*specfile.of_prometheus(stored.rollout.spec))
        slack = slack_address(stored.rollout.spec.notify, os.environ)
        if slack is not None:
            notifiers["Slack"] = SlackNotifier(slack)
        if stored.status.attempt is not None:
            registry.catch_up(stored.rollout, stored.status, store.records(key))
    token = settings.token.get_secret_value() if settings.token else None
    servers = LocalServers(settings.servers_file)
    prometheus = Prometheus(settings.prometheus_url) if settings.prometheus_url else None
    journals = JournalSource(settings.journal_dir, settings.engine_file)
    return Loop(
        store=store,
        source=SampledSource(journals, SampleJournal(settings.journal_dir), servers, prometheus),
        traffic=RouterTraffic([control_url], token, settings.certificates),
        workloads=servers,
        registry=registry,
        notifier=Fanout(notifiers),
    )


def close(loop: Loop, timeout_s: float) -> None:
    """Let go of files, and show MLflow what it has not been shown, for as long as that may take."""
    assert isinstance(loop.registry, MlflowRegistry)
    loop.registry.close(timeout_s)
    for edge in (loop.source, loop.traffic, loop.workloads, loop.store):
        assert isinstance(edge, SampledSource | RouterTraffic | LocalServers | SqliteStore)
        edge.close()


def build_cluster(
    settings: OperatorSettings,
    access: Access,
    store: AcceptedStore,
    views: Views,
    registry: MlflowRegistry,
    identity: str,
) -> Callable[[str], Loop]:
    """What makes the loop of one rollout of a cluster; its memory is in a folder of ``settings.state_dir``.

    SpecError for a missing image. What is wrong with a rollout ``store`` says from now on when it loads it.
    ``identity``: this process.
    """
    image = _given("router_image", settings.router_image)
    reader = _reader(settings)
    tokens = Tokens(access, settings.home(access.namespace), settings.key_name)
    registry = registry.guarded(access.check)  # aliases too are moved by the leader only
    shared, shelf, unshown = SharedStates(settings.state_dir / "spill"), Shelf(), _Unshown()
    store.faults = partial(_faults, settings)

    def over(key: str) -> bool:
        try:
            return store.load(key).status.progress.terminal
        except NotFound:
            return True
        except (SpecError, EdgeError):
            return False

    def split(owner: Owner, spec: RolloutSpec) -> tuple[ClusterTraffic | GatewayTraffic, LateSource]:
        key, folder = f"{owner.namespace}/{owner.name}", settings.statistics_dir / owner.uid
        gateway = spec.traffic.gateway_api
        if gateway is None:
            routers = RouterSet(owner.name, image, settings.router_replicas, settings.router_volume)
            traffic = ClusterTraffic(access, owner, routers, tokens, changes=views.routers)
            journals = partial(ClusterJournals, traffic, folder, reader, lambda: over(key), shared, shelf)
            return traffic, LateSource(journals)
        read, url = partial(store.load, key), settings.prometheus_url or ""
        route, asked = GatewayTraffic(access, owner, gateway.http_route, read), partial(_asked, owner, read)
        return route, LateSource(lambda: RequestSource(folder / "requests.sqlite", Prometheus(url), asked, route))

    def make(key: str) -> Loop:
        stored = store.load(key)
        namespace, _, name = key.partition("/")
        spec = stored.rollout.spec
        owner = Owner(namespace, name, stored.status.uid)
        traffic, source = split(owner, spec)
        events = EventNotifier(access, namespace, name, stored.status.uid, identity)

        def unsent(text: str) -> None:
            events.tell(f"{owner.uid}/{text}", True, "SlackUnavailable", text)

        def read() -> Stored:
            return store.load(key).pinned()

        wake = partial(store.wake, key)
        slack = SecretSlack(access, namespace, lambda: store.load(key).rollout.spec.notify, unsent)
        notifiers: dict[str, Notifier] = {"log": LogNotifier(), "Kubernetes": events, "Slack": slack}
        if unshown.found(stored.status):
            registry.catch_up(stored.pinned().rollout, stored.status, store.records(key))
        return Loop(
            store=store,
            source=source,
            traffic=traffic,
            workloads=ClusterWorkloads(access, owner, read, settings.linger_s, feed=wake, views=views),
            registry=registry,
            notifier=Fanout(notifiers),
        )

    return make


class _Unshown:
    """Attempts of which a leader that was killed may have left MLflow without what it decided."""

    def __init__(self) -> None:
        self._found: set[tuple[str, int]] = set()

    def found(self, status: RolloutStatus) -> bool:
        """Whether that of ``status`` is under way, or ended lately: of thousands that ended before nothing is shown
        again at each start. Once of each, as the loop of one that is over is made anew at each look."""
        attempt, lately = status.attempt, time.time_ns() // 1000 - status.decided_at < SHOWN_AGAIN
        if attempt is None or (status.progress.terminal and not lately) or (status.uid, attempt.number) in self._found:
            return False
        self._found.add((status.uid, attempt.number))
        return True


def close_cluster(loop: Loop) -> None:
    """Let go of the files and connections of one rollout."""
    for edge in (loop.source, loop.traffic, loop.workloads, loop.notifier):
        assert isinstance(edge, LateSource | ClusterTraffic | GatewayTraffic | ClusterWorkloads | Fanout)
        edge.close()


def _given(name: str, value: str | None) -> str:
    """The setting ``name``, which is needed here."""
    if value is None:
        raise SpecError(f"--{name.replace('_', '-')} is needed ({environment_name(name)})")
    return value


def _reader(settings: OperatorSettings) -> str:
    """The name under which routers know this replica: as old as its state, for it stands for what is in there.

    EdgeError where it cannot be kept.
    """
    path = settings.reader_file
    try:
        settings.state_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            new = path.with_suffix(".new")
            new.write_text(f"controller-{uuid.uuid4().hex}")
            new.replace(path)
        return path.read_text().strip()
    except OSError as error:
        raise EdgeError(f"{path}: {error.strerror}") from error


def _faults(settings: OperatorSettings, name: str, spec: RolloutSpec) -> list[str]:
    """A line for each thing in ``spec`` that cannot be done on a cluster, or not with these ``settings``."""
    said = [*_misnamed(name), *_unmeasured(spec), *_unserved(spec.servers or Servers()), *_turning(name, spec)]
    if settings.prometheus_url is None and spec.traffic.gateway_api is not None:
        said += specfile.of_prometheus(spec)
    return said


def _misnamed(name: str) -> list[str]:
    """A line where a rollout's name cannot be that of its objects."""
    if len(name) <= NAME_LENGTH and re.fullmatch(r"[a-z]([-a-z0-9]*[a-z0-9])?", name):
        return []
    return [f"metadata.name: {name} names Services too: a letter, then letters, digits and -, at most {NAME_LENGTH}"]


def _unmeasured(spec: RolloutSpec) -> list[str]:
    """A line for each metric that a cluster does not give yet."""
    return [
        f"spec.metrics[{i}].kind ({metric.name}): a Resource is not measured on a cluster yet; leave it out"
        for i, metric in enumerate(spec.metrics)
        if metric.kind is Kind.RESOURCE
    ]


def _asked(owner: Owner, read: Callable[[], Stored]) -> Asked:
    """How the requests of each arm are asked for, by the Services that the attempt began with."""
    stored = read()
    spec = stored.rollout.spec
    gateway, found = spec.traffic.gateway_api, places.of(spec, stored.status.attempt)
    assert gateway is not None
    named = {
        arm: place.service if place else "" for arm, place in zip(ARMS, (found.champion, found.challenger), strict=True)
    }
    everywhere = {"namespace": owner.namespace, "rollout": owner.name}
    arms = {arm: {**everywhere, "arm": arm, "service": named[arm]} for arm in ARMS}
    return Asked(gateway.requests, gateway.status_label, arms)


def _unserved(servers: Servers) -> list[str]:
    """A line for each arm that nobody serves, or that is served by what is no version."""
    if servers.template is not None:
        return deployments.faults(servers.template)
    said = []
    for arm, server in (("champion", servers.champion), ("challenger", servers.challenger)):
        if server is None:
            said.append(f"spec.servers.{arm}: a server is needed: a service, or a template for both")
        elif server.url is not None:
            said.append(f"spec.servers.{arm}.url: {NO_ADDRESS}")
        elif server.external:
            said.append(f"spec.servers.{arm}.external: is not supported on a cluster yet")
    return said


def _turning(name: str, spec: RolloutSpec) -> list[str]:
    """A line for each arm whose server is the routers themselves: they would send requests to one another for ever."""
    if spec.traffic.gateway_api is not None:  # then there are none
        return []
    servers = spec.servers or Servers()
    return [
        f"spec.servers.{arm}.service: {server.service} is the Service of this rollout's own routers; name the Service"
        " of the model servers"
        for arm, server in (("champion", servers.champion), ("challenger", servers.challenger))
        if server is not None and server.service in (name, f"{name}-router")
    ]
