"""The MLmodel file of a version: whether the model has a signature.

The file is whatever its owner wrote, and it lies wherever the version says. So little of it is read, and a store that
keeps everybody waiting is asked by one at a time; another store is not held responsible for that.
"""

import os
import posixpath
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import yaml
from mlflow.artifacts import download_artifacts, list_artifacts

from controller.edges.silence import Silence
from controller.edges.tracking import Refused, artifact_uri, translated
from controller.errors import EdgeError

_MLMODEL, _LARGEST = "MLmodel", 1 << 20
_LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_EMPTY = ("", "~", "null", "Null", "NULL")
_DEEPEST = 100  # what the parser takes for a level grows with their number
_STORES_KEPT = 256
_NAMING_HOSTS = ("http", "https", "mlflow-artifacts", "ftp", "sftp")  # the first three are sent MLflow's credentials
_ALLOWED = "MLFLOW_ALLOWED_HOST_ADDRESSED_ARTIFACT_SCHEMES"  # MLflow's own name for it


class ModelFiles:
    """Those of one tracking server. ``tell`` is given what a store says, where others read the errors."""

    def __init__(self, tracking_uri: str, tell: Callable[[str], None] | None) -> None:
        self._uri, self._tell = tracking_uri, tell
        self._stores: OrderedDict[str, Silence] = OrderedDict()

    def signed(self, folder: str) -> bool:
        """Whether the model in this artefact folder has a signature. EdgeError with the reason where its file cannot be
        read, without what is in it."""
        if self._tell is not None and not _trusted(folder, self._uri):
            raise Refused(f"it lies at a host of its own, which is asked where the controller has {_ALLOWED} alone")
        try:
            with self._store(folder).asked(), translated(self._uri, self._tell), tempfile.TemporaryDirectory() as place:
                listed = list_artifacts(artifact_uri=folder, tracking_uri=self._uri)
                _bounded(next((each.file_size for each in listed if posixpath.basename(each.path) == _MLMODEL), None))
                path = download_artifacts(
                    artifact_uri=artifact_uri(folder, _MLMODEL), dst_path=place, tracking_uri=self._uri
                )
                _bounded(Path(path).stat().st_size)  # where the store did not say
                text = Path(path).read_text(encoding="utf-8")
            return _signed(text)
        except yaml.MarkedYAMLError as error:
            mark = error.problem_mark
            where = "" if mark is None else f" (line {mark.line + 1}, column {mark.column + 1})"
            raise EdgeError(f"it is no YAML{where}") from error
        except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
            raise EdgeError("it is no YAML") from error

    def _store(self, folder: str) -> Silence:
        """Of the store where the folder is. A folder without a host is behind the tracking server."""
        parts = urlsplit(folder)
        key = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"
        found = self._stores.pop(key, None) or Silence("the store of its artefacts")
        self._stores[key] = found
        while len(self._stores) > _STORES_KEPT:
            self._stores.popitem(last=False)
        return found


def _trusted(folder: str, tracking_uri: str) -> bool:
    """Whether a store may be asked that a team has chosen: one at a host is told the name and password by which we move
    everybody's aliases. A present MLflow takes no such place from teams; older ones do."""
    parts = urlsplit(folder)
    allowed = {each.strip().lower() for each in os.environ.get(_ALLOWED, "").split(",")}
    if not parts.netloc or parts.scheme not in _NAMING_HOSTS or parts.scheme in allowed:
        return True
    return parts.netloc.lower() == urlsplit(tracking_uri).netloc.rpartition("@")[2].lower()


def _bounded(size: int | None) -> None:
    if size is not None and size > _LARGEST:
        raise Refused(f"it has {size:,} bytes; at most {_LARGEST:,} are read")


def _signed(text: str) -> bool:
    """Whether an MLmodel file has something under ``signature`` at its top. Only looked through, by the parser in C
    where there is one: others wait for it, and the file is whatever its owner wrote."""
    depth, key, found = 0, None, False
    for event in yaml.parse(text, Loader=_LOADER):
        if isinstance(event, yaml.CollectionEndEvent):
            depth -= 1
        if not isinstance(event, yaml.NodeEvent):
            continue
        if depth == 0 and not isinstance(event, yaml.MappingStartEvent):
            return False
        if depth == 1:
            # At the top keys and values come in turn.
            if key is None:
                key = event.value if isinstance(event, yaml.ScalarEvent) else ""
            else:
                empty = isinstance(event, yaml.ScalarEvent) and event.value in _EMPTY
                found, key = found or (key == "signature" and not empty), None
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > _DEEPEST:
                raise EdgeError(f"it is nested more than {_DEEPEST} deep")
    return found
