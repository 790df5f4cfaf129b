"""What people may write in the values, and what they are told when it is wrong."""

import json
import re
from typing import Any

import jsonschema
import pytest
import yaml

from controller.settings import OperatorSettings, environment_name
from tests.kubernetes.chart.conftest import objects
from tests.kubernetes.helm import CHART, Helm, Refused

# These follow from the rest: where the pod's volume is, its ports and probes, names and namespaces.
DECIDED_BY_THE_CHART = {
    "state_dir", "namespace", "kubeconfig", "context", "lease_name", "lease_namespace", "key_name", "health_host",
    "health_port",
}  # fmt: skip
FIELDS = [name for name in OperatorSettings.model_fields if name not in DECIDED_BY_THE_CHART]
SCHEMA = json.loads((CHART / "values.schema.json").read_text(encoding="utf-8"))
VALUES = (CHART / "values.yaml").read_text(encoding="utf-8")
# One that is allowed and not the default, for each setting.
OTHER = {
    "trackingUri": "https://mlflow.example", "logLevel": "debug", "leaseS": 30, "callS": 2.5, "ticks": 16,
    "idleS": 86400, "aliasS": 60, "routerImage": "registry.example/router:1", "routerReplicas": 3,
    "routerVolume": "20Gi", "prometheusUrl": "http://prometheus:9090", "lingerS": 0.5, "drainS": 45.2,
    "allowModels": ("shop=shop-*", "*=a shared one, \"x\""),
}  # fmt: skip


def camel(field: str) -> str:
    head, *rest = field.split("_")
    return head + "".join(part.title() for part in rest)


def pod(helm: Helm, *more: str) -> dict[str, Any]:
    """What the controller's pods are made from."""
    shown = "--show-only=templates/statefulset.yaml"
    found = objects(helm("template", "understudy", CHART, "--namespace=understudy", shown, *more))
    spec: dict[str, Any] = found["StatefulSet", "understudy", "understudy-controller"]["spec"]["template"]["spec"]
    return spec


def environment(helm: Helm, *more: str) -> dict[str, Any]:
    return {each["name"]: each.get("value", each.get("valueFrom")) for each in pod(helm, *more)["containers"][0]["env"]}


def test_the_schema_allows_of_every_setting_what_the_operator_does() -> None:
    program = OperatorSettings.model_json_schema()["properties"]
    for name in FIELDS:
        wanted = {key: value for key, value in program[name].items() if key not in ("title", "default", "anyOf")}
        wanted |= next((part for part in program[name].get("anyOf", ()) if part["type"] != "null"), {})
        assert SCHEMA["properties"]["settings"]["properties"][camel(name)] == wanted, name
    assert SCHEMA["properties"]["settings"]["properties"].keys() == set(map(camel, FIELDS))


def test_the_defaults_that_the_values_tell_of_are_the_operators_own() -> None:
    told = {name: yaml.safe_load(value) for name, value in re.findall(r"^  # (\w+): (\S+)$", VALUES, re.MULTILINE)}
    own = {camel(name): OperatorSettings.model_fields[name].default for name in FIELDS}
    assert told == {name: value for name, value in own.items() if value is not None}


def test_the_schema_takes_the_values_that_the_chart_comes_with_and_knows_each_of_them() -> None:
    values = yaml.safe_load(VALUES)
    jsonschema.validate(values, SCHEMA)
    assert values.keys() == SCHEMA["properties"].keys() - {"global"}


def test_the_operator_gets_every_setting_as_it_was_written(helm: Helm) -> None:
    given = environment(helm, f"--set-json=settings={json.dumps(OTHER)}")
    names = {environment_name(name): name for name in FIELDS}
    assert given.keys() == names.keys()
    read = OperatorSettings(**{names[variable]: value for variable, value in given.items()})
    assert {camel(name): getattr(read, name) for name in FIELDS} == OTHER


def test_the_pod_is_given_longer_to_end_than_the_controller_takes(helm: Helm) -> None:
    assert pod(helm)["terminationGracePeriodSeconds"] == 10 + OperatorSettings().drain_s
    assert pod(helm, "--set-json=settings.drainS=45.2")["terminationGracePeriodSeconds"] == 56


def test_a_controller_of_one_namespace_keeps_lease_and_key_in_that_of_the_release(helm: Helm) -> None:
    given = environment(helm, "--set=watchNamespace=shop")
    assert (given["UNDERSTUDY_NAMESPACE"], given["UNDERSTUDY_LEASE_NAMESPACE"]) == ("shop", "understudy")


def test_a_password_comes_from_a_secret_and_stands_in_no_value(helm: Helm) -> None:
    key = {"secretKeyRef": {"name": "mlflow", "key": "password"}}
    more = json.dumps([{"name": "MLFLOW_TRACKING_PASSWORD", "valueFrom": key}])
    assert environment(helm, f"--set-json=env={more}")["MLFLOW_TRACKING_PASSWORD"] == key
    spec = pod(helm, '--set-json=envFrom=[{"secretRef":{"name":"mlflow"}}]')
    assert spec["containers"][0]["envFrom"] == [{"secretRef": {"name": "mlflow"}}]


