"""MLflow over HTTP by the client of mlflow-skinny: short deadlines, and its errors in our words."""

import importlib.util
import logging
import os
import posixpath
import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import orjson
import requests
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from mlflow.utils.credentials import get_default_host_creds
from mlflow.utils.rest_utils import http_request, verify_rest_response

from controller.errors import EdgeError, NotFound, SpecError

log = logging.getLogger("understudy.tracking")
_LOGGED_EVERY_S = 10.0

# MLflow reads these at each request, and its own values mean minutes of retries. The loop and the run's thread come
# back by themselves. What the operator has set is left alone.
_QUICK = {
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "5",  # seconds, for each connect and read
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_RESPECT_RETRY_AFTER_HEADER": "false",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
# MLflow looks for these at each request, on every path of the interpreter, to learn whether it runs in a notebook: more
# than half a millisecond. Where they are not installed, that is remembered.
_NOTEBOOKS = ("IPython", "dbruntime", "pyspark")
_ABSENT = {"RESOURCE_DOES_NOT_EXIST"}
REFUSED = {
    "BAD_REQUEST",
    "FEATURE_DISABLED",
    "INVALID_PARAMETER_VALUE",
    "INVALID_STATE",
    "PERMISSION_DENIED",
    "RESOURCE_ALREADY_EXISTS",
    "UNAUTHENTICATED",
}


class Refused(EdgeError):
    """MLflow understood and says no: the same call gets the same answer."""


def connect(tracking_uri: str) -> MlflowClient:
    """A client with short deadlines. SpecError for what is no http(s) address."""
    if urlsplit(tracking_uri).scheme not in ("http", "https"):
        raise SpecError(
            f"tracking uri: {tracking_uri!r} must be the address of an MLflow tracking server, http://… or https://…"
        )
    for name, value in _QUICK.items():
        os.environ.setdefault(name, value)
    for module in _NOTEBOOKS:
        if importlib.util.find_spec(module) is None:
            sys.modules.setdefault(module, None)  # type: ignore[arg-type]  # what the import system takes for absent
    return MlflowClient(tracking_uri, registry_uri=tracking_uri)


def aliases_page(tracking_uri: str, size: int, token: str | None) -> tuple[dict[str, dict[str, str]], str | None]:
    """What every alias names by model, of at most ``size`` models, and what to ask for the next ones with. MLflow's own
    client makes an object of each model and of each of its versions, which takes twenty times as long. Raises as it
    does."""
    path = "/api/2.0/mlflow/registered-models/search"
    asked = {"max_results": size, **({"page_token": token} if token else {})}
    server = get_default_host_creds(tracking_uri)  # type: ignore[no-untyped-call]
    answer = http_request(server, path, "GET", params=asked)  # type: ignore[no-untyped-call]
    if answer.status_code != 200:
        verify_rest_response(answer, path)
    try:
        page = orjson.loads(answer.content)
        found = {
            model["name"]: {each["alias"]: str(each["version"]) for each in model.get("aliases") or ()}
            for model in page.get("registered_models") or ()
        }
        return found, page.get("next_page_token") or None
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise MlflowException(f"what {path} answers is no list of models") from error


def shown(tracking_uri: str) -> str:
    """The address without a password."""
    return re.sub(r"//[^/@]*@", "//", tracking_uri).rstrip("/")


class Log:
    """Log lines of one server, so many a minute as people can read."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._next = clock, 0.0

    def __call__(self, text: str) -> None:
        now = self._clock()
        if now >= self._next:
            self._next = now + _LOGGED_EVERY_S
            log.warning("%s", text)


@contextmanager
def translated(tracking_uri: str, tell: Callable[[str], None] | None = None) -> Iterator[None]:
    """Turns MLflow's exceptions into NotFound, Refused or EdgeError, each with the address.

    With ``tell`` neither address nor what is said is in them, but given to that: others read the errors.
    """
    try:
        yield
    except ImportError as error:
        # mlflow-skinny brings no client for object stores such as S3.
        place = "MLflow" if tell else f"MLflow at {shown(tracking_uri)}"
        raise Refused(f"{place}: its artefact store needs a package: {error}") from error
    except (MlflowException, requests.RequestException, OSError) as error:
        place, said = f"MLflow at {shown(tracking_uri)}", _said(error)
        code = getattr(error, "error_code", "")
        known = code in _ABSENT | REFUSED
        text = f"{place}{':' if known else ' does not answer as it should:'} {said}"
        if tell:
            tell(text)
            text = f"MLflow{f': {code}' if known else ' does not answer as it should'} (the controller's log says more)"
        if code in _ABSENT:
            raise NotFound(text) from error
        raise (Refused if known else EdgeError)(text) from error


def _said(error: Exception) -> str:
    """One line, bounded, without passwords."""
    text = " ".join(str(error).split())
    text = re.sub(r"//[^/@\s]*@", "//", text)
    return text if len(text) <= 400 else text[:399] + "…"


def artifact_uri(folder: str, name: str) -> str:
    """The address of file ``name`` in an artefact folder."""
    return posixpath.join(folder.rstrip("/"), name)
