"""Loading a model once, from MLflow, into a Scorer and what the server must know about it.

The only module (besides `answers` for its encoder) that imports MLflow, and only inside functions: `understudy
--help` and the parent process stay fast and small.
"""

from __future__ import annotations

import dataclasses
import inspect
import logging
import os
import pathlib
import re
from typing import Any
from urllib.parse import unquote

from controller.serving.faults import InputFault, ModelRefused
from controller.serving.native import native_predict
from controller.serving.payload import Body
from controller.serving.scoring import (
    Predict,
    Reader,
    Scorer,
    element_reader,
    only_scalars,
    plain_array,
    reader_for,
)
from controller.serving.settings import ModelSource, ServeSettings

_logger = logging.getLogger("understudy.serve")
_ALIAS = re.compile(r"^models:/(?P<name>[^/@]+)@(?P<alias>[^/@]+)$")
_VERSION = re.compile(r"^models:/(?P<name>[^/@]+)/(?P<version>\d+)$")


@dataclasses.dataclass(frozen=True)
class LoadedModel:
    """A model ready to serve; `example` is a whole request body, None when the model was logged without one."""

    scorer: Scorer
    source: ModelSource
    example: bytes | None
    path_taken: str
    mlflow_version: str
    predict_fn: str


def find_model(settings: ServeSettings, folder: str) -> ModelSource:
    """Resolve an alias to a version, and bring the files to this machine. Raises ModelRefused if it is not there."""
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException
    from mlflow.tracking import MlflowClient

    uri = settings.model_uri
    _refuse_without_mlflow(uri)
    local = pathlib.Path(uri.removeprefix("file://"))
    if (local / "MLmodel").is_file():
        return ModelSource(str(local.resolve()), settings.model_name, settings.model_version)
    name, version = settings.model_name, settings.model_version
    try:
        if match := _ALIAS.match(uri):
            found = MlflowClient().get_model_version_by_alias(match["name"], match["alias"])
            uri = f"models:/{found.name}/{found.version}"
        if match := _VERSION.match(uri):
            name, version = name or match["name"], version or match["version"]
        path = download_artifacts(artifact_uri=uri, dst_path=folder)
    except (MlflowException, OSError) as error:
        if getattr(error, "error_code", "") in ("TEMPORARILY_UNAVAILABLE", "INTERNAL_ERROR"):
            raise
        raise ModelRefused(f"cannot find the model {settings.model_uri!r}: {error}") from error
    if not (pathlib.Path(path) / "MLmodel").is_file():
        raise ModelRefused(f"{settings.model_uri!r} is not an MLflow model: there is no MLmodel file in it")
    return ModelSource(path, name, version)


def _refuse_without_mlflow(uri: str) -> None:
    """ModelRefused where MLflow has been told of no server: its client would make an empty database right here."""
    if not uri.startswith(("models:", "runs:")):
        return
    import mlflow

    place = mlflow.get_registry_uri() if uri.startswith("models:") else mlflow.get_tracking_uri()
    database = pathlib.Path(unquote(place.removeprefix("sqlite:///")))
    if place.startswith("sqlite:///") and not database.exists():
        raise ModelRefused(
            f"cannot find the model {uri!r}: MLflow's database {database} does not exist; set MLFLOW_TRACKING_URI to"
            " the address of the MLflow server that has the model"
        )


def load_model(settings: ServeSettings, source: ModelSource) -> LoadedModel:
    """Load the model from `source.path`. Raises ModelRefused for a model that must not be served as it is."""
    import mlflow
    from mlflow.models import Model

    metadata = Model.load(source.path)
    schema = metadata.get_input_schema()  # type: ignore[no-untyped-call]
    if schema is None and not settings.allow_no_signature:
        raise ModelRefused(
            f"the model {settings.model_uri!r} has no signature, so its inputs cannot be checked. Log it again with "
            "signature= or input_example=, or serve it unchecked with --allow-no-signature"
        )
    # MLflow's own server says so too; type hints then accept base64 and ISO strings for bytes and times.
    os.environ["_MLFLOW_IS_IN_SERVING_ENVIRONMENT"] = "true"
    model = mlflow.pyfunc.load_model(source.path)
    example = _example(metadata, model, source.path)
    predict_fn = settings.predict_fn or metadata.flavors["python_function"].get("predict_fn", "predict")
    direct = _direct_predict(model, predict_fn, settings)
    read, predict, path_taken = _wire(settings, metadata, model, direct)
    scorer = Scorer(read, predict, _params_check(metadata), settings.max_response_bytes)
    if path_taken == "frame" and example is not None:
        faster = native_predict(model, direct, predict_fn)
        if faster is not None:
            native = Scorer(reader_for(schema.to_dict(), plain_array), faster, _params_check(metadata), scorer._limit)
            if _agree(scorer, native, example):
                scorer, path_taken = native, "array"
    return LoadedModel(scorer, source, example, path_taken, mlflow.__version__, predict_fn)


