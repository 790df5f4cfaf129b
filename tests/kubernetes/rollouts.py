"""Rollouts on an API server, as the tests write and read them."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from kubernetes import client

from controller.schema.crd import GROUP, VERSION
from tests.kubernetes.control_plane import CALL_WITHIN_S

Tree = dict[str, Any]


class Rollouts:
    """Those of one namespace. Whatever is written is checked strictly; ApiException: the server refuses."""

    def __init__(self, api: client.ApiClient, namespace: str, group: str = GROUP) -> None:
        self._custom = client.CustomObjectsApi(api)
        self._group = group
        self._at = {"group": group, "version": VERSION, "namespace": namespace, "plural": "modelrollouts"}
        self._of_all = {"_request_timeout": CALL_WITHIN_S}
        self._writing = {"field_validation": "Strict", **self._of_all}

    def create(self, tree: Tree, **options: Any) -> Tree:
        """``tree`` may leave out apiVersion and kind, as a rollout file may."""
        body = {"apiVersion": f"{self._group}/{VERSION}", "kind": "ModelRollout"} | tree
        return self._custom.create_namespaced_custom_object(**self._at, body=body, **self._writing, **options)

    def get(self, name: str) -> Tree:
        return self._custom.get_namespaced_custom_object(**self._at, name=name, **self._of_all)

    def replace(self, tree: Tree) -> Tree:
        name = tree["metadata"]["name"]
        return self._custom.replace_namespaced_custom_object(**self._at, name=name, body=tree, **self._writing)

    def replace_status(self, tree: Tree) -> Tree:
        name = tree["metadata"]["name"]
        return self._custom.replace_namespaced_custom_object_status(**self._at, name=name, body=tree, **self._writing)


@contextmanager
def refused(code: int) -> Iterator[list[str]]:
    """What is done in it is refused with ``code``; the server's message is in the list afterwards."""
    said: list[str] = []
    with pytest.raises(client.ApiException) as caught:
        yield said
    assert caught.value.status == code, caught.value.body
    said.append(json.loads(str(caught.value.body))["message"])
