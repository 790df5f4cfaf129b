"""The demo's models: fitted right, registered once, served as they were measured, and broken only as told."""

import asyncio
import contextlib
import json
import os
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import mlflow.pyfunc
import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.pyfunc import scoring_server

from controller.demo import models
from controller.demo.flights import NAMES, NUMBERS, Flight, load, of_months, request_body
from controller.demo.models import Versions, Weights

NAME = "flight-delay"


@dataclass(frozen=True)
class Store:
    """A real MLflow store on SQLite with the four versions, and what the process looked like afterwards."""

    uri: str
    artifacts: Path
    versions: Versions
    left_behind: list[str]
    tracking_variable: str | None

    def client(self) -> MlflowClient:
        return MlflowClient(self.uri)

    def weights(self, number: str) -> Weights:
        return models.weights_of(self.uri, NAME, number)

    def folder(self, number: str) -> Path:
        """Where the registered model lies; a path can be loaded without a tracking URI of the process."""
        client = self.client()
        source = str(client.get_model_version(NAME, number).source)
        return Path(client.get_logged_model(source.removeprefix("models:/")).artifact_location)

    def model(self, number: str) -> Any:
        return mlflow.pyfunc.load_model(str(self.folder(number)))


@pytest.fixture(scope="module")
def flights() -> list[Flight]:
    return load(1, 9)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("registry")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    uri = f"sqlite:///{folder}/mlflow.db"
    with contextlib.chdir(elsewhere):
        versions = models.register(uri, NAME, str(folder / "artifacts"))
    left_behind = sorted(str(path) for path in elsewhere.rglob("*"))
    return Store(uri, folder / "artifacts", versions, left_behind, os.environ.get("MLFLOW_TRACKING_URI"))


@pytest.fixture(scope="module")
def honest(store: Store) -> dict[str, Weights]:
    return {name: store.weights(getattr(store.versions, name)) for name in ("champion", "challenger")}


def _frame(*served: Flight) -> pd.DataFrame:
    return pd.DataFrame([flight.features() for flight in served])


def _invoke(model: Any, body: bytes) -> httpx.Response:
    """What MLflow's own scoring server answers to this body, without a socket in between."""

    async def post() -> httpx.Response:
        transport = httpx.ASGITransport(app=scoring_server.init(model))
        async with httpx.AsyncClient(transport=transport, base_url="http://model") as client:
            headers = {"content-type": "application/json"}
            return await client.post("/invocations", content=body, headers=headers, timeout=30)

    return asyncio.run(post())


def test_the_fit_is_the_optimum_of_the_penalised_likelihood(flights: list[Flight], honest: dict[str, Weights]) -> None:
    """Where the gradient is zero, each group's surplus of predictions over late flights is minus its weight."""
    training = [flight for flight in of_months(flights, 1, 3) if flight.late is not None]
    weights = honest["champion"]
    surplus = models.predict(weights, training) - np.array([flight.late for flight in training], dtype=float)
    assert abs(surplus.sum()) < 0.2  # of 80,000 flights: the intercept is not penalised
    for name in NAMES:
        values = np.array([str(getattr(flight, name)) for flight in training])
        for value, weight in weights["tables"][name].items():
            assert surplus[values == value].sum() == pytest.approx(-weight, abs=0.2)
    for name in NUMBERS:
        numbers = np.array([getattr(flight, name) for flight in training], dtype=float)
        spread = numbers.std()
        standardised = (numbers - numbers.mean()) / spread
        assert surplus @ standardised == pytest.approx(-weights["slopes"][name] * spread, abs=0.2)


def test_each_model_knows_only_its_own_quarter(flights: list[Flight], honest: dict[str, Weights]) -> None:
    for name, months in (("champion", (1, 3)), ("challenger", (4, 6))):
        training = of_months(flights, *months)
        known = {flight.dest for flight in training if flight.late is not None}
        assert set(honest[name]["tables"]["dest"]) == known


def test_the_same_flights_give_the_same_weights(flights: list[Flight], honest: dict[str, Weights]) -> None:
    assert models.fit(of_months(flights, 4, 6)) == honest["challenger"]


