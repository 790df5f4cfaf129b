"""The kinds of objects that the controller reads or writes, and how the API server addresses them."""

from collections.abc import Mapping
from typing import NamedTuple


class Resource(NamedTuple):
    """One kind. ``api`` is ``v1`` or ``group/version``."""

    api: str
    plural: str
    kind: str
    namespaced: bool = True

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str = "") -> str:
        """Where it is found. ``namespace`` None: in all of them, or the kind has none."""
        parts = ["/api" if "/" not in self.api else "/apis", self.api]
        if namespace is not None and self.namespaced:
            parts += ["namespaces", namespace]
        return "/".join([*parts, self.plural, *filter(None, (name, subresource))])


def selector(labels: Mapping[str, str]) -> str:
    """What a list or a watch is asked for: objects that have all of ``labels``."""
    return ",".join(f"{name}={value}" for name, value in labels.items())


ROLLOUTS = Resource("understudy.dev/v1alpha1", "modelrollouts", "ModelRollout")
LEASES = Resource("coordination.k8s.io/v1", "leases", "Lease")
EVENTS = Resource("events.k8s.io/v1", "events", "Event")
SECRETS = Resource("v1", "secrets", "Secret")
SERVICES = Resource("v1", "services", "Service")
PODS = Resource("v1", "pods", "Pod")
SLICES = Resource("discovery.k8s.io/v1", "endpointslices", "EndpointSlice")
DEPLOYMENTS = Resource("apps/v1", "deployments", "Deployment")
STATEFULSETS = Resource("apps/v1", "statefulsets", "StatefulSet")
BUDGETS = Resource("policy/v1", "poddisruptionbudgets", "PodDisruptionBudget")
ROUTES = Resource("gateway.networking.k8s.io/v1", "httproutes", "HTTPRoute")
REVIEWS = Resource("authentication.k8s.io/v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)

SERVICE_NAME = "kubernetes.io/service-name"  # the label of an EndpointSlice that says whose it is
