"""What must come to be once nothing goes wrong any more: an end, and a world that agrees with it."""

from controller.edges.memory.registry import CONTROLLER
from controller.quantities import SECOND
from controller.status import Progress, Reason, RolloutStatus
from router.assignment import POINTS
from tests.sim.people import People
from tests.sim.plan import KEY, MODEL
from tests.sim.safety import Safety, broken, share_of
from tests.sim.world import World

WAITS = (Reason.VERSION_MISSING, Reason.SAME_VERSION)  # pending until a person names another version
MARGIN = 150 * SECOND


def patience(world: World) -> int:
    """How long after healing the rollout may take to end, in µs of true time."""
    spec = world.rollout.spec
    after = spec.after_promotion.hold if spec.after_promotion else 0
    holds = 2 if world.edits else 1  # a changed plan begins again
    return (
        holds * (spec.decision.max_duration + sum(s.hold for s in spec.steps))
        + spec.decision.mismatch_for
        + after
        + world.backward
        + MARGIN
    )


def settled(status: RolloutStatus) -> bool:
    """Nothing is left to be done, or only by a person."""
    return status.progress.terminal or (status.progress is Progress.PENDING and status.reason in WAITS)


def at_rest(world: World, people: People, safety: Safety) -> None:
    """The end agrees with aliases, weights, conditions, requests and messages."""
    status = world.status
    if status.notices:
        broken("notices", f"{len(status.notices)} notices were never delivered")
    if world.store.load(KEY).requests:
        broken("requests", "requests of people were never looked at")
    _messages(world, safety)
    if not status.progress.terminal:
        return
    _weights(world, status)
    _aliases(world, people, status)
    _conditions(status)


def _weights(world: World, status: RolloutStatus) -> None:
    """Everybody gets the promoted version, or nobody the challenger."""
    attempt = status.attempt
    if attempt is None or status.table is None:
        return
    both = attempt.champion == attempt.challenger
    wanted = POINTS if status.progress is Progress.PROMOTED or both else 0
    for router in world.traffic.routers:
        for worker in router.workers:
            share = share_of(attempt.challenger, worker.table)
            if share != wanted:
                broken("end-weight", f"{status.progress}, and {worker.name} gives the challenger {share} bp")
            if worker.table != status.table:
                broken("end-weight", f"{worker.name} does not serve the last table")


def _aliases(world: World, people: People, status: RolloutStatus) -> None:
    attempt, registry = status.attempt, world.registry
    if attempt is None:  # aborted before versions were pinned: nothing was ever moved
        return
    champion, challenger = registry.alias(MODEL, "champion"), registry.alias(MODEL, "challenger")
    promoted = status.progress is Progress.PROMOTED
    if "champion" not in people.moved:
        wanted = attempt.challenger if promoted else attempt.champion
        if champion != wanted:
            broken("end-alias", f"{status.progress} and the champion's alias names {champion}, not {wanted}")
    left = challenger == attempt.challenger and status.progress is not Progress.HELD
    if left and "challenger" not in people.moved and not world.same_version:
        broken("end-alias", f"{status.progress} and the challenger's alias still names {challenger}")
    ours = [m for m in registry.moves if m.who == CONTROLLER]
    if status.progress is Progress.HELD and ours:
        broken("end-alias", "an A/A run moved an alias")


def _conditions(status: RolloutStatus) -> None:
    said = {c.type: c.status for c in status.conditions}
    wanted = {Progress.PROMOTED: "True", Progress.ROLLED_BACK: "False"}.get(status.progress, "Unknown")
    if said.get("Succeeded") != wanted or said.get("Progressing") != "False":
        broken("conditions", f"{status.progress} with {said}")


def _messages(world: World, safety: Safety) -> None:
    """Every transition was told; repeats are explained by crashes."""
    sent = world.notifier.sent
    missing = sorted(safety.keys - sent.keys())
    if missing:
        broken("messages", f"never delivered: {missing}")
    repeats = sum(len(notices) - 1 for notices in sent.values())
    if repeats > world.crashes + safety.repeats_allowed:
        broken("messages", f"{repeats} repeats after {world.crashes} crashes")
