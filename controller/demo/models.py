"""Trains the demo's models and registers them, each once, as versions of one registered model.

The champion learns from January to March, the challenger from April to June, by the same code. Two more
versions carry the challenger's weights and are broken on purpose; their descriptions say so.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import mlflow.artifacts
import mlflow.pyfunc
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Param
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, Schema
from scipy import sparse
from sklearn import metrics
from sklearn.linear_model import LogisticRegression

from controller.demo import flight_model
from controller.demo.flights import FEATURES, NAMES, NUMBERS, Flight, data_digest, load, of_months

CHAMPION_MONTHS = (1, 3)
CHALLENGER_MONTHS = (4, 6)
SERVED_MONTHS = (7, 9)

_TAG_ROLE = "understudy.demo.role"
_TAG_DIGEST = "understudy.demo.digest"
_DIGITS = 6  # of a weight: the last bits differ between builds of a linear algebra library, these do not

_WEIGHTS = "artifacts/weights.json"
# All numbers are whole in the data. MLflow does not take an integer for a double, so they are declared as such.
SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec("string" if name in ("origin", "dest", "carrier") else "long", name) for name in FEATURES]),
    outputs=Schema([ColSpec("double")]),
)
# A real kind of flight; the crashing version has to survive it, as readiness is asked with it.
EXAMPLE = {
    "dep_delay": 12,
    "hour": 17,
    "distance": 1400,
    "weekday": 4,
    "origin": "EWR",
    "dest": "IAH",
    "carrier": "UA",
}

Weights = dict[str, Any]
"""See flight_model: an intercept, a slope per number, a table of weights per name."""


@dataclass(frozen=True, slots=True)
class Versions:
    """Version numbers in the registry, as strings, as MLflow has them."""

    champion: str
    challenger: str
    skewed: str
    crashing: str


@dataclass(frozen=True, slots=True)
class _Role:
    """One version to register: months it learns from, faults it is served with, and what people are told."""

    name: str
    months: tuple[int, int]
    description: str
    faults: dict[str, float]


ROLES = (
    _Role("champion", CHAMPION_MONTHS, "Logistic regression, trained on January to March 2013.", {}),
    _Role("challenger", CHALLENGER_MONTHS, "Logistic regression, trained on April to June 2013.", {}),
    _Role(
        "skewed",
        CHALLENGER_MONTHS,
        "Broken on purpose, for the demo: the weights of the honest challenger, but at serving the departure "
        "delay is taken in seconds where training had minutes (a train/serve skew).",
        {"delay_factor": 60.0},
    ),
    _Role(
        "crashing",
        CHALLENGER_MONTHS,
        "Broken on purpose, for the demo: the weights of the honest challenger, but predict raises for 2 % of "
        "the flights, picked by a hash of their features.",
        {"crash_share": 0.02},
    ),
)


def fit(training: Sequence[Flight]) -> Weights:
    """A logistic regression (L2, C = 1, on standardised numbers) of ``late`` on what is known at departure.

    Flights without a label are left out; ValueError where no two classes remain.
    """
    known = [flight for flight in training if flight.late is not None]
    labels = np.array([flight.late for flight in known], dtype=np.int8)
    numbers = np.array([[getattr(flight, name) for name in NUMBERS] for flight in known], dtype=np.float64)
    centre, spread = numbers.mean(axis=0), numbers.std(axis=0)
    blocks = [sparse.csr_array((numbers - centre) / spread)]
    levels: list[list[Any]] = []
    for name in NAMES:
        values, codes = np.unique([getattr(flight, name) for flight in known], return_inverse=True)
        rows = np.arange(len(known))
        blocks.append(sparse.csr_array((np.ones(len(known)), (rows, codes)), shape=(len(known), len(values))))
        levels.append(values.tolist())
    # The tolerance is on the mean gradient: tight enough that the weights do not depend on where it stopped.
    model = LogisticRegression(C=1.0, tol=1e-7, max_iter=1000).fit(sparse.hstack(blocks).tocsr(), labels)
    found = model.coef_[0]
    slopes = found[: len(NUMBERS)] / spread
    weights: Weights = {
        "intercept": round(float(model.intercept_[0] - slopes @ centre), _DIGITS),
        "slopes": {name: round(float(slope), 2 * _DIGITS) for name, slope in zip(NUMBERS, slopes, strict=True)},
        "tables": {},
    }
    offset = len(NUMBERS)
    for name, known_levels in zip(NAMES, levels, strict=True):
        part = found[offset : offset + len(known_levels)]
        weights["tables"][name] = {
            str(value): round(float(weight), _DIGITS) for value, weight in zip(known_levels, part, strict=True)
        }
        offset += len(known_levels)
    return weights


def predict(weights: Weights, rows: Sequence[Flight]) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The probability of a late arrival for each flight, by the very arithmetic that is served."""
    columns = {name: [getattr(flight, name) for flight in rows] for name in FEATURES}
    return np.fromiter(flight_model.probabilities(weights, columns), dtype=np.float64, count=len(rows))


