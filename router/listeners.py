"""The listening sockets of a router: one set for each slot of workers, all on one port.

They are the supervisor's, and its workers inherit them. A worker that is replaced leaves who has connected to it, and
was not taken in yet, to the next one of its slot: a socket that is closed instead has the kernel reset them. Where a
worker dies, its sockets go with it, so that the kernel turns to the other slots while it is away.
"""

import errno
import os
import resource
import socket
import sys
from collections.abc import Mapping
from typing import Any

EVERYWHERE = "*"
ENVIRONMENT = "UNDERSTUDY_LISTEN_FDS"
_ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)


class Listeners:
    """Sockets bound to every address of ``host``, by slot."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._by_slot: dict[int, list[socket.socket]] = {}

    def of(self, slot: int) -> list[int]:
        """The descriptors of a slot's sockets. Raises OSError where no address can be bound."""
        if slot not in self._by_slot:
            self._by_slot[slot] = bound(self._host, self._port)
        return [each.fileno() for each in self._by_slot[slot]]

    def drop(self, slot: int) -> None:
        """Close a slot's sockets; the next that asks for them gets new ones."""
        for each in self._by_slot.pop(slot, []):
            each.close()

    def close(self) -> None:
        """Close all."""
        for slot in list(self._by_slot):
            self.drop(slot)


def addresses(host: str, port: int) -> list[tuple[int, Any]]:
    """Family and address of everything that ``host`` stands for, ``*`` for all of this machine. Raises OSError."""
    name = None if host == EVERYWHERE else host
    infos = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    return [(family, address) for family, _, _, _, address in dict.fromkeys(infos)]


def bound(host: str, port: int) -> list[socket.socket]:
    """A socket for each address of ``host``. Raises OSError where none can be bound."""
    found: list[socket.socket] = []
    absent: OSError | None = None
    for family, address in addresses(host, port):
        try:
            found.append(_one(family, address))
        except OSError as error:
            if error.errno not in _ABSENT:
                for each in found:
                    each.close()
                raise
            absent = error
    if not found:
        raise absent or OSError(errno.EADDRNOTAVAIL, f"{host} has no address")
    return found


def _one(family: int, address: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.setblocking(False)
        made.bind(address)
    except BaseException:
        made.close()
        raise
    return made


def said(descriptors: list[int]) -> dict[str, str]:
    """What a worker's environment says of the sockets it inherits."""
    return {ENVIRONMENT: ",".join(map(str, descriptors))}


def inherited(environment: Mapping[str, str] = os.environ) -> list[socket.socket]:
    """The sockets that this process inherited to listen on; none where nothing says so."""
    text = environment.get(ENVIRONMENT, "")
    return [socket.socket(fileno=int(part)) for part in text.split(",") if part]


def raise_descriptor_limit() -> int:
    """Let this process have as many connections as it may; how many descriptors that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard
