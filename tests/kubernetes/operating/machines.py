"""What no node does here: pods that are wanted get an address on loopback, and a model server behind it."""

import json
import socket
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.deployments import VERSION
from controller.edges.cluster.resources import PODS
from controller.errors import EdgeError
from tests.bench_router.processes import free_port

FREE = "192.0.2.200"  # nobody's (RFC 5737); it is never asked
WAITING = {"reason": "ImagePullBackOff", "message": 'Back-off pulling image "none"'}


def own_address() -> str:
    """An address of this machine: the API server takes none on loopback for an endpoint."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probing:
        probing.connect((FREE, 9))  # sends nothing
        return str(probing.getsockname()[0])


class ModelServer:
    """Answers its health, and says which version it has unless it is ``silent``, or what ``names`` holds instead.
    ``fails``: of the example."""

    def __init__(self, host: str, port: int, version: str, *, silent: bool = False) -> None:
        self.version, self.fails, self.asked, self.silent = version, False, 0, silent
        self.names: bytes | None = None
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if self.path == "/version" and server.names is not None:
                    return self._say(200, server.names)
                if self.path == "/version":
                    return self._answer(*((404, {}) if server.silent else (200, {"model_version": server.version})))
                server.asked += 1
                return self._answer(503 if server.fails else 200, {"status": "failing" if server.fails else "ok"})

            def _answer(self, status: int, tree: Node) -> None:
                self._say(status, json.dumps(tree).encode())

            def _say(self, status: int, text: bytes) -> None:
                self.send_response(status)
                self.send_header("content-length", str(len(text)))
                self.end_headers()
                self.wfile.write(text)

            def log_message(self, *_: object) -> None:
                """Quiet."""

        self._server = ThreadingHTTPServer((host, port), Handler)
        self._server.daemon_threads = True
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self._server.shutdown()
        self._server.server_close()


class Machines:
    """Runs the pods of one namespace until ``close``. Pods of a version in ``broken`` never start."""

    def __init__(self, access: Access, namespace: str) -> None:
        self.port = free_port()
        self.broken: set[str] = set()
        self.failing: set[str] = set()
        self.servers: dict[str, ModelServer] = {}  # by the pod's name
        self._access, self._namespace = access, namespace
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def pods(self, version: str) -> list[Node]:
        return self._access.list(PODS, self._namespace, f"{VERSION}={version}").items

    def upstreams(self, version: str) -> set[str]:
        """Where its pods listen."""
        return {f"{pod['status'].get('podIP')}:{self.port}" for pod in self.pods(version)}

    def served(self, host: str, version: str) -> ModelServer:
        """A server that has begun."""
        server = ModelServer(host, self.port, version)
        server.fails = version in self.failing
        return server

    def close(self) -> None:
        self._end.set()
        self._thread.join()
        for server in self.servers.values():
            server.stop()

    def _run(self) -> None:
        number = 1
        while not self._end.wait(0.05):
            try:
                listed = {p["metadata"]["name"]: p for p in self._access.list(PODS, self._namespace, VERSION).items}
                for name in self.servers.keys() - listed.keys():
                    self.servers.pop(name).stop()
                for name, pod in listed.items():
                    if name not in self.servers and pod["status"]["phase"] == "Pending":
                        number += self._start(pod, f"127.0.1.{number % 250}")
            except EdgeError:
                continue  # a pod that is gone meanwhile

    def _start(self, pod: Node, host: str) -> int:
        version = pod["metadata"]["labels"][VERSION]
        container = pod["spec"]["containers"][0]["name"]
        if version in self.broken:
            self._say(pod, {"containerStatuses": [_container(container, {"waiting": WAITING})]})
            return 0
        self.servers[pod["metadata"]["name"]] = self.served(host, version.partition("-")[0])
        ready = [{"type": name, "status": "True"} for name in ("PodScheduled", "ContainersReady", "Ready")]
        running = _container(container, {"running": {}}, ready=True)
        self._say(pod, {"phase": "Running", "podIP": host, "podIPs": [{"ip": host}], "conditions": ready,
                        "containerStatuses": [running]})  # fmt: skip
        return 1

    def _say(self, pod: Node, status: Node) -> None:
        meta = {"namespace": self._namespace, "name": pod["metadata"]["name"]}
        self._access.patch(PODS, {"metadata": meta, "status": status}, "status")


def _container(name: str, state: Node, *, ready: bool = False) -> dict[str, Any]:
    return {"name": name, "image": "i", "imageID": "", "restartCount": 0, "ready": ready, "state": state}
