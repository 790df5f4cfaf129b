"""The benchmark's rollouts as the API server has them: what people applied, and the status of those that are over."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import orjson

from controller.core import conditions, evolve
from controller.edges.cluster.access import Access, Node
from controller.edges.cluster.resources import ROLLOUTS, SERVICES, SLICES, Resource
from controller.edges.cluster.store import FINALIZER
from controller.spec import RolloutSpec
from controller.status import Attempt, Observed, Progress, Reason, RolloutStatus, Verb
from router.table import RouteTable, Source, Target
from tests.bench_controller.places import ACTIVE, IDLE, MANY, Rollout
from tests.kubernetes.operating.machines import own_address

NAMESPACES = Resource("v1", "namespaces", "Namespace", namespaced=False)
ACCOUNTS = Resource("v1", "serviceaccounts", "ServiceAccount")
ARMS = ("champion", "challenger")
AT_ONCE = 8
KIND = "bench/kind"  # label: active or idle
ENDED_AT = 1_760_000_000_000_000  # µs


class Pace(NamedTuple):
    """Seconds between two ticks of one at work, and of a block of its data."""

    tick_s: float
    block_s: float


def rollouts(idle: int, active: int) -> list[Rollout]:
    return [*(Rollout(IDLE, n) for n in range(idle)), *(Rollout(ACTIVE, n) for n in range(active))]


def spec_of(rollout: Rollout, port: int, pace: Pace) -> Node:
    """What was applied. Those at work have Deployments of ours, half of all users and a day before them; servers of
    those that are over are adopted."""
    tree: Node = {
        "model": {"name": rollout.name},
        "unit": {"header": "x-user-id"},
        "steps": [{"weight": 50, "hold": "24h"}],
        "metrics": [
            {"name": "errors", "kind": "ErrorRate", "margin": "1pp", "baseline": {"mean": 0.002}},
            {"name": "latency", "kind": "Latency", "margin": "20%"},
            {"name": "clicks", "kind": "Proportion", "role": "Success", "goal": "Increase", "outcome": "click",
             "window": "1m", "margin": "2pp", "baseline": {"mean": 0.2}},
        ],
        "decision": {
            "tick": f"{round(pace.tick_s * 1000)}ms", "block": f"{round(pace.block_s * 1000)}ms", "grace": "10s"
        },
    }  # fmt: skip
    if rollout.kind == ACTIVE:
        container = {"name": "model", "image": "model:none", "ports": [{"containerPort": port}]}
        tree["servers"] = {"template": {"spec": {"containers": [container]}}, "replicas": 1}
    else:
        tree["servers"] = {arm: {"service": arm, "port": port} for arm in ARMS}
    return tree


def body_of(rollout: Rollout, port: int, pace: Pace) -> Node:
    """As `kubectl apply` would send it; one that is over has been held by the controller."""
    meta = {"namespace": rollout.namespace, "name": rollout.name, "labels": {KIND: rollout.kind, "team": "bench"}}
    if rollout.kind == IDLE:
        meta["finalizers"] = [FINALIZER]
    return {"metadata": meta, "spec": spec_of(rollout, port, pace)}


def ended(rollout: Rollout, uid: str, port: int, spec: RolloutSpec) -> RolloutStatus:
    """The status of one whose version 2 was promoted: every router serves it, and nothing is left to do."""
    upstream = f"{own_address()}:{port}"
    table = RouteTable(
        generation=1,
        rollout=rollout.key,
        attempt=1,
        salt=f"{uid}/1",
        champion=Target(version="2", upstreams=(upstream,)),
        unit=Source(header="x-user-id"),
    )
    observed = Observed(champion_alias="2", champion_upstreams=(upstream,), champion_ready=True, confirmed=1)
    status = RolloutStatus(
        uid=uid, rollout=rollout.key, generation=1, sequence=6, attempts=1, progress=Progress.PROMOTED,
        attempt=Attempt(number=1, champion="1", challenger="2", salt=f"{uid}/1", started_at=ENDED_AT - 86_400_000_000),
        plan=evolve.plan_digest(spec), step=0, active=86_400_000_000, clock=ENDED_AT, epoch=-1, decision=Verb.PROMOTE,
        reason=Reason.PROVEN, message="clicks is proven not worse", end="Promoted", table=table,
        run_id="0123456789abcdef0123456789abcdef", promoted_traffic=True, observed=observed, weight=100.0,
    )  # fmt: skip
    return conditions.with_conditions(status)


def serve(access: Access, namespace: str, port: int) -> None:
    """The Services of those that are over, one for each arm of them all."""
    ports = [{"name": "http", "port": port}]
    ready = {"addresses": [own_address()], "conditions": {"ready": True}}
    for arm in ARMS:
        meta = {"namespace": namespace, "name": arm}
        access.create(SERVICES, {"metadata": meta, "spec": {"ports": ports}})
        meta = {"namespace": namespace, "name": f"{arm}-1", "labels": {"kubernetes.io/service-name": arm}}
        access.create(SLICES, {"metadata": meta, "addressType": "IPv4", "endpoints": [ready], "ports": ports})


def side_by_side(act: Callable[[Rollout], None], each: Iterable[Rollout], tell: Callable[[int], None]) -> None:
    """``act`` on each, some at the same time."""
    with ThreadPoolExecutor(AT_ONCE) as pool:
        for done, _ in enumerate(pool.map(act, each), 1):
            tell(done)


def make(access: Access, each: Iterable[Rollout], port: int, pace: Pace, tell: Callable[[int], None]) -> None:
    """Write the objects of rollouts, and the status of those that are over."""
    for number in range(MANY):
        name = f"team-{number:02d}"
        access.create(NAMESPACES, {"metadata": {"name": name}})
        # Without Kubernetes' own controllers nobody else makes it, and no pod is let in without.
        access.create(ACCOUNTS, {"metadata": {"namespace": name, "name": "default"}})
        serve(access, name, port)

    def made(rollout: Rollout) -> None:
        tree = body_of(rollout, port, pace)
        found = access.create(ROLLOUTS, tree)
        if rollout.kind == ACTIVE:
            return
        spec = RolloutSpec.model_validate_json(orjson.dumps(tree["spec"]))
        status = ended(rollout, found["metadata"]["uid"], port, spec)
        named = {k: found["metadata"][k] for k in ("namespace", "name", "uid", "resourceVersion")}
        written: dict[str, Any] = {"metadata": named, "status": status.model_dump(mode="json", by_alias=True)}
        access.replace(ROLLOUTS, written, "status")

    side_by_side(made, each, tell)
