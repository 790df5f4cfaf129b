"""The API server accepts what the models accept, but for the few rules that CEL has no words for."""

from collections import Counter

import pytest
from kubernetes import client

from controller.cli.init import EXAMPLE
from controller.specfile import parse
from tests.kubernetes.rollouts import Rollouts, Tree
from tests.schema.models import PYTHON_ALONE, refusals
from tests.schema.mutations import PLAIN, SMALL, mutated

CASES = 500
OF_INIT = parse(EXAMPLE).model_dump(mode="json", by_alias=True, exclude_none=True)


@pytest.fixture
def rollouts(crd: str, api: client.ApiClient, namespace: str) -> Rollouts:
    return Rollouts(api, namespace)


def stored(rollouts: Rollouts, tree: Tree) -> Tree | None:
    """What the server would keep of it; None where it refuses."""
    try:
        return rollouts.create(tree, dry_run="All")
    except client.ApiException as error:
        if error.status not in (400, 422):
            raise
        return None


def planned(seed: int) -> Tree:
    """A mutated plan under good metadata, which the server judges by its own rules."""
    return {"metadata": {"name": "a"}} | {k: v for k, v in mutated(seed).items() if k == "spec"}


def addressed(tree: Tree) -> bool:
    """Whether a server is told by its address, which is right on one machine alone."""
    return any("url" in server for server in tree["spec"]["servers"].values() if isinstance(server, dict))


@pytest.mark.parametrize("tree", [PLAIN, SMALL, OF_INIT], ids=["plain", "small", "init"])
def test_a_right_document_is_kept_as_it_is(rollouts: Rollouts, tree: Tree) -> None:
    kept = stored(rollouts, tree)
    assert kept is not None
    assert kept["spec"] == tree["spec"]


def test_the_server_refuses_nothing_that_the_models_accept_and_misses_only_what_it_cannot_say(
    rollouts: Rollouts,
) -> None:
    seen: Counter[str] = Counter()
    for seed in range(CASES):
        tree = planned(seed)
        kept = stored(rollouts, tree)
        if kept is None:
            assert refusals(tree) or addressed(tree), f"seed {seed}: {tree}"
            seen["both refuse"] += 1
            continue
        # A null where none may be is no error to the server: the field is left out, and nobody ever sees it.
        said = refusals({k: v for k, v in kept.items() if k != "status"})
        assert [text for text in said if not any(known in text for known in PYTHON_ALONE)] == [], f"seed {seed}: {tree}"
        seen["beyond the server" if said else "both accept"] += 1
    assert min(seen["both accept"], seen["both refuse"]) > CASES // 20, seen
