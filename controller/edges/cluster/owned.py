"""Objects that belong to one rollout: they carry its owner reference, and go with it."""

import contextlib
import hashlib
from typing import Any, NamedTuple

import orjson

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS, Resource
from controller.errors import Conflict, EdgeError, NotFound

KEEP_S = 60.0  # how often it is looked whether what is ours is what it should be


class Owner(NamedTuple):
    """The rollout."""

    namespace: str
    name: str
    uid: str


class Owned:
    """Makes the objects of ``owner`` and keeps them as declared; never touches one that is somebody else's.

    What was applied is applied again only where what is declared, or what stands there of it, is another than then.
    """

    def __init__(self, access: Access, owner: Owner) -> None:
        self._access = access
        self._owner = owner
        self._applied: dict[tuple[str, str], bytes] = {}  # by kind and name: what was declared, and how it stood there

    def keep(self, resource: Resource, body: Node) -> Node:
        """Server-side apply of ``body``, whose metadata has the name. EdgeError where an object of that name belongs
        to somebody else."""
        return self.keep_found(resource, body, self.found(resource, body["metadata"]["name"]))

    def keep_found(self, resource: Resource, body: Node, found: Node | None) -> Node:
        """The same of what was ``found`` a moment ago."""
        key, marked = (resource.kind, body["metadata"]["name"]), self._marked(body)
        if found is not None and self._applied.get(key) == _compared(marked, found):
            return found
        made = self._access.apply(resource, marked)
        self._applied[key] = _compared(marked, made)
        return made

    def once(self, resource: Resource, body: Node) -> None:
        """Make ``body`` where there is no object of that name, which is neither read nor changed."""
        with contextlib.suppress(Conflict):
            self._access.create(resource, self._marked(body))

    def found(self, resource: Resource, name: str) -> Node | None:
        """The object if it exists. EdgeError where it belongs to somebody else."""
        try:
            found = self._access.get(resource, self._owner.namespace, name)
        except NotFound:
            return None
        if self._ours(found):
            return found
        raise EdgeError(
            f"{resource.kind} {self._owner.namespace}/{name} is none of this rollout's: delete or rename it, or give "
            "the rollout another name"
        )

    def all(self, resource: Resource, selector: str) -> list[Node]:
        """Those with the labels of ``selector``."""
        return list(filter(self._ours, self._access.list(resource, self._owner.namespace, selector).items))

    def _ours(self, found: Node) -> bool:
        return any(each["uid"] == self._owner.uid for each in found["metadata"].get("ownerReferences", []))

    def _marked(self, body: Node) -> Node:
        reference = {
            "apiVersion": ROLLOUTS.api,
            "kind": ROLLOUTS.kind,
            "name": self._owner.name,
            "uid": self._owner.uid,
            "controller": True,
        }
        meta = {**body["metadata"], "namespace": self._owner.namespace, "ownerReferences": [reference]}
        return {**body, "metadata": meta}


def _compared(declared: Node, found: Node) -> bytes:
    """What is declared, and those fields of ``found``; a version by which an apply is guarded is no part of it."""
    meta = {name: value for name, value in declared["metadata"].items() if name != "resourceVersion"}
    plain = {**declared, "metadata": meta}
    text = orjson.dumps([plain, _part(plain, found)], option=orjson.OPT_SORT_KEYS)
    return hashlib.blake2b(text, digest_size=16).digest()


def _part(declared: Any, found: Any) -> Any:
    """The fields of ``found`` that ``declared`` has; lists whole."""
    if isinstance(declared, dict) and isinstance(found, dict):
        return {name: _part(value, found.get(name)) for name, value in declared.items()}
    return found
