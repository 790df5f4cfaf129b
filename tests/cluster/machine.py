"""What a real node needs of the machine: looked at before anything is built, and told where it is missing."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.bench_router.processes import Missing, debian

CGROUPS = Path("/sys/fs/cgroup")
CNI = Path("/usr/lib/cni")
# Programs and the packages that bring them. Only what is missing is installed.
PACKAGES = {
    "containerd": "containerd",
    "runc": "runc",
    "iptables": "iptables",
    "ip": "iproute2",
    "mount": "mount",
    "unshare": "util-linux",
    "debootstrap": "debootstrap",
    str(CNI / "ptp"): "containernetworking-plugins",
}
# Where the programs of the superuser are is not on every path.
SEARCHED = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])
NAMESPACES = ["unshare", "--mount", "--pid", "--net", "--ipc", "--fork", "--kill-child", "--mount-proc"]


class Forbidden(Exception):
    """The machine does not allow a node; the text begins with the name of the skip."""


def allow() -> None:
    """Raises Forbidden where there can be no node on this machine."""
    if sys.platform != "linux":
        raise Forbidden(f"needs-linux: a kubelet, and this is {sys.platform}")
    if os.geteuid() != 0:
        raise Forbidden("needs-root: namespaces, mounts and cgroups of a node")
    _namespaces()
    _cgroups()


def install() -> None:
    """The programs of a node. Raises Forbidden where the package manager does not bring them."""
    try:
        if not all(shutil.which(program, path=SEARCHED) for program in PACKAGES) and shutil.which("apt-get"):
            # A machine that is made from an image has no lists of packages. Where this fails, the next step says so.
            subprocess.run(["apt-get", "update", "-q"], capture_output=True, timeout=600, check=False)
        for program, package in PACKAGES.items():
            debian(program, package)
    except Missing as missing:
        raise Forbidden(f"needs-apt: {missing}") from missing


def hierarchies() -> list[Path]:
    """The roots of the cgroup trees: one in version 2, one for each controller in version 1."""
    own = [CGROUPS] if (CGROUPS / "cgroup.controllers").exists() else []
    return own or sorted(
        each for each in CGROUPS.iterdir() if (each / "cgroup.procs").exists() and not each.is_symlink()
    )


def _namespaces() -> None:
    if not shutil.which("unshare"):
        raise Forbidden("needs-apt: unshare, of util-linux")
    with tempfile.TemporaryDirectory() as folder:
        for name in ("lower", "upper", "work", "merged"):
            Path(folder, name).mkdir()
        overlay = f"mount -t overlay overlay -o lowerdir={folder}/lower,upperdir={folder}/upper,workdir={folder}/work"
        done = subprocess.run(
            [*NAMESPACES, "/bin/sh", "-ec", f"{overlay} {folder}/merged"],
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
    if done.returncode:
        raise Forbidden(f"needs-root: namespaces with an overlay mount in them: {done.stderr.strip()}")


def _cgroups() -> None:
    try:
        for root in hierarchies():
            probe = root / f"understudy-probe-{os.getpid()}"
            probe.mkdir()
            probe.rmdir()
    except OSError as error:
        raise Forbidden(f"needs-root: writable cgroups: {error}") from error
    if not hierarchies():
        raise Forbidden(f"needs-root: cgroups in {CGROUPS}, and there are none")
