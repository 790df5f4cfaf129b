"""Who may use the control API: whoever knows the token; without a token, nobody beyond this machine."""

import hmac
import ipaddress
import socket
from collections.abc import Mapping


class Unprotected(ValueError):
    """The control API would listen beyond loopback without a token."""


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


def refuse_unprotected(host: str, token: str | None) -> None:
    """Raise Unprotected for a host beyond loopback without a token."""
    if token is None and not is_loopback(host):
        raise Unprotected(
            f"--control-host {host} can be reached from other machines: set a token (UNDERSTUDY_ROUTER_TOKEN or "
            "--token-file), or listen on 127.0.0.1"
        )


def bearer_fault(headers: Mapping[str, str], token: str | None) -> tuple[int, str] | None:
    """Why a request may not be served, as HTTP status and text; None if it may.

    With a token it has to be the bearer of it. Without one only requests that name this machine as their host
    are served, so that no web page can reach the API under a name of its own.
    """
    if token is not None:
        scheme, _, credential = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer" and hmac.compare_digest(
            credential.strip().encode("utf-8", "surrogateescape"), token.encode("utf-8", "surrogateescape")
        ):
            return None
        return 401, "a bearer token is needed: Authorization: Bearer <token>"
    host = headers.get("host", "")
    name = host[: host.find("]") + 1] if host.startswith("[") else host.partition(":")[0]
    if name == "localhost" or _is_loopback_address(name):
        return None
    return 403, f"without a token only requests to localhost are served, not to {name!r}"


def _is_loopback_address(name: str) -> bool:
    try:
        return ipaddress.ip_address(name.strip("[]")).is_loopback
    except ValueError:
        return False
