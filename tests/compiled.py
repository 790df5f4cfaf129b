"""The project as its wheel has it, where the path of a request is compiled: built here once and kept, for what measures
the router or tries it.

``python -m tests.compiled -m tests.router.soak …`` runs a program of the tests there; without
arguments it is built. Where it cannot be built, ``run`` says why and takes the sources, which do the same in more time.
"""

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

from tests.kubernetes.binaries import Unavailable, kept

ROOT = Path(__file__).resolve().parents[1]
PLACE = ROOT / "build" / "compiled"
_WITHIN_S = 1_200.0


def _key(*names: str) -> str:
    """Of everything in these files and folders, and of who is to compile and run it."""
    compiler = importlib.metadata.version("mypy")
    digest = hashlib.sha256(f"{sys.version} {sysconfig.get_platform()} {compiler}".encode())
    for path in sorted(path for name in names for path in (ROOT / name, *(ROOT / name).rglob("*"))):
        if path.is_file() and path.suffix != ".pyc":
            digest.update(f"{path.relative_to(ROOT)} {path.stat().st_size} ".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def wheel(directory: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """Have pip build it into a folder, by what is installed here."""
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--disable-pip-version-check", "--no-build-isolation"]
    command = [*pip, "--no-deps", "--wheel-dir", str(directory), str(ROOT)]
    environment = os.environ | environment
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=_WITHIN_S, check=False)


def _unpacked(directory: Path) -> None:
    done = wheel(directory, UNDERSTUDY_COMPILE="1")
    wheels = list(directory.glob("*.whl"))
    if done.returncode or not wheels:
        raise Unavailable(f"the wheel was not built:\n{(done.stdout + done.stderr)[-2_000:]}")
    with zipfile.ZipFile(wheels[0]) as made:
        made.extractall(directory)
    wheels[0].unlink()


def tree() -> Path:
    """A folder with the wheel's contents, the tests, and the pages that they hold it against. Raises Unavailable.

    Older ones stay until ``make clean``: something may be running there for an hour.
    """
    sources = _key("router", "controller", "hatch_build.py", "pyproject.toml")
    unpacked = kept(PLACE / f"wheel-{sources}", _unpacked, _say)

    def make(place: Path) -> None:
        shutil.copytree(unpacked, place, dirs_exist_ok=True)
        shutil.copy(ROOT / "pyproject.toml", place)
        for name in ("tests", "docs"):
            shutil.copytree(ROOT / name, place / name, ignore=shutil.ignore_patterns("__pycache__"))

    return kept(PLACE / f"tree-{sources}-{_key('tests', 'docs')}", make, _say)


def _say(text: str) -> None:
    print(text, file=sys.stderr)


def environment(place: Path) -> dict[str, str]:
    """What a Python program has to be started with to import from there, wherever it is started."""
    return {"PYTHONPATH": str(place), "PYTHONSAFEPATH": "1"}


def run(arguments: list[str]) -> None:
    """Become ``python arguments`` there, or here where there is no such place."""
    try:
        place = tree()
    except Unavailable as unavailable:
        print(f"not compiled: {unavailable}", file=sys.stderr)
        place = ROOT
    os.chdir(place)
    os.environ["PYTHONPATH"] = str(place)
    os.execv(sys.executable, [sys.executable, *arguments])


if __name__ == "__main__":
    if sys.argv[1:]:
        run(sys.argv[1:])
    print(tree())
