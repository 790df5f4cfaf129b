"""Who is where: names and loopback addresses of the benchmark's rollouts, their routers and their model servers.

All of 127.0.0.0/8 leads to one process, which tells them apart by the address that it is asked at.
"""

import ipaddress
from typing import NamedTuple

ROUTERS, SERVERS = 64, 128  # second byte of the addresses; routers of ordinal n have 64 + n
ACTIVE, IDLE = "active", "idle"
MANY = 20  # namespaces
MOST = 1 << 16


class Rollout(NamedTuple):
    """One rollout of the benchmark; its model has the same name."""

    kind: str
    number: int

    @property
    def name(self) -> str:
        return f"{self.kind}-{self.number:05d}"

    @property
    def namespace(self) -> str:
        return f"team-{self.number % MANY:02d}"

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def _place(self) -> int:
        return self.number + (MOST // 2 if self.kind == IDLE else 0)

    def router(self, ordinal: int = 0) -> str:
        """Address of one of its routers."""
        return _address(ROUTERS + ordinal, self._place)

    def server(self, version: str) -> str:
        """Address of the model server of ``version``, 1 or 2."""
        return _address(SERVERS + int(version), self._place)

    def pod(self, ordinal: int = 0) -> str:
        """Name of the router's pod."""
        return f"{self.name}-router-{ordinal}"


def who(address: str) -> tuple[Rollout, int] | None:
    """The rollout and the ordinal of the router at ``address``; None: no router is there."""
    second, place = divmod(int(ipaddress.IPv4Address(address)) - (127 << 24), MOST)
    if not ROUTERS <= second < SERVERS:
        return None
    kind = IDLE if place >= MOST // 2 else ACTIVE
    return Rollout(kind, place % (MOST // 2)), second - ROUTERS


def _address(second: int, place: int) -> str:
    return str(ipaddress.IPv4Address((127 << 24) + second * MOST + place))
