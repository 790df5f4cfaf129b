"""Model servers in memory. A new version replaces the old one behind the same address when it is ready."""

from controller.core.serving import Served
from controller.ports import ServerObservation
from router.assignment import Arm


class MemoryServer:
    """One arm's server: the version that answers, the one that is wanted, and from when on (µs) that one answers."""

    def __init__(self, arm: Arm) -> None:
        self.address = f"{arm}:8080"
        self.version: str | None = None
        self.wanted: str | None = None
        self.ready_at = 0
        self.broken = False


class MemoryWorkloads:
    """``Workloads`` without processes. ``start`` (µs): from a version's start to its first good answer."""

    def __init__(self, start: int = 0) -> None:
        self.start = start
        self.now = 0
        self.servers: dict[Arm, MemoryServer] = {a: MemoryServer(a) for a in ("champion", "challenger")}

    def advance(self, now: int) -> None:
        """It is ``now`` (µs)."""
        self.now = now
        for server in self.servers.values():
            if server.wanted is not None and now >= server.ready_at:
                server.version = server.wanted

    def ensure(self, arm: Arm, version: str | None) -> None:
        """Run ``version`` for ``arm``; one that runs already goes on undisturbed."""
        server = self.servers[arm]
        if server.wanted != version:
            server.wanted, server.ready_at = version, self.now + self.start
            server.version = None if version is None else server.version
        self.advance(self.now)

    def observe(self, arm: Arm) -> ServerObservation:
        """What runs for ``arm`` now."""
        server = self.servers[arm]
        if server.version is None:
            starts = f"the {arm}'s server starts" if server.wanted else f"no server runs for the {arm}"
            return ServerObservation(None, (), False, starts)
        if server.broken:
            return ServerObservation(server.version, (server.address,), False, f"the {arm}'s server does not answer")
        starts = "" if server.version == server.wanted else f"version {server.wanted} starts for the {arm}"
        return ServerObservation(server.version, (server.address,), True, starts)

    def serving(self, served: Served) -> tuple[str, ...]:
        """Where the version runs now."""
        return tuple(s.address for s in self.servers.values() if s.version == served.version)[:1]

    def behind(self, address: str) -> str | None:
        """The version that answers at ``address``; None: nothing does."""
        return next((s.version for s in self.servers.values() if s.address == address), None)
