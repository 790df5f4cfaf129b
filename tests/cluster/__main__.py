"""`make test-cluster`: have what a node needs, and run the tests of this package beside one.

The tests run in the node's own namespaces: there they reach pods and Services as pods do, and nothing of it can outlive
them. Where the machine does not allow a node they are skipped, for the reason that is told.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.cluster import images, machine
from tests.cluster.dockerfile import NotUnderstood, StepFailed
from tests.cluster.holder import FOLDER, WHY_NOT, cgroup
from tests.kubernetes import binaries, helm
from tests.kubernetes.binaries import ROOT, Unavailable


def main(arguments: list[str]) -> int:
    pytest = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-o", "faulthandler_timeout=0"]
    tests = [*pytest, "tests/cluster", *arguments]
    os.environ["PATH"] = machine.SEARCHED
    # Whoever ends us ends the node with us, and it is cleared away.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        machine.allow()
        machine.install()
    except machine.Forbidden as why:
        return subprocess.run(tests, cwd=ROOT, env=os.environ | {WHY_NOT: str(why)}, check=False).returncode
    try:
        if not (binaries.programs(_say, node=True) / "kubelet").exists():
            raise Unavailable("KUBEBUILDER_ASSETS names a folder without kubelet; unset it, and one is built")
        helm.program(_say)
        images.images(_say)
    except (Unavailable, images.Missing, NotUnderstood, StepFailed) as error:
        _say(str(error))
        return 1
    folder = Path(tempfile.mkdtemp(prefix="understudy-cluster-"))
    try:
        holder = ["setpriv", "--pdeathsig", "KILL", *machine.NAMESPACES, sys.executable, "-m", "tests.cluster.holder"]
        command = [*holder, str(folder), *tests]
        return subprocess.run(command, cwd=ROOT, env=os.environ | {FOLDER: str(folder)}, check=False).returncode
    finally:
        _clear(folder)


def _clear(folder: Path) -> None:
    """What is left of a node that has ended: files, and cgroups without processes."""
    for root in machine.hierarchies():
        for path, _, _ in os.walk(root / cgroup(folder).lstrip("/"), topdown=False):
            _remove(Path(path))
    shutil.rmtree(folder, ignore_errors=True)


def _remove(group: Path, within: float = 5.0) -> None:
    end = time.monotonic() + within
    while True:
        try:
            group.rmdir()
            return
        except OSError:
            # The kernel lets go of a process a moment after its end.
            if time.monotonic() > end:
                _say(f"{group} could not be removed")
                return
            time.sleep(0.05)


def _say(text: str) -> None:
    print(f"a node for the tests: {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
