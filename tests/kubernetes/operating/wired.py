"""A theatre whose loops the operator's own wiring makes; what they split, ask and look at is in memory."""

from collections.abc import Callable

from controller.edges.cluster.accepted import AcceptedStore
from controller.edges.cluster.access import Access
from controller.edges.cluster.changes import Views
from controller.edges.notifier import Fanout
from controller.loop import Loop
from controller.operator.operator import Making
from controller.settings import OperatorSettings
from tests.kubernetes.operating.real import RealTheatre

SERVED = {"champion": {"service": "a"}, "challenger": {"service": "b"}}


class WiredTheatre(RealTheatre):
    """Specs are refused, and people are told, as on a real cluster."""

    def making(self, settings: OperatorSettings) -> Making:
        real = super().making(settings)

        def make(access: Access, store: AcceptedStore, views: Views) -> Callable[[str], Loop]:
            made = real.make(access, store, views)

            def of(key: str) -> Loop:
                scene = self._scene(key)
                return made(key)._replace(source=scene.source, traffic=scene.traffic, workloads=scene.workloads)

            return of

        def close(loop: Loop) -> None:
            assert isinstance(loop.notifier, Fanout)
            loop.notifier.close()

        return real._replace(make=make, close=close)
