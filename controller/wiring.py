"""The one module that knows every edge: ``build`` puts the loop of one machine together.

Another place to run in needs another function beside ``build``, and other edges; nothing below knows the difference.
"""

import os

from controller import specfile
from controller.edges.engine.source import JournalSource
from controller.edges.gauges import Prometheus, SampledSource
from controller.edges.gauges.journal import SampleJournal
from controller.edges.notifier import Fanout, LogNotifier, SlackNotifier
from controller.edges.registry import MlflowRegistry
from controller.edges.routes import RouterTraffic
from controller.edges.servers import LocalServers
from controller.edges.store import SqliteStore
from controller.errors import SpecError
from controller.loop import Loop
from controller.ports import Notifier
from controller.settings import Settings, environment_name, slack_address


def build(settings: Settings) -> Loop:
    """The loop of one machine: all memory in ``settings.state_dir``, one router, MLflow over HTTP.

    SpecError for a missing address or secret; EdgeError where a file of the state folder cannot be used.
    """
    if settings.tracking_uri is None or settings.control_url is None:
        missing = "tracking_uri" if settings.tracking_uri is None else "control_url"
        raise SpecError(f"--{missing.replace('_', '-')}: an address is needed ({environment_name(missing)})")
    store = SqliteStore(settings.rollouts_file)
    registry = MlflowRegistry(settings.tracking_uri)
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
        traffic=RouterTraffic([settings.control_url], token, settings.certificates),
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
