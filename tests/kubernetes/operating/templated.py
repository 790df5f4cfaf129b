"""Rollouts that run their model servers from a pod template."""

import time
from collections.abc import Callable
from typing import Any

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.changes import BLIND, Views
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.resources import DEPLOYMENTS
from controller.edges.cluster.store import ClusterStore
from controller.edges.cluster.workloads import ClusterWorkloads
from controller.operator.operator import Operator
from controller.ports import Stored
from controller.status import Progress
from tests.kubernetes.operating.theatre import STAY, Theatre

LINGER_S = 0.5


Found = Callable[[str], Node]


class Clock:
    """Seconds since 1970; it runs, unless it is ``held``."""

    held: float | None = None

    def __call__(self) -> float:
        return time.time() if self.held is None else self.held


def workloads(
    access: Access,
    read: Callable[[], Stored],
    key: str,
    clock: Callable[[], float],
    feed: Callable[[], None],
    views: Views = BLIND,
) -> ClusterWorkloads:
    namespace, _, name = key.partition("/")
    return ClusterWorkloads(access, Owner(namespace, name, read().status.uid), read, LINGER_S, clock, feed, views)


def of_store(clock: Callable[[], float]) -> Callable[[Access, ClusterStore, str, Views], ClusterWorkloads]:
    """What makes those of a rollout in a store."""
    return lambda access, store, key, views: workloads(
        access, lambda: store.load(key), key, clock, lambda: store.wake(key), views
    )


def replicas(found: Node) -> int:
    return int(found["spec"]["replicas"])


def scale(theatre: Theatre, version: str, size: int) -> None:
    """As an autoscaler does."""
    meta = {"namespace": theatre.namespace, "name": f"late-v{version}"}
    Access(theatre.kubeconfig, manager="autoscaler").patch(DEPLOYMENTS, {"metadata": meta, "spec": {"replicas": size}})


def at_work(theatre: Theatre, template: Node, step: int | None = None, **settings: Any) -> Operator:
    """The operator of a rollout that runs, in ``step``, from which it does not go on by itself."""
    operator = theatre.operator(**settings)
    theatre.apply(steps=STAY, servers={"template": template})
    theatre.reaches(Progress.RUNNING, step=step)
    return operator
