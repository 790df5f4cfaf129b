"""Who may use the control API: whoever knows the token or shows a certificate of the clients' authority; where
neither is set up, nobody beyond this machine.
"""

import hmac
import ipaddress
import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

_PORT = re.compile(r":[0-9]*$")


class Unprotected(ValueError):
    """The control API would listen beyond loopback, and anybody might use it."""


def is_loopback(host: str) -> bool:
    """Whether every address that ``host`` stands for is this machine's own."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        pass
    try:
        addresses = {info[4][0] for info in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return bool(addresses) and all(ipaddress.ip_address(str(a).split("%")[0]).is_loopback for a in addresses)


def refuse_unprotected(host: str, token: str | None, client_ca: Path | None) -> None:
    """Raise Unprotected for a host beyond loopback where anybody might come."""
    if token is None and client_ca is None and not is_loopback(host):
        raise Unprotected(
            f"--control-host {host} can be reached from other machines: set a token (UNDERSTUDY_ROUTER_TOKEN or "
            "--token-file) or --client-ca, or listen on 127.0.0.1"
        )


class Access(NamedTuple):
    """Ways in. ``token``: for its bearer; ``certificates``: for who shows one."""

    token: str | None
    certificates: bool

    def fault(self, headers: Mapping[str, str], certified: bool) -> tuple[int, str] | None:
        """Why a request may not be served, as HTTP status and text; None if it may.

        ``certified``: its client has shown a certificate of the authority. Each way in is enough by itself. Where
        there is none only requests that name this machine as their host are served, so that no web page can reach
        the API under a name of its own.
        """
        if certified:
            return None
        if self.token is not None:
            scheme, _, credential = headers.get("authorization", "").partition(" ")
            if scheme.lower() == "bearer" and hmac.compare_digest(
                credential.strip().encode("utf-8", "surrogateescape"), self.token.encode("utf-8", "surrogateescape")
            ):
                return None
            other = ", or a certificate of --client-ca" if self.certificates else ""
            return 401, f"a bearer token is needed: Authorization: Bearer <token>{other}"
        if self.certificates:
            return 403, "a certificate of --client-ca is needed"
        host = headers.get("host", "")
        name = _PORT.sub("", host)
        if name == "localhost" or _is_loopback_address(name):
            return None
        return 403, f"without a token only requests to localhost are served, not to {name!r}"


def _is_loopback_address(name: str) -> bool:
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
