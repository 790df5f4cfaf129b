"""Objects that belong to one rollout: they carry its owner reference, and go with it."""

import contextlib
from typing import NamedTuple

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS, Resource
from controller.errors import Conflict, EdgeError, NotFound

KEEP_S = 60.0  # how often what is ours is made what it should be


class Owner(NamedTuple):
    """The rollout."""

    namespace: str
    name: str
    uid: str


class Owned:
    """Makes the objects of ``owner`` and keeps them as declared; never touches one that is somebody else's."""

    def __init__(self, access: Access, owner: Owner) -> None:
        self._access = access
        self._owner = owner

    def keep(self, resource: Resource, body: Node) -> Node:
        """Server-side apply of ``body``, whose metadata has the name. EdgeError where an object of that name belongs
        to somebody else."""
        self.found(resource, body["metadata"]["name"])
        return self._access.apply(resource, self._marked(body))

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