@dataclass(frozen=True, slots=True)
class Scores:
    """How well one model did on the flights of some months that have a label.

    ``log_loss`` (nats) and ``brier`` are means per flight; ``accuracy`` is at a threshold of one half;
    ``predicted`` is the mean probability and ``late`` the share that really was late.
    """

    model: str
    months: tuple[int, int]
    flights: int
    log_loss: float
    brier: float
    auc: float
    accuracy: float
    predicted: float
    late: float


def score(model: str, weights: Weights, served: Iterable[Flight], months: tuple[int, int]) -> Scores:
    """Measure one model on those of the flights that are of these months and have a label."""
    known = [flight for flight in of_months(served, *months) if flight.late is not None]
    predicted = predict(weights, known)
    late = np.array([flight.late for flight in known], dtype=bool)
    return Scores(
        model=model,
        months=months,
        flights=len(known),
        log_loss=float(metrics.log_loss(late, predicted)),
        brier=float(metrics.brier_score_loss(late, predicted)),
        auc=float(metrics.roc_auc_score(late, predicted)),
        accuracy=float(((predicted >= 0.5) == late).mean()),
        predicted=float(predicted.mean()),
        late=float(late.mean()),
    )


def evaluate(weights: Mapping[str, Weights], served: Sequence[Flight]) -> list[Scores]:
    """Each model on all the months served, then on each of them: what hindsight knows about a rollout."""
    first, last = SERVED_MONTHS
    periods = [SERVED_MONTHS, *((month, month) for month in range(first, last + 1))]
    return [score(name, found, served, months) for months in periods for name, found in weights.items()]


def register(tracking_uri: str, name: str, artifact_location: str | None = None) -> Versions:
    """Train and register what the registry does not have yet; the versions of the four roles.

    A version is recognised by a digest of the data, of this code and of the packages it is served with, so
    that a second call trains nothing. ``champion`` and ``challenger`` become aliases where these do not exist;
    an alias that does is left alone (see ``point``). ``artifact_location`` is needed for a store without a
    server (``sqlite:///…``), which would else write into the current folder; a server has its own.
    """
    # MLflow prints a link for each finished run; the standard output belongs to the caller.
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    client = MlflowClient(tracking_uri)
    digest = _digest()
    have = _registered(client, name, digest)
    if missing := [role for role in ROLES if role.name not in have]:
        _ensure_registered_model(client, name)
        experiment = _experiment(client, f"training/{name}", artifact_location)
        flights = load(CHAMPION_MONTHS[0], CHALLENGER_MONTHS[1])
        trained: dict[tuple[int, int], Weights] = {}
        for role in missing:
            training = of_months(flights, *role.months)
            if role.months not in trained:
                trained[role.months] = fit(training)
            weights = trained[role.months]
            run = _log_training(client, experiment, role, score(role.name, weights, training, role.months))
            have[role.name] = _log_version(client, name, role, run, weights, digest)
    versions = Versions(**{role.name: have[role.name] for role in ROLES})
    aliases = client.get_registered_model(name).aliases
    for alias in ("champion", "challenger"):
        if alias not in aliases:
            client.set_registered_model_alias(name, alias, have[alias])
    return versions


def point(tracking_uri: str, name: str, *, champion: str, challenger: str) -> None:
    """Move both aliases to these versions, whatever they show now: how an act begins."""
    client = MlflowClient(tracking_uri)
    client.set_registered_model_alias(name, "champion", champion)
    client.set_registered_model_alias(name, "challenger", challenger)


