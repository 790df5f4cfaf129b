"""The images of a real node, without Docker and without a registry: Debian with the Python that the Dockerfiles begin
with, and on it what their own steps make. Kept by content in the cache of the tests' programs.
"""

import hashlib
import json
import os
import re
import shutil
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tests.bench_router.processes import Missing, debian
from tests.cluster.dockerfile import Building, Part, copied, parts, pip_settings
from tests.kubernetes.binaries import ROOT, Say, Unavailable, cache, kept

REGISTRY = "registry.example"  # never asked: what is imported is there
DOCKERFILES = {
    "understudy-controller": "controller/Dockerfile",
    "understudy-router": "router/Dockerfile",
    "understudy-serve": "controller/serving/Dockerfile",
}
PAUSE = f"{REGISTRY}/pause:1"
# Debian's release that has the Python of the Dockerfiles.
SUITE, PYTHON = "trixie", "3.13"
PACKAGES = ("python3", "python3-venv")
DEBIAN = "http://deb.debian.org/debian"
KEPT = 2  # versions of one image: every change of the sources makes one of hundreds of megabytes
DEBOOTSTRAP_WITHIN_S = 1800.0


class Image(NamedTuple):
    """A name with a tag, the layers from the bottom up, and what runs in it."""

    reference: str
    layers: tuple[Path, ...]
    config: dict[str, object]


def images(say: Say) -> list[Image]:
    """Controller, router, model server, and what holds the namespaces of a pod. Raises Unavailable, Missing."""
    base = _base(say)
    layer = base / "layer.tar"
    made = [Image(PAUSE, (layer,), {"Entrypoint": ["/bin/sleep", "infinity"]})]
    for name, path in DOCKERFILES.items():
        folder = _made(name, ROOT / path, base, say)
        config = json.loads((folder / "config.json").read_text())
        reference = f"{REGISTRY}/{name}:{folder.name.rpartition('-')[2]}"
        made.append(Image(reference, (layer, folder / "layer.tar"), config))
    return made


def _base(say: Say) -> Path:
    """A folder with ``root``, a system, and ``layer.tar``, the same as a layer."""
    recipe = hashlib.sha256(" ".join((SUITE, *PACKAGES, *_finish("python3"))).encode()).hexdigest()[:12]

    def make(folder: Path) -> None:
        program = debian("debootstrap", "debootstrap")
        say(f"making a Debian {SUITE} with Python {PYTHON}, once; two minutes")
        root = folder / "root"
        options = ["--variant=minbase", f"--include={','.join(PACKAGES)}"]
        # What it mounts ends with it, also where it fails.
        command = ["unshare", "--mount", program, *options, SUITE, str(root), _mirror()]
        _told(command, DEBOOTSTRAP_WITHIN_S)
        _told(["chroot", str(root), *_finish("python3")], 60)
        _told(["chroot", str(root), "python", "-c", f"import sys; assert sys.version.startswith('{PYTHON}.')"], 60)
        with tarfile.open(folder / "layer.tar", "w") as tar:
            tar.add(root, ".", filter=_portable)

    return kept(cache() / f"base-{SUITE}-{recipe}", make, say)


def _finish(python: str) -> list[str]:
    """What an image of Python has and Debian has not, and what a system of its own need not have."""
    link = f"ln -s /usr/bin/{python} /usr/local/bin/python"
    return ["/bin/sh", "-ec", f"{link}; rm -rf /var/cache/apt/* /var/lib/apt/lists/*; : > /etc/resolv.conf"]


def _mirror() -> str:
    """Where the machine's own apt finds Debian; the public address on other distributions."""
    if not shutil.which("apt-get"):
        return DEBIAN
    said = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(ORIGIN) $(SITE)"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    found = re.findall(r"^Debian (http\S+)$", said.stdout, re.MULTILINE)
    return found[0] if found else DEBIAN


def _made(name: str, path: Path, base: Path, say: Say) -> Path:
    """A folder with ``layer.tar`` and ``config.json`` of the image that the Dockerfile at ``path`` describes."""
    text = path.read_text()
    found = parts(text)
    if any(not part.base.startswith(f"python:{PYTHON}") for part in found):
        raise Unavailable(f"{path}: begins with {', '.join(s.base for s in found)}, and the tests have python:{PYTHON}")
    digest = _digest(base.name, text, copied(found))

    def make(folder: Path) -> None:
        say(f"making {name} by the steps of {path.relative_to(ROOT)}; minutes of a processor")
        _make(found, base, folder)

    target = kept(cache() / f"image-{name}-{digest}", make, say)
    os.utime(target)
    for old in sorted(cache().glob(f"image-{name}-*/"), key=lambda each: -each.stat().st_mtime)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    return target


def _make(found: list[Part], base: Path, folder: Path) -> None:
    with tempfile.TemporaryDirectory(dir=folder) as scratch:
        upper, config = Building(base / "root", ROOT, Path(scratch), pip_settings()).build(found)
        with tarfile.open(folder / "layer.tar", "w") as tar:
            tar.add(upper, ".", filter=_portable)
    (folder / "config.json").write_text(json.dumps(config))


def _digest(base: str, text: str, names: list[str]) -> str:
    made = hashlib.sha256(f"{base}\n{text}".encode())
    for file in _files(names):
        made.update(f"\n{file.relative_to(ROOT)}\n".encode() + file.read_bytes())
    return made.hexdigest()[:12]


def _files(names: list[str]) -> Iterator[Path]:
    for name in names:
        found = sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]
        yield from (each for each in found if each.is_file() and "__pycache__" not in each.parts)


def _portable(entry: tarfile.TarInfo) -> tarfile.TarInfo:
    if entry.ischr() and (entry.devmajor, entry.devminor) == (0, 0):
        raise Unavailable(f"{entry.name} was removed from the base system, which is not understood here")
    return entry


def _told(command: list[str], within: float) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=within, check=False)
    if done.returncode:
        raise Missing(f"{command[0]} ended with code {done.returncode}: {(done.stdout + done.stderr)[-1000:]}")
