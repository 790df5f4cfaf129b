"""The registry of a real MLflow tracking server: aliases, messages, outages, and nothing of full MLflow."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from controller.edges.model_files import ModelFiles
from controller.edges.registry import MlflowRegistry
from controller.edges.silence import Silence
from controller.errors import EdgeError, NotFound, SpecError
from tests.ports.contracts.registry import RegistryContract, RegistryWorld
from tests.ports.tracking_server import TrackingServer, Wire, free_port, new_name, register_file, register_version

ROOT = Path(__file__).resolve().parents[2]


def _world(registry: MlflowRegistry, client: MlflowClient) -> RegistryWorld:
    model = new_name("model")
    client.create_registered_model(model)
    return RegistryWorld(
        registry=registry,
        model=model,
        add_version=lambda name, signed: register_version(client, name, signed),
        point=client.set_registered_model_alias,
        aliases=lambda name: dict(client.get_registered_model(name).aliases),
    )


@pytest.fixture
def client(tracking: TrackingServer) -> MlflowClient:
    return MlflowClient(tracking.uri, registry_uri=tracking.uri)


@pytest.fixture
def registry(tracking: TrackingServer) -> Iterator[MlflowRegistry]:
    opened = MlflowRegistry(tracking.uri)
    yield opened
    opened.close()


@pytest.fixture
def world(registry: MlflowRegistry, client: MlflowClient) -> RegistryWorld:
    return _world(registry, client)


class TestMlflowRegistry(RegistryContract):
    """The contract; the fixtures are above."""


@pytest.mark.parametrize(
    ("text", "signed"),
    [
        ("flavors: {a: {signature: b}}\nsignature:\n  inputs: '[]'\n", True),
        ("? [signature]\n: a\nsignature: null\n", False),
        ("flavors:\n  signature: a\n", False),
        ("- signature\n- a\n", False),
        ("signature\n", False),
        ("", False),
    ],
)
def test_a_version_is_signed_by_what_stands_at_the_top_of_its_file(
    world: RegistryWorld, registry: MlflowRegistry, client: MlflowClient, text: str, signed: bool
) -> None:
    found = registry.resolve(world.model, register_file(client, world.model, text))
    assert found is not None
    assert found.signed is signed


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("a: [" + "1," * (1 << 19) + "1]\n", r"it has 1,048,583 bytes; at most 1,048,576 are read"),
        ("a: " + "[" * 100_000, "it is nested more than 100 deep"),
        ("a: {", r"it is no YAML \(line 2, column 1\)"),
    ],
    ids=["large", "deep", "no YAML"],
)
def test_a_file_that_would_keep_others_waiting_is_not_read(
    world: RegistryWorld, registry: MlflowRegistry, client: MlflowClient, text: str, why: str
) -> None:
    version = register_file(client, world.model, text)
    with pytest.raises(EdgeError, match=rf"^the MLmodel file of '{world.model}' version 1 cannot be read: .*{why}"):
        registry.resolve(world.model, version)


@pytest.mark.parametrize("size", [1, 1000])
def test_aliases_of_all_models_are_those_that_mlflows_own_client_tells(
    world: RegistryWorld, registry: MlflowRegistry, client: MlflowClient, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    monkeypatch.setattr("controller.edges.registry._PAGE", size)
    client.create_registered_model(new_name("without"))
    version = register_file(client, world.model, "")
    for alias in ("champion", "Next"):
        client.set_registered_model_alias(world.model, alias, version)
    told = client.search_registered_models(max_results=1000)
    assert told.token is None or not told.token
    assert registry.aliases() == {m.name: {a: str(v) for a, v in m.aliases.items()} for m in told}
    assert registry.aliases()[world.model] == {"champion": version, "Next": version}


def test_an_unknown_model_is_named_with_the_server_and_the_models_like_it(
    world: RegistryWorld, registry: MlflowRegistry, tracking: TrackingServer
) -> None:
    with pytest.raises(NotFound) as raised:
        registry.resolve(world.model + "s", "champion")
    assert str(raised.value).startswith(f"model '{world.model}s' is not registered in MLflow at {tracking.uri};")
    assert world.model in str(raised.value)


def test_a_missing_alias_is_named_with_the_aliases_there_are(
    world: RegistryWorld, registry: MlflowRegistry, tracking: TrackingServer
) -> None:
    version = world.add_version(world.model, True)
    assert registry.explain(world.model, "champion").endswith(f"in MLflow at {tracking.uri}; aliases: none")
    world.point(world.model, "champion", version)
    assert registry.explain(world.model, "challenger") == (
        f"model '{world.model}' has no alias 'challenger' in MLflow at {tracking.uri}; aliases: champion → 1"
    )
    assert "did you mean 'champion'? case matters" in registry.explain(world.model, "Champion")
    assert "has no ready version 7" in registry.explain(world.model, "7")
    assert registry.explain(world.model, "champion").startswith("alias 'champion' of model")
    assert registry.explain(world.model, "1").startswith("version 1 of model")


def test_several_who_create_the_same_alias_at_once_all_succeed(world: RegistryWorld, registry: MlflowRegistry) -> None:
    version = world.add_version(world.model, True)
    for number in range(6):
        failures: list[EdgeError] = []
        together = threading.Barrier(4)

        def create(alias: str, failures: list[EdgeError], together: threading.Barrier) -> None:
            together.wait(10)
            try:
                registry.set_alias(world.model, alias, version)
            except EdgeError as error:
                failures.append(error)

        threads = [threading.Thread(target=create, args=(f"a{number}", failures, together)) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert failures == []
    assert world.aliases(world.model) == {f"a{number}": version for number in range(6)}


def test_an_unreachable_server_is_named_within_seconds() -> None:
    uri = f"http://127.0.0.1:{free_port()}"
    registry = MlflowRegistry(uri)
    began = time.monotonic()
    for act in (
        lambda: registry.resolve("m", "champion"),
        lambda: registry.set_alias("m", "champion", "1"),
        lambda: registry.delete_alias("m", "champion", "1"),
        lambda: registry.explain("m", "champion"),
    ):
        with pytest.raises(EdgeError, match=f"MLflow at {uri} does not answer as it should"):
            act()
    assert time.monotonic() - began < 10
    assert registry.close()


def test_a_server_that_accepts_and_never_answers_is_an_error_within_its_deadline(
    wire: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    wire.mute()
    began = time.monotonic()
    with pytest.raises(EdgeError, match=f"MLflow at {wire.uri}"):
        MlflowRegistry(wire.uri).resolve("m", "champion")
    assert time.monotonic() - began < 10


def test_after_an_outage_the_registry_answers_again(wire: Wire, client: MlflowClient) -> None:
    world = _world(MlflowRegistry(wire.uri), client)
    version = world.add_version(world.model, True)
    world.point(world.model, "champion", version)
    assert world.registry.resolve(world.model, "champion") is not None
    wire.cut()
    with pytest.raises(EdgeError):
        world.registry.resolve(world.model, "champion")
    wire.restore()
    assert world.registry.resolve(world.model, "champion") is not None


def test_a_tracking_server_that_is_silent_keeps_one_waiting_and_not_everybody(
    wire: Wire, client: MlflowClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    registry = MlflowRegistry(wire.uri)
    model = new_name("model")
    client.create_registered_model(model)
    assert registry.resolve(model, "champion") is None
    wire.mute()
    with pytest.raises(EdgeError, match="does not answer as it should"):
        registry.resolve(model, "champion")
    with pytest.raises(EdgeError, match=r"MLflow at http.* did not answer 0 s ago"):
        registry.resolve(model, "champion")
    # The search of all models may be slow where they are many, and says nothing of the rest.
    with pytest.raises(EdgeError, match="does not answer as it should"):
        registry.aliases()
    with pytest.raises(EdgeError, match=r"the search of MLflow at http.* did not answer 0 s ago"):
        registry.aliases()


def test_the_silence_of_one_store_of_artefacts_is_not_that_of_others(
    wire: Wire, world: RegistryWorld, tracking: TrackingServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    registry = MlflowRegistry(tracking.uri)
    first, second = (world.add_version(world.model, True) for _ in range(2))
    assert registry.resolve(world.model, first) is not None
    wire.mute()
    files = ModelFiles(tracking.uri, None)
    for said in ("does not answer as it should", "the store of its artefacts did not answer 0 s ago"):
        with pytest.raises(EdgeError, match=said):
            files.signed(f"{wire.uri}/api/2.0/mlflow-artifacts/artifacts/model")
    place = MlflowClient(tracking.uri, registry_uri=tracking.uri).get_model_version_download_uri(world.model, second)
    assert files.signed(place)


@pytest.mark.parametrize("scheme", ["http", "HTTP", "mlflow-artifacts"])
def test_the_password_of_a_shared_controller_goes_to_no_host_that_a_team_has_chosen(
    wire: Wire, tracking: TrackingServer, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    places = [f"{scheme}://{host}/api/2.0/mlflow-artifacts/artifacts/m" for host in (wire.uri[7:], "u@" + wire.uri[7:])]
    wire.cut()
    for place in places:
        with pytest.raises(EdgeError, match="at a host of its own"):
            ModelFiles(tracking.uri, print).signed(place)
    own = tracking.uri[7:]
    for uri, place in (
        (tracking.uri, f"{scheme}://{own}/api/2.0/mlflow-artifacts/artifacts/m"),
        (f"http://name:word@{own}", f"{scheme}://{own}/api/2.0/mlflow-artifacts/artifacts/m"),
    ):
        with pytest.raises(EdgeError) as said:
            ModelFiles(uri, print).signed(place)
        assert "of its own" not in str(said.value)
    monkeypatch.setenv("MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES", "s3, http,mlflow-artifacts")
    with pytest.raises(EdgeError) as said:
        ModelFiles(tracking.uri, print).signed(places[0])
    assert "of its own" not in str(said.value)


def test_a_server_that_was_silent_is_asked_by_one_at_a_time_until_it_answers() -> None:
    now = 100.0
    silence = Silence("it", lambda: now)

    def ask(takes: float, error: Exception | None) -> str:
        nonlocal now
        try:
            with silence.asked():
                now += takes
                if error is not None:
                    raise error
        except EdgeError as said:
            return str(said)
        return "answered"

    assert ask(1.0, EdgeError("refused at once")) == "refused at once"
    assert ask(0.0, None) == "answered"
    assert ask(10.0, EdgeError("timed out")) == "timed out"
    assert ask(0.0, None) == "it did not answer 0 s ago, and is asked again soon"
    now += 10.0
    with silence.asked():  # this one finds out, and others do not wait for it
        assert ask(0.0, None) == "it did not answer 10 s ago, and is asked again soon"
    assert ask(0.0, None) == "answered"
    assert ask(10.0, NotFound("an answer that came late")) == "an answer that came late"
    assert ask(0.0, None) == "answered"


def test_no_message_shows_the_password_in_the_address() -> None:
    registry = MlflowRegistry(f"http://ada:lovelace@127.0.0.1:{free_port()}")
    with pytest.raises(EdgeError) as raised:
        registry.resolve("m", "champion")
    assert "lovelace" not in str(raised.value)
    assert "MLflow at http://127.0.0.1:" in str(raised.value)


def test_whoever_may_not_move_aliases_any_more_is_asked_after_the_last_read_and_moves_none(
    client: MlflowClient, wire: Wire
) -> None:
    asked: list[str] = []

    def guard() -> None:
        asked.append("")
        raise EdgeError("not any more")

    registry = MlflowRegistry(wire.uri).guarded(guard)
    world = _world(registry, client)
    first, second = (world.add_version(world.model, True) for _ in range(2))
    world.point(world.model, "champion", first)
    moves = (
        lambda: registry.set_alias(world.model, "champion", second),
        lambda: registry.delete_alias(world.model, "champion", first),
    )
    for number, move in enumerate(moves, 1):
        with pytest.raises(EdgeError, match="not any more"):
            move()
        assert (world.aliases(world.model), len(asked)) == ({"champion": first}, number)
    wire.cut()
    for move in moves:
        with pytest.raises(EdgeError, match="does not answer"):
            move()
    assert len(asked) == 2


@pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "mlruns", "databricks", ""])
def test_an_address_that_is_no_tracking_server_is_refused(uri: str) -> None:
    with pytest.raises(SpecError, match="must be the address of an MLflow tracking server"):
        MlflowRegistry(uri)


def test_the_operators_own_deadlines_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "77")
    MlflowRegistry(f"http://127.0.0.1:{free_port()}").close()
    assert os.environ["MLFLOW_HTTP_REQUEST_TIMEOUT"] == "77"


_WITHOUT_FULL_MLFLOW = """
import sys
FULL = {"alembic", "docker", "flask", "graphene", "gunicorn", "huey", "matplotlib", "pandas", "pyarrow", "sklearn",
        "skops", "sqlalchemy", "waitress"}