def test_a_digest_counts_before_the_tag(helm: Helm) -> None:
    digest = f"sha256:{'0a' * 32}"
    image = pod(helm, f"--set=image.digest={digest}", "--set=image.tag=1.2")["containers"][0]["image"]
    assert image == f"understudy-controller@{digest}"


PLACEMENT = {
    "nodeSelector": {"disk": "ssd"},
    "tolerations": [{"key": "dedicated", "operator": "Exists"}],
    "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": []}},
    "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "ScheduleAnyway"}],
    "imagePullSecrets": [{"name": "registry"}],
}


def test_where_pods_run_and_with_what_is_handed_on_as_it_is(helm: Helm) -> None:
    given = [f"--set-json={name}={json.dumps(value)}" for name, value in PLACEMENT.items()]
    spec = pod(helm, *given, "--set=priorityClassName=high", "--set=resources.limits.memory=1Gi")
    assert {name: spec[name] for name in PLACEMENT} == PLACEMENT
    assert spec["priorityClassName"] == "high"
    resources = spec["containers"][0]["resources"]
    assert resources == {"requests": {"cpu": "250m", "memory": "512Mi"}, "limits": {"memory": "1Gi"}}


WRONG = {
    # what is set: (the place that is named, what is said of it)
    "replica=3": ("at ''", "'replica'"),
    "image.name=a": ("/image", "'name'"),
    "image.tag=a b": ("/image/tag", "does not match"),
    "image.digest=sha256:1": ("/image/digest", "does not match"),
    "image.pullPolicy=Sometimes": ("/image/pullPolicy", "must be one of"),
    "replicas=two": ("/replicas", "want integer"),
    "replicas=-1": ("/replicas", "minimum"),
    "watchNamespace=Shop": ("/watchNamespace", "does not match"),
    "settings.trackingUri=mlflow:5000": ("/settings/trackingUri", "does not match"),
    "settings.logLevel=verbose": ("/settings/logLevel", "does not match"),
    "settings.leaseS=0": ("/settings/leaseS", "minimum"),
    "settings.ticks=1.5": ("/settings/ticks", "want integer"),
    "settings.idleS=0": ("/settings/idleS", "exclusiveMinimum"),
    "settings.lingerS=10m": ("/settings/lingerS", "want number"),
    "settings.routerImage=": ("/settings/routerImage", "minLength"),
    "settings.routerReplicas=33": ("/settings/routerReplicas", "maximum"),
    "settings.routerVolume=1GB": ("/settings/routerVolume", "does not match"),
    "settings.prometheusUrl=prometheus:9090": ("/settings/prometheusUrl", "does not match"),
    "settings.allowModels=shop=a": ("/settings/allowModels", "want array"),
    "settings.allowModels[0]=shop": ("/settings/allowModels/0", "does not match"),
    "settings.trackingUrl=http://a": ("/settings", "'trackingUrl'"),
    "settings.callS=9": ("settings.callS", "at most half of settings.leaseS"),
    "env[0].name=1A": ("/env/0/name", "does not match"),
    "env[0].value=a": ("/env/0", "'name'"),
    "env[0].name=A": ("/env/0", "oneOf"),
    "envFrom[0].secret=a": ("/envFrom/0", "'secret'"),
    "imagePullSecrets[0]=registry": ("/imagePullSecrets/0", "want object"),
    "resources.requests.memory=lots": ("/resources/requests/memory", "does not match"),
    "resources.request.cpu=1": ("/resources", "'request'"),
    "state.size=10": ("/state/size", "want string"),
    "state.storageClass=fast": ("/state", "'storageClass'"),
    "crd.enabled=maybe": ("/crd/enabled", "want boolean"),
    "crd.keep=true": ("/crd", "'keep'"),
    "requestPolicy.enabled=on": ("/requestPolicy/enabled", "want boolean"),
    "slackSecrets[0].name=slack": ("/slackSecrets/0", "'namespace'"),
    "networkPolicy.enabled=1": ("/networkPolicy/enabled", "want boolean"),
    "networkPolicy.from[0].pods=a": ("/networkPolicy/from/0", "'pods'"),
    "serviceAccount.annotations.a=1": ("/serviceAccount/annotations/a", "want string"),
    "nodeSelector.ssd=true": ("/nodeSelector/ssd", "want string"),
    "tolerations[0].effect=Never": ("/tolerations/0/effect", "must be one of"),
    "affinity.pod=a": ("/affinity", "'pod'"),
    "topologySpreadConstraints[0].maxSkew=1": ("/topologySpreadConstraints/0", "topologyKey"),
    "fullnameOverride=Under_study": ("/fullnameOverride", "does not match"),
}


@pytest.mark.parametrize("value", WRONG)
def test_a_wrong_value_is_refused_with_the_name_of_its_field(helm: Helm, value: str) -> None:
    place, said = WRONG[value]
    with pytest.raises(Refused) as caught:
        helm("template", "understudy", CHART, f"--set={value}")
    line = [line for line in str(caught.value).splitlines() if place in line]
    assert line, caught.value
    assert said in "\n".join(line), caught.value


def test_every_part_of_the_values_has_a_wrong_value_that_is_refused() -> None:
    tried = {re.split(r"[.\[=]", value)[0] for value in WRONG} - {"replica"}
    # Any text will do for these, and any annotation.
    assert SCHEMA["properties"].keys() - tried == {"global", "priorityClassName", "podAnnotations"}
