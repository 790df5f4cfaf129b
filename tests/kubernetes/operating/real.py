"""A theatre whose loops are the operator's own, with routers as real processes and clients who ask them."""

import itertools
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import httpx

from controller import wiring
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import SERVICES, SLICES
from controller.operator.operator import Making
from controller.settings import OperatorSettings
from controller.spec import ModelRollout
from controller.status import RolloutStatus
from tests.kubernetes.operating.machines import own_address
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.theatre import SPEC, AwayRegistry, Theatre, until
from tests.meanwhile import Meanwhile
from tests.router.models import Model

PORT = 8080
SERVED = {"champion": "model-a", "challenger": "model-b"}  # Services
BODY = b'{"inputs": [[1.0]]}'


class ShownRegistry(AwayRegistry):
    """A registry to which nothing has to be shown again."""

    def catch_up(self, rollout: ModelRollout, status: RolloutStatus, records: object) -> None:
        """There is no run here."""

    def guarded(self, guard: Callable[[], None]) -> Self:
        """Replicas that move aliases out of turn need one of MLflow."""
        return self


class RealTheatre(Theatre):
    """Loops as the operator has them: only the registry is in memory."""

    def __init__(self, access: Access, kubeconfig: Path, namespace: str, folder: Path) -> None:
        super().__init__(access, kubeconfig, namespace, folder)
        self.registry = ShownRegistry()
        self.model("flights")

    def making(self, settings: OperatorSettings) -> Making:
        settings = settings.model_copy(update={"router_image": "router:none"})
        return Making(
            lambda access, store, views: wiring.build_cluster(settings, access, store, views, self.registry, "tests"),  # type: ignore[arg-type]
            wiring.close_cluster,
            self.registry.all_aliases,
        )

    def until(self, what: str, holds: Callable[[RolloutStatus], bool], within: float = 60.0) -> RolloutStatus:
        """The status once ``holds``."""
        return self.until_of("late", what, holds, within)

    def until_of(
        self, name: str, what: str, holds: Callable[[RolloutStatus], bool], within: float = 60.0
    ) -> RolloutStatus:
        """As ``until``, of the rollout ``name``."""

        def look() -> RolloutStatus | None:
            status = self.status(name)
            return status if holds(status) else None

        try:
            found = until(look, what, within)
        except AssertionError as error:
            status = self.status(name)
            raise AssertionError(f"{error}: {status.progress} {status.reason} {status.message} {status}") from error
        assert isinstance(found, RolloutStatus)
        return found


class Clients(Meanwhile):
    """Users who ask every router in turn, with hardly a pause; ``answered`` by router, ``failed`` as they saw it."""

    def __init__(self, node: KubeNode, pause_s: float = 0.005) -> None:
        self._node, self._pause_s = node, pause_s
        self.answered: dict[str, int] = {}
        self.failed: list[str] = []
        super().__init__(self._ask)

    def _ask(self) -> None:
        numbers = itertools.count()
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            while not self._end.wait(self._pause_s):
                for name, container in list(self._node.containers.items()):
                    headers = {"x-unit": f"u{next(numbers)}", "content-type": "application/json"}
                    try:
                        answer = client.post(f"{container.traffic}/invocations", content=BODY, headers=headers)
                    except httpx.TransportError as error:
                        self.failed.append(f"{name}: {error}")
                        continue
                    if answer.status_code == 200:
                        self.answered[name] = self.answered.get(name, 0) + 1
                    else:
                        self.failed.append(f"{name}: {answer.status_code}")


@contextmanager
def serving(access: Access, namespace: str) -> Iterator[tuple[Model, Model]]:
    """A model server behind the Service of each arm, until the end of the block."""
    host = own_address()
    with Model("champion", host=host) as champion, Model("challenger", host=host) as challenger:
        for model in (champion, challenger):
            name = SERVED[model.arm]
            meta: Node = {"namespace": namespace, "name": name}
            access.create(SERVICES, {"metadata": meta, "spec": {"ports": [{"name": "http", "port": PORT}]}})
            meta = {"namespace": namespace, "name": f"{name}-1", "labels": {"kubernetes.io/service-name": name}}
            ready = {"addresses": [host], "conditions": {"ready": True}}
            ports = [{"name": "http", "port": model.port}]
            access.create(SLICES, {"metadata": meta, "addressType": "IPv4", "endpoints": [ready], "ports": ports})
        yield champion, challenger


def declared(**decision: object) -> Node:
    """A spec whose servers are those of ``serving``."""
    return {
        "servers": {arm: {"service": name, "port": PORT} for arm, name in SERVED.items()},
        "decision": {**SPEC["decision"], "tick": "300ms", **decision},
    }
