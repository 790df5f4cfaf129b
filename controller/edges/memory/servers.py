"""Model servers in memory."""

from controller.ports import ServerObservation
from router.assignment import Arm


def upstreams_of(arm: Arm, version: str | None) -> tuple[str, ...]:
    """Where a server of ``arm`` that runs ``version`` listens."""
    return () if version is None else (f"{arm}-{version}:8080",)


class MemoryServer:
    """One arm's server: the version that is wanted, and from when on (µs) it answers."""

    def __init__(self) -> None:
        self.version: str | None = None
        self.ready_at = 0
        self.broken = False


class MemoryWorkloads:
    """``Workloads`` without processes. ``start`` (µs): from a version's start to its first good answer."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.now = 0
        self.servers: dict[Arm, MemoryServer] = {"champion": MemoryServer(), "challenger": MemoryServer()}

    def advance(self, now: int) -> None:
        """It is ``now`` (µs)."""
        self.now = now

    def ensure(self, arm: Arm, version: str | None) -> None:
        """Run ``version`` for ``arm``; the version that runs already goes on undisturbed."""
        server = self.servers[arm]
        if server.version != version:
            server.version, server.ready_at = version, self.now + self.start

    def observe(self, arm: Arm) -> ServerObservation:
        """What runs for ``arm`` now."""
        server = self.servers[arm]
        if server.version is None:
            return ServerObservation(None, (), False, f"no server runs for the {arm}")
        upstreams = upstreams_of(arm, server.version)
        if server.broken:
            return ServerObservation(server.version, upstreams, False, f"the {arm}'s server does not answer")
        ready = self.now >= server.ready_at
        return ServerObservation(server.version, upstreams, ready, "" if ready else f"the {arm}'s server starts")
