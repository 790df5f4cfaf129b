"""Samples of the model servers' gauges, for metrics of the kind Resource.

``SampledSource`` measures before every read, at most once in a quarter of a window, and writes the samples to a journal
of its own beside the routers'; from there they are counted like everything else, so that a decision rests on what is
recorded and a journal can be played again. ``memory`` and ``cpu`` come from the processes of our own model servers,
PromQL from a Prometheus. What cannot be measured makes no sample: the rollout holds then, and says why.
"""

from controller.edges.gauges.processes import ProcessGauges
from controller.edges.gauges.prometheus import Prometheus
from controller.edges.gauges.sampling import SampledSource

__all__ = ["ProcessGauges", "Prometheus", "SampledSource"]
