"""What stands around the two operators: API server, MLflow, routers as processes, model servers, users.

The API server has Kubernetes' own controllers, and no node: pods of routers are processes here, pods of versions are
model servers in this one, which serve until their pod is gone.
"""

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import yaml

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS
from controller.schema import CRD
from tests.bench_controller.registry import MLMODEL
from tests.embedded.registered import tracking_server
from tests.kubernetes import control_plane
from tests.kubernetes.binaries import ROOT
from tests.kubernetes.operating.machines import Machines
from tests.kubernetes.operating.node import KubeNode
from tests.kubernetes.operating.real import BODY
from tests.kubernetes.operating.theatre import NAMESPACES, until
from tests.router.models import Model, Request

HOME, ACCOUNT = "understudy", "understudy-controller"
NAMESPACE, NAME, MODEL = "shop", "prices", "prices"
ROUTERS = 2
FIRST = "1"  # the version that serves before the first rollout
ASKED = 10  # requests to each router, to see who answers
API = "/api/2.0/mlflow/registered-models"
MOVES = """
CREATE TABLE seen_moves (id INTEGER PRIMARY KEY, alias TEXT, version TEXT);
CREATE TRIGGER seen_insert AFTER INSERT ON registered_model_aliases
  BEGIN INSERT INTO seen_moves (alias, version) VALUES (NEW.alias, NEW.version); END;
CREATE TRIGGER seen_update AFTER UPDATE ON registered_model_aliases
  BEGIN INSERT INTO seen_moves (alias, version) VALUES (NEW.alias, NEW.version); END;
CREATE TRIGGER seen_delete AFTER DELETE ON registered_model_aliases
  BEGIN INSERT INTO seen_moves (alias, version) VALUES (OLD.alias, NULL); END;
"""


class Version(Model):
    """The server of one version. A harmful one fails every prediction, and is healthy besides."""

    def __init__(self, host: str, port: int, version: str, harmful: bool) -> None:
        super().__init__(version, "harmful" if harmful else "good", host, port)
        self.version = version

    def stop(self) -> None:
        self.__exit__(None, None, None)

    async def _do_harmful(self, request: Request, writer: Any) -> bool:
        failing = request.line.startswith(b"POST ")
        return await (self._do_500 if failing else self._do_good)(request, writer)


class Versions(Machines):
    """Runs the model servers. ``harmful``: versions that fail."""

    def __init__(self, access: Access, namespace: str) -> None:
        self.harmful: set[str] = set()
        super().__init__(access, namespace)

    def served(self, host: str, version: str) -> Any:
        server = Version(host, self.port, version, version in self.harmful)
        server.__enter__()
        return server

    def serving(self) -> frozenset[str]:
        """The versions that somebody serves now."""
        return frozenset(server.version for server in list(self.servers.values()))


class Registry:
    """A tracking server, as people use it, and the log of all moves of aliases that its database keeps."""

    def __init__(self, address: str, folder: Path) -> None:
        self.address = address
        self._database = f"file:{folder / 'mlflow.db'}?mode=ro"
        self._client = httpx.Client(base_url=address, timeout=30.0, trust_env=False)
        run = self._post("/api/2.0/mlflow/runs/create", {"experiment_id": "0"})["run"]["info"]
        self._made = {"name": MODEL, "run_id": run["run_id"], "source": f"{run['artifact_uri']}/model"}
        place = folder / "artifacts" / "0" / run["run_id"] / "artifacts" / "model"
        place.mkdir(parents=True)
        (place / "MLmodel").write_text(MLMODEL)
        self._post(f"{API}/create", {"name": MODEL})
        with contextlib.closing(sqlite3.connect(folder / "mlflow.db", timeout=30.0)) as database:
            database.executescript(MOVES)

    def register(self) -> str:
        """A new version; its number."""
        made = self._post("/api/2.0/mlflow/model-versions/create", self._made)
        return str(made["model_version"]["version"])

    def name(self, alias: str, version: str) -> None:
        self._post(f"{API}/alias", {"name": MODEL, "alias": alias, "version": version})

    def aliases(self) -> dict[str, str]:
        found = self._client.get(f"{API}/get", params={"name": MODEL}).raise_for_status().json()
        return {each["alias"]: str(each["version"]) for each in found["registered_model"].get("aliases", [])}

    def moves(self, after: int) -> list[tuple[int, str, str | None]]:
        """Number, alias and version of every move after the one of number ``after``; None: removed."""
        with contextlib.closing(sqlite3.connect(self._database, uri=True, timeout=30.0)) as database:
            rows = database.execute("SELECT id, alias, version FROM seen_moves WHERE id > ? ORDER BY id", (after,))
            return [(n, alias, None if version is None else str(version)) for n, alias, version in rows]

    def decision_logs(self) -> list[str]:
        """The decision log of every run, each line of them."""
        experiment = self._client.get(
            "/api/2.0/mlflow/experiments/get-by-name", params={"experiment_name": f"rollouts/{MODEL}"}
        )
        asked = {"experiment_ids": [experiment.raise_for_status().json()["experiment"]["experiment_id"]]}
        runs = self._post("/api/2.0/mlflow/runs/search", asked | {"max_results": 1000}).get("runs", [])
        lines = []
        for run in runs:
            where = {"path": "decision_log.jsonl", "run_id": run["info"]["run_id"]}
            found = self._client.get("/get-artifact", params=where)
            lines += found.text.splitlines() if found.status_code == 200 else []
        return lines

    def close(self) -> None:
        self._client.close()

    def _post(self, path: str, body: Node) -> Any:
        answer = self._client.post(path, json=body)
        assert answer.status_code == 200, f"{path}: {answer.status_code} {answer.text[:500]}"
        return answer.json()