def test_on_the_summer_the_challenger_is_a_little_better_but_not_in_september(
    flights: list[Flight], honest: dict[str, Weights]
) -> None:
    scores = {(score.model, score.months): score for score in models.evaluate(honest, flights)}
    summer = {name: scores[name, (7, 9)] for name in honest}
    assert summer["champion"].flights == summer["challenger"].flights == 84_059
    assert summer["champion"].log_loss == pytest.approx(0.265, abs=0.001)
    assert summer["challenger"].log_loss == pytest.approx(0.262, abs=0.001)
    assert summer["champion"].auc == pytest.approx(0.904, abs=0.002)
    assert summer["challenger"].auc == pytest.approx(0.909, abs=0.002)
    assert summer["challenger"].brier < summer["champion"].brier
    september = {name: scores[name, (9, 9)] for name in honest}
    assert 0.0005 < september["challenger"].log_loss - september["champion"].log_loss < 0.003
    assert all(score.predicted > score.late + 0.03 for score in september.values())


def test_scores_are_the_textbook_means(flights: list[Flight], honest: dict[str, Weights]) -> None:
    known = [flight for flight in of_months(flights, 9, 9) if flight.late is not None]
    chance = models.predict(honest["champion"], known)
    late = np.array([flight.late for flight in known])
    score = models.score("champion", honest["champion"], flights, (9, 9))
    assert score.log_loss == pytest.approx(-np.log(np.where(late, chance, 1 - chance)).mean())
    assert score.brier == pytest.approx(((chance - late) ** 2).mean())
    assert score.accuracy == pytest.approx(1 - (late ^ (chance >= 0.5)).mean())
    order = chance[late][:, None] - chance[~late][None, ::10]
    beaten = (order > 0).mean() + (order == 0).mean() / 2  # late flights against every tenth of the others
    assert score.auc == pytest.approx(beaten, abs=0.01)


def test_a_value_never_seen_in_training_adds_nothing(flights: list[Flight], honest: dict[str, Weights]) -> None:
    known, unknown = flights[0], flights[0]._replace(dest="ZZZ")
    with_dest, without = models.predict(honest["champion"], [known, unknown])
    weight = honest["champion"]["tables"]["dest"][known.dest]
    assert np.log(with_dest / (1 - with_dest)) - np.log(without / (1 - without)) == pytest.approx(weight)


@pytest.mark.parametrize(("delay", "chance"), [(10**9, 1.0), (-(10**9), 0.0)])
def test_absurd_delays_give_a_probability_still(
    delay: int, chance: float, flights: list[Flight], honest: dict[str, Weights]
) -> None:
    assert models.predict(honest["champion"], [flights[0]._replace(dep_delay=delay)]).tolist() == [chance]


def test_the_registry_has_four_ready_versions_and_says_which_are_broken(store: Store) -> None:
    assert asdict(store.versions) == {"champion": "1", "challenger": "2", "skewed": "3", "crashing": "4"}
    found = {role: store.client().get_model_version(NAME, number) for role, number in asdict(store.versions).items()}
    assert {version.status for version in found.values()} == {"READY"}
    broken = {role for role, version in found.items() if "on purpose" in version.description}
    assert broken == {"skewed", "crashing"}


def test_registering_leaves_nothing_outside_the_store(store: Store) -> None:
    assert store.left_behind == []
    assert store.tracking_variable is None


def test_registering_again_trains_nothing_and_leaves_the_aliases_to_their_owner(store: Store) -> None:
    client = store.client()
    assert {name: str(at) for name, at in client.get_registered_model(NAME).aliases.items()} == {
        "champion": "1",
        "challenger": "2",
    }
    models.point(store.uri, NAME, champion="2", challenger="4")
    experiment = client.get_experiment_by_name(f"training/{NAME}")
    runs = len(client.search_runs([experiment.experiment_id]))
    assert models.register(store.uri, NAME, str(store.artifacts)) == store.versions
    assert len(client.search_runs([experiment.experiment_id])) == runs == 4
    assert len(client.search_model_versions(f"name = '{NAME}'")) == 4
    aliases = client.get_registered_model(NAME).aliases
    assert {name: str(at) for name, at in aliases.items()} == {"champion": "2", "challenger": "4"}


