"""The tokens of the routers follow from one key, which is drawn once."""

import base64

import pytest

from controller.edges.cluster.access import Access
from controller.edges.cluster.owned import Owner
from controller.edges.cluster.resources import SECRETS
from controller.edges.cluster.tokens import Tokens
from controller.errors import EdgeError


def test_all_replicas_know_the_same_tokens_and_no_two_rollouts_share_one(access: Access, namespace: str) -> None:
    first, second = Tokens(access, namespace, "key"), Tokens(access, namespace, "key")
    owners = [Owner("a", "late", "1"), Owner("a", "late", "2"), Owner("b", "late", "1"), Owner("a", "soon", "1")]
    tokens = [first.of(owner) for owner in owners]
    assert [second.of(owner) for owner in owners] == tokens
    assert len(set(tokens)) == len(owners)
    assert min(map(len, tokens)) == 43


def test_a_key_that_could_be_guessed_is_refused(access: Access, namespace: str) -> None:
    data = {"key": base64.b64encode(b"short").decode()}
    access.create(SECRETS, {"metadata": {"namespace": namespace, "name": "key"}, "data": data})
    with pytest.raises(EdgeError, match=f"Secret {namespace}/key: key needs at least 32 bytes"):
        Tokens(access, namespace, "key").of(Owner("a", "late", "1"))