def _wire(settings: ServeSettings, metadata: Any, model: Any, direct: Predict) -> tuple[Reader, Predict, str]:
    """The reader and the predict function that suit the signature, and a name for this choice."""
    schema = metadata.get_input_schema()
    if schema is None:
        return _unchecked, direct, "unchecked"
    inputs = schema.to_dict()
    if metadata._is_signature_from_type_hint():
        return element_reader(inputs, _hint_check(model)), direct, "elements"
    if only_scalars(inputs) and not metadata._is_type_hint_from_example():
        try:
            return reader_for(inputs), direct, "tensor" if schema.is_tensor_spec() else "frame"
        except (ValueError, TypeError) as error:
            raise ModelRefused(f"the signature of {settings.model_uri!r} cannot be served: {error}") from error
    if settings.predict_fn is not None:
        raise ModelRefused("--predict-fn is not supported for a model with nested column types")
    return _checked_then_parsed(reader_for(inputs), schema), _enforced_predict(model), "enforced"


def _checked_then_parsed(read: Reader, schema: Any) -> Reader:
    """Our check, then MLflow's own parsing: what it makes of nested values depends on the format they came in."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    def parse(body: Body) -> tuple[Any, int | None]:
        rows = read(body)[1]
        try:
            return infer_and_parse_data({body.form: body.value}, schema), rows
        except MlflowException:
            raise InputFault(f"{body.form} does not fit the model's signature") from None

    return parse


def _unchecked(body: Body) -> tuple[Any, None]:
    """Without a signature: MLflow's own parsing, whatever it makes of the values."""
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc.scoring_server import infer_and_parse_data

    try:
        return infer_and_parse_data({body.form: body.value}), None
    except MlflowException:
        raise InputFault(f"{body.form} cannot be read; allowed: what MLflow's protocol describes") from None


def _direct_predict(model: Any, predict_fn: str, settings: ServeSettings) -> Predict:
    """The flavour's own function, without MLflow's second schema check; what `PyFuncModel.predict` ends in."""
    function = getattr(model._model_impl, predict_fn, None)
    if not callable(function):
        raise ModelRefused(f"the model {settings.model_uri!r} has no function {predict_fn!r} (--predict-fn)")
    accepts = inspect.signature(function).parameters.get("params")
    if accepts is not None and accepts.kind is not inspect.Parameter.VAR_KEYWORD:
        return lambda data, params: function(data, params=params)
    return lambda data, params: function(data)


def _enforced_predict(model: Any) -> Predict:
    """MLflow's own predict, for nested types: its schema enforcement may still refuse what passed ours."""
    from mlflow.exceptions import MlflowException

    def predict(data: Any, params: dict[str, Any] | None) -> Any:
        try:
            return model.predict(data, params=params)
        except MlflowException as error:
            if str(error.message).startswith("Failed to enforce"):
                raise InputFault("the input does not fit the model's signature") from None
            raise

    return predict


def _hint_check(model: Any) -> Any:
    """Check elements against the model's own type hint first, so that a failure there is the client's."""
    from mlflow.exceptions import MlflowException
    from mlflow.types.type_hints import _validate_data_against_type_hint

    python_model = getattr(model._model_impl, "python_model", None)
    hints = getattr(python_model, "predict_type_hints", None)
    hint = getattr(hints, "input", None)

    def check(elements: Any) -> None:
        if hint is None:
            return
        try:
            _validate_data_against_type_hint(elements, hint)
        except MlflowException as error:
            text = str(error.message).partition(". Expected fields")[0]
            raise InputFault(f"inputs do not fit the model's type: {text[:300]}") from None

    return check


def _params_check(metadata: Any) -> Any:
    """Checks `params` against the signature: unknown ones are refused, absent ones take their default."""
    from mlflow.exceptions import MlflowException
    from mlflow.types import ParamSpec

    schema = metadata.get_params_schema()
    specs = {spec.name: spec for spec in schema.params} if schema is not None else {}

    def check(given: dict[str, Any] | None) -> dict[str, Any] | None:
        given = given or {}
        for name in given:
            if name not in specs:
                raise InputFault(f"unknown param {name[:40]!r}; allowed: {sorted(specs) or 'none'}")
        if not specs:
            return {} if schema is not None else None
        checked: dict[str, Any] = {}
        for name, spec in [(name, specs[name]) for name in given] + list(specs.items()):
            try:
                checked[name] = ParamSpec.validate_param_spec(given[name], spec) if name in given else spec.default
            except MlflowException:
                shape = "" if spec.shape is None else f" of shape {spec.shape}"
                raise InputFault(f"param {name!r} has the wrong type; allowed: {spec.dtype!r}{shape}") from None
        return checked

    return check


def _example(metadata: Any, model: Any, path: str) -> bytes | None:
    """The model's own example as a request body."""
    from mlflow.models import convert_input_example_to_serving_input

    info = metadata.saved_input_example_info or {}
    serving = pathlib.Path(path) / info.get("serving_input_path", "serving_input_example.json")
    if serving.is_file():
        return bytes(serving.read_bytes())
    if model.input_example is None:
        return None
    text = convert_input_example_to_serving_input(model.input_example)
    return None if text is None else str(text).encode()


def _agree(careful: Scorer, native: Scorer, example: bytes) -> bool:
    """True when both ways give the same bytes for the model's example; a failing model is left to /health."""
    try:
        return careful.score(example) == native.score(example)
    except Exception:  # noqa: BLE001  a model may raise anything
        return False
