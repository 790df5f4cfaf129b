"""The first process of the namespaces in which a node lives: with its end everything in them ends.

``python -m tests.cluster.holder FOLDER COMMAND…`` is started in namespaces of its own. What the node writes where the
machine has its own files goes to FOLDER; then the command runs, and its exit code is ours.
"""

import os
import subprocess
import sys
from pathlib import Path

from tests.cluster.machine import hierarchies

# How the tests are told where the node's files are, or why there is no node.
FOLDER, WHY_NOT = "CLUSTER_TESTS_FOLDER", "CLUSTER_TESTS_WHY_NOT"
# On the loopback device: pods reach it by the route that the plugin gives them, and it is there before the first pod.
NODE_ADDRESS = "10.245.0.1"
POD_NETWORK, SERVICE_NETWORK = "10.244.0.0/24", "10.0.0.0/16"
PLACES = ("/run", "/var/lib", "/var/log")
# What a kubelet wants of the kernel. It is shown so here: the machine keeps its own.
KERNEL = {
    "vm/overcommit_memory": "1",
    "vm/panic_on_oom": "0",
    "kernel/panic": "10",
    "kernel/panic_on_oops": "1",
    "kernel/keys/root_maxkeys": "1000000",
    "kernel/keys/root_maxbytes": "25000000",
}


def cgroup(folder: Path) -> str:
    """Under which all cgroups of the node are."""
    return f"/understudy-{folder.name}"


def main(folder: Path, command: list[str]) -> int:
    _mount(folder)
    _connect()
    for root in hierarchies():
        (root / cgroup(folder).lstrip("/")).mkdir(exist_ok=True)
    running = subprocess.Popen(command)
    # Whoever loses its parent is ours to bury.
    while True:
        pid, status = os.wait()
        if pid == running.pid:
            return os.waitstatus_to_exitcode(status)


def _mount(folder: Path) -> None:
    for place in PLACES:
        own = folder / place.lstrip("/").replace("/", "-")
        own.mkdir()
        _do("mount", "--bind", str(own), place)
    kernel = folder / "kernel"
    kernel.mkdir()
    for name, value in KERNEL.items():
        shown = kernel / name.replace("/", "-")
        shown.write_text(f"{value}\n")
        _do("mount", "--bind", str(shown), f"/proc/sys/{name}")


def _connect() -> None:
    _do("ip", "link", "set", "lo", "up")
    _do("ip", "address", "add", f"{NODE_ADDRESS}/32", "dev", "lo")
    # Without a route the first packet to a Service would not come to the rules that know it.
    _do("ip", "route", "add", SERVICE_NETWORK, "dev", "lo", "src", NODE_ADDRESS)
    Path("/proc/sys/net/ipv4/ip_forward").write_text("1")


def _do(*command: str) -> None:
    subprocess.run(command, check=True, timeout=60)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
