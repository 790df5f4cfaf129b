"""The API server accepts what the models accept, but for the few rules that CEL has no words for."""

import copy
from collections import Counter

import pytest
from kubernetes import client

from controller.cli.init import EXAMPLE
from controller.specfile import parse
from tests.kubernetes.rollouts import Rollouts, Tree
from tests.schema.models import refusals
from tests.schema.mutations import PLAIN, SMALL, mutated

CASES = 500
# What only Python says.
BEYOND: tuple[str, ...] = ()


@pytest.fixture
def rollouts(crd: str, api: client.ApiClient, namespace: str) -> Rollouts:
    return Rollouts(api, namespace)


def answer(rollouts: Rollouts, tree: Tree) -> str:
    """Why the server refuses it; empty where it accepts."""
    try:
        rollouts.create(tree, dry_run="All")
    except client.ApiException as error:
        if error.status not in (400, 422):
            raise
        return str(error.body)
    return ""


def planned(seed: int) -> Tree:
    """A mutated plan under good metadata, which the server judges by its own rules."""
    return {"metadata": {"name": "a"}} | {k: v for k, v in mutated(seed).items() if k == "spec"}


@pytest.mark.parametrize(
    "tree", [PLAIN, SMALL, parse(EXAMPLE).model_dump(mode="json", by_alias=True, exclude_none=True)]
)
def test_a_right_document_is_accepted(rollouts: Rollouts, tree: Tree) -> None:
    assert answer(rollouts, copy.deepcopy(tree)) == ""


def test_the_server_refuses_nothing_that_the_models_accept_and_misses_only_what_it_cannot_say(
    rollouts: Rollouts,
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        tree = planned(seed)
        said, refused = refusals(tree), answer(rollouts, tree)
        if refused:
            assert said, f"seed {seed}: {tree}: {refused}"
            seen["both refuse"] += 1
        else:
            unexplained = [text for text in said if not any(known in text for known in BEYOND)]
            assert unexplained == [], f"seed {seed}: {tree}"
            seen["beyond the server" if said else "both accept"] += 1
    assert min(seen["both accept"], seen["both refuse"]) > CASES // 10, seen
