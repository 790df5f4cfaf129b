"""`understudy operator`, from its start to its end."""

import gc
import logging
import signal
import socket
import uuid

from controller import wiring
from controller.edges.cluster.access import Access
from controller.edges.registry import MlflowRegistry
from controller.errors import EdgeError, SpecError
from controller.operator.operator import Making, Operator, serve
from controller.settings import OperatorSettings

log = logging.getLogger("understudy.operator")
YOUNG_AGAIN = 100  # of so many looks at younger objects one is at all; Python's own number is ten


def main(settings: OperatorSettings) -> int:
    """Run until SIGTERM or SIGINT; the exit code."""
    try:
        operator, registry = build(settings)
        server = serve(operator, settings.health_host, settings.health_port)
    except (SpecError, EdgeError) as error:
        log.error("%s", error)
        return 2 if isinstance(error, SpecError) else 1
    log.info("health and metrics on http://%s:%d", settings.health_host, server.server_port)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: operator.end.set())
    operator.start()
    while not (operator.watched.synced.wait(1.0) or operator.end.is_set()):
        pass
    _spare_what_stays()
    operator.end.wait()
    if not operator.stop():
        log.warning("passes under way did not end within %g s", settings.drain_s)
    server.shutdown()
    registry.close(settings.drain_s)
    return 0


def _spare_what_stays() -> None:
    """What is known of thousands of rollouts lasts as long as they do. Whenever the collector looks at all of it, for a
    cycle that nobody needs any more, it holds the interpreter for half a second and longer, and finds none."""
    gc.collect()
    gc.freeze()
    young, older, _ = gc.get_threshold()
    gc.set_threshold(young, older, YOUNG_AGAIN)


def build(settings: OperatorSettings) -> tuple[Operator, MlflowRegistry]:
    """The operator, and the registry that all its loops share. SpecError where no cluster or MLflow is named."""
    tracking_uri = settings.tracking_uri
    if tracking_uri is None:
        raise SpecError("--tracking-uri: the address of MLflow is needed (UNDERSTUDY_TRACKING_URI)")
    access = Access(settings.kubeconfig, settings.context, deadline_s=settings.call_s, connections=settings.ticks + 6)
    registry = MlflowRegistry(tracking_uri, shared=True)
    identity = f"{socket.gethostname()}_{uuid.uuid4().hex[:8]}"
    making = Making(
        lambda guarded, store, views: wiring.build_cluster(settings, guarded, store, views, registry, identity),
        wiring.close_cluster,
        registry.aliases,
    )
    return Operator(access, settings, identity, making), registry
