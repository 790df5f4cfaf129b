"""What the loop needs of the world, at most four methods each. Edges implement them; ``edges.memory`` does so too.

Every method may raise ``EdgeError`` (the next tick tries again) and has a deadline of its own. All are called from
one thread per rollout and must be idempotent: the loop re-applies desired state until the read-back agrees.
"""

from typing import NamedTuple, Protocol

from controller.core import naming
from controller.core.cells import StatisticsQuery
from controller.core.fold import Statistics
from controller.core.record import Record
from controller.core.serving import Served
from controller.spec import ModelRollout
from controller.status import Notice, PersonRequest, RolloutStatus
from router.assignment import Arm
from router.table import RouterState, RouteTable


class Stored(NamedTuple):
    """A rollout as it is stored. ``version`` guards the next commit; ``requests``: what people asked, oldest first;
    ``leaving``: it is being deleted; ``barred``: it is refused as it is declared, and nothing is decided on it."""

    rollout: ModelRollout
    generation: int
    status: RolloutStatus
    version: str
    requests: tuple[PersonRequest, ...]
    leaving: bool = False
    barred: bool = False

    def pinned(self) -> "Stored":
        """With the model and the aliases of the attempt that is under way."""
        spec = naming.pinned(self.rollout.spec, self.status)
        return self._replace(rollout=self.rollout.model_copy(update={"spec": spec}))


class RolloutStore(Protocol):
    """Rollouts and their status; the commit point of every decision."""

    def keys(self) -> list[str]:
        """Names of all rollouts."""

    def load(self, key: str) -> Stored:
        """The rollout ``key``. NotFound without one."""

    def commit(self, key: str, status: RolloutStatus, version: str, record: Record | None) -> str:
        """Write status, and the record if there is one, in one transaction. Conflict where ``version`` is old.
        Returns the new version. Requests named in ``status.handled`` may be forgotten."""

    def submit(self, key: str, request: PersonRequest) -> None:
        """Add what a person asks for; the same id again changes nothing."""


class StatisticsSource(Protocol):
    """Journals turned into folds."""

    def read(self, query: StatisticsQuery, now: int) -> Statistics:
        """Everything final up to ``now`` (µs), for the attempt and epochs of ``query``."""


FARTHEST = 2**32  # tables in between, at one a second for a century


class TrafficObservation(NamedTuple):
    """All routers that serve this rollout. An unreachable one makes ``complete`` false. ``limits``: what this way to
    split the traffic cannot do, for people; ``trouble``: why what is asked for is not confirmed, if that is known;
    ``sent_bp``: what others than the champion get by now, in basis points, if that is known."""

    routers: tuple[RouterState, ...]
    complete: bool
    limits: tuple[str, ...] = ()
    trouble: str = ""
    sent_bp: int | None = None

    @property
    def confirmed(self) -> int:
        """Newest generation that every worker of every router serves; -1 where one did not answer."""
        return min((r.confirmed for r in self.routers), default=-1) if self.complete else -1

    def overtakes(self, ours: int) -> int:
        """The newest generation that a router holds, where that is newer than ``ours``; 0: none does. What is further
        away than any store falls behind is not believed: of such numbers there is no next one."""
        return max((r.generation for r in self.routers if ours < r.generation <= ours + FARTHEST), default=0)


class TrafficProvider(Protocol):
    """Who splits the traffic."""

    def apply(self, table: RouteTable) -> None:
        """Make every router serve ``table``; returns before it is confirmed."""

    def observe(self) -> TrafficObservation:
        """Which generation each worker serves, and its breaker."""


class ServerObservation(NamedTuple):
    """One arm's model server: where it listens, and whether it answered the model's own example."""

    version: str | None
    upstreams: tuple[str, ...]
    ready: bool
    message: str = ""


class Workloads(Protocol):
    """The model servers of the two arms."""

    def ensure(self, arm: Arm, version: str | None) -> None:
        """Run ``version`` for ``arm`` with full capacity; None: none is needed any more."""

    def observe(self, arm: Arm) -> ServerObservation:
        """What runs for ``arm`` now."""

    def serving(self, served: Served) -> tuple[str, ...]:
        """Where a version that serves between two attempts is to be found now; empty where nothing of it is."""


class ResolvedVersion(NamedTuple):
    """A registered version: ``uri`` loads it, ``signed``: it has a signature."""

    version: str
    uri: str
    signed: bool


class TickEntry(NamedTuple):
    """What a run shows of the attempt's ``tick``-th tick: finite ``metrics``, and the record if one was made."""

    status: RolloutStatus
    metrics: dict[str, float]
    tick: int
    record: Record | None


class Registry(Protocol):
    """The model registry, and the run that shows the rollout."""

    def resolve(self, model: str, reference: str) -> ResolvedVersion | None:
        """The version that an alias or version number names now; None where it names nothing."""

    def set_alias(self, model: str, alias: str, version: str) -> None:
        """Point ``alias`` at ``version``."""

    def delete_alias(self, model: str, alias: str, version: str) -> None:
        """Remove ``alias`` if it still names ``version``."""

    def log(self, rollout: ModelRollout, entry: TickEntry) -> str | None:
        """Queue a tick for the rollout's run and return the run's id once there is one. Never blocks on the network."""


class Notifier(Protocol):
    """News to people."""

    def send(self, notice: Notice) -> None:
        """Deliver ``notice``; the key makes a repeat recognisable. EdgeError: not delivered, try again."""
