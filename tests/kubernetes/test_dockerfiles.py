"""The Dockerfiles have no step that the images of the tests' node would leave out (`make test-cluster` runs them)."""

import pytest

from tests.cluster.dockerfile import NotUnderstood, Part, Step, copied, parts
from tests.cluster.images import DOCKERFILES, PYTHON
from tests.kubernetes.binaries import ROOT


@pytest.mark.parametrize("path", DOCKERFILES.values())
def test_every_step_of_a_dockerfile_is_one_that_the_node_exercises(path: str) -> None:
    found = parts((ROOT / path).read_text())
    assert {part.base.removesuffix("-slim") for part in found} == {f"python:{PYTHON}"}
    assert found[-1].base.endswith("-slim")
    assert all((ROOT / name).exists() for name in copied(found))


def test_every_dockerfile_of_the_project_is_one_of_them() -> None:
    found = [path for part in ("controller", "router") for path in (ROOT / part).rglob("Dockerfile*")]
    assert {str(path.relative_to(ROOT)) for path in found} == set(DOCKERFILES.values())


def test_a_dockerfile_is_read_step_by_step() -> None:
    text = "# a\nFROM base:1 AS build\nRUN one \\\n  two\nCOPY a b c\n\nFROM base:1\nCOPY --from=build /c /c\n"
    first, second = parts(text)
    assert first == Part("base:1", "build", (Step("RUN", "one    two"), Step("COPY", "a b c")))
    assert second == Part("base:1", "", (Step("COPY", "--from=build /c /c"),))
    assert copied([first, second]) == ["a", "b"]


@pytest.mark.parametrize("text", ["RUN one\n", "FROM base:1\nHEALTHCHECK one\n"])
def test_what_is_not_exercised_is_refused(text: str) -> None:
    with pytest.raises(NotUnderstood, match="one"):
        parts(text)