class World:
    """Everything but the operators, until the block of ``built`` ends."""

    def __init__(self, folder: Path, plane: control_plane.ControlPlane, registry: Registry) -> None:
        self.folder, self.plane, self.registry = folder, plane, registry
        self.access = Access(plane.kubeconfig, manager="people")
        self.versions = Versions(self.access, NAMESPACE)
        self.node = KubeNode(plane.kubeconfig, NAMESPACE, folder / "node")

    def declare(self) -> None:
        """The controller's account, and one rollout that is meant to go on from version to version."""
        self.plane.define(yaml.safe_load((ROOT / CRD).read_text(encoding="utf-8")))
        self.plane.kubectl("apply", "--server-side", "-f", str(ROOT / "manifests" / "install.yaml"))
        self.access.create(NAMESPACES, {"metadata": {"name": NAMESPACE}})
        container = {"name": "model", "image": "model:none", "ports": [{"containerPort": self.versions.port}]}
        spec = {
            "model": {"name": MODEL},
            "unit": {"header": "x-unit"},
            "servers": {"template": {"spec": {"containers": [container]}}, "replicas": 1},
            "steps": [{"weight": 10, "hold": "1s"}, {"weight": 50, "hold": "1s"}],
            "metrics": [{"name": "errors", "kind": "ErrorRate", "margin": "20pp", "baseline": {"mean": 0.001}}],
            "decision": {"tick": "300ms", "grace": "0s", "minUnits": 10},
        }
        body = {"metadata": {"namespace": NAMESPACE, "name": NAME}, "spec": spec}
        until(lambda: self.access.apply(ROLLOUTS, body), "the rollout is declared", 60)

    def answers(self) -> set[str]:
        """The versions that answer users now, whichever router they ask."""
        found = set()
        with httpx.Client(timeout=10.0, trust_env=False) as client:
            for container in list(self.node.containers.values()):
                for _ in range(ASKED):
                    headers = {"x-unit": os.urandom(8).hex(), "content-type": "application/json"}
                    answer = client.post(f"{container.traffic}/invocations", content=BODY, headers=headers)
                    found.add(str(answer.json().get("arm")) if answer.status_code == 200 else str(answer.status_code))
        return found

    def close(self) -> None:
        self.node.close()
        self.versions.close()
        self.registry.close()
        self.access.close()


@contextlib.contextmanager
def built(assets: Path, folder: Path) -> Iterator[World]:
    """A world with a model of which version 1 serves, and its rollout declared. NotStarted where it cannot be."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "plane").mkdir()
    (folder / "node").mkdir()
    with contextlib.ExitStack() as stack:
        plane = stack.enter_context(control_plane.running(assets, folder / "plane"))
        plane.run_controllers()
        address = stack.enter_context(tracking_server(folder / "mlflow"))
        registry = Registry(address, folder / "mlflow")
        world = World(folder, plane, registry)
        stack.callback(world.close)
        registry.name("champion", registry.register())
        world.declare()
        yield world
