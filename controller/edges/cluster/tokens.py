"""The tokens of the routers' control APIs, derived from one key: so the controller need not read the Secrets it makes.

RBAC grants a Secret by its name, and which rollouts there will be is not known when it is granted; so whoever may read
the Secret of any rollout may read every Secret. The controller's own key has one name, in its own namespace.
"""

import base64
import hashlib
import hmac
import secrets

from controller.edges.cluster.access import Access
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.resources import SECRETS
from controller.errors import Conflict, EdgeError, NotFound

KEY = "key"
KEY_BYTES = 32


class Tokens:
    """Derives tokens from the key in the Secret ``namespace``/``name``, which is drawn where there is none."""

    def __init__(self, access: Access, namespace: str, name: str) -> None:
        self._access = access
        self._namespace = namespace
        self._name = name
        self._key = b""

    def of(self, owner: Owner) -> str:
        """The token of a rollout: HMAC-SHA256 of its namespace, name and uid, in base64. EdgeError without a key."""
        if not self._key:
            self._key = self._read() or self._drawn()
        known = hmac.digest(self._key, "/".join(owner).encode(), hashlib.sha256)
        return base64.urlsafe_b64encode(known).decode().rstrip("=")

    def _read(self) -> bytes:
        """The key; empty where nobody has drawn it."""
        try:
            found = self._access.get(SECRETS, self._namespace, self._name)
        except NotFound:
            return b""
        key = base64.b64decode((found.get("data") or {}).get(KEY, ""))
        if len(key) < KEY_BYTES:
            raise EdgeError(f"Secret {self._namespace}/{self._name}: {KEY} needs at least {KEY_BYTES} bytes")
        return key

    def _drawn(self) -> bytes:
        key = secrets.token_bytes(KEY_BYTES)
        meta = {"namespace": self._namespace, "name": self._name}
        try:
            self._access.create(SECRETS, {"metadata": meta, "data": {KEY: base64.b64encode(key).decode()}})
        except Conflict:  # another replica was the first
            return self._read()
        return key
