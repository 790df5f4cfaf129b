"""MLflow with thousands of registered models: rows written into its own tables at once, and a real tracking server."""

import contextlib
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.bench_controller.places import ACTIVE, Rollout
from tests.embedded.registered import STARTED_S, free_port, wait_for_answer

VERSIONS = ("1", "2")
SHARED = "mlflow-artifacts:/shared/model"  # one artefact folder for all versions: a signature, and no model
MLMODEL = """\
flavors: {python_function: {loader_module: none}}
signature: {inputs: '[{"name": "x", "type": "double"}]', outputs: '[{"type": "double"}]'}
"""
_LINE = re.compile(r'"([A-Z]+) (/[^ ?"]*)')
_ID = re.compile(r"/artifacts/.*")


def fill(folder: Path, rollouts: Sequence[Rollout]) -> None:
    """A store with a model for each of ``rollouts``: version 1 is the champion of those that are at work and 2 their
    challenger; of those that are over, 2 was promoted."""
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine_with_retry
    from mlflow.store.model_registry.dbmodels.models import (
        SqlModelVersion,
        SqlRegisteredModel,
        SqlRegisteredModelAlias,
    )
    from sqlalchemy import insert

    folder.mkdir(parents=True)
    engine = create_sqlalchemy_engine_with_retry(f"sqlite:///{folder}/mlflow.db")
    _initialize_tables(engine)
    at = {"creation_time": 1_760_000_000_000, "last_updated_time": 1_760_000_000_000}
    models: list[dict[str, Any]] = [{"name": each.name, **at} for each in rollouts]
    versions: list[dict[str, Any]] = [
        {"name": each.name, "version": int(v), "source": SHARED, "storage_location": SHARED, "status": "READY", **at}
        for each in rollouts
        for v in VERSIONS
    ]
    aliases: list[dict[str, Any]] = []
    for each in rollouts:
        named = {"champion": 1, "challenger": 2} if each.kind == ACTIVE else {"champion": 2}
        aliases += [{"name": each.name, "alias": alias, "version": version} for alias, version in named.items()]
    with engine.begin() as connection:
        connection.execute(insert(SqlRegisteredModel), models)
        connection.execute(insert(SqlModelVersion), versions)
        connection.execute(insert(SqlRegisteredModelAlias), aliases)
    engine.dispose()
    place = folder / "artifacts" / "shared" / "model"
    place.mkdir(parents=True)
    (place / "MLmodel").write_text(MLMODEL)


@contextlib.contextmanager
def server(folder: Path, workers: int) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """A tracking server on the store in ``folder``, its address and its process; it says each request in its log."""
    url = f"http://127.0.0.1:{(port := free_port())}"
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--workers", str(workers), "--backend-store-uri", f"sqlite:///{folder}/mlflow.db"]
    command += ["--artifacts-destination", f"{folder}/artifacts"]
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    quiet = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false", "PATH": path}
    with log_of(folder).open("ab") as log:
        process = subprocess.Popen(command, env=os.environ | quiet, stdout=log, stderr=log, start_new_session=True)
    try:
        wait_for_answer(f"{url}/health", STARTED_S)
        yield url, process
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(10)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, 9)
        process.wait(10)


def log_of(folder: Path) -> Path:
    return folder / "server.log"


def requests(log: bytes) -> Counter[str]:
    """How often what was asked, by verb and the end of the path."""
    found = (_LINE.search(line) for line in log.decode(errors="replace").splitlines())
    return Counter(f"{m[1]} {_short(m[2])}" for m in found if m is not None)


def _short(path: str) -> str:
    plain = _ID.sub("/artifacts", path)
    return plain.partition("/mlflow/")[2] or plain.rpartition("/2.0/")[2]