def weights_of(tracking_uri: str, name: str, number: str) -> Weights:
    """The weights that a registered version carries."""
    client = MlflowClient(tracking_uri)
    # The source is models:/<id of the logged model>; a path behind the id is not resolved.
    model_id = str(client.get_model_version(name, number).source).removeprefix("models:/")
    location = client.get_logged_model(model_id).artifact_location
    with tempfile.TemporaryDirectory() as folder:
        path = mlflow.artifacts.download_artifacts(
            artifact_uri=f"{location}/{_WEIGHTS}", dst_path=folder, tracking_uri=tracking_uri
        )
        weights: Weights = json.loads(Path(path).read_text(encoding="utf-8"))
    return weights


def _requirements() -> list[str]:
    return [f"{package}=={version(package)}" for package in ("mlflow", "numpy", "pandas")]


def _digest() -> str:
    digest = hashlib.sha256(data_digest().encode())
    for name in ("flights.py", "flight_model.py", "models.py"):
        digest.update((Path(__file__).parent / name).read_bytes())
    digest.update("\n".join(_requirements()).encode())
    return digest.hexdigest()


def _registered(client: MlflowClient, name: str, digest: str) -> dict[str, str]:
    """Role → its newest version with this digest."""
    found = client.search_model_versions(f"name = '{name}'")
    return {
        known.tags[_TAG_ROLE]: str(known.version)  # a database store gives an integer
        for known in sorted(found, key=lambda known: int(known.version))
        if known.tags.get(_TAG_DIGEST) == digest and known.status == "READY"
    }


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.create_registered_model(name, description="Will this flight arrive more than 15 minutes late?")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _experiment(client: MlflowClient, name: str, artifact_location: str | None) -> str:
    found = client.get_experiment_by_name(name)
    identifier: str = found.experiment_id if found else client.create_experiment(name, artifact_location)
    return identifier


def _log_training(client: MlflowClient, experiment: str, role: _Role, scores: Scores) -> str:
    """One finished run with what the model was trained on and how well it fits it; its id."""
    run = client.create_run(experiment, run_name=role.name, tags={"mlflow.note.content": role.description})
    figures = {key: value for key, value in asdict(scores).items() if isinstance(value, float)}
    at = run.info.start_time
    client.log_batch(
        run.info.run_id,
        params=[
            Param("months", "{}-{}".format(*role.months)),
            Param("flights", str(scores.flights)),
            *(Param(key, str(value)) for key, value in role.faults.items()),
        ],
        metrics=[Metric(f"training/{key}", value, at, 0) for key, value in figures.items()],
    )
    client.set_terminated(run.info.run_id)
    identifier: str = run.info.run_id
    return identifier


@contextmanager
def _process_tracking_uri(uri: str) -> Iterator[None]:
    """Set MLflow's tracking URI of the process, and put back what was there.

    A database store asks the process, not the client in use, where the model of a new version is. The
    environment variable is what MLflow keeps in step with it, for child processes.
    """
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(before)  # type: ignore[arg-type]  # None is how it is unset


def _log_version(client: MlflowClient, name: str, role: _Role, run: str, weights: Weights, digest: str) -> str:
    """Store the model and register it; its version number.

    By the client, not by ``mlflow.pyfunc.log_model``, which works on the active run and the tracking URI of
    the whole process. Tags and description come with the version, so that no crash leaves one without.
    """
    experiment = client.get_run(run).info.experiment_id
    logged = client.create_logged_model(experiment, name=role.name, source_run_id=run)
    with tempfile.TemporaryDirectory() as folder:
        artefact = Path(folder, "weights.json")
        artefact.write_text(json.dumps(weights, indent=1), encoding="utf-8")
        mlflow.pyfunc.save_model(
            path=str(Path(folder, "model")),
            python_model=flight_model.__file__,
            artifacts={"weights": str(artefact)},
            model_config=role.faults,
            signature=SIGNATURE,
            input_example=pd.DataFrame([EXAMPLE]),
            pip_requirements=_requirements(),
            mlflow_model=Model(
                artifact_path=logged.artifact_location,
                model_uuid=logged.model_id,
                run_id=run,
                model_id=logged.model_id,
            ),
        )
        client.log_model_artifacts(logged.model_id, str(Path(folder, "model")))
    client.finalize_logged_model(logged.model_id, "READY")
    client.log_outputs(run, [LoggedModelOutput(logged.model_id, step=0)])
    with _process_tracking_uri(client.tracking_uri):
        registered = client.create_model_version(
            name,
            source=f"models:/{logged.model_id}",
            run_id=run,
            model_id=logged.model_id,
            tags={_TAG_ROLE: role.name, _TAG_DIGEST: digest},
            description=role.description,
        )
    return str(registered.version)
