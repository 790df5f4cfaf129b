"""What one controller costs with thousands of rollouts: ``python -m tests.bench_controller``, see ``--help``.

Real are kube-apiserver and etcd, MLflow's tracking server with a registered model for each rollout, and the process of
`understudy operator`. Not real are routers, model servers and machines: one process answers for all of them at
addresses of 127.0.0.0/8 (``routers``), and pods are objects without anything in them (``node``). Rollouts that are
over were promoted long ago and have one router each; those that are at work send half of their users to the
challenger, and have a small steady traffic that the controller reads and judges. At the end some challengers begin to
fail, and the time until no router sends anybody there is taken.

Writes ``build/bench-controller.json`` and prints a table; the exit code is 1 where a promise does not hold.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.bench_controller import registry, report
from tests.bench_controller.node import Machine
from tests.bench_controller.operator_process import Metrics, OperatorProcess
from tests.bench_controller.statuses import Statuses, wall
from tests.bench_controller.world import Size, World, built, say, workplace
from tests.bench_router.processes import ROOT
from tests.ending import as_by_keyboard

LAG = "understudy_tick_lag_seconds"
START_LIMIT_S = 1800.0
HARM_LIMIT_BLOCKS, HARM_LIMIT_TICKS = 3, 4
SAY_EVERY_S = 15.0


class Failed(Exception):
    """There is nothing to measure; the text says why."""


def started(world: World, operator: OperatorProcess, statuses: Statuses) -> float:
    """Wait until every rollout that is to be at work is; how long that took."""
    began, said = time.monotonic(), 0.0
    while (counts := statuses.progress())["Running"] < world.size.active:
        now = time.monotonic()
        if not operator.runs:
            raise Failed(f"the operator ended:\n{operator.log.read_text()[-3000:]}")
        if now - began > START_LIMIT_S:
            raise Failed(f"not all at work within {START_LIMIT_S:g} s: {dict(counts)}")
        if now - said > SAY_EVERY_S:
            said = now
            say(f"start: {dict(counts)}, {operator.peak_mb:.0f} MiB at most")
        time.sleep(0.5)
    return time.monotonic() - began


def pause(operator: OperatorProcess, statuses: Statuses, seconds: float) -> None:
    """Let it work, and say how it does."""
    end = time.monotonic() + seconds
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, 30.0))
        look = operator.look()
        say(f"{max(0.0, end - time.monotonic()):.0f} s left: {dict(statuses.progress())}, {look.rss_mb:.0f} MiB")
        if not operator.runs:
            raise Failed(f"the operator ended:\n{operator.log.read_text()[-3000:]}")


def harmed(world: World) -> list[float | None]:
    """Let some challengers fail; for each router the seconds until it sent nobody there, None: not in time."""
    many = max(1, round(world.size.active * world.size.harmed)) if world.size.active * world.size.harmed else 0
    names = [each.name for each in world.active[:many]]
    say(f"{many} challengers begin to fail")
    world.told("/harm", names)
    end = time.monotonic() + HARM_LIMIT_BLOCKS * world.size.block + HARM_LIMIT_TICKS * world.size.tick
    while True:
        times = world.told("/seen")["times"]
        open_ones = [each for each in times if each["zero_at"] is None]
        if not open_ones or time.monotonic() > end:
            say(f"harm: {len(open_ones)} of {len(times)} routers still send users to the challenger")
            return [each["zero_at"] and each["zero_at"] - each["harmed_at"] for each in times]
        time.sleep(1.0)


def measured(
    world: World, operator: OperatorProcess, statuses: Statuses, minutes: float, start_s: float
) -> report.Measured:
    """Look on for so long; then harm."""
    log = registry.log_of(world.folder / "mlflow")
    began, first, before = wall(), operator.look(), operator.metrics()
    audit, asked, calls, cpu = world.audit_size(), log.stat().st_size, world.told("/seen")["calls"], world.cpu()
    warnings = operator.log.stat().st_size
    pause(operator, statuses, minutes * 60)
    last, after, ended, cpu_after = operator.look(), operator.metrics(), wall(), world.cpu()
    audit_end, asked_end, calls_after = world.audit_size(), log.stat().st_size, world.told("/seen")["calls"]
    said = operator.log.read_bytes()[warnings:].decode(errors="replace").splitlines()
    tick = round(world.size.tick * 1e6)
    lags = [*statuses.lags(began, ended, tick), *statuses.unheard(ended, tick)]
    looks = [each for each in operator.looks if first.at <= each.at <= last.at]
    zero = harmed(world)
    with log.open("rb") as file:
        file.seek(asked)
        requests = registry.requests(file.read(asked_end - asked))
    return report.Measured(
        idle=world.size.idle, active=world.size.active, routers=world.size.routers, tick=world.size.tick,
        block=world.size.block,
        seconds=last.at - first.at, start_s=start_s, peak_mb=operator.peak_mb,
        rss_mb=[each.rss_mb for each in looks], cpu_s=last.cpu_s - first.cpu_s, passes=_passes(after, before),
        threads=max(each.threads for each in looks), descriptors=max(each.descriptors for each in looks),
        lag_buckets=_more(after, before), lags=lags, calls=world.asked(audit, audit_end), mlflow=requests,
        router_calls={k: n - calls.get(k, 0) for k, n in calls_after.items()}, harm_to_zero=zero,
        machine_cpu={name: s - cpu.get(name, 0.0) for name, s in cpu_after.items()},
        log_warnings=sum(" WARNING " in line or " ERROR " in line for line in said),
    )  # fmt: skip


def _passes(after: Metrics, before: Metrics) -> float:
    return sum(after.of(f"{LAG}_count").values()) - sum(before.of(f"{LAG}_count").values())


def _more(after: Metrics, before: Metrics) -> dict[float, float]:
    """Of those at work: what is over is looked at when there is time."""
    new, old = (each.buckets(LAG, rollouts="at work") for each in (after, before))
    return {bound: count - old.get(bound, 0.0) for bound, count in new.items()}


def run(size: Size, folder: Path, minutes: float, flags: list[str], output: Path) -> bool:
    """One run; whether all promises hold."""
    with built(size, folder) as world:
        statuses = Statuses(world.access)
        machine = Machine(world.access, world.pods, world.active, size.routers)
        say("the controller starts")
        operator = OperatorProcess(folder, world.kubeconfig, world.mlflow, size.routers, flags)
        try:
            start_s = started(world, operator, statuses)
            say(f"all at work after {start_s:.0f} s, {operator.peak_mb:.0f} MiB at most")
            pause(operator, statuses, 2 * size.tick)
            result = measured(world, operator, statuses, minutes, start_s)
        finally:
            operator.stop()
            machine.close()
            statuses.close()
    return report.write(result, output)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--idle", type=int, default=10_000, help="rollouts that are over (10,000)")
    parser.add_argument("--active", type=int, default=500, help="rollouts at work (500)")
    parser.add_argument("--minutes", type=float, default=10.0, help="how long is measured (10)")
    parser.add_argument("--tick", type=float, default=30.0, help="seconds between two ticks of one at work (30)")
    parser.add_argument("--block", type=float, default=60.0, help="seconds of a block of data (60; usual are 600)")
    parser.add_argument("--routers", type=int, default=2, help="routers of each one at work (2)")
    parser.add_argument("--rate", type=float, default=2.0, help="requests a second of each one at work (2)")
    parser.add_argument("--harmed", type=float, default=0.1, help="share of those at work that fail at the end (0.1)")
    parser.add_argument("--mlflow-workers", type=int, default=1, help="processes of the tracking server (1)")
    parser.add_argument("--flag", action="append", default=[], help="for understudy operator, such as --ticks=16")
    parser.add_argument("--keep", type=Path, help="folder for all that is written; it stays, and is emptied before")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "bench-controller.json")
    given = parser.parse_args()
    as_by_keyboard()
    size = Size(
        given.idle, given.active, given.routers, given.tick, given.block, given.rate, given.harmed, given.mlflow_workers
    )
    with workplace(given.keep) as folder:
        try:
            return 0 if run(size, folder, given.minutes, given.flag, given.output) else 1
        except Failed as failed:
            print(failed, file=sys.stderr)
            return 1


if __name__ == "__main__":
    sys.exit(main())
