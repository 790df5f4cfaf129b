"""The simulator's rollouts with their status on a real API server: the controller dies at random points, calls fail,
answers are old, and the simulator's own checkers look on.

Time is the simulated one, so a rollout of minutes takes seconds. The controller dies around every call of a port, as
in the simulator, and besides between the writes to the API server that make one commit.
"""

import json
from pathlib import Path

import pytest

from controller.core.record import Record
from controller.edges.cluster.access import Access
from controller.edges.cluster.resources import ROLLOUTS
from controller.edges.cluster.store import ClusterStore
from controller.edges.cluster.watch import Watched
from controller.ports import Stored
from controller.spec import ModelRollout
from controller.status import PersonRequest, RolloutStatus
from tests.kubernetes.operating.theatre import Theatre
from tests.sim import wires
from tests.sim.faults import CrashNow, Fault, Faults
from tests.sim.plan import KEY
from tests.sim.run import FAULTS, Run

DEATHS = 30
OFTEN = 0.01  # how often the controller dies at a call
SEEDS = range(4)


class Served:
    """The store of a simulated world, on the API server; ``faults`` kill the controller before its writes.

    It reads what it has written and what people have declared through it, as it would by its watch.
    """

    faults: Faults | None = None

    def __init__(self, access: Access, namespace: str, folder: Path) -> None:
        self._access, self._namespace, self._key = access, namespace, f"{namespace}/{KEY}"
        self._watched = Watched(access, namespace)
        self._watched.synced.set()
        self._store = ClusterStore(access.guarded(self._dies), self._watched, folder)
        self._loaded: tuple[int, Stored] | None = None

    def put(self, rollout: ModelRollout, uid: str | None = None) -> None:
        tree = json.loads(rollout.model_dump_json(by_alias=True, exclude_unset=True))
        tree["metadata"] |= {"namespace": self._namespace}
        self._watched.put(self._access.apply(ROLLOUTS, tree))

    def load(self, key: str) -> Stored:
        version = self._watched.get(self._key).version
        if self._loaded is None or self._loaded[0] != version:  # the checkers look very often
            self._loaded = version, self._store.load(self._key)
        return self._loaded[1]

    def commit(self, key: str, status: RolloutStatus, version: str, record: Record | None) -> str:
        return self._store.commit(self._key, status, version, record)

    def submit(self, key: str, request: PersonRequest) -> None:
        faults, self.faults = self.faults, None  # people do not die of it
        self._store.submit(self._key, request)
        self.faults = faults

    def records(self, key: str) -> list[Record]:
        return self._store.records(self._key)

    def _dies(self) -> None:
        if self.faults is not None and self.faults.fires(Fault.CRASH, 2 * OFTEN):
            self._watched.refresh(self._key)  # the next one reads what is there
            raise CrashNow


def test_a_controller_that_dies_at_random_points_goes_on_from_what_was_committed(
    theatre: Theatre, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(wires, "CRASHES", OFTEN)
    deaths, ends = 0, set[str]()
    for seed in SEEDS:
        store = Served(theatre.access, theatre.namespace, tmp_path / str(seed))
        run = Run(seed, FAULTS - {Fault.STALE_STORE}, store=store)
        store.faults = run.world.faults
        run.play()
        deaths += run.world.crashes
        ends.add(run.world.status.progress.value)
        theatre.access.delete(ROLLOUTS, theatre.namespace, KEY)
    assert deaths >= DEATHS
    assert len(ends) > 1
