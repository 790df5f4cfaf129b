"""A real node: containerd, kubelet and kube-proxy under a real control plane, in the namespaces of a holder."""

import json
import os
import subprocess
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kubernetes import client

from tests.cluster import oci
from tests.cluster.holder import NODE_ADDRESS, POD_NETWORK, cgroup
from tests.cluster.images import PAUSE, Image
from tests.cluster.machine import CNI
from tests.embedded.machine import wait_for
from tests.kubernetes.control_plane import CALL_WITHIN_S, ControlPlane
from tests.kubernetes.leashed import Leashed

NAME = "node"
SOCKET = Path("/run/containerd/containerd.sock")
CTR = ["ctr", "--address", str(SOCKET), "--namespace", "k8s.io"]
START_WITHIN_S = 120.0
IMPORT_WITHIN_S = 600.0
# A version that a kubelet of the same age speaks to. Lowering the score of the out-of-memory killer takes a right that
# root in a container does not have.
CONTAINERD = """
version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{socket}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{pause}"
restrict_oom_score_adj = true
disable_apparmor = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{network}"
"""


@contextmanager
def running(assets: Path, folder: Path, images: Sequence[Image]) -> Iterator[ControlPlane]:
    """A control plane with one node that has ``images``, until the end of the block. Raises NotStarted."""
    (folder / "plane").mkdir()
    plane = ControlPlane(assets, folder / "plane", NODE_ADDRESS)
    runtime = _containerd(folder)
    try:
        importing = threading.Thread(target=_import, args=(images,))
        importing.start()
        plane.start()
        plane.run_controllers()
        importing.join()
        assert _imported() >= {image.reference for image in images}
        _start(plane, folder)
        wait_for("the node is ready", lambda: _ready(plane), START_WITHIN_S)
        yield plane
    finally:
        plane.stop()
        runtime.stop()


def _containerd(folder: Path) -> Leashed:
    network = folder / "network"
    network.mkdir()
    ipam = {"type": "host-local", "subnet": POD_NETWORK, "routes": [{"dst": "0.0.0.0/0"}]}
    plugin = {"cniVersion": "0.4.0", "name": "pods", "plugins": [{"type": "ptp", "ipam": ipam}]}
    (network / "pods.conflist").write_text(json.dumps(plugin))
    config = folder / "containerd.toml"
    config.write_text(CONTAINERD.format(socket=SOCKET, pause=PAUSE, plugins=CNI, network=network))
    started = Leashed(["containerd", "--config", str(config)], folder / "containerd.log")

    def answers() -> bool:
        assert started.exit_code is None, started.said()
        return (
            SOCKET.exists()
            and subprocess.run([*CTR, "version"], capture_output=True, timeout=60, check=False).returncode == 0
        )

    wait_for("containerd answers", answers, START_WITHIN_S)
    return started


def _import(images: Sequence[Image]) -> None:
    importing = subprocess.Popen([*CTR, "images", "import", "-"], stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
    assert importing.stdin is not None
    with importing.stdin as file:
        oci.write(images, file)
    assert importing.wait(IMPORT_WITHIN_S) == 0


def _imported() -> set[str]:
    said = subprocess.run([*CTR, "images", "list", "-q"], capture_output=True, text=True, timeout=60, check=True)
    return set(said.stdout.split())


def _start(plane: ControlPlane, folder: Path) -> None:
    """The scheduler, the kubelet and the proxy."""
    kubeconfig = str(plane.kubeconfig)
    plane.run("kube-scheduler", f"--kubeconfig={kubeconfig}", "--leader-elect=false", "--secure-port=0")
    nobody = folder / "resolv.conf"
    nobody.write_text("")
    config = {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "containerRuntimeEndpoint": f"unix://{SOCKET}",
        # Nobody else is in these namespaces.
        "authentication": {"anonymous": {"enabled": True}, "webhook": {"enabled": False}},
        "authorization": {"mode": "AlwaysAllow"},
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup(folder),
        "failSwapOn": False,
        "failCgroupV1": False,
        # There are no names to ask for: whoever asks is refused at once.
        "resolvConf": str(nobody),
        # The disk is the machine's, and how full it is none of our claims.
        "evictionHard": dict.fromkeys(("nodefs.available", "nodefs.inodesFree", "imagefs.available"), "0%"),
        "imageGCHighThresholdPercent": 100,
    }
    path = _written(folder / "kubelet.json", config)
    node = [f"--hostname-override={NAME}", f"--node-ip={NODE_ADDRESS}"]
    plane.run("kubelet", f"--kubeconfig={kubeconfig}", f"--config={path}", *node)
    config = {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": kubeconfig},
        "hostnameOverride": NAME,
        "mode": "iptables",
        "clusterCIDR": POD_NETWORK,
        # Sysctls of the whole machine are not to be written in here.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    }
    plane.run("kube-proxy", f"--config={_written(folder / 'proxy.json', config)}")


def _written(path: Path, tree: dict[str, Any]) -> Path:
    path.write_text(json.dumps(tree))
    return path


def _ready(plane: ControlPlane) -> bool:
    plane.check("kube-scheduler", "kubelet", "kube-proxy")
    nodes = client.CoreV1Api(plane.api()).list_node(_request_timeout=CALL_WITHIN_S).items
    return any((c.type, c.status) == ("Ready", "True") for node in nodes for c in node.status.conditions or [])


def volumes(plane: ControlPlane, folder: Path, number: int) -> None:
    """So many empty volumes on the node's disk, for whoever claims one: nobody makes them on demand here."""
    affinity = {"key": "kubernetes.io/hostname", "operator": "In", "values": [NAME]}
    for index in range(number):
        path = folder / "volumes" / str(index)
        path.mkdir(parents=True)
        os.chmod(path, 0o755)  # noqa: PTH101
        body = {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"disk-{index}"},
            "spec": {
                "capacity": {"storage": "10Gi"},
                "accessModes": ["ReadWriteOnce"],
                "persistentVolumeReclaimPolicy": "Retain",
                "local": {"path": str(path)},
                "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [affinity]}]}},
            },
        }
        plane.kubectl("create", "-f", "-", given=body)
