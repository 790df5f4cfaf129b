"""What comes back from the API server is an object, or an error that says which call failed and why."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import yaml

from controller.edges.cluster import access as module
from controller.edges.cluster.access import Access, Expired
from controller.edges.cluster.resources import ROLLOUTS, SECRETS
from controller.errors import Conflict, EdgeError, NotFound, SpecError


def secret(namespace: str, name: str, **data: str) -> dict[str, Any]:
    return {"metadata": {"namespace": namespace, "name": name}, "stringData": data}


def test_errors_name_the_call_and_what_the_server_said(access: Access, namespace: str) -> None:
    with pytest.raises(NotFound, match=f"get Secret {namespace}/none: 404: .*not found"):
        access.get(SECRETS, namespace, "none")
    access.create(SECRETS, secret(namespace, "one"))
    with pytest.raises(Conflict, match=f"create Secret {namespace}/one: 409: .*already exists"):
        access.create(SECRETS, secret(namespace, "one"))
    old = access.get(SECRETS, namespace, "one")
    access.patch(SECRETS, {"metadata": {**secret(namespace, "one")["metadata"], "labels": {"a": "b"}}})
    with pytest.raises(Conflict, match="replace Secret"):
        access.replace(SECRETS, old)
    with pytest.raises(Conflict):
        access.delete(SECRETS, namespace, "one", uid="another")
    with pytest.raises(EdgeError, match="422"):
        access.create(SECRETS, secret(namespace, "Not A Name"))


def test_applied_fields_are_ours_and_left_out_ones_go(access: Access, namespace: str) -> None:
    access.apply(SECRETS, secret(namespace, "one", a="1", b="2"))
    access.patch(SECRETS, {"metadata": {**secret(namespace, "one")["metadata"], "labels": {"theirs": "1"}}})
    body = access.apply(SECRETS, {"metadata": {"namespace": namespace, "name": "one"}, "data": {"a": "MQ=="}})
    assert body["data"].keys() >= {"a"}
    assert body["metadata"]["labels"] == {"theirs": "1"}


def test_a_list_has_every_page(access: Access, namespace: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(5):
        access.create(SECRETS, secret(namespace, f"s{number}"))
    monkeypatch.setattr(module, "PAGE", 2)
    listed = access.list(SECRETS, namespace)
    assert sorted(item["metadata"]["name"] for item in listed.items) == [f"s{n}" for n in range(5)]
    assert {(item["apiVersion"], item["kind"]) for item in listed.items} == {("v1", "Secret")}


def test_a_page_that_is_too_long_is_asked_for_in_smaller_ones(
    access: Access, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        access.create(SECRETS, secret(namespace, f"s{number}", text="x" * 30_000 * (number % 2)))
    monkeypatch.setattr(module, "ANSWER_BYTES", 100_000)
    assert sorted(item["metadata"]["name"] for item in access.list(SECRETS, namespace).items) == [
        f"s{n}" for n in range(9)
    ]
    monkeypatch.setattr(module, "ANSWER_BYTES", 20_000)
    with pytest.raises(EdgeError, match=r"list Secret .*: an answer of more than 20000 bytes"):
        access.list(SECRETS, namespace)


def test_a_watch_tells_what_happened_since(access: Access, namespace: str) -> None:
    since = access.list(SECRETS, namespace).version
    made = access.create(SECRETS, secret(namespace, "one"))
    access.delete(SECRETS, namespace, "one")
    watch = access.watch(SECRETS, namespace, since)
    assert next(watch)[1]["metadata"]["uid"] == made["metadata"]["uid"]
    assert next(watch)[0] == "DELETED"
    watch.close()  # type: ignore[attr-defined]


def test_a_watch_from_a_forgotten_version_is_expired(access: Access, namespace: str) -> None:
    with pytest.raises(Expired, match="watch modelrollouts: 410"):
        list(access.watch(ROLLOUTS, namespace, "1"))


def test_a_guard_is_asked_before_every_write_and_no_read(access: Access, namespace: str) -> None:
    def refuse() -> None:
        raise EdgeError("not now")

    guarded = access.guarded(refuse)
    body = secret(namespace, "one")
    for write in (
        lambda: guarded.create(SECRETS, body),
        lambda: guarded.replace(SECRETS, body),
        lambda: guarded.apply(SECRETS, body),
        lambda: guarded.patch(SECRETS, body),
        lambda: guarded.delete(SECRETS, namespace, "one"),
    ):
        with pytest.raises(EdgeError, match="not now"):
            write()
    assert guarded.list(SECRETS, namespace).items == []


def test_who_we_are_is_what_the_server_knows(access: Access) -> None:
    assert access.whoami() == "admin"


def test_without_a_cluster_the_flags_are_named(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="--kubeconfig and --context"):
        Access(tmp_path / "none")


@pytest.fixture
def dripping() -> Iterator[str]:
    """A server whose answer never ends, a byte at a time."""
    end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            while not end.wait(0.05):
                self.wfile.write(b" ")

        def log_message(self, *_: object) -> None:
            """Quiet."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    end.set()
    server.shutdown()
    server.server_close()


def test_an_answer_that_does_not_end_is_given_up(dripping: str, tmp_path: Path) -> None:
    file = tmp_path / "kubeconfig"
    file.write_text(
        yaml.safe_dump(
            {
                "clusters": [{"name": "c", "cluster": {"server": dripping}}],
                "users": [{"name": "u", "user": {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u", "namespace": "there"}}],
                "current-context": "x",
            }
        )
    )
    slow = Access(file, deadline_s=0.3)
    assert slow.namespace == "there"
    with pytest.raises(EdgeError, match=r"did not end within 0\.3 s"):
        slow.get(SECRETS, "default", "one")
