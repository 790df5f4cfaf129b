"""What pods say of themselves: whether they are ready, where, and if not, why."""

from collections.abc import Iterable, Iterator

from controller.edges.cluster.access import Node

LONGEST = 300  # characters of a reason
# A container that is still being started says these, which explain nothing.
_USUAL = ("ContainerCreating", "PodInitializing")


def ready(pod: Node) -> bool:
    """Whether it may be sent requests: it has an address, is ready, and nobody has asked it to end."""
    return stays(pod) and says_ready(pod)


def says_ready(pod: Node) -> bool:
    """Whether it is ready by what it says of itself."""
    return _condition(pod, "Ready").get("status") == "True"


def stays(pod: Node) -> bool:
    """Whether it has an address, and nobody has asked it to end."""
    return bool((pod.get("status") or {}).get("podIP")) and "deletionTimestamp" not in pod["metadata"]


def address(pod: Node, port: int) -> str:
    """``host:port`` of a pod that has an address."""
    return at(pod["status"]["podIP"], port)


def at(host: str, port: int) -> str:
    """``host:port``, of IPv6 too."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def fault(pods: Iterable[Node]) -> str:
    """Why the first of ``pods`` that knows a reason is not ready, in its own words; empty: none of them does."""
    waiting = [pod for pod in pods if not ready(pod) and "deletionTimestamp" not in pod["metadata"]]
    for pod in waiting:
        for said in _reasons(pod):
            return f"pod {pod['metadata']['name']}: {' '.join(said.split())}"[:LONGEST]
    return f"pod {waiting[0]['metadata']['name']} is not ready yet" if waiting else ""


def _reasons(pod: Node) -> Iterator[str]:
    status = pod.get("status") or {}
    scheduled = _condition(pod, "PodScheduled")
    if scheduled.get("status") == "False":
        yield _words(scheduled)
    for container in (*(status.get("initContainerStatuses") or ()), *(status.get("containerStatuses") or ())):
        yield from _of_container(container)
    if status.get("phase") == "Failed":  # evicted, for one
        yield _words(status) or "it failed"


def _of_container(container: Node) -> Iterator[str]:
    state, before = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
    waiting, ended = state.get("waiting"), state.get("terminated")
    if waiting and waiting.get("reason") not in (*_USUAL, None):
        yield f"container {container['name']}: {_words(waiting)}{_end(before)}"
    elif ended and ended.get("exitCode"):
        yield f"container {container['name']}: ended{_end(ended)}"
    elif state.get("running") and not container.get("ready"):
        yield f"container {container['name']} runs and is not ready{_end(before)}"


def _end(ended: Node | None) -> str:
    return f" ({_words(ended) or 'ended'}, exit code {ended.get('exitCode')})" if ended else ""


def _words(said: Node) -> str:
    return ": ".join(filter(None, (said.get("reason"), said.get("message"))))


def _condition(pod: Node, name: str) -> Node:
    found: list[Node] = (pod.get("status") or {}).get("conditions") or []
    return next((c for c in found if c["type"] == name), {})