def test_only_a_version_of_other_code_or_data_is_trained_again(store: Store, tmp_path: Path) -> None:
    shutil.copy(store.uri.removeprefix("sqlite:///"), tmp_path / "mlflow.db")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    MlflowClient(uri).set_model_version_tag(NAME, store.versions.skewed, "understudy.demo.digest", "other")
    assert asdict(models.register(uri, NAME)) == asdict(store.versions) | {"skewed": "5"}


def test_a_served_model_needs_neither_this_project_nor_scikit_learn(store: Store, tmp_path: Path) -> None:
    code = (
        "import sys; sys.modules['controller'] = None; sys.modules['sklearn'] = None\n"
        "import mlflow.pyfunc, pandas\n"
        "model = mlflow.pyfunc.load_model(sys.argv[1])\n"
        "print(model.predict(pandas.DataFrame([eval(sys.argv[2])])).tolist())\n"
    )
    arguments = [str(store.folder("2")), repr(models.EXAMPLE)]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *arguments],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    expected = store.model("2").predict(pd.DataFrame([models.EXAMPLE])).tolist()
    assert json.loads(done.stdout) == expected


@pytest.mark.parametrize("role", ["champion", "challenger"])
def test_the_served_probabilities_are_the_measured_ones(
    role: str, flights: list[Flight], store: Store, honest: dict[str, Weights]
) -> None:
    served = of_months(flights, 7, 9)[::40]
    answers = store.model(getattr(store.versions, role)).predict(_frame(*served))
    assert answers.tolist() == models.predict(honest[role], served).tolist()


def test_mlflows_own_server_answers_a_request_with_one_number_per_row(
    flights: list[Flight], store: Store, honest: dict[str, Weights]
) -> None:
    served = of_months(flights, 7, 9)[:2]
    chances = models.predict(honest["challenger"], served).tolist()
    one = _invoke(store.model("2"), request_body(served[0]))
    assert (one.status_code, one.json()) == (200, {"predictions": chances[:1]})
    split = json.dumps({"dataframe_split": _frame(*served).to_dict("split")})
    assert _invoke(store.model("2"), split.encode()).json() == {"predictions": chances}


def test_a_request_without_one_of_the_features_is_refused(flights: list[Flight], store: Store) -> None:
    row = {name: value for name, value in flights[0].features().items() if name != "carrier"}
    answer = _invoke(store.model("2"), json.dumps({"dataframe_records": [row]}).encode())
    assert answer.status_code == 400
    assert "carrier" in answer.json()["message"]


@pytest.mark.parametrize("number", ["1", "2", "3", "4"])
def test_every_version_answers_its_own_example(number: str, store: Store) -> None:
    example = (store.folder(number) / "serving_input_example.json").read_bytes()
    answer = _invoke(store.model(number), example)
    assert answer.status_code == 200
    assert 0 <= answer.json()["predictions"][0] <= 1


def test_the_skewed_version_is_the_challenger_given_seconds_for_minutes(
    flights: list[Flight], store: Store, honest: dict[str, Weights]
) -> None:
    served = of_months(flights, 7, 9)[::40]
    in_seconds = [flight._replace(dep_delay=60 * flight.dep_delay) for flight in served]
    answers = store.model(store.versions.skewed).predict(_frame(*served)).tolist()
    assert answers == pytest.approx(models.predict(honest["challenger"], in_seconds).tolist())


def test_the_crashing_version_fails_the_same_two_percent_and_is_the_challenger_elsewhere(
    flights: list[Flight], store: Store, honest: dict[str, Weights]
) -> None:
    served = of_months(flights, 7, 9)[::20]
    chances = models.predict(honest["challenger"], served).tolist()
    model = store.model(store.versions.crashing).unwrap_python_model()

    def answers() -> list[float | None]:
        found: list[float | None] = []
        for flight in served:
            try:
                found.extend(model.predict(None, _frame(flight)).tolist())
            except RuntimeError:
                found.append(None)
        return found

    once = answers()
    assert once == answers()
    # 4,223 flights: four standard errors around two percent.
    assert 0.0114 < once.count(None) / len(once) < 0.0286
    assert all(answer in (None, chance) for answer, chance in zip(once, chances, strict=True))
