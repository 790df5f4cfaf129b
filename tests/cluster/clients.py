"""Users of the model without a pause, and witnesses of what the routers were told meanwhile."""

import math
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import httpx

from controller.edges.cluster.access import Access
from controller.edges.cluster.resources import ROLLOUTS
from controller.errors import EdgeError
from controller.status import RolloutStatus
from router.assignment import assign
from router.table import RouterState, RouteTable
from tests.cluster.shop import SHOP
from tests.meanwhile import Meanwhile

THREADS, PAUSE_S, WITHIN_S = 4, 0.03, 30.0
UNITS = 4000
MOST = 200_000  # answers that are kept
LOOK_EVERY_S = 0.05


class Answer(NamedTuple):
    """One that was good: between which moments (monotonic) it was asked for, and the version that answered."""

    unit: str
    since: float
    until: float
    version: str


class Clients(Meanwhile):
    """Users who ask the Service at ``url`` from ``with`` on to its end."""

    def __init__(self, url: str) -> None:
        self._url = url
        self.answers: list[Answer] = []
        self.failed: list[str] = []
        super().__init__(*(partial(self._ask, k) for k in range(THREADS)), within_s=2 * WITHIN_S)

    def _ask(self, first: int) -> None:
        number = first
        with httpx.Client(timeout=WITHIN_S, trust_env=False) as client:
            while not self._end.wait(PAUSE_S) and len(self.answers) < MOST:
                unit, since = f"u{number % UNITS}", time.monotonic()
                number += THREADS
                try:
                    answer = client.post(
                        f"{self._url}/invocations",
                        json={"dataframe_split": {"columns": ["x"], "data": [[(number % 97) / 97]]}},
                        headers={"x-unit": unit},
                    )
                except httpx.TransportError as error:
                    self.failed.append(f"{unit}: {error!r}")
                    continue
                version = answer.headers.get("x-model-version")
                if answer.status_code != 200 or version is None:
                    self.failed.append(f"{unit}: {answer.status_code} {answer.text[:200]}")
                else:
                    self.answers.append(Answer(unit, since, time.monotonic(), version))


class Seen(NamedTuple):
    """A table of the rollout's status: since when it may have been served, and when it was seen confirmed."""

    table: RouteTable
    since: float
    confirmed: float | None


class _Watching(Meanwhile):
    """Looks over and over, at each thing on a thread of its own; an edge that fails is asked again."""

    def __init__(self, *looks: Callable[[], None], every_s: float) -> None:
        super().__init__(*(partial(self._watch, look, every_s) for look in looks), within_s=WITHIN_S)

    def _watch(self, look: Callable[[], None], every_s: float) -> None:
        while not self._end.wait(every_s):
            try:
                look()
            except (EdgeError, httpx.TransportError):
                continue


class Witness(_Watching):
    """Reads the rollout's status over and over."""

    def __init__(self, access: Access, name: str) -> None:
        super().__init__(self._look, every_s=LOOK_EVERY_S)
        self._access, self._name = access, name
        self.seen: dict[int, Seen] = {}
        self.status: RolloutStatus | None = None
        self._looked = time.monotonic()

    def _look(self) -> None:
        began = time.monotonic()
        held = self._access.get(ROLLOUTS, SHOP, self._name)["status"]
        ended = time.monotonic()
        if not held["uid"]:
            return
        self.status = status = RolloutStatus.model_validate(held)
        if status.table is not None:
            known = self.seen.get(status.table.generation)
            if known is None:
                known = Seen(status.table, self._looked, None)
            if known.confirmed is None and status.observed.confirmed >= status.table.generation:
                known = known._replace(confirmed=ended)
            self.seen[status.table.generation] = known
        self._looked = began

    def allowed(self, answer: Answer) -> set[str]:
        """Versions of which one had to answer: what the tables say of the unit that may have been in force then."""
        found = set()
        for generation, seen in self.seen.items():
            newer = [s.confirmed for g, s in self.seen.items() if g > generation and s.confirmed is not None]
            if seen.since <= answer.until and answer.since <= min(newer, default=math.inf):
                found.add(_version(seen.table, answer.unit))
        return found


def _version(table: RouteTable, unit: str) -> str:
    arm = assign(table.salt, unit, table.weight_bp, table.control_from_bp, table.counted_bp).arm
    target = table.challenger if arm == "challenger" else table.champion
    assert target is not None
    return target.version


def decided(clients: Clients, witness: Witness) -> list[Answer]:
    """Answers to which the tables in force at that time left one version only. Every answer is of a version that they
    allow; while a table is replaced both are."""
    allowed = [(answer, witness.allowed(answer)) for answer in clients.answers]
    assert [(answer, may) for answer, may in allowed if answer.version not in may] == []
    return [answer for answer, may in allowed if len(may) == 1]


class Served(_Watching):
    """Asks each router which table all its workers serve, and remembers when (monotonic) each was first seen."""

    def __init__(self, urls: dict[str, str], token: str) -> None:
        super().__init__(*(partial(self._look, name) for name in urls), every_s=0.01)
        self._urls = urls
        self.first: dict[str, dict[int, float]] = {name: {} for name in urls}
        self._client = httpx.Client(headers={"authorization": f"Bearer {token}"}, timeout=5.0, trust_env=False)

    def __exit__(self, *_: object) -> None:
        super().__exit__()
        self._client.close()

    def _look(self, name: str) -> None:
        answer = self._client.get(f"{self._urls[name]}/v1/state")
        state = RouterState.model_validate_json(answer.content)
        self.first[name].setdefault(state.confirmed, time.monotonic())

    def since(self, generation: int) -> dict[str, float]:
        """When each router was first seen to serve this table or a newer one."""
        return {
            name: min(at for served, at in first.items() if served >= generation) for name, first in self.first.items()
        }