class Hiding:
    def __init__(self, finder):
        self.finder = finder
    def find_spec(self, name, *args):
        return None if name.partition(".")[0] in FULL else self.finder.find_spec(name, *args)
    def __getattr__(self, name):
        return getattr(self.finder, name)
sys.meta_path[:] = [Hiding(finder) for finder in sys.meta_path]
from controller.edges.model_files import ModelFiles
from controller.edges.registry import MlflowRegistry
from tests.ports.contracts.registry import entry
from tests.ports.contracts.rollouts import record, rollout
uri, model, uid = sys.argv[1:]
registry = MlflowRegistry(uri)
print(registry.resolve(model, "champion"))
registry.log(rollout(model), entry(uid, 1, record=record(uid, 1)))
print(registry.close(30), registry.counters["refused"], sorted(FULL & sys.modules.keys()))
"""


def test_the_edge_works_with_nothing_but_mlflow_skinny(world: RegistryWorld, tracking: TrackingServer) -> None:
    world.point(world.model, "champion", world.add_version(world.model, True))
    world.add_version(world.model, True)
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_FULL_MLFLOW, tracking.uri, world.model, new_name("uid")],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert done.returncode == 0, done.stderr
    uri = f"models:/{world.model}/1"
    assert done.stdout.splitlines() == [f"ResolvedVersion(version='1', uri='{uri}', signed=True)", "True 0 []"]
