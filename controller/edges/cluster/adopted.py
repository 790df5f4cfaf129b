"""Model servers that exist already, by the addresses that the rollout declares for its arms."""

from collections.abc import Callable

from controller.edges.exchange import Call, Exchange
from controller.edges.servers import upstream_of
from controller.errors import EdgeError
from controller.ports import ServerObservation, Stored
from controller.spec import Server
from router.assignment import Arm


class AdoptedServers:
    """``Workloads`` that starts and ends nothing. A version stays where it was served when the attempt began: after
    a promotion the promoted one is not looked for at the old champion's address."""

    def __init__(self, read: Callable[[], Stored], deadline_s: float = 2.0) -> None:
        """``read``: the rollout as it is stored now."""
        self._read = read
        self._wanted: dict[Arm, str | None] = {}
        self._exchange = Exchange(deadline_s)

    def ensure(self, arm: Arm, version: str | None) -> None:
        """Others run it."""
        self._wanted[arm] = version

    def observe(self, arm: Arm) -> ServerObservation:
        """Whether the server that has the version wanted for ``arm`` answers its probe."""
        stored = self._read()
        attempt, servers = stored.status.attempt, stored.rollout.spec.servers
        pinned = {"champion": attempt.champion, "challenger": attempt.challenger} if attempt else {}
        version = self._wanted.get(arm, pinned.get(arm))
        place = next((a for a, v in pinned.items() if v == version and v is not None), arm)
        server: Server | None = getattr(servers, place, None)
        if version is None:
            return ServerObservation(None, (), False)
        if server is None or server.url is None:
            return ServerObservation(None, (), False, f"spec.servers.{place}.url: an address is needed")
        said = self._asked(server)
        return ServerObservation(version, (upstream_of(server.url),), not said, said)

    def close(self) -> None:
        self._exchange.close()

    def _asked(self, server: Server) -> str:
        """What is wrong with its answer to the probe; empty: nothing."""
        probe, url = server.probe, (server.url or "").rstrip("/")
        body = probe.body.encode() if probe is not None and probe.body is not None else None
        path = probe.path if probe is not None else "/health"
        try:
            answer = self._exchange.one(Call("POST" if body is not None else "GET", url + path, body))
        except EdgeError as error:
            return f"{url}: {error}"
        return "" if 200 <= answer.status < 300 else f"{url}{path}: status {answer.status}"
