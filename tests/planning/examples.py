"""Rollouts to plan."""

from controller.planning.boundary import Simulated
from controller.planning.champion import Given, champions
from controller.planning.laws import simulated
from controller.spec import RolloutSpec
from controller.specfile import parse

STEPS = "[{weight: 5, hold: 1d}, {weight: 25, hold: 1d}, {weight: 50, hold: 1d}]"
DECISION = "{tick: 60s, block: 10m, minUnits: 100, minAge: 7d, maxDuration: 14d}"
CTR = "{name: ctr, kind: Proportion, outcome: click, window: 30m, margin: 0.25pp, baseline: {mean: 0.05}}"
ERRORS = "{name: errors, kind: ErrorRate, margin: 0.05pp, baseline: {mean: 0.001}}"
LATENCY = "{name: latency, kind: Latency, margin: 10%, baseline: {latencies: [20, 43, 54, 81, 128]}}"
GMV = "{name: gmv, kind: Mean, outcome: buy, window: 1h, margin: 5%, cap: '500', baseline: {mean: 2}}"
LOSS = "{name: loss, kind: LogLoss, outcome: late, window: 1h, margin: 0.01, baseline: {mean: 0.3}}"


def document(*metrics: str, steps: str = STEPS, decision: str = DECISION) -> str:
    """A rollout as YAML."""
    return f"""
apiVersion: understudy.dev/v1alpha1
kind: ModelRollout
metadata: {{name: planned}}
spec:
  model: {{name: m}}
  unit: {{header: x-unit-id}}
  steps: {steps}
  metrics: [{", ".join(metrics)}]
  decision: {decision}
"""


def spec_of(*metrics: str, steps: str = STEPS, decision: str = DECISION) -> RolloutSpec:
    """A rollout's spec."""
    return parse(document(*metrics, steps=steps, decision=decision)).spec


def one(metric: str, given: Given | None = None, **more: str) -> tuple[RolloutSpec, Simulated]:
    """A rollout with this metric alone, and the metric as it is simulated."""
    spec = spec_of(metric, **more)
    return spec, simulated(champions(spec, given or Given())[0][0])
